"""Predicts the classes of image files with one network or an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tandem.errors import UserError, says_out_of_memory
from tandem.evaluation.batching import predict_as_fits
from tandem.evaluation.ensemble import mean_probabilities
from tandem.predict.files import FileReader
from tandem.serving.image_model import ImageModel

PADDING_FRAMEWORKS = ("keras",)
"""Frameworks that compile for each size of a batch, so that smaller ones are filled up."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FilePredictions:
    """Predictions of image files."""

    files: tuple[Path, ...]
    """The readable files, in order."""
    probabilities: np.ndarray
    """float32 of shape (files, classes)."""
    classes: tuple[str, ...]
    problems: tuple[str, ...]
    """One line per file that is no readable image."""

    @property
    def confidence(self) -> np.ndarray:
        """Probability of the predicted class, float32 of shape (files,)."""
        return self.probabilities.max(axis=1)

    def table(self, top: int) -> pd.DataFrame:
        """One row per file: path, class, probability, and the next classes as class_2, probability_2, ...

        Args:
            top: Number of classes per file, from 1; the number of classes if that is smaller.
        """
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :top]
        columns: dict[str, list[str] | np.ndarray] = {"path": [str(file) for file in self.files]}
        for place, best in enumerate(order.T):
            suffix = f"_{place + 1}" if place else ""
            columns[f"class{suffix}"] = [self.classes[index] for index in best]
            columns[f"probability{suffix}"] = self.probabilities[np.arange(len(best)), best]
        return pd.DataFrame(columns)


def predict_files(models: Sequence[ImageModel], files: Sequence[Path], *, quiet: bool = False) -> FilePredictions:
    """Predicts image files in batches; several networks are an ensemble, whose probabilities are their means.

    Args:
        models: At least one; all of the same classes.
        files: The files.
        quiet: Shows no progress bar.

    Raises:
        UserError: The networks have different classes, or no file is a readable image.
    """
    classes = models[0].description.classes
    orders = [_order_of(model, classes) for model in models]

    def convert(content: bytes, ending: str) -> list[np.ndarray]:
        return [model.pixels_of(model.image_of_file(content, ending)) for model in models]

    reader = FileReader(files=files, convert=convert)
    batch_size = min(model.description.batch_size for model in models)
    read: list[Path] = []
    parts: list[np.ndarray] = []
    for batch, pixels in reader.batches(batch_size, title="Predicting", quiet=quiet):
        of_members = [
            _predict(model, np.stack([of_file[index] for of_file in pixels]), batch_size)[:, orders[index]]
            for index, model in enumerate(models)
        ]
        parts.append(of_members[0] if len(models) == 1 else mean_probabilities(of_members))
        read += batch
    if not read:
        raise UserError("none of the files is a readable image:\n  " + "\n  ".join(reader.problems))
    return FilePredictions(
        files=tuple(read), probabilities=np.concatenate(parts), classes=classes, problems=tuple(reader.problems)
    )


def _predict(model: ImageModel, images: np.ndarray, batch_size: int) -> np.ndarray:
    padded = model.description.framework in PADDING_FRAMEWORKS
    batch = np.resize(images, (batch_size, *images.shape[1:])) if padded else images
    probabilities = predict_as_fits(model.network, [batch], is_out_of_memory=says_out_of_memory, pad=padded)
    return probabilities[: len(images)]


def _order_of(model: ImageModel, classes: tuple[str, ...]) -> list[int]:
    """Places of the classes among those of a network."""
    own = model.description.classes
    if set(own) != set(classes):
        raise UserError(
            f"the networks of an ensemble need the same classes. Received: {_some(classes)} and {_some(own)}; "
            "predict with each by itself"
        )
    return [own.index(name) for name in classes]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
