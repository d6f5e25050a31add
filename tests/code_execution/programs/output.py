# %% floods_standard_output
# expect: output_limit
while True:
    print("x" * 10000)

# %% floods_standard_error
# expect: output_limit
while True:
    print("x" * 10000, file=sys.stderr)

# %% floods_the_report
# expect: time_limit output_limit ok runtime_error
# cpu_seconds: 0.15
while True:
    os.write(3, b"d" * 10000)

# %% claims_a_fault_of_the_sandbox
# expect: ok runtime_error
for descriptor in (3, 4, 5):
    try:
        os.write(descriptor, b"!not my fault")
    except OSError:
        pass
os._exit(1)

# %% claims_success_and_crashes
# expect: ok runtime_error
os.write(3, b"d")
ctypes.string_at(0)

# %% closes_its_report
# expect: ok
os.close(3)

# %% dies_by_a_signal_it_must_not_send
# expect: runtime_error ok
import signal
for number in (signal.SIGKILL, signal.SIGXCPU, signal.SIGSYS):
    attempt(signal.raise_signal, number)

# %% raises_a_huge_message
# expect: runtime_error
raise ValueError("x" * 10**8)

# %% raises_what_cannot_be_shown
# expect: runtime_error
class Odd(Exception):
    def __str__(self):
        raise SystemExit
raise Odd

# %% raises_a_surrogate
# expect: runtime_error
raise ValueError("\ud800 \x00 \x1b[31m")

# %% prints_bytes_that_are_no_text
# expect: ok
sys.stdout.buffer.write(bytes(range(256)))

# %% prints_a_lone_surrogate
# expect: runtime_error
print("\ud800")

# %% floods_from_threads
# expect: output_limit runtime_error
import threading
def flood():
    while True:
        os.write(1, b"x" * 4096)
for _ in range(4):
    threading.Thread(target=flood).start()

# %% replaces_its_streams
# expect: ok runtime_error
class Odd:
    def __getattr__(self, name):
        raise KeyError(name)
sys.stdout = sys.stderr = sys.stdin = sys.__stdout__ = Odd()

# %% breaks_the_modules_it_ends_with
# expect: ok runtime_error
import threading, atexit, traceback
def broken(*arguments, **options):
    raise KeyError("broken")
threading._shutdown = atexit._run_exitfuncs = traceback.format_exception_only = broken
os._exit = broken

# %% leaves_at_once
# expect: ok
sys.exit(0)

# %% leaves_without_a_word
# expect: ok
os._exit(0)
