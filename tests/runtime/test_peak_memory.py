"""Peak memory counts what a process and its children hold, and shared memory once."""

import subprocess
import sys

from lexray.runtime.peak_memory import PeakMemory

_CHILD = """
import sys
block = bytearray(b"x" * 200 * 2**20)
print("ready", flush=True)
sys.stdin.read()
"""


def test_the_memory_of_a_child_counts() -> None:
    with PeakMemory(interval=0.05) as before:
        pass
    with PeakMemory(interval=0.05) as memory:
        child = subprocess.Popen([sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        held = memory.gib
        child.communicate()
    assert 0.19 < held - before.gib < 0.4
    assert memory.gib >= held, "the highest, not the last"
