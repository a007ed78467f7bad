"""Cells of which nothing but the name, number and framework matters, and commands in place of training scripts."""

from __future__ import annotations

from tandem.grid.file import GridCell
from tandem.grid.processes import Outcome
from tandem.protocol.parser import Framework
from tandem.protocol.settings import Settings, TrackingSettings

READY = "import signal, sys, time\nprint('ready', flush=True)\n"
SLEEP = READY + "time.sleep(60)"
# once more, for a process that has been told to ignore SIGTERM
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEP
# as a training script does: it ends its run and leaves with a status of its own
TIDY = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: (print('ended properly'), sys.exit(3)))\n" + SLEEP


def make_cell(framework: Framework = "torch", number: int = 3, threads: int | None = None, **tracking: str) -> GridCell:
    settings = Settings(threads=threads, tracking=TrackingSettings(**tracking))  # type: ignore[arg-type]
    name = f"resnet50 frozen {framework}"
    return GridCell(number=number, name=name, framework=framework, options=(), settings=settings)


def make_outcome(framework: Framework, seconds: float, status: int | None = 0, by_earlier: bool = False) -> Outcome:
    return Outcome(
        cell=make_cell(framework),
        status=status,
        seconds=seconds,
        log="log",
        last_line="",
        by_earlier_attempt=by_earlier,
    )
