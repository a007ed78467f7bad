"""The demonstration: transfer from one task to another, in four regimes and both frameworks, and their comparison.

    python -m tandem.launch.demo

Source task: digits 0 to 4, from scratch. Target task: digits 5 to 9 with twenty training images per class, from the
source run's weights. A framework's runs follow one another; the two frameworks run side by side with one thread each.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from tandem.errors import UserError, run_program
from tandem.launch.scripts import start_process, training_command
from tandem.tracking import vocabulary
from tandem.tracking.reader import read_runs

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs" / "demo"
FRAMEWORKS = ("torch", "keras")
REGIMES = ("scratch", "frozen", "two_stage", "finetune")
SOURCE_EXPERIMENT, TARGET_EXPERIMENT = "demo-source", "demo"
LOG_FOLDER = Path("demo")
PROGRAM = "python -m tandem.launch.demo"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Trains MobileNetV2 on handwritten digits in four regimes and both frameworks, and compares the "
        "runs. It takes under five minutes on two CPU cores and writes to the current folder.",
    )
    parser.parse_args(argv)
    LOG_FOLDER.mkdir(exist_ok=True)
    console = Console()
    console.print(
        f"{len(FRAMEWORKS)} frameworks, each with a source task and {len(REGIMES)} regimes; the runs' output goes to "
        f"{LOG_FOLDER}/"
    )
    start = time.perf_counter()
    with ThreadPoolExecutor(len(FRAMEWORKS)) as pool:
        for future in [pool.submit(run_framework, framework, console) for framework in FRAMEWORKS]:
            future.result()
    console.print(f"all runs finished in {time.perf_counter() - start:.0f} s")
    compare = [sys.executable, str(ROOT / "compare.py"), "--experiment", TARGET_EXPERIMENT]
    subprocess.run([*compare, "--html", "comparison/report.html"], check=True)


def run_framework(framework: str, console: Console) -> None:
    """Runs the source task, unless an earlier demonstration here has done so, then the target task in each regime."""
    source = latest_run(framework)
    if source is None:
        run_cell(framework, "source", ["--config", f"{CONFIGS / 'source.yaml'}"], console)
        source = latest_run(framework)
    for regime in REGIMES:
        run_cell(framework, regime, target_options(regime, source), console)


def target_options(regime: str, source: str | None) -> list[str]:
    """Words of the command line for the target task in a regime, from the weights of a source run."""
    return ["--config", f"{CONFIGS / 'target.yaml'}", "--regime", regime, "--weights", f"runs:/{source}"]


def run_cell(framework: str, name: str, arguments: list[str], console: Console) -> None:
    """Runs one training script in a process of its own.

    Raises:
        UserError: The script failed; the message says where its output is.
    """
    log = LOG_FOLDER / f"{framework}_{name}.log"
    start = time.perf_counter()
    # two processes on two cores: with more threads than cores torch is many times slower
    command = training_command(framework, [*arguments, "--threads", "1"])
    with log.open("wb") as output:
        # in the terminal's group, whose Ctrl-C ends both frameworks: a thread that waits cannot be interrupted
        status = start_process(command, output=output, own_session=False).wait()
    if status != 0:
        raise UserError(f"{framework} {name} ended with exit status {status}; its output is in {log}")
    console.print(f"{framework:>6} {name:<10} {time.perf_counter() - start:4.0f} s")


def latest_run(framework: str) -> str | None:
    """Id of the framework's latest finished run of the source task; None if there is none."""
    try:
        runs = read_runs(None, SOURCE_EXPERIMENT)
    except UserError:  # nothing has been recorded here yet
        return None
    own = [run for run in runs if run.status == "FINISHED" and run.tags[vocabulary.FRAMEWORK] == framework]
    return max(own, key=lambda run: run.start_time).run_id if own else None


if __name__ == "__main__":
    run_program(PROGRAM, main)
