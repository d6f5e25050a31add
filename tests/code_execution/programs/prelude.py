"""Put before every hostile program, after a line that sets WORLD: what attacks share."""
import ctypes, os, platform, sys

libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = {  # of system calls that the C library does not wrap, or not everywhere
    "x86_64": dict(
        ptrace=101, tkill=200, tgkill=234, rt_sigqueueinfo=129, rt_tgsigqueueinfo=297, io_uring_setup=425,
        pidfd_open=434, pidfd_send_signal=424, pidfd_getfd=438, process_vm_readv=310, process_vm_writev=311, bpf=321,
        perf_event_open=298, add_key=248, keyctl=250, userfaultfd=323, open_by_handle_at=304, name_to_handle_at=303,
        memfd_create=319, shmget=29, shmat=30, msgget=68, semget=64, unshare=272, setns=308, mount=165, pivot_root=155,
        chroot=161, clone=56, clone3=435, prlimit64=302, sched_setaffinity=203, sched_setscheduler=144, setpriority=141,
        ioprio_set=251, capset=126, setuid=105, prctl=157, seccomp=317, kcmp=312, personality=135, syslog=103,
        init_module=175, kexec_load=246, sethostname=170, quotactl=179, acct=163, move_pages=279, migrate_pages=256,
        mlock=149, setns_=308, fsopen=430, open_tree=428, move_mount=429, landlock_restrict_self=446, swapon=167,
    ),
    "aarch64": dict(
        ptrace=117, tkill=130, tgkill=131, rt_sigqueueinfo=138, rt_tgsigqueueinfo=240, io_uring_setup=425,
        pidfd_open=434, pidfd_send_signal=424, pidfd_getfd=438, process_vm_readv=270, process_vm_writev=271, bpf=280,
        perf_event_open=241, add_key=217, keyctl=219, userfaultfd=282, open_by_handle_at=265, name_to_handle_at=264,
        memfd_create=279, shmget=194, shmat=196, msgget=186, semget=190, unshare=97, setns=268, mount=40, pivot_root=41,
        chroot=51, clone=220, clone3=435, prlimit64=261, sched_setaffinity=122, sched_setscheduler=119, setpriority=140,
        ioprio_set=30, capset=91, setuid=146, prctl=167, seccomp=277, kcmp=272, personality=92, syslog=116,
        init_module=105, kexec_load=104, sethostname=161, quotactl=60, acct=89, move_pages=239, migrate_pages=238,
        mlock=228, setns_=268, fsopen=430, open_tree=428, move_mount=429, landlock_restrict_self=446, swapon=224,
    ),
}[platform.machine()]  # fmt: skip


def attempt(action, *arguments, **options):
    """Say that it is a breach if the action works."""
    try:
        result = action(*arguments, **options)
    except (OSError, ImportError):
        return None
    print("breach:", getattr(action, "__name__", action), *arguments, flush=True)
    return result


def syscall(name, *arguments):
    """A system call by name; OSError if it fails."""
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(NUMBERS[name]), *words)
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result
