from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from tandem.tracking import vocabulary
from tandem.tracking.creation import create_run, write_model


class LosingClient:
    """A client of a server whose answers to requests that create something are lost, once or always."""

    def __init__(self, client: MlflowClient, *, always: bool = False, done: bool = True) -> None:
        """
        Args:
            client: Of a database, which does what the server would do.
            always: No answer comes, however often the client asks.
            done: The server does what it was asked for.
        """
        self.tracking_uri = "http://127.0.0.1:5000"
        self._client, self._always, self._done = client, always, done

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if name not in ("create_run", "create_logged_model"):
            return method

        def create(*arguments: Any, **options: Any) -> Any:
            if self._done:
                method(*arguments, **options)
            if self._always:
                raise MlflowException("too many 500 error responses")
            return method(*arguments, **options)

        return create


def create(client: Any) -> str:
    return create_run(client, "0", name="a run", tags={"kind": "a test"}, start_time=1_764_000_000_123)


def test_run_whose_first_answer_was_lost_is_alone(client: MlflowClient) -> None:
    run_id = create(LosingClient(client))
    (run,) = client.search_runs(["0"])
    assert (run.info.run_id, run.info.run_name, run.info.start_time) == (run_id, "a run", 1_764_000_000_123)
    assert run.data.tags["kind"] == "a test"
    assert vocabulary.REQUEST not in run.data.tags


def test_run_that_was_created_without_any_answer_is_used(client: MlflowClient) -> None:
    run_id = create(LosingClient(client, always=True))
    assert [run.info.run_id for run in client.search_runs(["0"])] == [run_id]


def test_run_that_was_not_created_is_an_error(client: MlflowClient) -> None:
    create(client)
    with pytest.raises(MlflowException, match="too many 500"):
        create(LosingClient(client, always=True, done=False))
    assert len(client.search_runs(["0"])) == 1


def test_runs_of_other_requests_stay(client: MlflowClient) -> None:
    assert {create(LosingClient(client)), create(LosingClient(client))} == {
        run.info.run_id for run in client.search_runs(["0"])
    }


def test_model_whose_first_answer_was_lost_is_alone(
    client: MlflowClient, tmp_path: Path, save_doubling_model: Callable[[Path], None]
) -> None:
    save_doubling_model(tmp_path / "model")
    run_id = create(client)
    for _ in range(2):  # the second time after an outage
        write_model(
            LosingClient(client),  # type: ignore[arg-type]
            experiment_id="0",
            run_id=run_id,
            folder=tmp_path / "model",
            name="double",
        )
    (model,) = client.search_logged_models(["0"])
    assert str(model.status) == "READY"
    outputs = client.get_run(run_id).outputs
    assert [output.model_id for output in outputs.model_outputs] == [model.model_id]
