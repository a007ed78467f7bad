"""Script of a Slurm array job for a grid: task N runs cell N, or cell N plus a shift if numbers exceed the limit."""

from __future__ import annotations

import itertools
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tandem.errors import UserError
from tandem.grid.file import GridCell
from tandem.grid.machines import ROOT
from tandem.grid.processes import log_file
from tandem.secrets import has_secrets, shown_uri
from tandem.tracking import vocabulary

# Slurm's default; array indices must be below it (slurm.conf(5), MaxArraySize).
MAX_ARRAY_SIZE = 1001

# Time for a cell to end its run before the time limit. Slurm may signal a minute early (sbatch(1), --signal).
SECONDS_TO_END = 120


def array_script(cells: Sequence[GridCell], words: Sequence[str], *, jobs: int | None, cpus: int, gpus: int) -> str:
    """Text of the script, for the current folder, environment and Python.

    Args:
        cells: The cells to run, ordered by number.
        words: Arguments of tandem.grid that give these cells: the file, options, `--` and arguments after it.
        jobs: The maximum number of tasks at once; None for no limit.
        cpus: Cores, and threads, per cell.
        gpus: GPUs per cell.

    Raises:
        UserError: MLFLOW_TRACKING_URI or --tracking.uri has a password, which would be readable in the script.
    """
    variables = {name: os.environ[name] for name in ("KERAS_BACKEND", "MLFLOW_TRACKING_URI") if os.environ.get(name)}
    _refuse_passwords([*words, *variables.values()])
    shift = shift_of(cells)
    directives = {
        "job-name": vocabulary.file_name(cells[0].settings.tracking.experiment),
        "array": ranges([cell.number - shift for cell in cells]) + (f"%{jobs}" if jobs else ""),
        "ntasks": 1,
        "cpus-per-task": cpus,
        **({"gres": f"gpu:{gpus}"} if gpus else {}),
        "output": log_file(cells[0]).parent / "slurm-%A_%a.log",
        "requeue": None,
        "signal": f"B:USR1@{SECONDS_TO_END}",
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
        "# Yours: the modules of your cluster, and the Python of Tandem's environment, which all nodes must reach.",
        "# module load cuda",
        f"PYTHON={shlex.quote(sys.executable)}",
        "",
        "# Each task is one cell; a task whose cell has a finished run in MLflow ends at once.",
        f"cd {shlex.quote(os.getcwd())}",
        f'export PYTHONPATH={shlex.quote(str(ROOT))}"${{PYTHONPATH:+:$PYTHONPATH}}"',
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
        "# exec replaces this shell, so that Slurm's signal reaches Python, which then requeues the task",
        f"exec {_command(words, shift, cpus)}",
    ]
    return "\n".join(lines) + "\n"


def _refuse_passwords(words: Sequence[str]) -> None:
    for text in words:
        uri = text.partition("=")[2] if text.startswith("--") else text
        if "://" in uri and has_secrets(uri):
            raise UserError(
                f"tracking URI: received {shown_uri(uri)}, whose password would be readable in the script; "
                "remove it, and export MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD before sbatch"
            )


def _command(words: Sequence[str], shift: int, cpus: int) -> str:
    """Shell command of a task, which runs one cell."""
    end = words.index("--") if "--" in words else len(words)
    cell = f"$((SLURM_ARRAY_TASK_ID + {shift}))" if shift else "$SLURM_ARRAY_TASK_ID"
    parts = [
        '"$PYTHON" -m tandem.grid',
        shlex.join(words[:end]),
        f'--cell "{cell}" --cpus_per_cell "${{SLURM_CPUS_PER_TASK:-{cpus}}}" --requeue',
        shlex.join(words[end:]),
    ]
    return " ".join(filter(None, parts))


def shift_of(cells: Sequence[GridCell]) -> int:
    """Difference between cell numbers and array indices: 0 if all cell numbers are below Slurm's limit."""
    return cells[0].number if cells[-1].number >= MAX_ARRAY_SIZE else 0


def write_script(file: Path, text: str) -> None:
    """Writes the script to a new file.

    Raises:
        UserError: The file exists, so its lines may have been edited, or it cannot be written.
    """
    try:
        with file.open("x", encoding="utf-8") as output:
            output.write(text)
    except FileExistsError:
        raise UserError(
            f"--slurm: received {str(file)!r}, which exists and may have your edits; give another name or remove it"
        ) from None
    except OSError as error:
        raise UserError(f"--slurm: received {str(file)!r}, which cannot be written: {error.strerror}") from error


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in Slurm's form: 1-3,7."""
    parts = []
    for _, group in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        parts.append(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}")
    return ",".join(parts)
