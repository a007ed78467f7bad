"""A network's predictions of its test images: the file from which every score of a run is computed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tandem.errors import TrainingDiverged, UserError
from tandem.files import whole_path

# The schema's metadata hold the list of classes, since column names cannot tell which columns are classes.
_METADATA_KEY = b"tandem.predictions"
_COLUMN_PREFIX = "probability:"  # since a class may be called "key"


def softmax(logits: np.ndarray) -> np.ndarray:
    """Computes probabilities from logits, in float64.

    Args:
        logits: Of shape (images, classes), any float type.

    Returns:
        float32 of shape (images, classes); each row adds up to 1.
    """
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """A network's probabilities of the classes, one row per test image.

    Raises:
        TrainingDiverged: A probability is not a number.
        ValueError: Shapes or types do not fit together.
    """

    keys: tuple[str, ...]
    """Path or index of each image."""
    hashes: tuple[str, ...]
    """Hash of each image's bytes."""
    truth: np.ndarray
    """True class of each image as an index into `classes`, int64 of shape (images,)."""
    probabilities: np.ndarray
    """float32 of shape (images, classes), 0..1."""
    classes: tuple[str, ...]
    """Names of the classes, each once."""

    def __post_init__(self) -> None:
        images, num_classes = len(self.keys), len(self.classes)
        if not images or not num_classes:
            raise ValueError(f"predictions need images and classes. Received: {images} images, {num_classes} classes")
        if len(set(self.classes)) != num_classes:
            raise ValueError(f"class names have to differ. Received: {self.classes}")
        if len(self.hashes) != images:
            raise ValueError(f"one hash for each of {images} images is needed. Received: {len(self.hashes)}")
        if self.truth.shape != (images,) or self.truth.dtype != np.int64:
            raise ValueError(f"truth has to be int64 of shape ({images},). Received: {_describe(self.truth)}")
        if self.truth.min() < 0 or self.truth.max() >= num_classes:
            raise ValueError(f"truth has to be 0..{num_classes - 1}. Received: {self.truth.min()}..{self.truth.max()}")
        if self.probabilities.shape != (images, num_classes) or self.probabilities.dtype != np.float32:
            raise ValueError(
                f"probabilities have to be float32 of shape ({images}, {num_classes}). "
                f"Received: {_describe(self.probabilities)}"
            )
        broken = int((~np.isfinite(self.probabilities)).any(axis=1).sum())
        if broken:
            raise TrainingDiverged(
                f"the network's output is not a number for {broken} of {images} images: "
                "training has diverged; try a smaller learning_rate"
            )
        if self.probabilities.min() < 0 or self.probabilities.max() > 1:
            low, high = self.probabilities.min(), self.probabilities.max()
            raise ValueError(f"probabilities have to be 0..1; logits need softmax first. Received: {low}..{high}")

    @property
    def predicted(self) -> np.ndarray:
        """Class with the highest probability, of equal ones the lowest index; int64 of shape (images,)."""
        return self.probabilities.argmax(axis=1)

    def write(self, path: Path) -> None:
        """Writes a Parquet file that other programs can read, too.

        Its columns are key, hash, truth and predicted (names of classes), and one float32 column `probability:<class>`
        per class.
        """
        names = pa.array(self.classes, pa.string())
        columns = {
            "key": pa.array(self.keys, pa.string()),
            "hash": pa.array(self.hashes, pa.string()),
            "truth": pa.DictionaryArray.from_arrays(pa.array(self.truth, pa.int32()), names),
            "predicted": pa.DictionaryArray.from_arrays(pa.array(self.predicted, pa.int32()), names),
        }
        for index, name in enumerate(self.classes):
            columns[_COLUMN_PREFIX + name] = pa.array(np.ascontiguousarray(self.probabilities[:, index]))
        table = pa.table(columns).replace_schema_metadata({_METADATA_KEY: json.dumps({"classes": self.classes})})
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_path(path) as partial:
            pq.write_table(table, partial, compression="zstd")

    @classmethod
    def read(cls, path: Path) -> Predictions:
        """Reads a file of `write`; all values are equal to the bit.

        Raises:
            UserError: The file is missing, damaged or empty, or was not written by `write`.
        """
        try:
            # As a file object, since pyarrow takes a path with ":" in it for a URI.
            with path.open("rb") as file:
                table = pq.read_table(file)
        except OSError as error:
            raise UserError(f"cannot read predictions from {path}: {error.strerror or error}") from error
        except pa.ArrowInvalid as error:
            raise UserError(
                f"{path} is not a complete Parquet file: {error}; download it from its run again"
            ) from error
        metadata = (table.schema.metadata or {}).get(_METADATA_KEY)
        if metadata is None:
            raise UserError(
                f"{path} is a Parquet file without predictions of a Tandem run (columns: "
                f"{', '.join(table.column_names[:6])}); give the predictions.parquet of a run"
            )
        if not table.num_rows:
            raise UserError(f"{path} holds no images; evaluate the run again")
        try:
            classes = tuple(json.loads(metadata)["classes"])
            index_of = {name: index for index, name in enumerate(classes)}
            return cls(
                keys=tuple(table["key"].to_pylist()),
                hashes=tuple(table["hash"].to_pylist()),
                truth=np.array([index_of[name] for name in table["truth"].to_pylist()], dtype=np.int64),
                probabilities=np.stack([table[_COLUMN_PREFIX + name].to_numpy() for name in classes], axis=1),
                classes=classes,
            )
        except (KeyError, ValueError) as error:
            raise UserError(f"{path} holds damaged predictions: {error}; download it from its run again") from error


def align(predictions: Sequence[Predictions]) -> list[Predictions]:
    """Brings the images of several runs into one order, that of their hashes.

    Files may have been renamed between two runs: it is the bytes and the class that make an image the same.

    Raises:
        UserError: the runs were not tested on the same images, or have other classes.
    """
    aligned = [_in_order_of_hashes(one) for one in predictions]
    for number, one in enumerate(aligned[1:], start=2):
        first = aligned[0]
        if one.classes != first.classes:
            raise UserError(
                f"the classes of runs 1 and {number} differ ({len(first.classes)} and {len(one.classes)} classes): "
                "only runs with the same classes in the same order can be compared image by image"
            )
        if one.hashes != first.hashes or not np.array_equal(one.truth, first.truth):
            raise UserError(
                f"runs 1 and {number} were tested on different images ({len(first.hashes)} and {len(one.hashes)} "
                "images): compare runs with the same test split"
            )
    return aligned


def _in_order_of_hashes(predictions: Predictions) -> Predictions:
    # Copies of an image in one class have the same outputs, so that their order among themselves is of no importance.
    hashes, truth = predictions.hashes, predictions.truth
    order = sorted(range(len(hashes)), key=lambda index: (hashes[index], truth[index]))
    return Predictions(
        keys=tuple(predictions.keys[index] for index in order),
        hashes=tuple(hashes[index] for index in order),
        truth=truth[order],
        probabilities=predictions.probabilities[order],
        classes=predictions.classes,
    )


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"
