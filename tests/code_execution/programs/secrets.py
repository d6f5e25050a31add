# %% reads_its_environment
print(dict(os.environ))
getenv = libc.getenv
getenv.restype = ctypes.c_char_p
for name in WORLD["variables"]:
    print(os.getenv(name), getenv(name.encode()))

# %% reads_the_supervisor_in_proc
# teeth
for pid in (WORLD["supervisor"], os.getppid(), 1, "self"):
    for what in ("environ", "mem", "maps", "cmdline", "cwd/secret", "root/etc/passwd"):
        attempt(os.open, f"/proc/{pid}/{what}", os.O_RDONLY)

# %% traces_other_processes
for pid in (WORLD["supervisor"], WORLD["victim"], os.getppid(), 1):
    attempt(syscall, "ptrace", 16, pid, 0, 0)
    attempt(syscall, "ptrace", 0x4206, pid, 0, 0)
    attempt(syscall, "kcmp", os.getpid(), pid, 0, 0, 0)

# %% reads_the_memory_of_others
for pid in (WORLD["supervisor"], WORLD["victim"], os.getppid(), 1):
    buffer = ctypes.create_string_buffer(64)
    class Vector(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
    vector = Vector(ctypes.addressof(buffer), 64)
    there = Vector(id(os), 64)
    attempt(syscall, "process_vm_readv", pid, ctypes.byref(vector), 1, ctypes.byref(there), 1, 0)
    attempt(syscall, "process_vm_writev", pid, ctypes.byref(vector), 1, ctypes.byref(there), 1, 0)
    attempt(syscall, "move_pages", pid, 0, 0, 0, 0, 0)

# %% reads_inherited_descriptors
import select
for descriptor in range(3, 1200):
    try:
        status = os.fstat(descriptor)
    except OSError:
        continue
    if descriptor > 4:
        print("breach: descriptor", descriptor, status)
    try:
        if select.select([descriptor], [], [], 0)[0]:
            print("breach: read", descriptor, os.read(descriptor, 4096))
    except OSError:
        pass

# %% steals_descriptors
for pid in (WORLD["supervisor"], WORLD["victim"], os.getppid(), 1):
    attempt(syscall, "pidfd_getfd", 3, 0, 0)
    attempt(syscall, "pidfd_open", pid, 0)

# %% looks_for_the_previous_output
# after: print("the previous", "program's output", sep="/")
# cpu_seconds: 5
import gc
# all but the last letter of what is looked for, so that the search does not find itself
needles = [b"the previous/program's outpu", b"the planted/program's outpu"]
planted = b"/".join([b"the planted", b"program's output"])
libc.sbrk.restype = ctypes.c_void_p
PAGE, AROUND, EFAULT = 4096, 64, 14
known = {id(thing) // PAGE for thing in gc.get_objects()} | {id(planted) // PAGE, libc.sbrk(0) // PAGE}
near = {page + step for page in {page // AROUND * AROUND for page in known} for step in range(-AROUND, 2 * AROUND)}
def readable(page):
    return libc.access(ctypes.c_void_p(page * PAGE), 0) == 0 or ctypes.get_errno() != EFAULT
found, searched = [0, 0], 0
for page in filter(readable, near):
    memory = ctypes.string_at(page * PAGE, PAGE)
    searched += 1
    for which, needle in enumerate(needles):
        at = memory.find(needle)
        while at >= 0:
            found[which] += memory[at + len(needle) : at + len(needle) + 1] == b"t"
            at = memory.find(needle, at + 1)
print("breach" if found[0] else "nothing", "of the last program in", searched, "pages")
print("found its own" if found[1] else "breach: the search does not work")

# %% walks_frames_and_objects
import gc
# nothing of a task but the program itself may be in reach: no expected outputs, no other jobs
frame, seen = sys._getframe(), []
while frame is not None:
    seen += [name for name in frame.f_locals if name in ("outputs", "in_outs", "expected", "tests", "secret")]
    frame = frame.f_back
for thing in gc.get_objects():
    if isinstance(thing, dict) and ({"outputs", "expected", "input_output"} & {key for key in thing if isinstance(key, str)}):
        seen.append("dict")
print("breach" if seen else "nothing", seen)
