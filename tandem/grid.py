"""Runs every cell of a grid: backbone x framework x regime x data set x seed, each in a process of its own.

    python -m tandem.grid configs/birds.yaml --dry_run
    python -m tandem.grid configs/birds.yaml

What is in the file is described in tandem/grid_file.py. Cells run one after the other. One whose finished run is in
MLflow already is skipped, so the same command goes on where it was interrupted; one that fails, or that MLflow has not
taken, is named at the end, and the others run nevertheless. Words after `--` are options of the training scripts, for
all cells:

    python -m tandem.grid configs/birds.yaml -- --data.source ~/birds --precision bfloat16

`--keep_models` lets the runs log their weights and models; finished ones that have not are run again.

`--budget small` is for a machine without a GPU: at most 10 images a class, one epoch a phase, batches of 16 at most,
random weights where ImageNet's cannot be had, and no report on the data. It shows that a grid runs; such runs are
tagged, and no table has them beside others.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tandem.errors import UserError, run_program
from tandem.grid_file import (
    FRAMEWORKS,
    SMALL_BATCH_SIZE,
    SMALL_IMAGES_PER_CLASS,
    SMALL_MAX_EPOCHS,
    Grid,
    GridCell,
    not_given,
    read_grid,
)
from tandem.grid_runner import Outcome, last_line, replay_command, run_cells
from tandem.protocol.parser import KERAS_BACKENDS, Framework
from tandem.protocol.settings import flatten
from tandem.report.tables import format_value
from tandem.scripts import training_script

SMALL_BUDGET = (
    f"Small budget: at most {SMALL_IMAGES_PER_CLASS} images a class, {SMALL_MAX_EPOCHS} epoch a phase, batches of "
    f"{SMALL_BATCH_SIZE} at most, random weights where ImageNet's cannot be had, no report on the data. It shows that "
    "the cells run; comparisons keep such runs in tables of their own."
)

Identity = tuple[str, str, str, str]
"""Framework, what computes, hash of the settings and budget: equal for a cell and its run."""

# What a run leaves only where it is told to, and a cell that asks for it has to have.
_KEPT = ("tracking.log_model", "tracking.log_weights")


def parse_arguments(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The grid's own options, and the words after `--`."""
    words = sys.argv[1:] if argv is None else argv
    end = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        prog="python -m tandem.grid",
        description="Runs every cell of a grid file by train_torch.py and train_keras.py, one after the other, and "
        "skips those whose finished run is in MLflow.",
        epilog="Options of the training scripts, for all cells, follow after --: ... -- --device cpu --threads 2",
        allow_abbrev=False,
    )
    parser.add_argument("file", type=Path, help="grid file, such as configs/birds.yaml")
    parser.add_argument("--dry_run", action="store_true", help="print the cells with their commands, and run none")
    parser.add_argument(
        "--budget",
        choices=("full", "small"),
        default="full",
        help=f"small is for a machine without a GPU: {SMALL_IMAGES_PER_CLASS} images a class and {SMALL_MAX_EPOCHS} "
        "epoch; --dry_run says the rest (default: %(default)s)",
    )
    parser.add_argument(
        "--frameworks",
        choices=("both", *FRAMEWORKS),
        help="run each cell in these instead of those that the file names",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="WORD",
        help="only the cells whose name has all of these words, for example: --only resnet50 keras",
    )
    parser.add_argument(
        "--keep_models",
        action="store_true",
        help="let each run log its trained weights and its model, which are not logged otherwise; cells whose finished "
        "run has not are run again",
    )
    parser.add_argument(
        "--tracking.uri",
        dest="tracking_uri",
        help="MLflow tracking URI; when not given, MLFLOW_TRACKING_URI, else the sqlite file mlflow.db in this folder",
    )
    return parser.parse_args(words[:end]), words[end + 1 :]


def main(argv: list[str] | None = None) -> None:
    arguments, more_options = parse_arguments(argv)
    chosen: dict[str | None, Sequence[Framework] | None] = {None: None, "both": FRAMEWORKS}
    grid = read_grid(
        arguments.file,
        frameworks=chosen.get(arguments.frameworks, (arguments.frameworks,)),
        budget=arguments.budget,
        keep_models=arguments.keep_models,
        tracking_uri=arguments.tracking_uri,
        more_options=more_options,
    )
    cells = [cell for cell in grid.cells if set(arguments.only) <= set(cell.name.split())]
    if not cells:
        raise UserError(
            f"--only: received {' '.join(arguments.only)}, but no cell's name has all of these words; the first is "
            f"{grid.cells[0].name}, and --dry_run without --only shows them all"
        )
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    if arguments.dry_run:
        print_cells(cells, grid, arguments.budget, console)
        return
    if grid.missing:
        raise not_given(arguments.file, *next(iter(grid.missing.items())))
    if arguments.budget == "small":
        console.print(SMALL_BUDGET)
    if not run_grid(cells, console):
        sys.exit(1)


# ------------------------------------------------------------------------------------------------------------ the cells


def print_cells(cells: Sequence[GridCell], grid: Grid, budget: str, console: Console) -> None:
    """Each cell's name and the command that runs it alone."""
    finished: set[int] = set()
    note = None
    try:
        finished = finished_cells(cells)
    except UserError as error:  # of a store that is made by the first run, for example
        note = f"None counts as finished: {error}"
    for cell in cells:
        console.print(f"{cell.number} {cell.name}{' [finished]' if cell.number in finished else ''}")
        script = os.path.relpath(training_script(cell.framework))
        console.print(f"    {shlex.join(['python', script, *cell.options])}")
    counts = [(name, sum(cell.framework == name for cell in cells)) for name in FRAMEWORKS]
    console.print(
        f"{len(cells)} cells ({', '.join(f'{count} {name}' for name, count in counts)}), {len(finished)} finished"
    )
    if note:
        console.print(note)
    if budget == "small":
        console.print(SMALL_BUDGET)
    for name, words in grid.missing.items():
        console.print(f"Still to be given, after --: --{name}, {words}")


def identity_of(cell: GridCell) -> Identity:
    """What the run of a cell is found by."""
    # MLflow, which it imports, takes seconds: --help and wrong settings shall not wait for it
    from tandem.tracking.provenance import settings_hash

    backend = os.environ.get("KERAS_BACKEND", KERAS_BACKENDS[0]) if cell.framework == "keras" else "torch"
    return cell.framework, backend, settings_hash(cell.settings), cell.settings.tracking.budget


def finished_cells(cells: Sequence[GridCell]) -> set[int]:
    """The numbers of the cells with a finished run that has logged its weights and its model if the cell is to.

    Raises:
        UserError: MLflow does not answer.
    """
    from tandem.tracking import vocabulary
    from tandem.tracking.reader import NoRuns, read_runs

    kept: dict[Identity, list[set[str]]] = defaultdict(list)
    for uri, experiment in {(cell.settings.tracking.uri, cell.settings.tracking.experiment) for cell in cells}:
        try:
            runs = read_runs(uri, experiment)
        except NoRuns:
            continue
        names = (vocabulary.FRAMEWORK, vocabulary.BACKEND, vocabulary.SETTINGS_HASH)
        for run in runs:
            if run.status == "FINISHED":
                framework, backend, settings = (run.tags.get(name, "") for name in names)
                identity = framework, backend, settings, run.tags.get(vocabulary.BUDGET, "full")
                kept[identity].append({name for name in _KEPT if run.params.get(name) == "true"})
    finished = set()
    for cell in cells:
        asked = {name for name in _KEPT if flatten(cell.settings)[name]}
        if any(asked <= of_run for of_run in kept[identity_of(cell)]):
            finished.add(cell.number)
    return finished


def prepare_experiments(cells: Sequence[GridCell]) -> None:
    """Makes the cells' experiments where there are none, so that what is wrong with MLflow is said before all runs."""
    from tandem.tracking.mlflow_store import connect, find_or_create_experiment, resolve_uri

    for uri, experiment in {(cell.settings.tracking.uri, cell.settings.tracking.experiment) for cell in cells}:
        find_or_create_experiment(connect(resolve_uri(uri)), experiment)


# ------------------------------------------------------------------------------------------------------------- the runs


def run_grid(cells: Sequence[GridCell], console: Console) -> bool:
    """Runs the cells that are not finished, and says what became of them.

    Returns:
        Whether none failed, and MLflow has everything of the others.

    Raises:
        UserError: MLflow does not answer.
        KeyboardInterrupt: On Ctrl-C, SIGTERM or SIGHUP, once the running cell has ended.
    """
    prepare_experiments(cells)
    finished = finished_cells(cells)
    waiting = [cell for cell in cells if cell.number not in finished]
    if len(waiting) < len(cells):
        console.print(f"{len(cells) - len(waiting)} of {len(cells)} cells are finished already and skipped")
    if not waiting:
        return True
    outcomes: list[Outcome] = []
    start = time.perf_counter()
    try:
        for outcome in run_cells(waiting, console):
            outcomes.append(outcome)
    except KeyboardInterrupt:
        console.print("Interrupted: the same command goes on with the cells that are not finished")
        raise
    finally:
        failed = [outcome for outcome in outcomes if outcome.status != 0]
        console.print(
            f"{len(outcomes) - len(failed)} cells finished in {format_value(time.perf_counter() - start, 'seconds')}, "
            f"{len(failed)} failed, {len(waiting) - len(outcomes)} left"
        )
        for outcome in failed:
            console.print(f"failed: {outcome.cell.number} {outcome.cell.name}, exit status {outcome.status}")
            console.print(f"    {last_line(outcome.log)}")
            console.print(f"    all of its output: {outcome.log}")
    return say_what_is_not_in_mlflow(outcomes, console) and not failed


def say_what_is_not_in_mlflow(outcomes: Sequence[Outcome], console: Console) -> bool:
    """Names the cells that ended well and of which MLflow lacks the run, its end or some of what it logged.

    A script whose MLflow goes away trains on, keeps all of it in the run's journal, and ends with exit status 0.

    Returns:
        Whether MLflow has everything.
    """
    ended_well = [outcome for outcome in outcomes if outcome.status == 0]
    finished: set[int] = set()
    try:
        finished = finished_cells([outcome.cell for outcome in ended_well])
    except UserError as error:
        console.print(f"Which runs are in MLflow cannot be told: {error}")
    complete = True
    for outcome in ended_well:
        command = replay_command(outcome.log)
        if command is None and outcome.cell.number in finished:
            continue
        complete = False
        console.print(f"not all in MLflow: {outcome.cell.number} {outcome.cell.name}")
        console.print(f"    send the rest: {command}" if command else "    it has no finished run there")
        console.print(f"    all of its output: {outcome.log}")
    return complete


if __name__ == "__main__":
    run_program("tandem.grid", main)
