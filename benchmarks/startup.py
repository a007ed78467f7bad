"""Time from the command to the first batch, compared with importing the framework and building the model.

    python -m benchmarks.startup

Starts in turn `train_X.py --help`, a run on the digits that ends with its first batch (its images are stored and its
tracking store exists), and a program that only imports the framework and builds the same network. Times are elapsed and
processor time, which other work on the machine affects less. docs/performance.md has results.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tandem.data.console import num_cores
from tandem.launch.scripts import training_script

FRAMEWORKS = ("torch", "keras")
BACKBONE = "mobilenet_v2"

BARE = {
    "torch": """
import pytorch_lightning, torch, torchvision
torchvision.models.mobilenet_v2(num_classes=10)
""",
    "keras": """
import keras
keras.Sequential([keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(64, 64, 3)),
    keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)])
""",
}

# Runs the script until it would use its first batch in a training step.
UNTIL_FIRST_BATCH = """
import os, runpy, sys
script = sys.argv.pop(1)
sys.argv[0] = script
import tandem.data.stream as stream
make = stream.Stream.batch
def batch(*arguments):
    make(*arguments)
    sys.stdout.flush()
    os._exit(0)
stream.Stream.batch = batch
runpy.run_path(script, run_name="__main__")
"""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measures the time until the training scripts begin to train.")
    parser.add_argument("--framework", choices=FRAMEWORKS, help="one framework (default: both)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds for the median (default: %(default)s)")
    arguments = parser.parse_args(argv)
    print(f"{num_cores()} cores; seconds: median (least to most) of {arguments.rounds} rounds")
    print(f"{'':17} {'--help':>22}{'first batch':>22}{'bare':>22}  first batch / bare")
    for framework in [arguments.framework] if arguments.framework else FRAMEWORKS:
        with tempfile.TemporaryDirectory(prefix="tandem-benchmark-") as folder:
            measure(framework, arguments.rounds, Path(folder))


def measure(framework: str, rounds: int, folder: Path) -> None:
    """Prints a framework's line."""
    script = str(training_script(framework))
    words = [f"--backbone={BACKBONE}", "--weights=random", "--data.image_size=64", f"--data.cache_folder={folder}"]
    to_first_batch = ["-c", UNTIL_FIRST_BATCH, script, *words]
    programs = {"help": [script, "--help"], "first batch": to_first_batch, "bare": ["-c", BARE[framework]]}
    for program in programs.values():  # fills the store, MLflow's and the machine's caches
        seconds_of(program, folder)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            seconds[name].append(seconds_of(program, folder))
    for kind, index in (("clock", 0), ("processors", 1)):
        measured = {name: [pair[index] for pair in pairs] for name, pairs in seconds.items()}
        columns = "".join(
            f"{statistics.median(s):8.2f} {f'({min(s):.2f}-{max(s):.2f})':>13}" for s in measured.values()
        )
        ratios = [run / bare for run, bare in zip(measured["first batch"], measured["bare"], strict=True)]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        print(f"{framework:6} {kind:10} {columns}  {ratio}", flush=True)


def seconds_of(program: list[str], folder: Path) -> tuple[float, float]:
    """Elapsed and processor seconds of a Python program in a folder."""
    root = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3"}
    start, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, *program], cwd=folder, env=environment, check=True, capture_output=True)
    after = os.times()
    worked = after.children_user - before.children_user + after.children_system - before.children_system
    return time.perf_counter() - start, worked


if __name__ == "__main__":
    main()
