"""Runs every cell of a grid: backbone x framework x regime x data set x seed, each in a process of its own.

    python -m tandem.grid configs/birds.yaml --dry_run
    python -m tandem.grid configs/birds.yaml
    python -m tandem.grid configs/birds.yaml --jobs 4

What is in the file is described in tandem/grid/file.py. Cells run one after the other, with `--jobs` several at once,
each with its share of the GPUs and cores. One whose finished run is in MLflow already is skipped, so the same command
goes on where it was interrupted; one that fails, or that MLflow has not taken, is named at the end, and the others run
nevertheless. Words after `--` are options of the training scripts, for all cells:

    python -m tandem.grid configs/birds.yaml -- --data.source ~/birds --precision bfloat16

`--keep_models` lets the runs log their weights and models; finished ones that have not are run again.

`--budget small` is for a machine without a GPU: at most 10 images a class, one epoch a phase, batches of 16 at most,
random weights where ImageNet's cannot be had, and no report on the data. It shows that a grid runs; such runs are
tagged, and no table has them beside others.

On several machines, with an MLflow server that all of them reach (docs/scale.md):

    python -m tandem.grid configs/birds.yaml --ray auto --tracking.uri http://HOST:5000
    python -m tandem.grid configs/birds.yaml --slurm birds.sh --tracking.uri http://HOST:5000
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from tandem.errors import UserError, run_program
from tandem.grid.file import (
    FRAMEWORKS,
    SMALL_BATCH_SIZE,
    SMALL_IMAGES_PER_CLASS,
    SMALL_MAX_EPOCHS,
    Grid,
    GridCell,
    not_given,
    read_grid,
)
from tandem.grid.processes import LocalProcesses, Outcome, divide, num_cores, visible_gpus
from tandem.grid.runner import Pool, run_cells
from tandem.launch.scripts import training_script
from tandem.protocol.parser import Framework
from tandem.rendering.tables import format_value

SMALL_BUDGET = (
    f"Small budget: at most {SMALL_IMAGES_PER_CLASS} images a class, {SMALL_MAX_EPOCHS} epoch a phase, batches of "
    f"{SMALL_BATCH_SIZE} at most, random weights where ImageNet's cannot be had, no report on the data. It shows that "
    "the cells run; comparisons keep such runs in tables of their own."
)

# What Slurm is asked for where nothing is given: the script's lines are there to be edited.
SLURM_CPUS, SLURM_GPUS = 4, 1


def parse_arguments(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The grid's own options, and the words after `--`."""
    words = sys.argv[1:] if argv is None else argv
    end = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        prog="python -m tandem.grid",
        description="Runs every cell of a grid file by train_torch.py and train_keras.py, and skips "
        "those whose finished run is in MLflow.",
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
    parser.add_argument("--cell", type=int, metavar="NUMBER", help="only the cell with this number in --dry_run")
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
    machines = parser.add_argument_group("where cells run: on this machine, if nothing else is said")
    machines.add_argument(
        "--jobs",
        type=_at_least(1, int),
        help="at most so many cells at once; here each has its equal share of GPUs and cores (default: one, on Ray and "
        "Slurm as many as there is room for)",
    )
    elsewhere = machines.add_mutually_exclusive_group()
    elsewhere.add_argument(
        "--ray", metavar="ADDRESS", help="on a Ray cluster: auto, or HOST:PORT of its head (docs/scale.md)"
    )
    elsewhere.add_argument(
        "--slurm", type=Path, metavar="FILE", help="write the script of a Slurm array job instead of running cells"
    )
    machines.add_argument(
        "--cpus_per_cell",
        type=_at_least(1, int),
        help="a cell's cores, and its threads where its settings do not say (default: its share of the machine's; "
        f"Slurm: {SLURM_CPUS})",
    )
    machines.add_argument(
        "--gpus_per_cell",
        type=_at_least(0, float),
        help=f"a cell's GPUs on Ray (below 1, several share one; default: 1 if there are any) and Slurm ({SLURM_GPUS})",
    )
    arguments = parser.parse_args(words[:end])
    _check_machines(arguments, parser)
    return arguments, words[end + 1 :]


def _at_least(low: int, kind: type[int] | type[float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        if (value := kind(text)) < low:
            raise argparse.ArgumentTypeError(f"received {text}, allowed: {low} or more")
        return value

    return read


def _check_machines(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    gpus = arguments.gpus_per_cell
    if gpus is not None and not (arguments.ray or arguments.slurm):
        parser.error("--gpus_per_cell is for --ray and --slurm; here --jobs divides the GPUs that are visible")
    if gpus is not None and gpus != int(gpus) and (gpus > 1 or arguments.slurm):
        allowed = "whole numbers" + (" and shares of one GPU, such as 0.5" if arguments.ray else "")
        parser.error(f"--gpus_per_cell: received {gpus:g}, allowed: {allowed}")
    if arguments.slurm and arguments.dry_run:
        parser.error("--slurm writes a script and --dry_run only prints: give one of them")


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
    cells = choose(grid.cells, arguments.only, arguments.cell)
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    if arguments.dry_run:
        print_cells(cells, grid, arguments.budget, console)
        return
    if grid.missing:
        raise not_given(arguments.file, *next(iter(grid.missing.items())))
    if arguments.budget == "small":
        console.print(SMALL_BUDGET)
    waiting = prepare(cells, console)
    if not waiting:
        return
    if arguments.slurm:
        write_array_job(waiting, arguments, more_options, console)
    elif not run_grid(waiting, open_pool(waiting, arguments), console):
        sys.exit(1)


def choose(cells: Sequence[GridCell], words: Sequence[str], number: int | None) -> list[GridCell]:
    """The cells whose names have all of these words, and the one with this number.

    Raises:
        UserError: There is none.
    """
    chosen = [cell for cell in cells if set(words) <= set(cell.name.split())]
    if not chosen:
        raise UserError(
            f"--only: received {' '.join(words)}, but no cell's name has all of these words; the first is "
            f"{cells[0].name}, and --dry_run without --only shows them all"
        )
    if number is None:
        return chosen
    if not (one := [cell for cell in chosen if cell.number == number]):
        raise UserError(
            f"--cell: received {number}, allowed: {chosen[0].number} to {chosen[-1].number}, as --dry_run shows them"
        )
    return one


# ------------------------------------------------------------------------------------------------------------ the cells


def print_cells(cells: Sequence[GridCell], grid: Grid, budget: str, console: Console) -> None:
    """Each cell's name and the command that runs it alone."""
    # MLflow, which it imports, takes seconds: --help and wrong settings shall not wait for it
    from tandem.grid.finished import finished_cells

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


# ------------------------------------------------------------------------------------------------------------- the runs


def prepare(cells: Sequence[GridCell], console: Console) -> list[GridCell]:
    """The cells that are not finished; what is wrong with MLflow is said before any of them runs.

    Raises:
        UserError: MLflow does not answer.
    """
    from tandem.grid.finished import finished_cells, prepare_experiments

    prepare_experiments(cells)
    finished = finished_cells(cells)
    waiting = [cell for cell in cells if cell.number not in finished]
    if len(waiting) < len(cells):
        console.print(f"{len(cells) - len(waiting)} of {len(cells)} cells are finished already and skipped")
    return waiting


def open_pool(cells: Sequence[GridCell], arguments: argparse.Namespace) -> Pool:
    """Where the cells are to run.

    Raises:
        UserError: There is no Ray, no such cluster, or a machine of it cannot run cells.
    """
    cpus = arguments.cpus_per_cell
    if arguments.ray is None:
        return LocalProcesses(divide(min(arguments.jobs or 1, len(cells)), visible_gpus(), num_cores(), threads=cpus))
    if importlib.util.find_spec("ray") is None:
        raise UserError("--ray needs Ray, which is not installed: pip install ray")
    from tandem.grid.ray_cluster import RayTasks

    return RayTasks(arguments.ray, cells, jobs=arguments.jobs, gpus=arguments.gpus_per_cell, cpus=cpus)


def write_array_job(
    cells: Sequence[GridCell], arguments: argparse.Namespace, more_options: Sequence[str], console: Console
) -> None:
    """Writes the script of an array job and says how to submit it.

    Raises:
        UserError: The cells' runs would be recorded where only this machine can, or the file cannot be written.
    """
    from tandem.grid.machines import check_stores
    from tandem.grid.processes import log_file
    from tandem.grid.slurm import MAX_ARRAY_SIZE, array_script, shift_of, write_script

    check_stores(cells)
    words = [str(arguments.file), "--budget", arguments.budget]
    words += ["--frameworks", arguments.frameworks] if arguments.frameworks else []
    words += ["--keep_models"] if arguments.keep_models else []
    words += ["--tracking.uri", arguments.tracking_uri] if arguments.tracking_uri else []
    gpus = SLURM_GPUS if arguments.gpus_per_cell is None else int(arguments.gpus_per_cell)
    text = array_script(
        cells,
        [*words, *(["--", *more_options] if more_options else [])],
        jobs=arguments.jobs,
        cpus=arguments.cpus_per_cell or SLURM_CPUS,
        gpus=gpus,
    )
    write_script(arguments.slurm, text)
    log_file(cells[0]).parent.mkdir(parents=True, exist_ok=True)  # which Slurm does not make for a job's output
    console.print(
        f"{arguments.slurm}: {len(cells)} cells; look at the lines marked as yours, then: sbatch {arguments.slurm}"
    )
    highest = cells[-1].number - shift_of(cells)
    if highest >= MAX_ARRAY_SIZE:
        console.print(
            f"Slurm takes array indices below its MaxArraySize, {MAX_ARRAY_SIZE} unless it is set otherwise: received "
            f"{highest}; ask `scontrol show config`, and write parts of the grid with --only"
        )


def run_grid(waiting: Sequence[GridCell], pool: Pool, console: Console) -> bool:
    """Runs cells, and says what became of them.

    Returns:
        Whether none failed, and MLflow has everything of the others.

    Raises:
        UserError: A cell cannot be started.
        KeyboardInterrupt: On Ctrl-C, SIGTERM or SIGHUP, once the running cells have ended.
    """
    if words := pool.describe():
        console.print(words)
    outcomes: list[Outcome] = []
    start = time.perf_counter()
    try:
        for outcome in run_cells(waiting, pool, console):
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
            status = "lost" if outcome.status is None else f"exit status {outcome.status}"
            console.print(f"failed: {outcome.cell.number} {outcome.cell.name}, {status}")
            console.print(f"    {outcome.last_line}")
            if outcome.log:
                console.print(f"    all of its output: {outcome.log}")
    return say_what_is_not_in_mlflow(outcomes, console) and not failed


def say_what_is_not_in_mlflow(outcomes: Sequence[Outcome], console: Console) -> bool:
    """Names the cells that ended well and of which MLflow lacks the run, its end or some of what it logged.

    A script whose MLflow goes away trains on, keeps all of it in the run's journal, and ends with exit status 0.

    Returns:
        Whether MLflow has everything.
    """
    from tandem.grid.finished import count_finished_runs

    ended_well = [outcome for outcome in outcomes if outcome.status == 0]
    num_runs: dict[int, int] = {}
    try:
        num_runs = count_finished_runs([outcome.cell for outcome in ended_well])
    except UserError as error:
        console.print(f"Which runs are in MLflow cannot be told: {error}")
    complete = True
    for outcome in ended_well:
        command, number = outcome.replay_command, num_runs.get(outcome.cell.number, 0)
        if number > 1:  # two machines, one of which the other end had taken for lost
            console.print(
                f"finished {number} times: {outcome.cell.number} {outcome.cell.name}; delete all runs but one"
            )
        if command is None and number:
            continue
        complete = False
        console.print(f"not all in MLflow: {outcome.cell.number} {outcome.cell.name}")
        console.print(f"    send the rest: {command}" if command else "    it has no finished run there")
        console.print(f"    all of its output: {outcome.log}")
    return complete


if __name__ == "__main__":
    run_program("tandem.grid", main)
