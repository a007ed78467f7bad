"""Peak anonymous memory of a training process with 10,000 images against 2,000, and its growth over epochs.

    python -m benchmarks.memory

Each training script trains from scratch on a folder of generated 32 x 32 images, as whole runs: scan, store, training,
evaluation, report, MLflow. RssAnon (allocated memory; pages of the memory-mapped store do not count) is read from /proc
every 20 ms. `growth` is the ratio to the run with the fewest images. `epochs` is the growth from the end of the second
epoch to the end of the last one. Linux only. docs/performance.md has results.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mlflow.tracking import MlflowClient
from PIL import Image

from tandem.data.console import num_cores
from tandem.tracking import vocabulary

ROOT = Path(__file__).resolve().parents[1]
SIDE = 32
NUM_CLASSES = 10
SECONDS_BETWEEN_SAMPLES = 0.02
SETTLED_EPOCH = 1  # during the first epoch, memory still grows as buffers are allocated


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Samples of a process's anonymous memory."""

    milliseconds: list[float] = field(default_factory=list)
    """Seconds since 1970."""
    megabytes: list[float] = field(default_factory=list)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measures the memory of training with more and with fewer images.")
    parser.add_argument("--frameworks", nargs="+", choices=("torch", "keras"), default=["torch", "keras"])
    parser.add_argument("--images", type=int, nargs="+", default=[2000, 10_000], help="numbers of images, ascending")
    parser.add_argument("--epochs", type=int, default=4, help="epochs per run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="runs per row (default: %(default)s)")
    parser.add_argument("--backbone", default="mobilenet_v2", help="(default: %(default)s)")
    arguments = parser.parse_args(argv)
    print(f"{platform.processor() or platform.machine()}, {num_cores()} cores; {arguments.backbone}, {SIDE} x {SIDE}")
    print(f"{'script':>7} {'images':>8} {'peak MB':>9} {'growth':>7} {'training MB':>12} {'growth':>7} {'epochs':>9}")
    with tempfile.TemporaryDirectory(prefix="tandem-benchmark-") as folder:
        for count in arguments.images:
            write_images(Path(folder) / str(count), count)
        for framework in arguments.frameworks:
            for number in range(arguments.rounds):
                fewest: tuple[float, float] | None = None
                for count in arguments.images:
                    work = Path(folder) / f"{framework}-{count}-{number}"
                    memory = train(framework, Path(folder) / str(count), work, arguments.backbone, arguments.epochs)
                    ends = epoch_ends(work)
                    peak, training = max(memory.megabytes), at(memory, ends[-1])
                    fewest = fewest or (peak, training)
                    growth = training / at(memory, ends[SETTLED_EPOCH]) - 1
                    print(
                        f"{framework:>7} {count:8,} {peak:9,.0f} {peak / fewest[0]:7.2f} {training:12,.0f} "
                        f"{training / fewest[1]:7.2f} {growth:9.1%}",
                        flush=True,
                    )


def write_images(folder: Path, count: int) -> None:
    """Writes PNG files in class folders: a colour per class, with noise."""
    random = np.random.default_rng(0)
    for class_index in range(NUM_CLASSES):
        (folder / f"class_{class_index}").mkdir(parents=True)
        color = random.integers(0, 156, 3)
        for index in range(count // NUM_CLASSES):
            pixels = (color + random.integers(0, 100, (SIDE, SIDE, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"class_{class_index}" / f"{index:05}.png")


def train(framework: str, images: Path, work: Path, backbone: str, num_epochs: int) -> Memory:
    """Samples the memory of one run of a training script."""
    work.mkdir()
    settings = {
        "backbone": backbone,
        "weights": "random",
        "regime": "scratch",
        "max_epochs": num_epochs,
        "batch_size": 64,
        "early_stopping.patience": "null",
        "data.source": images,
        "data.image_size": SIDE,
        "data.cache_folder": work / "cache",
        "tracking.uri": f"sqlite:///{work}/mlflow.db",
    }
    options = [f"--{name}={value}" for name, value in settings.items()]
    memory = Memory()
    with (work / "output.txt").open("w") as output:
        script = subprocess.Popen(
            [sys.executable, str(ROOT / f"train_{framework}.py"), *options],
            cwd=work,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        while script.poll() is None:
            if (megabytes := anonymous_megabytes(script.pid)) is not None:
                memory.milliseconds.append(time.time() * 1000)
                memory.megabytes.append(megabytes)
            time.sleep(SECONDS_BETWEEN_SAMPLES)
    if script.returncode:
        sys.exit(f"train_{framework}.py failed:\n" + (work / "output.txt").read_text()[-2000:])
    return memory


def anonymous_megabytes(pid: int) -> float | None:
    """RssAnon of a process; None after its end."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    lines = [line.split() for line in status.splitlines() if line.startswith("RssAnon")]
    return float(lines[0][1]) / 1000 if lines else None


def epoch_ends(work: Path) -> list[float]:
    """End of each epoch of the only run in a folder's store, in milliseconds since 1970."""
    client = MlflowClient(f"sqlite:///{work}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = [run for run in client.search_runs(experiments) if vocabulary.FRAMEWORK in run.data.tags]
    return sorted(value.timestamp for value in client.get_metric_history(runs[0].info.run_id, vocabulary.VAL_LOSS))


def at(memory: Memory, milliseconds: float) -> float:
    """Megabytes at a time."""
    return float(np.interp(milliseconds, memory.milliseconds, memory.megabytes))


if __name__ == "__main__":
    main()
