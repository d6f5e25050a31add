"""What a program leaves running is found and ended, however it detached itself."""

from __future__ import annotations

import subprocess
import sys

from tests.code_execution.processes import alive

ENDED = """
import os, subprocess, sys, time
from dschat.code_execution.inside.leftovers import adopt_orphans, end_leftovers
adopt_orphans()
sleep = "import time; time.sleep(300)"
start = f"subprocess.Popen([sys.executable, '-c', {sleep!r}], start_new_session=True, stdout=subprocess.DEVNULL)"
detached = f"import subprocess, sys; print({start}.pid)"
orphan = int(subprocess.run([sys.executable, "-c", detached], stdout=subprocess.PIPE, text=True).stdout)
child = subprocess.Popen([sys.executable, "-c", sleep]).pid
for pid in (orphan, child):
    os.kill(pid, 0)
end_leftovers(None)
print(orphan, child)
"""


def test_children_and_orphans_of_other_sessions_are_ended_and_reaped() -> None:
    done = subprocess.run([sys.executable, "-c", ENDED], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    pids = {int(word) for word in done.stdout.split()}
    assert len(pids) == 2
    assert alive(pids) == set()
