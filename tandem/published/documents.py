"""What documents publish: their results, as published.yaml beside this module holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tandem.errors import UserError
from tandem.evaluation.imagenet import letters_and_digits

DOCUMENTS_FILE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """A class of a classification report: precision, recall and F1, 0..1, and its number of test images."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, kw_only=True)
class ClassImages:
    """A class of a document's data set: its images, and the sizes of its training files in bytes.

    Args:
        train: number of training images.
        val: the same of validation images.
        file_count: of how many training files the sizes are, as the document says.
        mean_bytes: of a file.
        std_bytes: the standard deviation.
        quartiles_bytes: minimum, the three quartiles, and maximum.
    """

    train: int
    val: int
    file_count: int
    mean_bytes: float
    std_bytes: float
    quartiles_bytes: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class PublishedResult:
    """One network of a document; None is what the document does not say or what was lost.

    Args:
        data: the data set's name.
        backbone: as in Tandem's catalogue where it is there.
        regime: as in Tandem's settings where it is one of them.
        framework: torch or keras.
        accuracy: on the document's test images, 0..1.
        precision: over all classes, as the document averages it, 0..1.
        recall: the same.
        f1: the same.
        classes: by their names; nothing where the document has no such table.
        train_accuracy: of the last epoch, 0..1.
        val_accuracy: the same.
        train_loss: cross entropy of the last epoch.
        val_loss: the same.
        test_loss: of the trained network.
        epochs: how many were trained.
        best_epoch: the one with the lowest validation loss, counted from 1.
        train_minutes: of all phases.
        parameters: of the whole network.
        note: what else one has to know.
    """

    backbone: str
    data: str | None = None
    regime: str | None = None
    framework: str | None = None
    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    classes: Mapping[str, ClassScores] = field(default_factory=dict)
    train_accuracy: float | None = None
    val_accuracy: float | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    test_loss: float | None = None
    epochs: int | None = None
    best_epoch: int | None = None
    train_minutes: float | None = None
    parameters: float | None = None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Document:
    """What a document publishes.

    Args:
        source: who or what it is, in one sentence.
        notes: sentences on what is lost of it and where it contradicts itself.
        results: in the document's order.
        data_names: what else its data sets may be called, by the document's names for them.
        stated_means: mean accuracy over its data sets by family of backbones, as it states them, 0..1.
        image_size: height and width in pixels of its images; None where it does not say.
        images: of its data set by the classes' names; nothing where it has no such tables.
    """

    name: str
    source: str
    notes: tuple[str, ...]
    results: tuple[PublishedResult, ...]
    data_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stated_means: Mapping[str, float] = field(default_factory=dict)
    image_size: int | None = None
    images: Mapping[str, ClassImages] = field(default_factory=dict)

    @property
    def data_sets(self) -> tuple[str, ...]:
        """The names of its data sets, in its order."""
        return tuple(dict.fromkeys(result.data for result in self.results if result.data is not None))

    def data_of(self, name: str) -> str | None:
        """The document's name for a data set of ours; None if it is none of its.

        Of names letters and digits count, whatever their case: CIFAR-10, cifar10 and "Cifar 10" are one data set.
        """
        for data in self.data_sets:
            if letters_and_digits(name) in map(letters_and_digits, (data, *self.data_names.get(data, ()))):
                return data
        return None


def read_document(name: str) -> Document:
    """The document of that name; raises UserError, which names them all, where there is none."""
    documents = yaml.safe_load(DOCUMENTS_FILE.read_text(encoding="utf-8"))
    if name not in documents:
        raise UserError(f"--published: received {name!r}, allowed: {', '.join(documents)}")
    found = documents[name]
    return Document(
        name=name,
        source=found["source"],
        notes=tuple(found["notes"]),
        results=tuple(_result(result) for result in found["results"]),
        data_names={data: tuple(names) for data, names in found.get("data_names", {}).items()},
        stated_means=found.get("stated_means", {}),
        image_size=found.get("image_size"),
        images={name: _images(numbers) for name, numbers in found.get("images", {}).items()},
    )


def _result(fields: Mapping[str, Any]) -> PublishedResult:
    classes = {
        name: ClassScores(precision=precision, recall=recall, f1=f1, support=support)
        for name, (precision, recall, f1, support) in fields.get("classes", {}).items()
    }
    return PublishedResult(**{**fields, "classes": classes})


def _images(numbers: Sequence[float]) -> ClassImages:
    train, val, file_count, mean, std, *quartiles = numbers
    return ClassImages(
        train=int(train),
        val=int(val),
        file_count=int(file_count),
        mean_bytes=mean,
        std_bytes=std,
        quartiles_bytes=tuple(quartiles),
    )
