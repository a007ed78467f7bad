from __future__ import annotations

import subprocess
import sys

FAULTS = """
import resource, sys
from tandem.call_stack import call_with_room

def leaf(a, b, c, d):
    return a

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def most_faults(depth):
    global most
    before = faults()
    for _ in range(300):
        leaf(1, 2, 3, 4)
    most = max(most, faults() - before)
    if depth:
        most_faults(depth - 1)

most = 0
call_with_room(most_faults, 400)
print(most)
"""


def test_calls_at_no_depth_request_memory_again_and_again() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100
