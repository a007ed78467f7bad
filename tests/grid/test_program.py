from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from mlflow.entities import Param
from mlflow.tracking import MlflowClient
from PIL import Image
from rich.console import Console

from tandem.errors import UserError
from tandem.grid.__main__ import main, say_what_is_not_in_mlflow
from tandem.grid.file import GridCell, read_grid
from tandem.grid.finished import finished_cells, identity_of, settle_earlier_attempts
from tandem.grid.processes import Outcome, last_line, replay_command
from tandem.protocol.parser import Framework, read_settings
from tandem.protocol.settings import flatten
from tandem.tracking.mlflow_store import connect, find_or_create_experiment
from tandem.tracking.provenance import parameter_text
from tandem.tracking.run import start_run

ROOT = Path(__file__).resolve().parents[2]

TINY = """
experiment: tiny
settings:
  data: {source: digits, classes: ["0", "1"], image_size: 32, images_per_class: 12, cache_folder: cache}
  batch_size: 8
  max_epochs: 1
  device: cpu
  threads: 1
cells:
  - frameworks: [torch, keras]
    vary: {backbone: [mobilenet_v2], regime: [scratch], seed: [0, 1]}
"""


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A fresh current folder, where runs and logs go, and nothing from outside on where runs are recorded."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "KERAS_BACKEND", "PYTHONWARNINGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    return file


def printed_cells(output: str) -> list[tuple[str, str]]:
    """Name and command of each cell of a dry run."""
    return re.findall(r"^(\d+ .*)\n    (python .*)$", output, re.MULTILINE)


# -------------------------------------------------------------------------------------------------------------- dry run


def test_dry_run_prints_commands_that_mean_the_cells_and_leaves_nothing(
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


def test_dry_run_says_what_a_small_budget_changes(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tiny), "--dry_run", "--budget", "small"])
    output = capsys.readouterr().out
    assert "Small budget: at most 10 images a class, 1 epoch a phase, batches of 16 at most" in output
    assert output.count("--tracking.budget small") == 4


def test_dry_run_of_chosen_cells_keeps_their_numbers(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tiny), "--dry_run", "--only", "keras", "seed-1"])
    assert [name for name, _ in printed_cells(capsys.readouterr().out)] == ["4 mobilenet_v2 scratch keras seed-1"]


def test_words_that_no_cell_has_are_refused(tiny: Path) -> None:
    with pytest.raises(UserError, match=r"--only: received jax, .*mobilenet_v2 scratch torch seed-0"):
        main([str(tiny), "--dry_run", "--only", "jax"])


def test_what_only_the_user_can_give_is_asked_for_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    article = str(ROOT / "configs" / "mobilenet_vs_efficientnetv2.yaml")
    with pytest.raises(UserError, match=r"data\.source is not given: a folder .*-- --data\.source"):
        main([article])
    assert list(Path.cwd().iterdir()) == []
    main([article, "--dry_run"])
    output = capsys.readouterr().out
    assert len(printed_cells(output)) == 3 and "Still to be given" in output
    main([article, "--dry_run", "--", "--data.source", "five"])
    output = capsys.readouterr().out
    assert output.count("--data.source five") == 3 and "Still to be given" not in output


def test_help_and_wrong_files_wait_for_no_mlflow() -> None:
    code = (
        "import sys; from tandem.grid.__main__ import parse_arguments\n"
        "parse_arguments(['birds.yaml']); print('mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "False\n", done.stderr


# ------------------------------------------------------------------------------------------------------- finished cells


Record = Callable[..., str]


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as MLflow makes it, which takes it a second or two."""
    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    connect(f"sqlite:///{file}")
    return file


@pytest.fixture
def record(empty_database: Path, tmp_path: Path) -> Record:
    """Writes a run to the store in the current folder, with the tags that the training scripts give it."""
    client = connect(f"sqlite:///{shutil.copy(empty_database, tmp_path / 'mlflow.db')}")
    experiment = find_or_create_experiment(client, "tiny")

    def record(
        cell: GridCell,
        status: str = "FINISHED",
        *,
        start_time: int | None = None,
        leave_out: tuple[str, ...] = (),
        **changes: str | None,
    ) -> str:
        framework, backend, settings_hash, budget = identity_of(cell)
        tags: dict[str, str | None] = {"framework": framework, "backend": backend, "settings_hash": settings_hash}
        tags |= {"budget": budget, **changes}
        named = {f"tandem.{name}": value for name, value in tags.items() if value is not None}
        run = client.create_run(experiment.experiment_id, tags=named, start_time=start_time)
        params = [Param(name, parameter_text(value)) for name, value in flatten(cell.settings).items()]
        params = [param for param in params if param.key not in leave_out]
        client.log_batch(run.info.run_id, params=params)
        if status != "RUNNING":
            client.set_terminated(run.info.run_id, status)
        return run.info.run_id

    return record


def test_cell_is_finished_by_a_run_of_its_framework_backend_settings_and_budget(tiny: Path, record: Record) -> None:
    cells = read_grid(tiny).cells
    torch_0, keras_0, torch_1, keras_1 = cells
    record(torch_0, status="FAILED")
    record(torch_0, status="KILLED")
    record(torch_0, budget="small")
    record(keras_0, backend="jax")
    record(torch_1, budget=None)  # as runs before there were budgets
    record(keras_1)
    assert finished_cells(cells) == {torch_1.number, keras_1.number}
    assert finished_cells(read_grid(tiny, budget="small").cells) == set()


def test_keras_backend_belongs_to_a_cell(tiny: Path, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    _, keras, *_ = read_grid(tiny).cells
    record(keras, backend="tensorflow")
    assert finished_cells([keras]) == {keras.number}
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert finished_cells([keras]) == set()


def test_where_it_is_computed_and_recorded_makes_no_other_cell(tiny: Path, record: Record) -> None:
    record(read_grid(tiny).cells[0])
    assert finished_cells(read_grid(tiny, more_options=["--threads", "2", "--device", "auto"]).cells) == {1}
    assert finished_cells(read_grid(tiny, more_options=["--learning_rate", "0.5"]).cells) == set()


def test_models_that_are_to_be_kept_are_trained_again_where_none_was(tiny: Path, record: Record) -> None:
    plain, kept = read_grid(tiny).cells, read_grid(tiny, keep_models=True).cells
    record(plain[0])
    assert (finished_cells(plain), finished_cells(kept)) == ({1}, set())
    record(kept[1])
    assert (finished_cells(plain), finished_cells(kept)) == ({1, 2}, {2})
    weights_alone = read_grid(tiny, more_options=["--tracking.log_weights", "true"]).cells
    assert finished_cells(weights_alone) == {2}


def grid_with(
    settings: str, tmp_path: Path, frameworks: tuple[Framework, ...] = ("torch", "keras")
) -> tuple[GridCell, ...]:
    """The cells of the grid above with one more line of settings."""
    file = tmp_path / "costs.yaml"
    file.write_text(TINY.replace("  batch_size: 8\n", f"  batch_size: 8\n  {settings}\n"))
    return read_grid(file, frameworks=frameworks).cells


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ("cache_features: false", ["--cache_features", "false"]),
        ("acceleration: {channels_last: false}", ["--acceleration.channels_last=false"]),
        ("acceleration: {compile: true}", ["--acceleration", '{"compile": true}']),
    ],
)
def test_cost_that_a_grid_asks_for_counts_where_a_cell_is_looked_up(
    settings: str, option: list[str], tiny: Path, tmp_path: Path, record: Record
) -> None:
    left_open, asked, by_option = (
        read_grid(tiny).cells,
        grid_with(settings, tmp_path),
        read_grid(tiny, more_options=option).cells,
    )
    record(left_open[1])
    assert [finished_cells(cells) for cells in (left_open, asked, by_option)] == [{2}, set(), set()]
    assert not settle_earlier_attempts(asked[1], identity_of(asked[1]), since=0)
    record(asked[3])
    assert [finished_cells(cells) for cells in (left_open, asked, by_option)] == [{2, 4}, {4}, {4}]
    assert settle_earlier_attempts(asked[3], identity_of(asked[3]), since=0)


def test_default_cost_that_a_grid_asks_for_is_not_left_open(tiny: Path, tmp_path: Path, record: Record) -> None:
    record(grid_with("cache_features: false", tmp_path)[0])
    assert finished_cells(read_grid(tiny).cells) == {1}
    assert finished_cells(grid_with("cache_features: true", tmp_path)) == set()


@pytest.mark.parametrize("open_setting", ["num_devices: auto", "acceleration: {compile: null}"])
def test_cost_setting_that_leaves_the_choice_to_the_machine_asks_for_nothing(
    open_setting: str, tiny: Path, tmp_path: Path, record: Record
) -> None:
    (cell, _) = read_grid(tiny, frameworks=["torch"], more_options=["--acceleration.compile", "true"]).cells
    record(cell)  # with num_devices 1, as a run records the number that `auto` came to
    assert finished_cells(grid_with(open_setting, tmp_path, ("torch",))) == {1}


def test_run_from_before_features_were_cached_has_not_cached_them(tmp_path: Path, record: Record) -> None:
    (without, *_), (with_cache, *_) = (grid_with(f"cache_features: {value}", tmp_path) for value in ("false", "true"))
    record(without, leave_out=("cache_features",))
    assert (finished_cells([without]), finished_cells([with_cache])) == ({1}, set())


def test_threads_in_the_file_count_and_those_after_the_dashes_say_where_the_grid_goes_on(
    tiny: Path, tmp_path: Path, record: Record
) -> None:
    record(read_grid(tiny).cells[0])  # whose file has threads 1
    more_threads = tmp_path / "threads.yaml"
    more_threads.write_text(TINY.replace("threads: 1", "threads: 2"))
    assert finished_cells(read_grid(more_threads).cells) == set()
    assert finished_cells(read_grid(more_threads, more_options=["--threads", "3"]).cells) == {1}
    two_devices = read_grid(tiny, frameworks=["torch"], more_options=["--num_devices", "2"]).cells
    assert finished_cells(two_devices) == {1}


def test_attempts_on_machines_that_were_lost_are_settled(tiny: Path, record: Record) -> None:
    torch_0, keras_0, torch_1, keras_1 = read_grid(tiny).cells
    lost = record(torch_0, status="RUNNING", start_time=2000)
    by_hand = record(torch_0, status="RUNNING", start_time=1999)
    killed = record(torch_0, status="KILLED", start_time=2001)
    other_framework = record(keras_0, status="RUNNING", start_time=2000)
    other_budget = record(torch_0, status="RUNNING", start_time=2000, budget="small")
    assert not settle_earlier_attempts(torch_0, identity_of(torch_0), since=2000)
    assert not settle_earlier_attempts(torch_1, identity_of(torch_1), since=2000)
    client = MlflowClient(tracking_uri=f"sqlite:///{Path('mlflow.db').absolute()}")
    runs = {run: client.get_run(run) for run in (lost, by_hand, killed, other_framework, other_budget)}
    assert [run.info.status for run in runs.values()] == ["FAILED", "RUNNING", "KILLED", "RUNNING", "RUNNING"]
    assert "machine was lost" in runs[lost].data.tags["tandem.failure"]

    record(keras_1)
    assert settle_earlier_attempts(keras_1, identity_of(keras_1), since=2000)
    kept = read_grid(tiny, keep_models=True).cells[3]
    assert not settle_earlier_attempts(kept, identity_of(kept), since=2000)


def test_cell_that_two_machines_finished_is_named(
    tiny: Path, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = read_grid(tiny).cells[0]
    outcome = Outcome(cell=cell, status=0, seconds=1.0, log="1.log", last_line="")
    record(cell)
    console = Console(file=(printed := io.StringIO()), soft_wrap=True, highlight=False)
    assert say_what_is_not_in_mlflow([outcome], console)
    assert printed.getvalue() == ""
    record(cell)
    assert say_what_is_not_in_mlflow([outcome], console)
    assert printed.getvalue() == f"finished 2 times: 1 {cell.name}; delete all runs but one\n"


def test_grid_whose_cells_are_finished_runs_nothing(
    tiny: Path, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    for cell in read_grid(tiny).cells:
        record(cell)
    main([str(tiny)])
    assert capsys.readouterr().out == "4 of 4 cells are finished already and skipped\n"
    main([str(tiny), "--dry_run"])
    assert capsys.readouterr().out.count("[finished]") == 4


def test_cells_that_mlflow_has_not_taken_are_named_with_the_command_that_sends_them(
    tiny: Path, tmp_path: Path, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, lost, partly, failed = read_grid(tiny).cells
    with start_run(partly.settings, framework="keras", backend="tensorflow", versions={}) as run:
        run.log_metrics({"not$allowed": 1.0})  # which MLflow refuses
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
    assert not say_what_is_not_in_mlflow(outcomes, console)
    assert printed.getvalue().splitlines() == [
        f"not all in MLflow: {lost.number} {lost.name}",
        "    it has no finished run there",
        f"    all of its output: {tmp_path / '2.log'}",
        f"not all in MLflow: {partly.number} {partly.name}",
        f"    send the rest: python -m tandem.tracking.replay {run.folder}",
        f"    all of its output: {tmp_path / '3.log'}",
    ]
    assert say_what_is_not_in_mlflow([outcomes[0], outcomes[3]], console)


def test_log_that_cannot_be_written_is_said_in_one_line(tiny: Path, record: Record) -> None:
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
  tracking: {data_report: false}  # which is a run more for each data set
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
def test_grid_skips_what_is_finished_goes_on_past_a_failure_and_then_runs_what_is_left(tmp_path: Path) -> None:
    file = tmp_path / "three.yaml"
    file.write_text(THREE)

    # the printed command, by hand, is the cell
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
    assert skipped == "1 of 3 cells are finished already and skipped"
    assert failed.startswith("2 mobilenet_v2 scratch torch lacking: failed with exit status 2 after ")
    assert finished.startswith("3 mobilenet_v2 scratch keras digits: finished after ")
    assert total.startswith("1 cells finished in ") and total.endswith(", 1 failed, 0 left")
    assert name == "failed: 2 mobilenet_v2 scratch torch lacking, exit status 2"
    assert "data.source: received 'lacking'" in message
    assert message.strip() in Path(log.removeprefix("    all of its output: ")).read_text()
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
    assert second.stdout.startswith(
        "2 of 3 cells are finished already and skipped\n2 mobilenet_v2 scratch torch lacking"
    )
    assert statuses() == ["FINISHED"] * 3


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_interrupted_grid_ends_its_cells_and_leaves_no_process(tmp_path: Path) -> None:
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
        assert "the same command goes on" in output and "0 failed, 2 left" in output
        assert errors.splitlines()[-1] == "tandem.grid: interrupted"
        assert not [child for child in children if child.is_running()]
        assert statuses() == ["KILLED"] * 2
    finally:
        for process in (grid, *children):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
