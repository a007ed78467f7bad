from __future__ import annotations

import contextlib
import io
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image
from rich.console import Console

from tandem.commands import module_command
from tandem.errors import UserError
from tandem.grid.__main__ import main, report_incomplete_runs
from tandem.grid.file import read_grid
from tandem.grid.processes import Outcome, last_line, replay_command
from tandem.protocol.parser import read_settings
from tandem.tracking.start import start_run
from tests.grid.small_cells import Record

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("own_folder")


def printed_cells(output: str) -> list[tuple[str, str]]:
    """Name and command of each cell of a dry run."""
    return re.findall(r"^(\d+ .*)\n    (python .*)$", output, re.MULTILINE)


# -------------------------------------------------------------------------------------------------------------- dry run


def test_dry_run_prints_the_commands_of_the_cells_and_writes_no_files(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(tiny), "--dry_run", "--tracking.uri", "sqlite:///runs of mine.db"])
    output = capsys.readouterr().out
    printed = printed_cells(output)
    cells = read_grid(tiny, tracking_uri="sqlite:///runs of mine.db").cells
    assert [name for name, _ in printed] == [f"{cell.number} {cell.name}" for cell in cells]
    assert len(cells) == 4 and "4 cells (2 torch, 2 keras), 0 finished" in output
    for (_, command), cell in zip(printed, cells, strict=True):
        _, script, *options = shlex.split(command)
        assert Path(script).resolve() == ROOT / f"train_{cell.framework}.py"
        assert read_settings(cell.framework, options) == cell.settings
    assert sorted(path.name for path in tiny.parent.iterdir()) == ["tiny.yaml"]


def test_dry_run_lists_the_changes_of_a_small_budget(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tiny), "--dry_run", "--budget", "small"])
    output = capsys.readouterr().out
    assert "Small budget: at most 10 images per class, 1 epoch per phase, batches of at most 16" in output
    assert output.count("--tracking.budget small") == 4


def test_dry_run_of_selected_cells_keeps_their_numbers(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tiny), "--dry_run", "--only", "keras", "seed-1"])
    assert [name for name, _ in printed_cells(capsys.readouterr().out)] == ["4 mobilenet_v2 scratch keras seed-1"]


def test_only_and_cell_without_a_matching_cell_are_refused(tiny: Path) -> None:
    with pytest.raises(UserError, match=r"--only: received jax, .*mobilenet_v2 scratch torch seed-0"):
        main([str(tiny), "--dry_run", "--only", "jax"])


def test_missing_required_settings_are_reported_before_any_cell_runs(capsys: pytest.CaptureFixture[str]) -> None:
    article = str(ROOT / "configs" / "mobilenet_vs_efficientnetv2.yaml")
    with pytest.raises(UserError, match=r"data\.source is not given: a folder .*-- --data\.source"):
        main([article])
    assert list(Path.cwd().iterdir()) == []
    main([article, "--dry_run"])
    output = capsys.readouterr().out
    assert len(printed_cells(output)) == 3 and "To be given after --" in output
    main([article, "--dry_run", "--", "--data.source", "five"])
    output = capsys.readouterr().out
    assert output.count("--data.source five") == 3 and "To be given after --" not in output


def test_help_and_invalid_files_do_not_import_mlflow() -> None:
    code = (
        "import sys; from tandem.grid.__main__ import parse_arguments\n"
        "parse_arguments(['birds.yaml']); print('mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "False\n", done.stderr


# ------------------------------------------------------------------------------------------------------------ the runs


def test_cell_with_two_finished_runs_is_reported(
    tiny: Path, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = read_grid(tiny).cells[0]
    outcome = Outcome(cell=cell, status=0, seconds=1.0, log="1.log", last_line="")
    record(cell)
    console = Console(file=(printed := io.StringIO()), soft_wrap=True, highlight=False)
    assert report_incomplete_runs([outcome], console)
    assert printed.getvalue() == ""
    record(cell)
    assert report_incomplete_runs([outcome], console)
    assert printed.getvalue() == f"finished 2 times: 1 {cell.name}; delete all runs but one\n"


def test_grid_whose_cells_are_finished_runs_nothing(
    tiny: Path, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    for cell in read_grid(tiny).cells:
        record(cell)
    main([str(tiny)])
    assert capsys.readouterr().out == "4 of 4 cells are finished and skipped\n"
    main([str(tiny), "--dry_run"])
    assert capsys.readouterr().out.count("[finished]") == 4


def test_incomplete_runs_are_reported_with_the_command_that_sends_the_rest(
    tiny: Path, tmp_path: Path, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, lost, partly, failed = read_grid(tiny).cells
    with start_run(partly.settings, framework="keras", backend="tensorflow", versions={}) as run:
        run.log_metrics({"not$allowed": 1.0})  # refused by MLflow
    warning = capsys.readouterr().err
    assert "not$allowed" in warning
    record(whole)
    record(lost, status="RUNNING")
    record(partly)
    outcomes = []
    for cell, text in ((whole, "done"), (lost, "done"), (partly, warning), (failed, "no")):
        outcomes.append(
            Outcome(
                cell=cell,
                status=int(cell is failed),
                seconds=1.0,
                log=str(tmp_path / f"{cell.number}.log"),
                last_line=last_line(text),
                replay_command=replay_command(text),
            )
        )

    console = Console(file=(printed := io.StringIO()), soft_wrap=True, highlight=False)
    assert not report_incomplete_runs(outcomes, console)
    assert printed.getvalue().splitlines() == [
        f"incomplete in MLflow: {lost.number} {lost.name}",
        "    it has no finished run there",
        f"    its output: {tmp_path / '2.log'}",
        f"incomplete in MLflow: {partly.number} {partly.name}",
        f"    send the rest: {module_command('tandem.tracking.replay', run.folder)}",
        f"    its output: {tmp_path / '3.log'}",
    ]
    assert report_incomplete_runs([outcomes[0], outcomes[3]], console)


def test_log_that_cannot_be_written_is_an_error_of_one_line(tiny: Path, record: Record) -> None:
    Path("grid").write_text("a file where the folder of logs goes")
    with pytest.raises(UserError, match=r"^cannot write the output of cells to grid/tiny/01-.*: .*; start the grid in"):
        main([str(tiny)])


# ------------------------------------------------------------------------------------------------------------ real runs

THREE = """
experiment: tiny
settings:
  data: {image_size: 32, images_per_class: 12, cache_folder: cache}
  regime: scratch
  batch_size: 8
  max_epochs: 1
  device: cpu
  threads: 1
  tracking: {data_report: false}  # saves one run per data set
cells:
  - frameworks: [torch]
    vary: {data.source: [digits, lacking]}
  - frameworks: [keras]
"""


def run_grid(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tandem.grid", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def statuses() -> list[str]:
    client = MlflowClient(tracking_uri=f"sqlite:///{Path('mlflow.db').absolute()}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    return [run.info.status for run in runs]


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_grid_skips_finished_cells_and_continues_after_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "three.yaml"
    file.write_text(THREE)

    # a run started by hand with the printed command counts as the cell's
    printed = printed_cells(run_grid(str(file), "--dry_run").stdout)
    assert [name for name, _ in printed] == [
        "1 mobilenet_v2 scratch torch digits",
        "2 mobilenet_v2 scratch torch lacking",
        "3 mobilenet_v2 scratch keras digits",
    ]
    _, *words = shlex.split(printed[0][1])
    by_hand = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=600)
    assert by_hand.returncode == 0, by_hand.stderr

    first = run_grid(str(file), "--jobs", "2")
    assert first.returncode == 1, first.stdout + first.stderr
    skipped, shares, failed, finished, total, name, message, log = first.stdout.splitlines()
    assert shares.startswith("2 cells at once, each with ")
    assert skipped == "1 of 3 cells are finished and skipped"
    assert failed.startswith("2 mobilenet_v2 scratch torch lacking: failed with exit status 2 after ")
    assert finished.startswith("3 mobilenet_v2 scratch keras digits: finished after ")
    assert total.startswith("1 cells finished in ") and total.endswith(", 1 failed, 0 left")
    assert name == "failed: 2 mobilenet_v2 scratch torch lacking, exit status 2"
    assert "data.source: received 'lacking'" in message
    assert message.strip() in Path(log.removeprefix("    its output: ")).read_text()
    assert statuses() == ["FINISHED", "FINISHED"]
    assert not [*tmp_path.glob("mlartifacts/**/weights"), *tmp_path.glob("mlartifacts/**/MLmodel")]

    random = np.random.default_rng(0)
    for label in ("ant", "bee"):
        (tmp_path / "lacking" / label).mkdir(parents=True)
        for number in range(12):
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "lacking" / label / f"{number}.png")
    second = run_grid(str(file))
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stdout.startswith("2 of 3 cells are finished and skipped\n2 mobilenet_v2 scratch torch lacking")
    assert statuses() == ["FINISHED"] * 3


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_interrupted_grid_ends_its_cells_and_all_processes(tmp_path: Path) -> None:
    file = tmp_path / "three.yaml"
    file.write_text(THREE)
    words = [
        str(file),
        "--only",
        "digits",
        "--jobs",
        "2",
        "--",
        "--max_epochs",
        "100000",
        "--early_stopping.patience",
        "null",
    ]
    grid = subprocess.Popen(
        [sys.executable, "-m", "tandem.grid", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    children: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + 900
        while sum("train/loss" in journal.read_text() for journal in tmp_path.glob("runs/**/journal.jsonl")) < 2:
            if grid.poll() is not None or time.monotonic() > deadline:
                grid.kill()
                pytest.fail(f"the cells did not come to train: {grid.communicate()}")
            time.sleep(0.2)
        children = psutil.Process(grid.pid).children(recursive=True)
        for script in ("train_torch.py", "train_keras.py"):
            assert any(script in " ".join(child.cmdline()) for child in children)
        grid.send_signal(signal.SIGINT)
        output, errors = grid.communicate(timeout=120)
        assert grid.returncode == 130, errors
        assert "the same command continues" in output and "0 failed, 2 left" in output
        assert errors.splitlines()[-1] == "tandem.grid: interrupted"
        assert not [child for child in children if child.is_running()]
        assert statuses() == ["KILLED"] * 2
    finally:
        for process in (grid, *children):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
