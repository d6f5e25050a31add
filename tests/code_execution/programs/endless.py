# %% loops
# expect: time_limit
# cpu_seconds: 0.15
while True:
    pass

# %% loops_and_catches_everything
# expect: time_limit
# cpu_seconds: 0.15
import signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    try:
        while True:
            pass
    except BaseException:
        continue

# %% loops_in_threads
# expect: time_limit
# cpu_seconds: 0.15
import threading
def loop():
    while True:
        pass
for _ in range(8):
    threading.Thread(target=loop).start()

# %% loops_in_c
# expect: time_limit
# cpu_seconds: 0.15
import re
re.match(r"(a*)*b", "a" * 64)

# %% loops_at_exit
# expect: time_limit
# cpu_seconds: 0.15
import atexit
@atexit.register
def loop():
    while True:
        pass

# %% loops_when_it_is_deleted
# expect: time_limit
# cpu_seconds: 0.15
class Sticky:
    def __del__(self):
        while True:
            pass
sticky = Sticky()

# %% loops_in_its_error_message
# expect: time_limit
# cpu_seconds: 0.15
class Sticky(Exception):
    def __str__(self):
        while True:
            pass
raise Sticky

# %% counts_to_a_huge_power
# expect: time_limit memory_limit
# cpu_seconds: 0.15
exponent = 10**7
print(len(str(7**exponent)))

# %% sleeps
# expect: time_limit
# cpu_seconds: 0.15
import time
time.sleep(1000)

# %% sleeps_in_a_thread_that_is_waited_for
# expect: time_limit
# cpu_seconds: 0.15
import threading, time
threading.Thread(target=time.sleep, args=(1000,)).start()

# %% waits_for_a_lock
# expect: time_limit
# cpu_seconds: 0.15
import threading
lock = threading.Lock()
lock.acquire()
lock.acquire()

# %% stops_itself
# expect: ok time_limit
# cpu_seconds: 0.15
import signal
attempt(os.kill, os.getpid(), signal.SIGSTOP)

# %% waits_for_input_from_elsewhere
# expect: ok time_limit
# cpu_seconds: 0.15
import select
print(select.select([2], [], [], 1000) == ([], [], []))

# %% closes_everything_and_loops
# expect: time_limit
# cpu_seconds: 0.15
os.closerange(0, 64)
while True:
    pass

# %% lowers_the_signal_of_its_limit
# expect: time_limit
# cpu_seconds: 0.15
import resource
attempt(lambda: resource.setrlimit(resource.RLIMIT_CPU, (100, 100)) if resource.getrlimit(resource.RLIMIT_CPU)[1] > 100 else os.open("/nonexistent", 0))
while True:
    pass
