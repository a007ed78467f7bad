"""Runs of a training script in processes that are forked from one that has imported the script already.

    python -m tests.scripts.preloaded torch OPTIONS

reads a line of JSON per run, with its folder and the file of its output, and answers with two lines: the number of the
run's process, and its exit status with its processor time. The imports take seconds of each start, in which a run has
not begun.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Preloaded:
    """A process that has imported a training script."""

    def __init__(self, framework: str, words: Sequence[str]) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.scripts.preloaded", framework, *words],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, folder: Path, output: Path, dies_in: tuple[int, float] | None = None) -> Started:
        """Starts a run in a folder.

        Args:
            folder: Where it works.
            output: File of what it prints.
            dies_in: Number of the checkpoint during which it kills itself, counted from 1, and the seconds after the
                beginning of its writing.
        """
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps({"folder": str(folder), "output": str(output), "dies_in": dies_in}) + "\n")
        self._server.stdin.flush()
        return Started(self._server, int(self._server.stdout.readline()))

    def close(self) -> None:
        self._server.communicate()


class Started:
    """A run's process.

    Attributes:
        pid: Its number.
        status: Its exit status; minus the signal's number if one killed it; None while it runs.
        seconds: Of the processor, once it has ended.
    """

    def __init__(self, server: subprocess.Popen[str], pid: int) -> None:
        self._server = server
        self.pid = pid
        self.status: int | None = None
        self.seconds = 0.0

    def poll(self) -> int | None:
        if self.status is None and select.select([self._server.stdout], [], [], 0)[0]:
            self.wait()
        return self.status

    def wait(self) -> int:
        if self.status is None:
            assert self._server.stdout is not None
            ended = json.loads(self._server.stdout.readline())
            self.status, self.seconds = ended["status"], ended["seconds"]
        return self.status


def _die_in_checkpoint(number: int, seconds: float) -> None:
    from tandem.tracking import checkpoints

    write, numbers = checkpoints.write_state, itertools.count(1)

    def write_state(*arguments: Any) -> None:
        if next(numbers) == number:
            threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
        write(*arguments)

    checkpoints.write_state = write_state


def main() -> None:
    framework, *words = sys.argv[1:]
    script = ROOT / f"train_{framework}.py"
    sys.argv = [str(script), *words]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # answers alone go to the standard output
    from tandem.launch.scripts import begin, run_script

    begin(framework)  # sets the variables that the framework reads at its import
    module = import_module(f"train_{framework}")
    run_script(framework, lambda settings: None, None)  # type: ignore[arg-type]
    assert threading.active_count() == 1, "a fork would copy one thread only"
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.chdir(request["folder"])
            output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for number in (1, 2):
                os.dup2(output, number)
            status = 1
            if request["dies_in"]:
                _die_in_checkpoint(*request["dies_in"])
            try:
                run_script(framework, module.main, begin(framework))
                status = 0
            except SystemExit as error:
                status = error.code if isinstance(error.code, int) else int(error.code is not None)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        print(pid, file=answers, flush=True)
        _, status, used = os.wait4(pid, 0)
        ended = {"status": os.waitstatus_to_exitcode(status), "seconds": used.ru_utime + used.ru_stime}
        print(json.dumps(ended), file=answers, flush=True)


if __name__ == "__main__":
    main()
