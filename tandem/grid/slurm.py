"""A grid as an array job of Slurm: a script whose task N runs cell N, or cells further on where N has a limit."""

from __future__ import annotations

import itertools
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tandem.errors import UserError
from tandem.grid.file import GridCell
from tandem.grid.machines import ROOT
from tandem.grid.processes import log_file
from tandem.tracking import vocabulary
from tandem.tracking.provenance import without_password

# Slurm's own default; array indices have to be below it (slurm.conf(5), MaxArraySize).
MAX_ARRAY_SIZE = 1001

# Before the time limit, for a cell to end its run properly. Slurm may be a minute early (sbatch(1), --signal).
SECONDS_TO_END = 120


def array_script(cells: Sequence[GridCell], words: Sequence[str], *, jobs: int | None, cpus: int, gpus: int) -> str:
    """The text of the script, for the current folder, environment and Python.

    Args:
        cells: Those that are to be run, by their numbers.
        words: Of the grid's command line that make these cells: the file, options, `--` and what follows it.
        jobs: How many may run at once; None for no limit.
        cpus: Of a cell, and its threads.
        gpus: Of a cell.

    Raises:
        UserError: MLFLOW_TRACKING_URI or --tracking.uri has a password, which would stand in the script.
    """
    variables = {name: os.environ[name] for name in ("KERAS_BACKEND", "MLFLOW_TRACKING_URI") if os.environ.get(name)}
    for text in (*words, *variables.values()):
        uri = text.partition("=")[2] if text.startswith("--") else text
        if "://" in uri and urlsplit(uri).password:
            raise UserError(
                f"tracking URI: received {without_password(uri)}, whose password would stand in the script; give it "
                "without, and export MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD before sbatch"
            )
    end = words.index("--") if "--" in words else len(words)
    shift = shift_of(cells)
    cell = f"$((SLURM_ARRAY_TASK_ID + {shift}))" if shift else "$SLURM_ARRAY_TASK_ID"
    command = [
        '"$PYTHON" -m tandem.grid',
        shlex.join(words[:end]),
        f'--cell "{cell}" --cpus_per_cell "${{SLURM_CPUS_PER_TASK:-{cpus}}}"',
        shlex.join(words[end:]),
    ]
    directives = {
        "job-name": vocabulary.file_name(cells[0].settings.tracking.experiment),
        "array": ranges([cell.number - shift for cell in cells]) + (f"%{jobs}" if jobs else ""),
        "ntasks": 1,
        "cpus-per-task": cpus,
        **({"gres": f"gpu:{gpus}"} if gpus else {}),
        "output": log_file(cells[0]).parent / "slurm-%A_%a.log",
        "requeue": None,
        "signal": f"B:TERM@{SECONDS_TO_END}",
    }
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH --{name}" + ("" if value is None else f"={value}") for name, value in directives.items()),
        "# Yours: partition, account, time limit, memory, as lines that begin with #SBATCH.",
        "##SBATCH --partition=gpu",
        "##SBATCH --time=12:00:00",
        "",
        "set -euo pipefail",
        "",
        "# Yours: the modules of your cluster, and the Python of Tandem's environment, which all nodes have to see.",
        "# module load cuda",
        f"PYTHON={shlex.quote(sys.executable)}",
        "",
        "# Each task is one cell; one that has a finished run in MLflow already ends at once.",
        f"cd {shlex.quote(os.getcwd())}",
        f'export PYTHONPATH={shlex.quote(str(ROOT))}"${{PYTHONPATH:+:$PYTHONPATH}}"',
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
        "# in place of this shell, so that Slurm's signal reaches it",
        "exec " + " ".join(filter(None, command)),
    ]
    return "\n".join(lines) + "\n"


def shift_of(cells: Sequence[GridCell]) -> int:
    """What is taken off the cells' numbers to make array indices: 0 where all of them are small enough for Slurm."""
    return cells[0].number if cells[-1].number >= MAX_ARRAY_SIZE else 0


def write_script(file: Path, text: str) -> None:
    """Writes the script to a new file.

    Raises:
        UserError: There is one already, whose lines may have been edited, or it cannot be written.
    """
    try:
        with file.open("x", encoding="utf-8") as output:
            output.write(text)
    except FileExistsError:
        raise UserError(
            f"--slurm: received {str(file)!r}, which is there already and may have lines of yours; give another name "
            "or remove it"
        ) from None
    except OSError as error:
        raise UserError(f"--slurm: received {str(file)!r}, which cannot be written: {error.strerror}") from error


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as Slurm takes them: 1-3,7."""
    parts = []
    for _, group in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        parts.append(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}")
    return ",".join(parts)
