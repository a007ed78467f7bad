"""Small grid file, cells for tests that use only name, number and framework, and stand-ins for training scripts."""

from __future__ import annotations

from collections.abc import Callable

from tandem.grid.file import GridCell
from tandem.grid.processes import Outcome
from tandem.protocol.frameworks import Framework
from tandem.protocol.settings import Settings, TrackingSettings

TINY = """
experiment: tiny
settings:
  data: {source: digits, classes: ["0", "1"], image_size: 32, images_per_class: 12, cache_folder: cache}
  batch_size: 8
  max_epochs: 1
  device: cpu
  threads: 1
cells:
  - frameworks: [torch, keras]
    vary: {backbone: [mobilenet_v2], regime: [scratch], seed: [0, 1]}
"""


# Records a run of a cell with the tags of the training scripts, and returns its id.
Record = Callable[..., str]

READY = "import signal, sys, time\nprint('ready', flush=True)\n"
SLEEP = READY + "time.sleep(60)"
# ignores SIGTERM
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEP
# like a training script: ends its run and exits with a status of its own
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
