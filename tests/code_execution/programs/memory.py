# %% allocates_until_refused
# memory_mebibytes: 256
# expect: memory_limit
# cpu_seconds: 4
blocks = []
while True:
    blocks.append(bytearray(2**24))
    if len(blocks) * 2**24 > WORLD["memory"]:
        print("breach: too much memory")
        break

# %% allocates_small_things_until_refused
# memory_mebibytes: 256
# expect: memory_limit
# cpu_seconds: 8
import itertools
chain = None
for i in itertools.count():
    chain = [chain, [i] * 100]
    if i * 900 > WORLD["memory"]:
        print("breach: too much memory")
        break

# %% allocates_and_hides_it
# memory_mebibytes: 256
# cpu_seconds: 4
blocks = []
try:
    while True:
        blocks.append(bytearray(2**24))
        if len(blocks) * 2**24 > WORLD["memory"]:
            print("breach: too much memory")
            break
except MemoryError:
    pass

# %% grows_its_stack_without_a_limit
# memory_mebibytes: 256
# expect: memory_limit runtime_error
# cpu_seconds: 8
import itertools, resource
# a stack without a limit may be asked for, as honest programs do; the address space bounds it
resource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
sys.setrecursionlimit(10**9)
depth = itertools.count()
def dive(_):
    if next(depth) % 1000 == 0 and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > WORLD["memory"]:
        print("breach: too much memory", flush=True)
        os._exit(0)
    return sorted([0], key=dive)  # through C, so that the stack grows
dive(0)

# %% allocates_in_forked_children
# expect: ok memory_limit
# cpu_seconds: 6
pids = []
for _ in range(6):
    pid = attempt(os.fork)
    if pid == 0:
        block = bytearray(300 * 2**20)
        os._exit(0)
    pids += [pid] if pid else []
for pid in pids:
    os.waitpid(pid, 0)

# %% fills_memory_files
# cpu_seconds: 4
for i in range(20):
    descriptor = attempt(syscall, "memfd_create", b"x", 0)
    if descriptor is not None:
        for _ in range(40):
            attempt(os.write, descriptor, bytes(2**20))

# %% takes_shared_memory
for i in range(20):
    attempt(syscall, "shmget", 0, 30 * 2**20, 0o1600)
    attempt(syscall, "msgget", 0, 0o1600)
    attempt(syscall, "semget", 0, 250, 0o1600)

# %% fills_pipes
for i in range(500):
    pair = attempt(os.pipe)
    if pair:
        attempt(os.write, pair[1], bytes(65536))

# %% maps_shared_memory
# memory_mebibytes: 256
# expect: ok memory_limit runtime_error
# cpu_seconds: 4
import mmap
blocks = []
while True:
    blocks.append(mmap.mmap(-1, 2**24))
    blocks[-1].write(bytes(2**24))
    if len(blocks) * 2**24 > WORLD["memory"]:
        print("breach: too much memory")
        break

# %% opens_many_descriptors
number = 0
try:
    while number < 5000:
        os.dup(0)
        number += 1
except OSError:
    pass
if number > 64:
    print("breach:", number, "descriptors")
