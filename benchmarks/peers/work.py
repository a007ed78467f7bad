"""What each contestant is asked to do, and how it answers."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path

ANSWER = "peer-seconds "


@dataclass(frozen=True, kw_only=True)
class Work:
    """Train MobileNetV2 from random weights on a folder with train/ and val/: `epochs` frozen, `epochs` thawed."""

    folder: Path
    image_size: int
    batch_size: int
    epochs: int
    device: str

    def as_arguments(self) -> list[str]:
        """The command line that asked_work reads."""
        return [str(self.folder), str(self.image_size), str(self.batch_size), str(self.epochs), self.device]


def asked_work() -> Work:
    """The work that the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    for name in ("image_size", "batch_size", "epochs"):
        parser.add_argument(name, type=int)
    parser.add_argument("device", choices=("cpu", "cuda"))
    return Work(**vars(parser.parse_args()))


def report(frozen_seconds: float, thawed_seconds: float) -> None:
    """Tells the benchmark how long each phase took."""
    print(ANSWER + json.dumps([frozen_seconds, thawed_seconds]), flush=True)


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
