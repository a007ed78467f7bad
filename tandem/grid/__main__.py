"""Runs every cell of a grid file: backbone x framework x regime x data set x seed, each in a process of its own.

    python -m tandem.grid configs/birds.yaml --dry_run
    python -m tandem.grid configs/birds.yaml
    python -m tandem.grid configs/birds.yaml --jobs 4

tandem/grid/file.py describes the file. Cells run one after the other; `--jobs` runs several at once, each with its
share of the GPUs and cores. A cell with a finished run in MLflow is skipped, so the same command continues an
interrupted grid. A cell that fails, or whose run is incomplete in MLflow, does not stop the others and is listed at the
end. Arguments after `--` are options of the training scripts, for all cells:

    python -m tandem.grid configs/birds.yaml -- --data.source ~/birds --precision bfloat16

`--keep_models` makes the runs log their weights and models; finished runs without them are run again.

`--budget small` is for a machine without a GPU: at most 10 images per class, one epoch per phase, batches of at most
16, random weights if ImageNet's cannot be downloaded, and no report on the data. It shows that a grid runs. Such runs
are tagged, and no table mixes them with full runs.

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
from tandem.grid.processes import LocalProcesses, Outcome, divide, num_cores
from tandem.grid.runner import Pool, run_cells
from tandem.launch.scripts import training_script
from tandem.launch.slurm import requeue_after
from tandem.protocol.frameworks import Framework
from tandem.protocol.gpus import visible_gpus
from tandem.rendering.tables import format_value

SMALL_BUDGET = (
    f"Small budget: at most {SMALL_IMAGES_PER_CLASS} images per class, {SMALL_MAX_EPOCHS} epoch per phase, batches of "
    f"at most {SMALL_BATCH_SIZE}, random weights if ImageNet's cannot be downloaded, no report on the data. It shows "
    "that the cells run; comparisons keep such runs in separate tables."
)

# Requested from Slurm if no option says otherwise; the script's lines can be edited.
SLURM_CPUS, SLURM_GPUS = 4, 1


def parse_arguments(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Options of the grid, and the arguments after `--`."""
    words = sys.argv[1:] if argv is None else argv
    end = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        prog="python -m tandem.grid",
        usage="python -m tandem.grid FILE [options] [-- OPTIONS OF THE TRAINING SCRIPTS]",
        description="Runs every cell of a grid file with train_torch.py and train_keras.py; skips\n"
        "cells with a finished run in MLflow.",
        epilog="examples:\n"
        "  python -m tandem.grid configs/birds.yaml --dry_run\n"
        "  python -m tandem.grid configs/birds.yaml --only resnet50 -- --device cpu",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_cell_options(parser)
    _add_machine_options(parser)
    arguments = parser.parse_args(words[:end])
    _check_machines(arguments, parser)
    return arguments, words[end + 1 :]


def _add_cell_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="grid file, such as configs/birds.yaml")
    parser.add_argument("--dry_run", action="store_true", help="print the cells with their commands and run none")
    parser.add_argument(
        "--budget",
        choices=("full", "small"),
        default="full",
        help=f"small is for a machine without a GPU: {SMALL_IMAGES_PER_CLASS} images per class and {SMALL_MAX_EPOCHS} "
        "epoch; --dry_run lists all changes (default: %(default)s)",
    )
    parser.add_argument(
        "--frameworks", choices=("both", *FRAMEWORKS), help="frameworks for all cells, in place of those in the file"
    )
    parser.add_argument(
        "--with",
        dest="optional",
        nargs="+",
        default=[],
        metavar="NAME",
        help="also the cells of these optional blocks of the file, which --dry_run lists",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="WORD",
        help="only cells whose name has all of these words, for example: --only resnet50 keras",
    )
    parser.add_argument("--cell", type=int, metavar="NUMBER", help="only the cell with this number in --dry_run")
    parser.add_argument(
        "--keep_models",
        action="store_true",
        help="let each run log its trained weights and its model (default: neither); cells whose finished run lacks "
        "them are run again",
    )
    parser.add_argument(
        "--tracking.uri",
        dest="tracking_uri",
        help="MLflow tracking URI (default: MLFLOW_TRACKING_URI, else the sqlite file mlflow.db in this folder)",
    )


def _add_machine_options(parser: argparse.ArgumentParser) -> None:
    machines = parser.add_argument_group("where cells run (default: on this machine)")
    machines.add_argument(
        "--jobs",
        type=_at_least(1, int),
        help="maximum number of cells at once; on this machine each has an equal share of GPUs and cores (default: 1; "
        "on Ray and Slurm, as many as fit)",
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
        help="cores per cell, and its threads unless its settings give them (default: its share of the machine; "
        f"Slurm: {SLURM_CPUS})",
    )
    machines.add_argument(
        "--gpus_per_cell",
        type=_at_least(0, float),
        help="GPUs per cell on Ray and Slurm; below 1, cells share a GPU on Ray (default on Ray: 1 if there are any; "
        f"Slurm: {SLURM_GPUS})",
    )

    machines.add_argument(
        "--requeue",
        action="store_true",
        help="in a job of Slurm: after SIGUSR1, end the running cells with a checkpoint and put the job back into the "
        "queue; the scripts of --slurm do so",
    )


def _at_least(low: int, kind: type[int] | type[float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        if (value := kind(text)) < low:
            raise argparse.ArgumentTypeError(f"received {text}, allowed: {low} or more")
        return value

    return read


def _check_machines(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    gpus = arguments.gpus_per_cell
    if gpus is not None and not (arguments.ray or arguments.slurm):
        parser.error("--gpus_per_cell is for --ray and --slurm; on this machine --jobs divides the visible GPUs")
    if gpus is not None and gpus != int(gpus) and (gpus > 1 or arguments.slurm):
        allowed = "whole numbers" + (" and shares of one GPU, such as 0.5" if arguments.ray else "")
        parser.error(f"--gpus_per_cell: received {gpus:g}, allowed: {allowed}")
    if arguments.slurm and arguments.dry_run:
        parser.error("--slurm writes a script and --dry_run only prints: give one of the two")


def main(argv: list[str] | None = None) -> None:
    arguments, more_options = parse_arguments(argv)
    chosen: dict[str | None, Sequence[Framework] | None] = {None: None, "both": FRAMEWORKS}
    grid = read_grid(
        arguments.file,
        frameworks=chosen.get(arguments.frameworks, (arguments.frameworks,)),
        optional=arguments.optional,
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
        return
    try:
        is_complete = run_grid(waiting, open_pool(waiting, arguments, num_cells=len(cells)), console)
    except KeyboardInterrupt as error:
        if arguments.requeue:
            requeue_after(error)
        raise
    if not is_complete:
        sys.exit(1)


def choose(cells: Sequence[GridCell], words: Sequence[str], number: int | None) -> list[GridCell]:
    """Cells whose names have all of these words, or the one of them with this number.

    Raises:
        UserError: There is no such cell.
    """
    chosen = [cell for cell in cells if set(words) <= set(cell.name.split())]
    if not chosen:
        raise UserError(
            f"--only: received {' '.join(words)}, but no cell's name has all of these words; the first cell is "
            f"{cells[0].name}, and --dry_run without --only lists all cells"
        )
    if number is None:
        return chosen
    if not (one := [cell for cell in chosen if cell.number == number]):
        raise UserError(
            f"--cell: received {number}, allowed: {chosen[0].number} to {chosen[-1].number}, as --dry_run lists them"
        )
    return one


# ------------------------------------------------------------------------------------------------------------ the cells


def print_cells(cells: Sequence[GridCell], grid: Grid, budget: str, console: Console) -> None:
    """Prints each cell's name and the command that runs it alone."""
    # imports MLflow, which takes seconds: --help and invalid settings are answered without it
    from tandem.grid.finished import finished_cells

    finished: set[int] = set()
    note = None
    try:
        finished = finished_cells(cells)
    except UserError as error:  # for example, the first run has not created the store yet
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
    if grid.left_out:
        console.print(f"Optional cells, with --with: {', '.join(grid.left_out)}")
    for name, words in grid.missing.items():
        console.print(f"To be given after --: --{name}, {words}")


# ------------------------------------------------------------------------------------------------------------- the runs


def prepare(cells: Sequence[GridCell], console: Console) -> list[GridCell]:
    """Cells that are not finished; problems with MLflow are reported before any cell runs.

    Raises:
        UserError: MLflow does not answer.
    """
    from tandem.grid.finished import finished_cells, prepare_experiments, wait_for_earlier_attempts

    prepare_experiments(cells)
    wait_for_earlier_attempts(cells)
    finished = finished_cells(cells)
    waiting = [cell for cell in cells if cell.number not in finished]
    if len(waiting) < len(cells):
        console.print(f"{len(cells) - len(waiting)} of {len(cells)} cells are finished and skipped")
    return waiting


def open_pool(cells: Sequence[GridCell], arguments: argparse.Namespace, *, num_cells: int) -> Pool:
    """Pool that runs the cells: this machine or a Ray cluster.

    Args:
        cells: The cells to run.
        arguments: The program's.
        num_cells: Number of all cells, finished ones included: each then has the threads that it had before an
            interruption, which a cell needs to continue its run.

    Raises:
        UserError: Ray is not installed, there is no such cluster, or one of its machines cannot run cells.
    """
    cpus = arguments.cpus_per_cell
    if arguments.ray is None:
        return LocalProcesses(divide(min(arguments.jobs or 1, num_cells), visible_gpus(), num_cores(), threads=cpus))
    if importlib.util.find_spec("ray") is None:
        raise UserError("--ray needs Ray, which is not installed: pip install ray")
    from tandem.grid.ray_cluster import RayTasks

    return RayTasks(arguments.ray, cells, jobs=arguments.jobs, gpus=arguments.gpus_per_cell, cpus=cpus)


def write_array_job(
    cells: Sequence[GridCell], arguments: argparse.Namespace, more_options: Sequence[str], console: Console
) -> None:
    """Writes the script of an array job and prints how to submit it.

    Raises:
        UserError: Other machines cannot reach the tracking URI of the cells, or the file cannot be written.
    """
    from tandem.grid.machines import check_stores
    from tandem.grid.processes import log_file
    from tandem.grid.slurm import MAX_ARRAY_SIZE, array_script, shift_of, write_script

    check_stores(cells)
    words = [str(arguments.file), "--budget", arguments.budget]
    words += ["--frameworks", arguments.frameworks] if arguments.frameworks else []
    words += ["--with", *arguments.optional] if arguments.optional else []
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
    log_file(cells[0]).parent.mkdir(parents=True, exist_ok=True)  # Slurm does not create the folder of a job's output
    console.print(
        f"{arguments.slurm}: {len(cells)} cells; edit the lines marked as yours, then: sbatch {arguments.slurm}"
    )
    highest = cells[-1].number - shift_of(cells)
    if highest >= MAX_ARRAY_SIZE:
        console.print(
            f"Slurm accepts array indices below its MaxArraySize, {MAX_ARRAY_SIZE} by default: received {highest}; see "
            "`scontrol show config`, and write parts of the grid with --only"
        )


def run_grid(waiting: Sequence[GridCell], pool: Pool, console: Console) -> bool:
    """Runs cells and prints a summary.

    Returns:
        True if no cell failed and the runs of all cells are complete in MLflow.

    Raises:
        UserError: A cell cannot be started.
        Interrupted: On Ctrl-C, SIGTERM, SIGHUP or SIGUSR1, once the running cells have ended.
    """
    if words := pool.describe():
        console.print(words)
    outcomes: list[Outcome] = []
    start = time.perf_counter()
    try:
        for outcome in run_cells(waiting, pool, console):
            outcomes.append(outcome)
    except KeyboardInterrupt:
        console.print("Interrupted: the same command continues with the unfinished cells")
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
                console.print(f"    its output: {outcome.log}")
    return report_incomplete_runs(outcomes, console) and not failed


def report_incomplete_runs(outcomes: Sequence[Outcome], console: Console) -> bool:
    """Prints the cells that succeeded but whose runs are missing or incomplete in MLflow.

    If MLflow stops answering, a script continues, keeps everything in the run's journal, and ends with exit status 0.

    Returns:
        True if the runs of all cells that succeeded are complete in MLflow.
    """
    from tandem.grid.finished import count_finished_runs

    succeeded = [outcome for outcome in outcomes if outcome.status == 0]
    num_runs: dict[int, int] = {}
    try:
        num_runs = count_finished_runs([outcome.cell for outcome in succeeded])
    except UserError as error:
        console.print(f"The runs in MLflow could not be checked: {error}")
    complete = True
    for outcome in succeeded:
        command, number = outcome.replay_command, num_runs.get(outcome.cell.number, 0)
        if number > 1:  # on two machines, one of which was considered lost
            console.print(
                f"finished {number} times: {outcome.cell.number} {outcome.cell.name}; delete all runs but one"
            )
        if command is None and number:
            continue
        complete = False
        console.print(f"incomplete in MLflow: {outcome.cell.number} {outcome.cell.name}")
        console.print(f"    send the rest: {command}" if command else "    it has no finished run there")
        console.print(f"    its output: {outcome.log}")
    return complete


if __name__ == "__main__":
    run_program("tandem.grid", main)
