from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tandem.grid.__main__ import open_pool, parse_arguments
from tandem.grid.file import read_grid
from tandem.grid.processes import (
    CellProcess,
    LocalProcesses,
    Outcome,
    divide,
    last_line,
    log_file,
    replay_command,
    threads_option,
)
from tests.grid.small_cells import make_cell

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("one\ntwo\n\n", "two"),
        ("10 %\r20 %\rstopped \n", "stopped"),
        ("", "no output"),
    ],
)
def test_last_line_of_an_output_is_the_last_one_that_is_not_blank(output: str, line: str) -> None:
    assert last_line(output) == line


def test_replay_command_is_the_last_in_the_output() -> None:
    assert replay_command("done\n") is None
    text = "send them with: python -m tandem.tracking.replay runs/a\nand python -m tandem.tracking.replay 'runs/b c' \n"
    assert replay_command(text) == "python -m tandem.tracking.replay 'runs/b c'"


def test_logs_are_named_by_experiment_budget_and_cell() -> None:
    assert log_file(make_cell(experiment="birds")) == Path("grid/birds/03-resnet50_frozen_torch.log")
    assert log_file(make_cell(experiment="my birds/2", budget="small")).parent == Path("grid/my_birds_2-small")


def test_output_that_is_not_utf_8_is_kept_and_read(tmp_path: Path) -> None:
    code = "import os, sys; sys.stdout.buffer.write(b'\\xff broken ' + os.environ['WORD'].encode()); sys.exit(4)"
    process = CellProcess(make_cell(), [sys.executable, "-c", code], folder=tmp_path, variables={"WORD": "word"})
    while (outcome := process.outcome()) is None:
        time.sleep(0.05)
    assert (outcome.status, outcome.last_line) == (4, "\ufffd broken word")
    assert outcome.log == str(tmp_path / log_file(make_cell()))


def test_process_of_an_earlier_attempt_does_not_write_to_the_log_of_a_later_one(tmp_path: Path) -> None:
    slow = "import time; print('first', flush=True); time.sleep(0.8); print('late')"
    command = [sys.executable, "-c", slow]
    first = CellProcess(make_cell(), command, folder=tmp_path)
    log = tmp_path / log_file(make_cell())
    while not log.read_text():
        time.sleep(0.05)
    second = CellProcess(make_cell(), [sys.executable, "-c", "print('second')"], folder=tmp_path)
    while first.outcome() is None or second.outcome() is None:
        time.sleep(0.05)
    assert log.read_text() == "second\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel tells a process of its parent's death")
def test_cell_ends_its_run_when_the_grid_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from tandem.grid.processes import CellProcess\nfrom tests.grid.small_cells import TIDY, make_cell\n"
        "process = CellProcess(make_cell(), [sys.executable, '-c', TIDY], folder=Path())\n"
        "print(process._process.pid, flush=True)\ntime.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as grid:
        assert grid.stdout is not None
        cell = psutil.Process(int(grid.stdout.readline()))
        log = tmp_path / log_file(make_cell())
        deadline = time.monotonic() + 30
        while "ready" not in log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        grid.send_signal(signal.SIGKILL)
        while cell.is_running() and cell.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert log.read_text() == "ready\nended properly\n"


# ------------------------------------------------------------------------------------------------- shares of a machine


@pytest.mark.parametrize(
    ("jobs", "gpus", "shares"),
    [
        (1, "0123", [None]),  # all visible GPUs
        (2, "0123", [("0", "1"), ("2", "3")]),
        (3, "0123", [("0",), ("1",), ("2",)]),  # equal shares, so that times are comparable
        (4, "0123", [("0",), ("1",), ("2",), ("3",)]),
        (3, "01", [("0",), ("1",), ("0",)]),
        (2, "", [None, None]),
    ],
)
def test_gpus_are_divided_equally(jobs: int, gpus: str, shares: list[tuple[str, ...] | None]) -> None:
    assert [share.gpus for share in divide(jobs, list(gpus), 8)] == shares


def test_cells_that_share_a_gpu_do_not_allocate_all_its_memory() -> None:
    alone, *_ = divide(2, ["7", "8"], 4)
    assert alone.variables() == {"CUDA_VISIBLE_DEVICES": "7"}
    for share in divide(3, ["7", "8"], 4):
        assert share.variables()["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
        assert share.variables()["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


def test_every_share_has_at_least_one_core() -> None:
    assert [share.threads for share in divide(3, [], 8)] == [2, 2, 2]
    assert [share.threads for share in divide(4, [], 2)] == [1, 1, 1, 1]
    assert [share.threads for share in divide(2, [], 8, threads=3)] == [3, 3]
    assert divide(1, [], 8)[0].threads is None  # the framework's default
    assert divide(1, [], 8, threads=5)[0].threads == 5


def test_cell_is_started_with_the_threads_and_gpus_of_its_share(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    code = "import os, sys; print(sys.argv[1:], os.environ['CUDA_VISIBLE_DEVICES'])"
    pool = LocalProcesses(divide(2, ["0", "1"], 6), command=lambda cell: [sys.executable, "-c", code])
    pool.start(make_cell())
    pool.start(make_cell(number=4, threads=1))
    assert not pool.has_room
    outcomes: list[Outcome] = []
    while len(outcomes) < 2:
        outcomes += pool.ended()
    assert {outcome.cell.number: outcome.last_line for outcome in outcomes} == {3: "['--threads', '3'] 0", 4: "[] 1"}
    assert pool.has_room


def test_cell_has_the_same_threads_when_other_cells_are_finished(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    monkeypatch.setattr("tandem.grid.__main__.num_cores", lambda: 8)
    cells = read_grid(tiny).cells
    arguments, _ = parse_arguments([str(tiny), "--jobs", "4"])
    for waiting in (cells, cells[:1]):
        pool = open_pool(waiting, arguments, num_cells=len(cells))
        assert isinstance(pool, LocalProcesses)
        assert pool.at_once == 4 and pool.describe().startswith("4 cells at once, each with 2 threads")


def test_threads_in_a_cells_settings_are_unchanged() -> None:
    assert threads_option(make_cell(), 2) == ["--threads", "2"]
    assert threads_option(make_cell(threads=1), 2) == []
