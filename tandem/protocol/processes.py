"""Number of processes started for one run, and the check that a batch can be split across its devices."""

from __future__ import annotations

import os

from tandem.errors import UserError


def num_started_processes() -> int:
    """Number of processes, including this one, that torchrun or Slurm's srun started for this run; 1 without either.

    torchrun sets RANK and WORLD_SIZE (docs.pytorch.org/docs/stable/elastic/run.html), srun SLURM_PROCID and, for the
    step that it started, SLURM_STEP_NUM_TASKS (slurm.schedmd.com/srun.html).
    """
    if "RANK" in os.environ:
        return int(os.environ.get("WORLD_SIZE", "1"))
    if "SLURM_PROCID" in os.environ:
        return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    return 1


def num_local_processes() -> int:
    """Number of the run's processes on this machine, including this one; train_torch.py sets torchrun's variable."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def check_shares(batch_size: int, num_devices: int, accumulate: int = 1) -> None:
    """Raises UserError if a batch, or each of its parts, cannot be split equally across the devices."""
    unit, words = num_devices, f"num_devices, {num_devices}, since each batch is"
    if accumulate > 1:
        unit = num_devices * accumulate
        words = f"num_devices times accumulate, {unit}, since each part of a batch is"
    if batch_size % unit:
        below, above = batch_size // unit * unit, -(-batch_size // unit) * unit
        multiples = f"{below} or {above}" if below else f"{above}"
        raise UserError(
            f"batch_size: received {batch_size}, allowed: a multiple of {words} split across the devices "
            f"({multiples} for example)"
        )
