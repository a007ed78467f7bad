from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tandem.comparison.record import record_comparison
from tandem.data_report.record import log_data_report
from tandem.errors import UserError
from tandem.launch.parent import start_parent_run
from tandem.protocol.settings import Settings
from tandem.search.record import start_sweep_run
from tandem.tracking.auxiliary import AuxiliaryRun, auxiliary_run
from tandem.tracking.mlflow_store import find_or_create_experiment
from tandem.tracking.reader import NoRuns, RunRecord, read_runs

Open = Callable[..., AbstractContextManager[AuxiliaryRun]]


@pytest.fixture
def experiment_id(client: MlflowClient) -> str:
    return find_or_create_experiment(client, "tandem").experiment_id


@pytest.fixture
def open_run(client: MlflowClient, experiment_id: str) -> Open:
    def open_run(**options: Any) -> AbstractContextManager[AuxiliaryRun]:
        return auxiliary_run(client, experiment_id, name="mean", tags={"tandem.repeats": "3 seeds"}, **options)

    return open_run


def status_of(run: AuxiliaryRun) -> str:
    return run.client.get_run(run.id).info.status


def test_run_has_its_name_tags_params_metrics_and_files(open_run: Open, client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<p>hello")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/classes.csv").write_text("class")
    params = {f"setting_{number}": number for number in range(250)}  # three requests
    with open_run(params={**params, "classes": ["b", "a"], "threads": None}) as run:
        assert status_of(run) == "RUNNING"
        run.log_metrics({f"metric_{number}": float(number) for number in range(1200)})  # two requests
        run.log_artifacts([tmp_path / "page.html", tmp_path / "tables"])
    recorded = client.get_run(run.id)
    assert (recorded.info.status, recorded.info.run_name) == ("FINISHED", "mean")
    assert recorded.data.tags["tandem.repeats"] == "3 seeds"
    texts = {name: str(number) for name, number in params.items()}
    assert recorded.data.params == {**texts, "classes": '["b", "a"]', "threads": "null"}
    assert recorded.data.metrics == {f"metric_{number}": number for number in range(1200)}
    assert Path(client.download_artifacts(run.id, "page.html")).read_text() == "<p>hello"
    assert Path(client.download_artifacts(run.id, "tables/classes.csv")).read_text() == "class"


def test_comparisons_do_not_read_an_auxiliary_run(open_run: Open, client: MlflowClient) -> None:
    with open_run():
        pass
    with pytest.raises(NoRuns):
        read_runs(client.tracking_uri, "tandem")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ZeroDivisionError(), "FAILED"),
        (UserError("no"), "FAILED"),
        (SystemExit(1), "FAILED"),
        (SystemExit(0), "FINISHED"),
        (KeyboardInterrupt(), "KILLED"),
    ],
    ids=repr,
)
def test_status_says_how_the_block_ended(open_run: Open, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), open_run() as run:
        raise error
    assert status_of(run) == status


def test_interrupt_that_became_another_error_is_killed(open_run: Open) -> None:
    with pytest.raises(UserError), open_run() as run:
        try:
            raise KeyboardInterrupt
        finally:
            raise UserError("results cannot be written")
    assert status_of(run) == "KILLED"


def test_run_whose_params_are_refused_is_failed(open_run: Open, client: MlflowClient, experiment_id: str) -> None:
    with pytest.raises(UserError, match="refused"), open_run(params={"not?allowed": 1}):
        pytest.fail("the block ran")
    (run,) = client.search_runs([experiment_id])
    assert run.info.status == "FAILED"


def test_error_of_the_block_is_not_hidden_by_one_at_the_end(
    open_run: Open, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_answer(*_: object) -> None:
        raise UserError("MLflow does not answer")

    with pytest.raises(ZeroDivisionError), open_run() as run:
        monkeypatch.setattr(MlflowClient, "set_terminated", no_answer)
        raise ZeroDivisionError
    assert capsys.readouterr().err == f"warning: the run {run.id} was not ended in MLflow: MLflow does not answer\n"


def test_files_that_cannot_be_written_are_an_error_of_one_line(client: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "page.html").touch()
    elsewhere = client.create_experiment("elsewhere", (tmp_path / "file/artifacts").as_uri())
    with (
        pytest.raises(UserError, match=r"page\.html cannot be written to the artifacts of the MLflow run"),
        auxiliary_run(client, elsewhere, name="comparison", tags={}) as run,
    ):
        run.log_artifacts([tmp_path / "page.html"])
    assert status_of(run) == "FAILED"


# ---------------------------------------------------------------------------------------- a run that others use as well


def test_run_is_continued(open_run: Open, client: MlflowClient) -> None:
    with open_run(params={"seed": 1}) as first:
        pass
    with open_run(params={"seed": 2}, continued=first.id) as second:
        assert second.id == first.id and status_of(second) == "RUNNING"
    recorded = client.get_run(first.id)
    assert (recorded.info.status, recorded.data.params) == ("FINISHED", {"seed": "1"})


@pytest.mark.parametrize("error", [None, KeyboardInterrupt(), UserError("no")], ids=repr)
def test_run_in_use_by_others_stays_running(open_run: Open, error: BaseException | None) -> None:
    try:
        with open_run(in_use=lambda: True) as run:
            if error:
                raise error
    except BaseException as raised:
        assert raised is error
    assert status_of(run) == "RUNNING"


def test_run_is_failed_if_its_use_cannot_be_checked(open_run: Open) -> None:
    def in_use() -> bool:
        raise OSError("no database")

    with pytest.raises(OSError, match="no database"), open_run(in_use=in_use) as run:
        pass
    assert status_of(run) == "FAILED"


# ----------------------------------------------------------------------------------------- the four kinds of runs


@pytest.fixture
def act() -> list[Callable[[], None]]:
    """Actions for the middle of an auxiliary run, each performed once."""
    return []


@pytest.fixture
def kinds(
    act: list[Callable[[], None]], settings: Settings, client: MlflowClient, tmp_path: Path, monkeypatch: Any
) -> dict[str, Callable[[], object]]:
    """Function per kind of auxiliary run that records such a run with a file."""
    upload = MlflowClient.log_artifact

    def log_artifact(self: MlflowClient, *arguments: Any) -> None:
        if act:
            act.pop()()
        upload(self, *arguments)

    monkeypatch.setattr(MlflowClient, "log_artifact", log_artifact)
    page = tmp_path / "page.html"
    page.write_text("<p>hello")

    def parent() -> None:
        with start_parent_run(settings, framework="torch", what="2 seeds") as run:
            run.run.log_artifacts([page])

    def sweep() -> None:
        with start_sweep_run(settings, framework="torch", study="digits", continued=None, in_use=lambda: False) as run:
            run.log_results([page], {"sweep/best": 0.5})

    def make(folder: Path) -> dict[str, float]:
        (folder / "page.html").write_text("<p>hello")
        return {"num_images": 3}

    compared = RunRecord(
        uri=client.tracking_uri,
        run_id="0",
        name="",
        status="FINISHED",
        start_time=0,
        params={},
        metrics={},
        tags={},
        artifact_uri="",
    )
    return {
        "parent": parent,
        "sweep": sweep,
        "comparison": lambda: record_comparison([compared], "tandem", page),
        "data_report": lambda: log_data_report(
            client.tracking_uri, "tandem", name="pets", split_hash="0", params={}, make=make
        ),
    }


KINDS = ("parent", "sweep", "comparison", "data_report")


def fail() -> None:
    raise ZeroDivisionError


def interrupt() -> None:
    raise KeyboardInterrupt


def signal_to_end(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


class Unhandled(Exception):
    """Raised by a signal that would otherwise end the process."""


@pytest.fixture
def unhandled_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP, which nohup may have told pytest to ignore, raise Unhandled instead of ending pytest."""

    def unhandled(number: int, frame: FrameType | None) -> None:
        raise Unhandled(signal.Signals(number).name)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, unhandled) for number in numbers}
    yield
    for number, handler in before.items():
        assert signal.getsignal(number) is unhandled
        signal.signal(number, handler)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("action", "error", "status"),
    [
        (lambda: None, None, "FINISHED"),
        (fail, ZeroDivisionError, "FAILED"),
        (interrupt, KeyboardInterrupt, "KILLED"),
        (signal_to_end(signal.SIGTERM), KeyboardInterrupt, "KILLED"),
        (signal_to_end(signal.SIGHUP), KeyboardInterrupt, "KILLED"),
    ],
    ids=["nothing", "error", "Ctrl-C", "SIGTERM", "SIGHUP"],
)
def test_every_kind_of_auxiliary_run_ends_with_the_right_status(
    kinds: dict[str, Callable[[], object]],
    act: list[Callable[[], None]],
    unhandled_signals: None,
    client: MlflowClient,
    experiment_id: str,
    kind: str,
    action: Callable[[], None],
    error: type[BaseException] | None,
    status: str,
) -> None:
    act.append(action)
    if error is None:
        kinds[kind]()
    else:
        with pytest.raises(error):
            kinds[kind]()
    (run,) = client.search_runs([experiment_id])
    assert act == [] and run.info.status == status
