"""Slurm's queue: a job that was warned of its end is put back, to continue from its checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess

from tandem.interrupts import Interrupted

SECONDS_TO_ANSWER = 60.0  # of Slurm's controller, which can be busy


def requeue_after(error: BaseException) -> None:
    """Puts this process's job back into Slurm's queue if SIGUSR1 has ended it; a note of the error says so.

    Not after SIGTERM, which `scancel` sends: a cancelled job would come back. If Slurm preempts a job, it puts it back
    by itself.
    """
    if isinstance(error, Interrupted) and hasattr(signal, "SIGUSR1") and error.number == signal.SIGUSR1:
        error.add_note(requeue())


def requeue() -> str:
    """Asks Slurm to start this process's job again, and says in one line what it has answered."""
    job = job_id()
    if job is None:
        return "not requeued: SLURM_JOB_ID is not set, so this process belongs to no job of Slurm"
    if os.environ.get("SLURM_PROCID", "0") != "0":
        return f"the first process of job {job} asks Slurm to start it again"
    try:
        done = subprocess.run(
            ["scontrol", "requeue", job], capture_output=True, text=True, timeout=SECONDS_TO_ANSWER, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"not requeued: scontrol requeue {job} failed ({error}); submit the job again to continue"
    if done.returncode != 0:
        answer = " ".join(f"{done.stdout} {done.stderr}".split()) or f"exit status {done.returncode}"
        return f"not requeued: scontrol requeue {job} failed ({answer}); submit the job again to continue"
    return f"requeued: Slurm starts job {job} again, and it continues"


def job_id() -> str | None:
    """This process's job, or its task of an array job, as scontrol names it; None outside of Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
