"""Results of documents and of our runs in one form, so that the same code judges both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from tandem.comparison.configurations import NOT_APPLICABLE
from tandem.evaluation.predictions import Predictions
from tandem.evaluation.ties import highest, is_above
from tandem.published.documents import ClassScores, Document, PublishedResult
from tandem.rendering.tables import Estimate, format_value, number_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """The result of one network, in a document or in our runs; None is what is unknown.

    Scores of our entries have intervals where predictions are saved. Precision, recall and F1 are means over the
    classes unless the document says otherwise.
    """

    data: str | None
    """The data set, under the document's name if it has one."""
    backbone: str
    regime: str | None
    framework: str | None
    """torch, keras, or keras with its backend in parentheses."""
    test_set: str = ""
    """Equal for our entries with the same test images; empty for a published one."""
    name: str = ""
    """Label of our row in the other tables; empty for a published entry."""
    stand_in: str = ""
    """Reason why our entry decides no claim, such as "small budget"; empty for other entries."""
    accuracy: Estimate | float | None = None
    precision: Estimate | float | None = None
    recall: Estimate | float | None = None
    f1: Estimate | float | None = None
    test_loss: Estimate | float | None = None
    """Cross entropy on the test images."""
    minutes: float | None = None
    """Training time, excluding evaluation."""
    milliseconds: float | None = None
    """Latency: time to predict one image."""
    parameters: float | None = None
    epochs: float | None = None
    """Number of trained epochs."""
    max_epochs: int | None = None
    """Largest number of epochs per phase."""
    best_epoch: float | None = None
    """The epoch with the lowest validation loss, counted from 1."""
    train_accuracy: float | None = None
    """Accuracy of the last epoch, 0..1, like the next one; losses are those of the last epoch too."""
    val_accuracy: float | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    image_size: int | None = None
    """Height and width in pixels."""
    machine: str = ""
    """Times are compared only between entries with the same machine."""
    gpu: str = ""
    """The hardware, if one of its GPUs was used; else empty."""
    num_images: Mapping[str, int] = field(default_factory=dict)
    """By part: train, val, test."""
    classes: Mapping[str, ClassScores] = field(default_factory=dict)
    """By the name of the class."""
    predictions: tuple[Predictions, ...] = ()
    """On the test images, one per run; none for a published entry."""
    settings: tuple[tuple[str, str], ...] = ()
    """(name, value) of the settings in which our rows with the same backbone, regime and framework differ."""

    @property
    def label(self) -> str:
        """The name, with the reason if the entry is a stand-in."""
        return f"{self.name} ({self.stand_in})" if self.stand_in else self.name

    @property
    def variant(self) -> str:
        """The framework and the settings, which distinguish our entries of one data set, backbone and regime."""
        settings = [f"{name} {value}" for name, value in self.settings if value not in ("", NOT_APPLICABLE)]
        inner = ", ".join(filter(None, (self.stand_in, *settings)))
        return f"{self.framework} ({inner})" if inner else str(self.framework)

    @property
    def accuracy_value(self) -> float:
        """Accuracy without its interval; 0 where it is unknown, so that entries can be ordered by it."""
        return number_of(self.accuracy) or 0.0


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The first of two accuracies minus the second."""

    value: Estimate | float
    """With its interval if there is one."""
    sure: bool
    """True if it is more than chance; published numbers count as they are."""

    @property
    def number(self) -> float:
        """The value without its interval."""
        return self.value.value if isinstance(self.value, Estimate) else self.value

    @property
    def written(self) -> str:
        """The value for people."""
        return format_value(self.value, "difference")


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """Entries of one kind, by which claims are judged."""

    document: Document
    """The document that makes the claims."""
    published: bool
    """True for the document's own entries, which have no intervals: its numbers count as they are."""
    entries: tuple[Entry, ...]
    difference: Callable[[Entry, Entry], Difference | None]
    """Accuracy of the first entry minus that of the second; None if one is unknown."""

    @property
    def without_stand_ins(self) -> Results:
        """The results that can decide a claim."""
        return replace(self, entries=tuple(entry for entry in self.entries if not entry.stand_in))

    def of(self, **wanted: object) -> tuple[Entry, ...]:
        """The entries with these values."""
        return tuple(
            entry for entry in self.entries if all(getattr(entry, name) == value for name, value in wanted.items())
        )

    def best(self, **wanted: object) -> Entry | None:
        """The most accurate of the entries with these values; None without any."""
        return highest(self.of(**wanted), lambda entry: entry.accuracy_value)


def published_results(document: Document) -> Results:
    """The document's own entries."""
    return Results(
        document=document,
        published=True,
        entries=tuple(_published_entry(result, document) for result in document.results),
        difference=_plain_difference,
    )


def matching(result: PublishedResult, ours: Results) -> list[Entry]:
    """Our entries with the backbone of a result, and with its data set, regime and framework if it names them."""
    of_result = {"data": result.data, "regime": result.regime}
    wanted = {name: value for name, value in of_result.items() if value is not None}
    return [
        entry
        for entry in ours.of(backbone=result.backbone, **wanted)
        if result.framework in (None, _without_backend(entry.framework))
    ]


def combined_difference(first: Estimate | float, second: Estimate | float) -> Difference:
    """The difference of two scores, with an interval as if they had been measured on different images.

    The ends of the interval are as far from the difference as the root of the sum of squares of the two scores' own
    distances. For scores on the same images, which rise and fall together, it is too wide rather than too narrow.
    """
    if not isinstance(first, Estimate) or not isinstance(second, Estimate):
        one, two = (score.value if isinstance(score, Estimate) else score for score in (first, second))
        return Difference(value=one - two, sure=False)
    middle = first.value - second.value
    low = middle - math.hypot(first.value - first.low, second.high - second.value)
    high = middle + math.hypot(first.high - first.value, second.value - second.low)
    return Difference(value=Estimate(value=middle, low=low, high=high), sure=low > 0 or high < 0)


def _published_entry(result: PublishedResult, document: Document) -> Entry:
    return Entry(
        data=result.data,
        backbone=result.backbone,
        regime=result.regime,
        framework=result.framework,
        accuracy=result.accuracy,
        precision=result.precision,
        recall=result.recall,
        f1=result.f1,
        test_loss=result.test_loss,
        minutes=result.train_minutes,
        parameters=result.parameters,
        epochs=result.epochs,
        best_epoch=result.best_epoch,
        train_accuracy=result.train_accuracy,
        val_accuracy=result.val_accuracy,
        train_loss=result.train_loss,
        val_loss=result.val_loss,
        image_size=document.image_size,
        classes=result.classes,
    )


def _plain_difference(first: Entry, second: Entry) -> Difference | None:
    one, two = number_of(first.accuracy), number_of(second.accuracy)
    if one is None or two is None:
        return None
    return Difference(value=one - two, sure=is_above(one, two) or is_above(two, one))


def _without_backend(framework: str | None) -> str | None:
    return None if framework is None else framework.split(" ")[0]
