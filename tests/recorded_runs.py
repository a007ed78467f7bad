"""What MLflow and its folder have of a run that was recorded in the current folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient

from tandem.tracking.run import Run

START: dict[str, Any] = {"framework": "torch", "backend": "torch", "versions": {"torch": "2.15.0"}}
"""Arguments of start_run."""


def recorded(run: Run) -> MlflowRun:
    return MlflowClient(tracking_uri=f"sqlite:///{Path.cwd()}/mlflow.db").get_run(run.id)


def artifacts(run: Run) -> dict[str, Path]:
    """Artifacts of a run by path, found without MLflow."""
    (root,) = Path("mlartifacts").glob(f"*/{run.id}/artifacts")
    return {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
