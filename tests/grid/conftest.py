from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.entities import Param
from mlflow.tracking import MlflowClient

from tandem.grid.file import GridCell
from tandem.grid.finished import identity_of
from tandem.protocol.settings import flatten
from tandem.tracking.mlflow_store import find_or_create_experiment
from tandem.tracking.provenance import parameter_text
from tests.grid.small_cells import TINY, Record

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Empty current folder for runs and logs, and no variables from outside that affect where runs go."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "KERAS_BACKEND", "PYTHONWARNINGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    return file


@pytest.fixture
def record(client: MlflowClient) -> Record:
    """Records runs of cells in the default store, with the tags of the training scripts."""
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
