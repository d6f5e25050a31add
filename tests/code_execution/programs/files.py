# %% writes_where_it_can
# teeth
for folder in [WORLD["folder"], "/tmp", "/var/tmp", "/dev/shm", "/run", "/dev", "/usr/lib", "/root", "/", "."]:
    attempt(os.open, f"{folder}/{WORLD['name']}", os.O_WRONLY | os.O_CREAT)
    attempt(os.open, folder, os.O_WRONLY | os.O_TMPFILE)

# %% writes_over_the_interpreter
import json
for path in [json.__file__, os.__file__, sys.executable, __import__("_json").__file__ if hasattr(__import__("_json"), "__file__") else ctypes.__file__]:
    attempt(os.open, path, os.O_WRONLY)
    attempt(os.open, path, os.O_RDWR | os.O_APPEND)
    attempt(os.chmod, path, 0o777)
    attempt(os.utime, path)

# %% plants_a_module_for_the_next_program
import json
for folder in {os.getcwd(), os.path.dirname(os.path.dirname(json.__file__)), "/", "/tmp"}:
    for name in ("json.py", "numpy.py", "sitecustomize.py"):
        attempt(os.open, os.path.join(folder, name), os.O_WRONLY | os.O_CREAT)

# %% reads_the_password_file
# teeth
attempt(open, "/etc/passwd")
attempt(open, "/etc/shadow")

# %% reads_a_file_that_everybody_may_read
# teeth
secret = attempt(open, WORLD["secret_file"])
if secret:
    print(secret.read())

# %% reads_caches_and_homes
for folder in ["~", "~/.cache/huggingface", "/root", "/home", "/tmp", "/var/tmp", "/dev/shm", "/etc", "/proc", "/sys", WORLD["folder"]]:
    try:
        found = os.listdir(os.path.expanduser(folder))
    except OSError:
        continue
    # a folder on the way to the interpreter may be seen in bubblewrap, with nothing else in it
    if not set(found) <= {"ld.so.cache", "alternatives"} and not any(
        os.path.join(folder, name) in path for name in found for path in (sys.prefix, os.__file__, *sys.path)
    ):
        print("breach: lists", folder, found)

# %% reads_by_handle_and_link
attempt(os.link, WORLD["secret_file"], "/tmp/" + WORLD["name"])
attempt(os.symlink, WORLD["secret_file"], WORLD["folder"] + "/link")
buffer = ctypes.create_string_buffer(256)
buffer[0:4] = (128).to_bytes(4, "little")
attempt(syscall, "name_to_handle_at", -100, WORLD["secret_file"].encode(), buffer, ctypes.byref(ctypes.c_int()), 0)
attempt(syscall, "open_by_handle_at", -100, buffer, 0)

# %% damages_the_canary
# teeth
path = WORLD["writable_file"]
attempt(os.truncate, path, 0)
attempt(os.open, path, os.O_RDONLY | os.O_TRUNC)
attempt(os.open, path, os.O_WRONLY)
attempt(os.chmod, path, 0)
attempt(os.rename, path, path + "-moved")
attempt(os.unlink, path)
attempt(os.rmdir, WORLD["folder"])

# %% makes_many_files
for i in range(20000):
    for folder in (WORLD["folder"], "/tmp", "/dev/shm", "/dev"):
        attempt(os.mkdir, f"{folder}/{WORLD['name']}-{i}")

# %% makes_a_deep_folder
# expect: ok runtime_error
for root in (WORLD["folder"], "/tmp", "/dev/shm"):
    try:
        os.mkdir(root + "/deep")
        os.chdir(root + "/deep")
    except OSError:
        continue
    print("breach")
    for _ in range(1500):
        os.mkdir("d", 0o777)
        os.chdir("d")
    os.chmod(".", 0)

# %% fills_every_file_system
# cpu_seconds: 3
for folder in (".", "/", "/dev", "/dev/shm", "/tmp", "/run", "/var/tmp", WORLD["folder"]):
    descriptor = attempt(os.open, f"{folder}/{WORLD['name']}-filler", os.O_WRONLY | os.O_CREAT)
    if descriptor is not None:
        for _ in range(100):
            attempt(os.write, descriptor, bytes(2**20))

# %% opens_devices
for path in ("/dev/mem", "/dev/kmem", "/dev/kmsg", "/dev/sda", "/dev/vda", "/dev/tty", "/dev/ptmx", "/dev/fuse", "/dev/kvm", "/dev/nvidia0", "/dev/nvidiactl"):
    attempt(os.open, path, os.O_RDONLY)
attempt(os.mknod, "/tmp/" + WORLD["name"], 0o600 | 0o020000, os.makedev(1, 1))
attempt(os.mkfifo, "/tmp/" + WORLD["name"])

# %% opens_kernel_settings_for_writing
for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger", "/proc/self/oom_score_adj", "/sys/kernel/uevent_helper", "/sys/fs/cgroup/cgroup.procs", "/proc/self/mem", "/proc/self/uid_map"):
    attempt(os.open, path, os.O_WRONLY)

# %% mounts
attempt(syscall, "mount", b"none", b"/tmp", b"tmpfs", 0, 0)
attempt(syscall, "mount", b"none", b"/", 0, 32, 0)
attempt(syscall, "fsopen", b"tmpfs", 0)
attempt(syscall, "open_tree", -100, b"/", 1)
attempt(syscall, "pivot_root", b"/tmp", b"/tmp")
attempt(os.chroot, "/usr")

# %% writes_to_its_input
# stdin: abc
import mmap
attempt(os.write, 0, b"x")
attempt(os.ftruncate, 0, 2**30)
attempt(mmap.mmap, 0, 3, mmap.MAP_SHARED, mmap.PROT_WRITE)
