from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tandem.protocol.settings import Settings, TrackingSettings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns about its own type hints at import
    import mlflow.pyfunc


@pytest.fixture(autouse=True)
def always_own_environment(own_environment: None) -> None:
    """Own environment for each test here."""


@pytest.fixture
def settings(database: Path) -> Settings:
    """Settings with the default place for runs."""
    return Settings(tracking=TrackingSettings(system_interval=60))


@pytest.fixture
def recorded_at(settings: Settings) -> Callable[..., Settings]:
    def change(**tracking: Any) -> Settings:
        return dataclasses.replace(settings, tracking=dataclasses.replace(settings.tracking, **tracking))

    return change


@pytest.fixture
def save_doubling_model() -> Callable[[Path], None]:
    """Saves an MLflow model that doubles what it gets, in a folder."""

    def save(folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow warns about pickled models

            class Doubler(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]
                def predict(self, model_input: list[int]) -> list[int]:
                    return [2 * number for number in model_input]

            mlflow.pyfunc.save_model(str(folder), python_model=Doubler(), pip_requirements=[])

    return save
