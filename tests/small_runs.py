"""Runs that are small enough for tests: a few digits, a few epochs, no MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tandem.data.prepare import PreparedData, prepare
from tandem.protocol.settings import DataSettings, Settings

NUM_CLASSES = 5


def small_settings(cache_folder: Path | str = "unused", *, image_size: int = 32, **changes: Any) -> Settings:
    """Five digits, 30 / 15 / 15 images, in batches of 8: the last batches of train and val are smaller."""
    values: dict[str, Any] = {
        "regime": "two_stage",
        "weights": "random",
        "batch_size": 8,
        "device": "cpu",
        "threads": 1,
        "data": DataSettings(
            source="digits",
            classes=["0", "1", "2", "3", "4"],
            image_size=image_size,
            images_per_class=12,
            fractions=[0.5, 0.25, 0.25],
            cache_folder=str(cache_folder),
        ),
    }
    return Settings(**{**values, **changes})


def small_data(cache_folder: Path) -> PreparedData:
    """The images of small_settings, stored with their own 8 x 8 pixels."""
    data = prepare(small_settings(cache_folder).data, quiet=True)
    assert [len(data.rows(part)) for part in ("train", "val", "test")] == [30, 15, 15]
    assert data.images.shape[1:] == (8, 8, 3)
    return data


class RecordingRun:
    """Keeps what is logged, where a test needs no MLflow."""

    def __init__(self, folder: Path = Path("unused")) -> None:
        self.folder = folder
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.tags: dict[str, str] = {}
        self.artifacts: list[Path] = []

    def log_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self.logged.append((step, dict(values)))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.tags.update(tags)

    def log_artifact(self, path: Path, remove: bool = False) -> None:
        self.artifacts.append(path)
