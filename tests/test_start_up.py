from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import os, sys
from tandem.start_up import StartUpMessages
messages = StartUpMessages()
os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n")
os.write(2, b"I0000 00:00:1795895784.831447   30010 port.cc:153] oneDNN custom operations are on.\\n")
os.write(2, b"I0000 00:00:1795895784.831839   30010 cudart_stub.cc:31] Could not find cuda drivers\\n")
os.write(2, b"W0000 00:00:1795895784.831839   30010 gpu_device.cc:2431] a warning\\n")
os.write(2, b"E0000 00:00:1795895784.831839   30010 cuda.cc:1] an error\\n")
print("warnings.py:1: UserWarning: of Python", file=sys.stderr)
%s
print("afterwards I0000 and", file=sys.stderr)
os.write(2, b"I0000 00:00:1795895784.831839   30010 port.cc:1] all\\n")
"""


def stderr_of(end: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM % end], capture_output=True, text=True, timeout=60)
    return done.stderr.splitlines()


def test_only_messages_of_level_info_are_hidden_and_only_during_the_start() -> None:
    assert stderr_of("messages.stop()") == [
        "W0000 00:00:1795895784.831839   30010 gpu_device.cc:2431] a warning",
        "E0000 00:00:1795895784.831839   30010 cuda.cc:1] an error",
        "warnings.py:1: UserWarning: of Python",
        "afterwards I0000 and",
        "I0000 00:00:1795895784.831839   30010 port.cc:1] all",
    ]


def test_traceback_of_a_failed_import_is_printed() -> None:
    lines = stderr_of("import a_module_that_does_not_exist")
    assert lines[-1] == "ModuleNotFoundError: No module named 'a_module_that_does_not_exist'"
    assert "Traceback (most recent call last):" in lines and not any(line.startswith("I0000") for line in lines)


def test_quiet_start_hides_them_once_unless_the_user_wants_them() -> None:
    code = """
import os
from tandem.start_up import quiet_start
line = b"I0000 00:00:1795895784.831447   30010 port.cc:153] oneDNN custom operations are on.\\n"
with quiet_start():
    os.write(2, line)
os.write(2, b"level " + os.environ["TF_CPP_MIN_LOG_LEVEL"].encode())
"""
    for level, expected in ((None, ["level 3"]), ("0", ["oneDNN", "level 0"])):
        environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
        environment |= {} if level is None else {"TF_CPP_MIN_LOG_LEVEL": level}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
        lines = done.stderr.splitlines()
        assert len(lines) == len(expected) and all(map(str.__contains__, lines, expected)), lines
