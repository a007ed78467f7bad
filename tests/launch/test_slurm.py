from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tandem.grid import __main__ as grid_program
from tandem.interrupts import Interrupted
from tandem.launch.scripts import run_script
from tandem.launch.slurm import job_id, requeue
from tandem.protocol.settings import Settings

SUBMIT = "submit the job again to continue"


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Path]:
    """Puts a scontrol with this exit status on PATH; it writes its words to a file."""
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)

    def install(status: int) -> Path:
        words = tmp_path / "words"
        program = tmp_path / "bin" / "scontrol"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\necho "$@" >> "{words}"\necho "Job is not yours" >&2\nexit {status}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent))
        return words

    return install


def test_job_is_requeued_by_its_number(scontrol: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    words = scontrol(0)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert requeue() == "requeued: Slurm starts job 77 again, and it continues"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert job_id() == "70_3"
    requeue()
    assert words.read_text() == "requeue 77\nrequeue 70_3\n"
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert requeue() == "the first process of job 70_3 asks Slurm to start it again"
    assert words.read_text().count("\n") == 2


def test_refusal_is_one_line(scontrol: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert requeue().startswith("not requeued: SLURM_JOB_ID is not set")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("PATH", "/nowhere")
    assert requeue().startswith("not requeued: scontrol requeue 77 failed (") and requeue().endswith(SUBMIT)
    scontrol(1)
    assert requeue() == f"not requeued: scontrol requeue 77 failed (Job is not yours); {SUBMIT}"


@pytest.mark.parametrize(
    ("number", "asks", "is_requeued"),
    [(signal.SIGUSR1, True, True), (signal.SIGTERM, True, False), (signal.SIGUSR1, False, False)],
)
@pytest.mark.parametrize("program", ["script", "grid"])
def test_warning_puts_the_job_back_into_the_queue(
    program: str,
    number: signal.Signals,
    asks: bool,
    is_requeued: bool,
    scontrol: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = scontrol(0)
    monkeypatch.setenv("SLURM_JOB_ID", "77")

    def interrupt(*arguments: object, **named: object) -> bool:
        error = Interrupted(number)
        error.add_note("kept: the training up to 3 epochs")
        raise error

    with pytest.raises(SystemExit) as ended:
        if program == "script":
            run_script("torch", interrupt, Settings(requeue=asks))  # type: ignore[arg-type]
        else:
            monkeypatch.setattr(grid_program, "prepare", lambda cells, console: cells)
            monkeypatch.setattr(grid_program, "run_grid", interrupt)
            monkeypatch.setattr(sys, "argv", ["tandem.grid"])
            options = ["configs/birds.yaml", *(["--requeue"] if asks else []), "--", "--data.source", "birds"]
            grid_program.run_program("tandem.grid", grid_program.main, options)
    assert ended.value.code == 143
    told = capsys.readouterr().err.splitlines()
    assert told[-1].startswith("requeued: ") == is_requeued == words.exists()
    assert "kept: the training up to 3 epochs" in told
