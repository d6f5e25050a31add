# %% kills_its_parent
for number in (9, 15, 19, 0):
    attempt(os.kill, os.getppid(), number)
    attempt(os.kill, 1, number)

# %% kills_the_supervisor
for number in (0, 9, 15, 19):
    attempt(os.kill, WORLD["supervisor"], number)
    attempt(os.killpg, WORLD["supervisor"], number)

# %% kills_a_neighbour
# teeth
import signal
pid = WORLD["victim"]
info = (ctypes.c_int * 32)(9, 0, -1)
attempt(syscall, "rt_sigqueueinfo", pid, 9, info)
attempt(syscall, "rt_tgsigqueueinfo", pid, pid, 9, info)
attempt(syscall, "tgkill", pid, pid, 9)
attempt(syscall, "tkill", pid, 9)
attempt(os.kill, pid, 9)
attempt(os.killpg, pid, 9)
attempt(lambda: signal.pidfd_send_signal(os.pidfd_open(pid), 9))

# %% stops_a_neighbour
# teeth
import signal
attempt(os.kill, WORLD["victim"], signal.SIGSTOP)

# %% signals_a_neighbour_through_a_descriptor
# the owner of a descriptor is sent a signal of choice when there is something to read
import fcntl, signal
for descriptor in (0, 1, 2):
    attempt(fcntl.fcntl, descriptor, fcntl.F_SETOWN, WORLD["victim"])
    attempt(fcntl.fcntl, descriptor, fcntl.F_SETSIG, signal.SIGKILL)
    attempt(fcntl.fcntl, descriptor, fcntl.F_SETFL, os.O_ASYNC)
    attempt(fcntl.ioctl, descriptor, 0x8901, WORLD["victim"].to_bytes(4, "little"))

# %% kills_everybody
# on: bwrap
attempt(os.kill, -1, 9)

# %% changes_a_neighbours_priority
# teeth
attempt(os.setpriority, os.PRIO_PROCESS, WORLD["victim"], 19)
attempt(os.sched_setaffinity, WORLD["victim"], {0})
attempt(syscall, "prlimit64", WORLD["victim"], 7, (ctypes.c_uint64 * 2)(3, 3), 0)
attempt(syscall, "ioprio_set", 1, WORLD["victim"], (3 << 13))
attempt(lambda: os.sched_setscheduler(WORLD["victim"], os.SCHED_IDLE, os.sched_param(0)))
attempt(syscall, "migrate_pages", WORLD["victim"], 0, 0, 0)

# %% raises_its_own_priority
attempt(os.setpriority, os.PRIO_PROCESS, 0, -20)
attempt(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)))
attempt(lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1)))
attempt(os.sched_setaffinity, 0, {0})

# %% segfaults
# expect: runtime_error
ctypes.string_at(0)

# %% aborts
# expect: runtime_error
os.abort()

# %% recurses_without_limit
# expect: runtime_error memory_limit
sys.setrecursionlimit(10**9)
def f(x):
    return sorted([x], key=f)
f(1)

# %% raises_illegal_instruction
# expect: runtime_error
import signal
signal.raise_signal(signal.SIGILL)
