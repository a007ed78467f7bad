"""Results of documents and of our runs in one form, so that the same code judges both."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tandem.comparison.recorded_settings import NOT_APPLICABLE
from tandem.evaluation.predictions import Predictions
from tandem.evaluation.ties import highest, is_above
from tandem.published.departures import Departure
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
    departures: tuple[Departure, ...] = ()
    """Differences between our runs and the document's experiment."""
    as_documented: frozenset[str] = frozenset()
    """Names of settings that are known of the document and that our runs have as it had them."""
    weights_from_file: bool = False
    """True if our runs started from weights in a file."""
    accuracy: Estimate | float | None = None
    precision: Estimate | float | None = None
    recall: Estimate | float | None = None
    recall_at_half: Estimate | float | None = None
    """Share of images whose true class has a probability above one half."""
    f1: Estimate | float | None = None
    test_loss: Estimate | float | None = None
    """Cross entropy on the test images."""
    minutes: float | None = None
    """Training time, excluding evaluation."""
    epoch_seconds: float | None = None
    """Training time of one epoch."""
    phase_2_minutes: float | None = None
    """Training time of the second phase."""
    evaluation_seconds: float | None = None
    """Time to predict all test images."""
    milliseconds: float | None = None
    """Latency: time to predict one image."""
    images_per_second: float | None = None
    """Number of images that are predicted per second in batches."""
    parameters: float | None = None
    trainable_parameters: float | None = None
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
    costs: tuple[tuple[str, str], ...] = ()
    """(name, value) of the hardware and of all settings that change only costs; times are compared only if they are the
    same."""
    machine: str = ""
    """The hardware, device and number of threads, for people."""
    split: str = ""
    """Kind of split, as in the setting data.split; empty for a published entry."""
    gpu: str = ""
    """The hardware, if one of its GPUs was used; else empty."""
    num_images: Mapping[str, int] = field(default_factory=dict)
    """By part: train, val, test."""
    classes: Mapping[str, ClassScores] = field(default_factory=dict)
    """By the name of the class."""
    predictions: tuple[Predictions, ...] = ()
    """On the test images, one per run; none for a published entry."""
    settings: tuple[tuple[str, str], ...] = ()
    """(name, value) of the settings in which our rows differ in any group."""

    @property
    def stand_in(self) -> str:
        """Reasons why our entry decides hardly any claim, such as "small budget"; empty for other entries."""
        return ", ".join(one.words for one in self.departures if not one.cost_only)

    @property
    def label(self) -> str:
        """The name, with everything in which the entry differs from the document."""
        words = ", ".join(one.words for one in self.departures)
        return f"{self.name} ({words})" if words else self.name

    @property
    def variant(self) -> str:
        """The framework and the settings, which distinguish our entries of one data set, backbone and regime."""
        settings = [
            f"{name} {value}"
            for name, value in self.settings
            if value not in ("", NOT_APPLICABLE) and name not in self.as_documented
        ]
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
        """The results that differ from the document's experiment in nothing but costs."""
        return replace(self, entries=tuple(entry for entry in self.entries if not entry.stand_in))

    def deciding(self, *, despite: Collection[str] = (), about_time: bool = False) -> Results:
        """The results that can decide a claim.

        Args:
            despite: Subjects of departures that the claim allows, because it is about them.
            about_time: True if the claim compares times, which departures in costs make unlike.
        """
        return replace(
            self,
            entries=tuple(
                entry
                for entry in self.entries
                if all(one.subject in despite or (one.cost_only and not about_time) for one in entry.departures)
            ),
        )

    def of(self, **wanted: object) -> tuple[Entry, ...]:
        """The entries with these values."""
        return tuple(
            entry for entry in self.entries if all(getattr(entry, name) == value for name, value in wanted.items())
        )

    def best(self, **wanted: object) -> Entry | None:
        """The most accurate of the entries with these values; None without any."""
        return highest(self.of(**wanted), lambda entry: entry.accuracy_value)

    def alike(self, *wanted: Mapping[str, object], ignoring: Collection[str] = ()) -> tuple[Entry | None, ...]:
        """One entry for each set of values: those whose settings differ least and, of these, the most accurate.

        Args:
            wanted: Values of the entries that are compared with each other.
            ignoring: Names of settings that need not be equal.

        Returns:
            In the order of `wanted`; None where there is no such entry.
        """
        choices = [self.of(**values) for values in wanted]
        anchors = next((choice for choice in choices if choice), ())

        def nearest(anchor: Entry, choice: Sequence[Entry]) -> Entry | None:
            distances = [len(differing_settings(anchor, entry, ignoring)) for entry in choice]
            near = [entry for entry, distance in zip(choice, distances, strict=True) if distance == min(distances)]
            return highest(near, lambda entry: entry.accuracy_value)

        found = [tuple(nearest(anchor, choice) for choice in choices) for anchor in anchors]
        if not found:
            return (None,) * len(wanted)
        distances = [
            sum(len(differing_settings(anchor, entry, ignoring)) for entry in entries if entry is not None)
            for anchor, entries in zip(anchors, found, strict=True)
        ]
        closest = [entries for entries, distance in zip(found, distances, strict=True) if distance == min(distances)]
        chosen = highest(closest, lambda entries: max(entry.accuracy_value for entry in entries if entry is not None))
        assert chosen is not None
        return chosen


def published_results(document: Document) -> Results:
    """The document's own entries."""
    return Results(
        document=document,
        published=True,
        entries=tuple(_published_entry(result, document) for result in document.results),
        difference=_plain_difference,
    )


def differing_settings(first: Entry, second: Entry, ignoring: Collection[str] = ()) -> list[str]:
    """Names and values of the settings that differ between two of our entries, apply to both and are known of both.

    Settings in which both entries do as the document did are left out: it may have trained them differently itself.
    """
    ones, twos = dict(first.settings), dict(second.settings)
    ignored = {*ignoring, *(first.as_documented & second.as_documented)}
    return [
        f"{name} {ones[name]} and {twos[name]}"
        for name in ones
        if name in twos
        and name not in ignored
        and ones[name] != twos[name]
        and not {"", NOT_APPLICABLE} & {ones[name], twos[name]}
    ]


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
        epoch_seconds=result.epoch_seconds,
        phase_2_minutes=result.phase_2_minutes,
        evaluation_seconds=result.evaluation_seconds,
        parameters=result.parameters,
        epochs=result.epochs,
        best_epoch=result.best_epoch,
        train_accuracy=result.train_accuracy,
        val_accuracy=result.val_accuracy,
        train_loss=result.train_loss,
        val_loss=result.val_loss,
        image_size=document.settings_of(result.backbone, result.regime).get("data.image_size"),
        classes=result.classes,
    )


def _plain_difference(first: Entry, second: Entry) -> Difference | None:
    one, two = number_of(first.accuracy), number_of(second.accuracy)
    if one is None or two is None:
        return None
    return Difference(value=one - two, sure=is_above(one, two) or is_above(two, one))


def _without_backend(framework: str | None) -> str | None:
    return None if framework is None else framework.split(" ")[0]
