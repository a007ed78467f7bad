from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from tandem.errors import UserError
from tandem.launch import repeats
from tandem.launch.repeats import run_repeats, what_is_missing
from tandem.protocol.settings import Settings
from tandem.tracking import vocabulary

LOST = (
    "1 of 3 runs ended well but are not finished in MLflow, so the mean does not include them; their warnings above "
    "say how to send the rest"
)


@pytest.mark.parametrize(
    ("failed", "num_recorded", "told"),
    [
        ([], 3, ""),
        (["seed 1"], 2, "1 of 3 runs failed, see their messages above: seed 1"),
        (["seed 1"], 3, "1 of 3 runs failed, see their messages above: seed 1"),  # it failed after the end of its run
        ([], 2, LOST),
        (["seed 1", "seed 2"], 0, f"2 of 3 runs failed, see their messages above: seed 1; seed 2; {LOST}"),
    ],
)
def test_runs_that_the_mean_does_not_include_are_named(failed: list[str], num_recorded: int, told: str) -> None:
    assert what_is_missing(3, failed, num_recorded) == told


class Children:
    """Training scripts that only record a seed; it is also their accuracy."""

    def __init__(self, client: MlflowClient) -> None:
        self.client = client
        self.ends: dict[int, Callable[[], int]] = {}
        self.seeds: list[int] = []

    def train(self, framework: str, words: Sequence[str]) -> int:
        last = dict(itertools.pairwise(words))
        seed, parent = int(last["--seed"]), last["--tracking.parent_run"]
        self.seeds.append(seed)
        assert last.get("--resume") == ("auto" if self.is_continued else None)
        run = self.client.create_run(
            self.client.get_run(parent).info.experiment_id, tags={MLFLOW_PARENT_RUN_ID: parent}
        )
        self.client.log_param(run.info.run_id, "seed", str(seed))
        self.client.log_param(run.info.run_id, "data.fold", "null")
        self.client.log_metric(run.info.run_id, "test/accuracy", seed / 8)
        status = self.ends.get(seed, lambda: 0)()
        self.client.set_terminated(run.info.run_id, "FAILED" if status else "FINISHED")
        return status

    is_continued = False


@pytest.fixture
def children(client: MlflowClient, own_environment: None, monkeypatch: pytest.MonkeyPatch) -> Children:
    made = Children(client)
    monkeypatch.setattr(repeats, "_train", made.train)
    return made


def parents(client: MlflowClient) -> list[MlflowRun]:
    experiment = client.get_experiment_by_name("tandem")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    return [run for run in runs if vocabulary.REPEATS in run.data.tags]


def interrupt() -> int:
    raise KeyboardInterrupt


def fail() -> int:
    return 2


@pytest.mark.parametrize(
    ("end", "error", "told"),
    [
        (interrupt, KeyboardInterrupt, "kept: 1 of 3 runs"),
        (fail, UserError, "1 of 3 runs failed, see their messages above: seed 2; to train only the missing ones: "),
    ],
)
def test_same_command_trains_only_the_runs_that_are_missing(
    end: Callable[[], int],
    error: type[BaseException],
    told: str,
    children: Children,
    client: MlflowClient,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = Settings(seeds=[1, 2, 3])
    children.ends = {2: end}
    with pytest.raises(error) as caught:
        run_repeats("torch", settings, [])
    assert told in "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    (parent,) = parents(client)
    assert parent.info.status in ("KILLED", "FAILED")
    first, children.seeds, children.ends, children.is_continued = children.seeds, [], {}, True
    assert first == ([1, 2] if end is interrupt else [1, 2, 3])
    run_repeats("torch", settings, [])
    assert children.seeds == ([2, 3] if end is interrupt else [2])
    assert "[1/3] seed 1: finished before\n" in capsys.readouterr().out
    (again,) = parents(client)
    assert again.info.run_id == parent.info.run_id and again.info.status == "FINISHED"
    assert again.data.metrics["mean/test/accuracy"] == (1 + 2 + 3) / 8 / 3


def test_never_trains_all_runs_again(children: Children, client: MlflowClient) -> None:
    settings = Settings(seeds=[1, 2], resume="never")
    children.ends = {2: interrupt}
    with pytest.raises(KeyboardInterrupt) as caught:
        run_repeats("torch", settings, [])
    (folder,) = (file.parent for file in Path("runs/tandem").glob(f"*/{vocabulary.PROCESS_FILE}"))
    assert f"--resume {folder.absolute()}" in caught.value.__notes__[1]
    children.ends = {}
    run_repeats("torch", settings, [])
    assert children.seeds == [1, 2, 1, 2]
    children.is_continued = True
    run_repeats("torch", dataclasses.replace(settings, resume=str(folder)), [])
    assert children.seeds == [1, 2, 1, 2, 2]
    assert [run.info.status for run in parents(client)] == ["FINISHED"] * 2
