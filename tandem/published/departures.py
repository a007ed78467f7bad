"""Differences between what our runs did and what a document did: in images, settings, weights and budget."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tandem.comparison.configurations import Configuration
from tandem.comparison.recorded_settings import NOT_APPLICABLE, caches_features, costs_of, settings_of
from tandem.protocol.settings import FIELDS
from tandem.published.documents import DataFacts, Document
from tandem.tracking import vocabulary
from tandem.tracking.reader import RunRecord

# Numbers of images that differ by less are the same: exact copies and unreadable files are left out, shares of a class
# are rounded, and a document's own split is not always clear.
SAME_SIZE = 0.05

FEWER_EPOCHS, MORE_EPOCHS = "fewer epochs", "more epochs"
SPLIT, IMAGES, CLASSES = "split", "images", "classes"
BUDGET, WEIGHTS = "budget", "weights"

# Settings that select a part of a data set; null selects all of it.
_LIMITS_OF_IMAGES = ("data.classes", "data.images_per_class", "data.train_images_per_class")


@dataclass(frozen=True, kw_only=True)
class Departure:
    """A difference between one of our rows and the document's experiment."""

    subject: str
    """The dotted name of a setting, or one of the constants above."""
    words: str
    """The difference for people, such as "5 of 10 classes"."""
    cost_only: bool = False
    """True if it changes times alone, so that it matters only to claims about time."""


def departures(configuration: Configuration, document: Document, data: str | None) -> tuple[Departure, ...]:
    """All differences between the runs of one configuration and the document's experiment.

    What the document does not state and nobody knows is no difference.

    Args:
        configuration: One of ours.
        document: Its facts and conditions are those that count.
        data: The document's name of the data set; None if it names none.
    """
    found: dict[str, Departure] = {}
    for run in configuration.runs:
        small = run.tags.get(vocabulary.BUDGET) == "small"
        if small:  # which implies a part of the images and a single epoch
            of_run = [Departure(subject=BUDGET, words="small budget")]
        else:
            of_run = [*_of_images(run, document.facts.get(data)), *_of_settings(run, document, configuration)]
        for one in (*of_run, *_of_weights(run, configuration)):
            found.setdefault(one.words, one)
    return tuple(found.values())


def _of_images(run: RunRecord, facts: DataFacts | None) -> list[Departure]:
    if facts is None:
        part = any(run.params.get(name, "null") != "null" for name in _LIMITS_OF_IMAGES)
        return [Departure(subject=IMAGES, words="part of the images")] if part else []
    names = {CLASSES: vocabulary.NUM_CLASSES, **vocabulary.NUM_IMAGES}
    numbers = {
        name: int(text) for name, parameter in names.items() if (text := run.params.get(parameter, "")).isdecimal()
    }
    if not {CLASSES, "train", "test"} <= numbers.keys():
        return [Departure(subject=IMAGES, words="number of classes or images not recorded")]
    numbers.setdefault("val", facts.val or 0)
    found = []
    if numbers[CLASSES] not in facts.classes:
        found.append(Departure(subject=CLASSES, words=_of_number(numbers[CLASSES], facts.classes[0], "classes")))
    total = sum(numbers[part] for part in vocabulary.NUM_IMAGES)
    parts = _parts(numbers, facts)
    other = [(ours, theirs, words) for ours, theirs, words in parts if not _same_size(ours, theirs)]
    if not any(_same_size(total, number) for number in facts.images):
        shown = other or [(total, max(facts.images), "images")]
        words = ", ".join(_of_number(ours, theirs, name) for ours, theirs, name in shown)
        found.append(Departure(subject=IMAGES, words=words))
    elif other:
        ours, theirs = (" and ".join(f"{pair[side]:,} {pair[2]}" for pair in parts) for side in (0, 1))
        found.append(Departure(subject=SPLIT, words=f"split into {ours} instead of {theirs}"))
    return found


def _parts(numbers: Mapping[str, int], facts: DataFacts) -> list[tuple[int, int, str]]:
    """Our number of images and the document's, with words for them, of each part that is known."""
    train = numbers["train"] + (numbers["val"] if facts.val is None else 0)
    known = (
        (train, facts.train, "training images"),
        (numbers["val"], facts.val, "validation images"),
        (numbers["test"], facts.test, "test images"),
    )
    return [(ours, theirs, words) for ours, theirs, words in known if theirs is not None]


def _same_size(ours: int, theirs: int) -> bool:
    return abs(ours - theirs) <= SAME_SIZE * theirs


def _of_number(ours: int, theirs: int, words: str) -> str:
    return f"{ours:,} of {theirs:,} {words}" if ours < theirs else f"{ours:,} {words} instead of {theirs:,}"


def as_documented(configuration: Configuration, document: Document) -> frozenset[str]:
    """Names of the settings that are known of the document and that the runs have as it had them."""
    wanted = document.settings_of(configuration.backbone, configuration.regime)
    return frozenset(
        name for name, value in wanted.items() if not any(_differs(run, name, value) for run in configuration.runs)
    )


def _differs(run: RunRecord, name: str, wanted: Any) -> bool:
    """True if a run has another value of a setting than the document; unknown ones do not differ."""
    if name == "cache_features":
        return not wanted and caches_features(run)
    text = (settings_of(run) | costs_of(run)).get(name, NOT_APPLICABLE)
    return text != NOT_APPLICABLE and not _is_same(_value(text), wanted)


def _of_settings(run: RunRecord, document: Document, configuration: Configuration) -> list[Departure]:
    found = []
    for name, wanted in document.settings_of(configuration.backbone, configuration.regime).items():
        if not _differs(run, name, wanted):
            continue
        if name == "cache_features":
            found.append(Departure(subject=name, words="cached features", cost_only=True))
            continue
        text = run.params.get(name, "")
        words, subject = f"{name} {text} instead of {_text(wanted)}", name
        if name == "max_epochs":
            fewer = float(text) < wanted
            subject = FEWER_EPOCHS if fewer else MORE_EPOCHS
            words = _of_number(int(text), wanted, "epochs")
        cost_only = FIELDS[name].metadata["affects"] == "cost"
        found.append(Departure(subject=subject, words=words, cost_only=cost_only))
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _is_same(ours: Any, theirs: Any) -> bool:
    numbers = (int, float)
    if isinstance(ours, numbers) and isinstance(theirs, numbers):
        return math.isclose(ours, theirs)
    return ours == theirs


def _of_weights(run: RunRecord, configuration: Configuration) -> list[Departure]:
    if configuration.regime == "scratch":
        return []
    words = []
    if configuration.random_weights:
        words.append("random weights")
    if run.params.get("weights", "").startswith("runs:/"):
        words.append("weights of an earlier run")
    return [Departure(subject=WEIGHTS, words=one) for one in words]
