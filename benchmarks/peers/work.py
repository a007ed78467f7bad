"""Command line and answer that each contestant shares with the benchmark."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path

ANSWER = "peer-seconds "


@dataclass(frozen=True, kw_only=True)
class Work:
    """MobileNetV2 from random weights on a folder with train/ and val/: `epochs` frozen, `epochs` thawed."""

    folder: Path
    image_size: int
    batch_size: int
    epochs: int
    device: str

    def as_arguments(self) -> list[str]:
        """Command line that asked_work reads."""
        return [str(self.folder), str(self.image_size), str(self.batch_size), str(self.epochs), self.device]


def asked_work() -> Work:
    """Work that the command line requests."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    for name in ("image_size", "batch_size", "epochs"):
        parser.add_argument(name, type=int)
    parser.add_argument("device", choices=("cpu", "cuda"))
    return Work(**vars(parser.parse_args()))


def report(frozen_seconds: float, thawed_seconds: float) -> None:
    """Reports the seconds of each phase to the benchmark."""
    print(ANSWER + json.dumps([frozen_seconds, thawed_seconds]), flush=True)


def num_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0))
