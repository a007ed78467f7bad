"""Published results of documents, from published.yaml beside this module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tandem.errors import UserError
from tandem.evaluation.imagenet import letters_and_digits

DOCUMENTS_FILE = Path(__file__).with_name("published.yaml")
ANY_DATA = "any"
"""Key of the facts of a document that does not name its data set."""


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """A line of a classification report; scores are 0..1."""

    precision: float
    recall: float
    f1: float
    support: int
    """Number of test images."""


@dataclass(frozen=True, kw_only=True)
class ClassImages:
    """A class of a document's data set: its images, and the sizes of its training files in bytes."""

    train: int
    """Number of training images."""
    val: int
    """Number of validation images."""
    file_count: int
    """Number of training files with known sizes, as the document states it."""
    mean_bytes: float
    std_bytes: float
    """Standard deviation."""
    quartiles_bytes: tuple[float, ...]
    """Minimum, the three quartiles, and maximum."""


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The images of a data set as a document used them; None is what is not known."""

    classes: tuple[int, ...]
    """Number of classes; several if the data set is counted in several ways. The same for the next one."""
    images: tuple[int, ...]
    """Number of images in all parts together."""
    train: int | None = None
    """Number of training images; if `val` is None, those that validate are among them."""
    val: int | None = None
    """Number of validation images; None if the document validates on its test images."""
    test: int | None = None
    """Number of test images."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Settings under which a document trained some of its networks."""

    settings: Mapping[str, Any]
    """Values by the dotted names of Tandem's settings."""
    backbone: str | None = None
    """Only networks with this backbone; None for all. The same for the next one."""
    regime: str | None = None


@dataclass(frozen=True, kw_only=True)
class PublishedResult:
    """One network of a document; None is what the document does not say or what was lost."""

    backbone: str
    """As in Tandem's catalogue, if it is there."""
    data: str | None = None
    """Name of the data set."""
    regime: str | None = None
    """As in Tandem's settings, if it is one of them."""
    framework: str | None = None
    """torch or keras."""
    accuracy: float | None = None
    """On the document's test images, 0..1."""
    precision: float | None = None
    """Over all classes, as the document averages it, 0..1, like the next two."""
    recall: float | None = None
    f1: float | None = None
    classes: Mapping[str, ClassScores] = field(default_factory=dict)
    """By name; empty if the document has no classification report."""
    train_accuracy: float | None = None
    """Accuracy of the last epoch, 0..1, like the next one."""
    val_accuracy: float | None = None
    train_loss: float | None = None
    """Cross entropy of the last epoch, like the next one."""
    val_loss: float | None = None
    test_loss: float | None = None
    epochs: int | None = None
    """Number of trained epochs."""
    best_epoch: int | None = None
    """The epoch with the lowest validation loss, counted from 1."""
    train_minutes: float | None = None
    """Training time of all phases."""
    epoch_seconds: float | None = None
    """Training time of one epoch."""
    phase_2_minutes: float | None = None
    """Training time of the second phase."""
    evaluation_seconds: float | None = None
    """Time to predict all test images."""
    parameters: float | None = None
    note: str | None = None
    """Anything else that a reader has to know."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """A document with its published results."""

    name: str
    source: str
    """Kind of the document, in one sentence."""
    notes: tuple[str, ...]
    """Sentences on what was lost and where it contradicts itself."""
    results: tuple[PublishedResult, ...]
    """In the order of the document."""
    data_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Other names of its data sets, by the document's names."""
    stated_means: Mapping[str, float] = field(default_factory=dict)
    """Mean accuracy over its data sets by family of backbones, as it states them, 0..1."""
    facts: Mapping[str | None, DataFacts] = field(default_factory=dict)
    """The images of its data sets, by the document's names; by None if it names no data set."""
    conditions: tuple[Conditions, ...] = ()
    """Settings under which it trained, as far as they are known."""
    recall_at_half: bool = False
    """True if its recall may be the share of images whose true class has a probability above one half."""
    images: Mapping[str, ClassImages] = field(default_factory=dict)
    """By class; empty if it has no such tables."""

    @property
    def data_sets(self) -> tuple[str, ...]:
        """Names of its data sets, in the order of the document."""
        return tuple(dict.fromkeys(result.data for result in self.results if result.data is not None))

    def settings_of(self, backbone: str, regime: str | None) -> dict[str, Any]:
        """Values of the settings under which the document trained a network, by their dotted names."""
        found: dict[str, Any] = {}
        for one in self.conditions:
            if one.backbone in (None, backbone) and one.regime in (None, regime):
                found |= one.settings
        return found

    def data_of(self, name: str) -> str | None:
        """The document's name for one of our data sets; None if the document does not have it.

        Only letters and digits count, in any case: CIFAR-10, cifar10 and "Cifar 10" are one data set.
        """
        for data in self.data_sets:
            if letters_and_digits(name) in map(letters_and_digits, (data, *self.data_names.get(data, ()))):
                return data
        return None


def read_document(name: str) -> Document:
    """Reads a document.

    Raises:
        UserError: There is none of that name.
    """
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
        facts={_or_none(data): _facts(numbers) for data, numbers in found.get("facts", {}).items()},
        conditions=tuple(Conditions(**one) for one in found.get("conditions", ())),
        recall_at_half=found.get("recall_at_half", False),
        images={name: _images(numbers) for name, numbers in found.get("images", {}).items()},
    )


def _or_none(data: str) -> str | None:
    return None if data == ANY_DATA else data


def _facts(numbers: Mapping[str, Any]) -> DataFacts:
    counted = {name: np.atleast_1d(numbers[name]).tolist() for name in ("classes", "images")}
    return DataFacts(**{**numbers, **{name: tuple(of) for name, of in counted.items()}})


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
