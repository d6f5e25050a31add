# %% forks_400_times
# expect: ok runtime_error
for _ in range(400):
    if attempt(os.fork) == 0:
        os._exit(0)

# %% starts_1500_threads
# expect: runtime_error ok
# cpu_seconds: 4
import threading, time
threading.stack_size(65536)
number = 0
try:
    for _ in range(1500):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        number += 1
except RuntimeError:
    pass
if number > WORLD["threads"]:
    print("breach:", number, "threads")

# %% starts_programs
import subprocess
attempt(subprocess.run, ["/bin/sh", "-c", "echo breach"])
attempt(os.system, "echo breach") if os.system("true") == 0 else None
attempt(os.execv, sys.executable, ["python", "-c", "print('breach')"])
attempt(os.posix_spawn, "/bin/true", ["true"], {})

# %% runs_a_setuid_program
for path in ("/usr/bin/passwd", "/bin/su", "/usr/bin/sudo", "/bin/mount", "/usr/bin/newgrp"):
    attempt(os.execv, path, [path, "--help"])

# %% leaves_a_daemon
# teeth
if attempt(os.fork) == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 64)
        import time
        time.sleep(8)
    os._exit(0)

# %% leaves_a_child_that_holds_its_output
# teeth
if attempt(os.fork) == 0:
    import time
    time.sleep(8)
    os._exit(0)

# %% clones_by_hand
SIGCHLD, VFORK, VM, THREAD, NEWUSER = 17, 0x4000, 0x100, 0x10000, 0x10000000
for flags in (SIGCHLD, VFORK | VM | SIGCHLD, NEWUSER | SIGCHLD, VM | SIGCHLD, NEWUSER | THREAD | VM | 0x800, 0x2000000):
    pid = attempt(syscall, "clone", flags, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
arguments = (ctypes.c_uint64 * 11)(0, 0, 0, 0, SIGCHLD)
if attempt(syscall, "clone3", arguments, 88) == 0:
    os._exit(0)

# %% makes_a_user_namespace
for flags in (0x10000000, 0x10020000, 0x40000000, 0x20000000, 0x02000000, 0x04000000, 0x08000000, 0x80):
    attempt(syscall, "unshare", flags)
attempt(syscall, "setns", 3, 0)

# %% raises_its_limits
import resource
for name in (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK):
    try:
        resource.setrlimit(name, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print("breach: limit", name)
    except (ValueError, OSError):
        pass
    soft, hard = resource.getrlimit(name)
    if hard == resource.RLIM_INFINITY:
        print("breach: no limit", name)

# %% takes_back_its_rights
for uid in (0, 1, 1000):
    attempt(os.setuid, uid) if uid != os.getuid() else None
    attempt(os.setresuid, uid, uid, uid) if uid != os.getuid() else None
attempt(os.setgroups, [0])
attempt(syscall, "capset", (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(2**32 - 1, 2**32 - 1))
for option, value in ((1, 0), (4, 1), (8, 1), (23, 21), (24, 0), (28, 0), (36, 1), (47, 2), (59, 0), (0x59616D61, WORLD["supervisor"])):
    attempt(syscall, "prctl", option, value, 0, 0, 0)

# %% adds_its_own_filters
attempt(syscall, "seccomp", 1, 0, 0)
attempt(syscall, "prctl", 22, 1, 0, 0, 0)
attempt(syscall, "landlock_restrict_self", 3, 0)
attempt(syscall, "personality", 0x0040000)

# %% uses_rare_doors_of_the_kernel
attempt(syscall, "io_uring_setup", 8, ctypes.create_string_buffer(256))
attempt(syscall, "bpf", 0, ctypes.create_string_buffer(128), 128)
attempt(syscall, "perf_event_open", ctypes.create_string_buffer(128), 0, -1, -1, 0)
attempt(syscall, "add_key", b"user", b"name", b"value", 5, -4)
attempt(syscall, "keyctl", 0, -3, 1)
attempt(syscall, "userfaultfd", 1)
attempt(syscall, "syslog", 3, ctypes.create_string_buffer(64), 64)
attempt(syscall, "init_module", b"", 0, b"")
attempt(syscall, "kexec_load", 0, 0, 0, 0)
attempt(syscall, "sethostname", b"owned", 5)
attempt(syscall, "acct", 0)
attempt(syscall, "quotactl", 0, 0, 0, 0)
attempt(syscall, "swapon", b"/tmp/x", 0)
attempt(syscall, "mlock", id(os), 2**24)

# %% calls_the_kernel_as_another_architecture
# expect: runtime_error
# machine: x86_64
import mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20 (getpid there); int 0x80; ret
address = ctypes.addressof(ctypes.c_char.from_buffer(code))
print("breach: getpid", ctypes.CFUNCTYPE(ctypes.c_int)(address)())

# %% calls_the_kernel_by_x32_numbers
# machine: x86_64
def syscall_x32(number):
    if libc.syscall(ctypes.c_long(0x40000000 + number), 0, 0, 0) == -1:
        raise OSError
for number in (39, 41, 57, 62):
    attempt(syscall_x32, number)
