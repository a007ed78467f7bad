"""Seconds and peak memory of Tandem and of other libraries for the same work, as whole processes.

    python -m benchmarks.peers --timm_script FOLDER/train.py

The work: MobileNetV2 from random weights (which do not affect times), frozen for some epochs and then thawed for as
many, on one folder of generated or given photographs, float32, the same batch size, without augmentation. Contestants
are processes, one after the other, each with its own default number of workers or one worker per core. Contestants
whose packages are not installed are skipped with a message: fastai and transformers (with accelerate) are not
requirements of the project.

Tandem does more work than the others: it scans the files, keeps the records for early stopping, scores a test split,
measures latency and records everything in MLflow. `lean` omits what can be switched off (the model, weights, Grad-CAM,
the report on the data). `again` is the same run once more, with the decoded images and features on disk.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from benchmarks.peers.work import ANSWER, Work, num_cores

ROOT = Path(__file__).resolve().parents[2]
NUM_CLASSES = 10
NUM_IMAGES = {"train": 50, "val": 10, "test": 10}  # per class
PHOTOGRAPH_SIZE = 224
SAMPLE_SECONDS = 0.1
LEAN = ("--tracking.log_model", "false", "--tracking.log_weights", "false", "--tracking.grad_cam_images", "0")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run of a contestant."""

    seconds: float
    """Elapsed seconds of the whole process, with imports."""
    frozen: float | None
    thawed: float | None
    """Seconds per phase, if reported."""
    megabytes: float
    """Peak of the anonymous resident memory of the process and its children."""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description="Times Tandem and others on the same frozen and thawed training."
    )
    parser.add_argument("--data", type=Path, help="folder with train/, val/ and test/ (default: generated photographs)")
    parser.add_argument("--image_size", type=int, default=160)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3, help="epochs per phase (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="runs per contestant (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--timm_script", type=Path, help="train.py of timm's repository, which is not in its wheel")
    parser.add_argument("--only", nargs="+", help="contestants by name")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="tandem-benchmark-") as folder:
        photographs = arguments.data or make_photographs(Path(folder) / "photographs")
        work = Work(
            folder=photographs.resolve(),
            image_size=arguments.image_size,
            batch_size=arguments.batch_size,
            epochs=arguments.epochs,
            device=arguments.device,
        )
        contestants = contestants_for(work, Path(folder), arguments.timm_script)
        if arguments.only:
            contestants = {name: command for name, command in contestants.items() if name in arguments.only}
        counts = {part: sum(1 for _ in (photographs / part).glob("*/*")) for part in NUM_IMAGES}
        print(
            f"{counts['train']} + {counts['val']} photographs, {work.image_size} px, {work.epochs} + {work.epochs} "
            f"epochs, {num_cores()} cores of {platform.machine()}, {work.device}"
        )
        found: dict[str, list[Measured]] = {name: [] for name in contestants}
        for _ in range(arguments.rounds):
            for name, command in contestants.items():
                if name in ("tandem torch", "tandem keras"):
                    shutil.rmtree(Path(folder) / "cache", ignore_errors=True)
                found[name].append(measure(command, Path(folder)))
                print_row(name, found[name])


def contestants_for(work: Work, folder: Path, timm_script: Path | None) -> dict[str, list[str]]:
    """Commands by contestant, without those whose packages are missing."""
    found: dict[str, list[str]] = {}
    for framework in ("torch", "keras"):
        options = {
            "data.source": work.folder,
            "data.split": "publisher",
            "data.cache_folder": folder / "cache",
            "data.image_size": work.image_size,
            "backbone": "mobilenet_v2",
            "weights": "random",
            "regime": "two_stage",
            "learning_rate": 1e-4,
            "batch_size": work.batch_size,
            "max_epochs": work.epochs,
            "early_stopping.patience": "null",
            "early_stopping.restore": "last",
            "device": "gpu" if work.device == "cuda" else "cpu",
            "tracking.uri": f"sqlite:///{folder / 'mlflow.db'}",
            "tracking.folder": folder / "runs",
            "tracking.data_report": "false",
        }
        command = [sys.executable, str(ROOT / f"train_{framework}.py")]
        command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
        found[f"tandem {framework}"] = command
        found[f"tandem {framework}, lean, again"] = [*command, *LEAN]
    for name, module, package in (
        ("keras", "with_keras", "keras"),
        ("fastai", "with_fastai", "fastai"),
        ("hugging face", "with_hugging_face", "transformers"),
    ):
        if importlib.util.find_spec(package) is None:
            print(f"{name}: left out, since {package} is not installed")
            continue
        found[name] = [sys.executable, "-m", f"benchmarks.peers.{module}", *work.as_arguments()]
    if timm_script is None:
        print("timm: left out without --timm_script")
        return found
    options = {
        "data-dir": work.folder,
        "train-split": "train",
        "val-split": "val",
        "model": "mobilenetv2_100",
        "num-classes": NUM_CLASSES,
        "img-size": work.image_size,
        "batch-size": work.batch_size,
        "epochs": work.epochs,
        "warmup-epochs": 0,
        "cooldown-epochs": 0,
        "sched": "step",  # required; its first step is after the last epoch
        "decay-epochs": 1000,
        "opt": "adam",
        "lr": 1e-4,
        "workers": num_cores(),
        "device": work.device,
        "output": folder / "timm",
    }
    command = [sys.executable, str(timm_script.resolve()), "--no-aug"]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    found["timm, thawed alone"] = command
    return found


def measure(command: Sequence[str], folder: Path) -> Measured:
    """Runs a command and samples its memory."""
    log = folder / "contestant.log"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    start = time.perf_counter()
    with log.open("w") as output:
        process = psutil.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=environment)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, anonymous_megabytes(process))
            time.sleep(SAMPLE_SECONDS)
    seconds = time.perf_counter() - start
    text = log.read_text(errors="replace")
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{text[-3000:]}")
    answers = [line for line in text.splitlines() if line.startswith(ANSWER)]
    frozen, thawed = json.loads(answers[-1].removeprefix(ANSWER)) if answers else phases_of_last_run(folder)
    return Measured(seconds=seconds, frozen=frozen, thawed=thawed, megabytes=peak)


def anonymous_megabytes(process: psutil.Process) -> float:
    """Anonymous resident memory (RssAnon on Linux) of a process and its children."""
    total = 0
    try:
        for each in (process, *process.children(recursive=True)):
            status = Path(f"/proc/{each.pid}/status").read_text()
            total += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))
    except (OSError, psutil.Error):  # a process has just ended
        return 0.0
    return total / 1024


def phases_of_last_run(folder: Path) -> tuple[float | None, float | None]:
    """Training seconds of both phases of Tandem's newest run; empty if there is no new run."""
    journals = sorted(folder.glob("runs/*/*/journal.jsonl"), key=lambda path: path.stat().st_mtime)
    if not journals:
        return None, None
    phases = {}
    for line in journals[-1].read_text().splitlines():
        record = json.loads(line)
        if record.get("kind") == "tags":
            phases |= {tag: text for tag, text in record["values"].items() if tag.startswith("tandem.numbers.phase_")}
    shutil.rmtree(folder / "runs")
    first, second = (json.loads(phases.get(f"tandem.numbers.phase_{number}", "{}")) for number in (1, 2))
    return first.get("cost/train_seconds"), second.get("cost/train_seconds")


def print_row(name: str, runs: Sequence[Measured]) -> None:
    """Prints medians, and the range of the whole time if there are several runs."""
    parts = []
    for field in ("frozen", "thawed"):
        values = [getattr(run, field) for run in runs if getattr(run, field) is not None]
        parts.append(f"{statistics.median(values):8.1f}" if values else f"{'-':>8}")
    whole = [run.seconds for run in runs]
    spread = f" ({min(whole):.1f} to {max(whole):.1f})" if len(whole) > 1 else ""
    print(
        f"{name:28} whole {statistics.median(whole):7.1f} s{spread}, frozen {parts[0]} s, thawed {parts[1]} s, "
        f"{statistics.median([run.megabytes for run in runs]):7,.0f} MB",
        flush=True,
    )


def make_photographs(folder: Path) -> Path:
    """Writes JPEG files of smooth colours in class folders below train/, val/ and test/."""
    random = np.random.default_rng(0)
    for part, count in NUM_IMAGES.items():
        for label in range(NUM_CLASSES):
            place = folder / part / f"class_{label}"
            place.mkdir(parents=True)
            for number in range(count):
                few = Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8))
                few.resize((PHOTOGRAPH_SIZE, PHOTOGRAPH_SIZE)).save(place / f"{number}.jpg", quality=90)
    return folder


if __name__ == "__main__":
    main()
