"""A network's 1000 ImageNet outputs as answers to another question: which of these classes?

imagenet_classes.csv holds ImageNet's classes (ILSVRC 2012) in the order of their outputs, with their WordNet names.
"""

from __future__ import annotations

import csv
import difflib
import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from scipy.special import logsumexp
from sklearn.metrics import precision_recall_fscore_support

from tandem.errors import UserError

CLASSES_FILE = Path(__file__).with_name("imagenet_classes.csv")

NUM_OUTPUTS = 1000

Outputs = tuple[tuple[int, ...], ...]
"""For each class the ImageNet outputs, 0..999, that mean it; no output stands in two classes."""


@dataclass(frozen=True, kw_only=True)
class ImageNetClass:
    """One of ImageNet's classes."""

    wordnet_id: str
    names: tuple[str, ...]
    """The first one is what it is usually called."""


@functools.cache
def imagenet_classes() -> tuple[ImageNetClass, ...]:
    """The 1000 classes in the order of a pretrained network's outputs."""
    with CLASSES_FILE.open(newline="", encoding="utf-8") as file:
        return tuple(
            ImageNetClass(wordnet_id=row["wordnet_id"], names=tuple(row["names"].split(", ")))
            for row in csv.DictReader(file)
        )


def match_classes(classes: Sequence[str], mapping_file: str | None = None) -> Outputs:
    """The ImageNet outputs that mean each class.

    A class is found by its WordNet id, or by one of its WordNet names, of which letters and digits count. A name that
    several of ImageNet's classes have means the one that is usually called so, if there is just one.

    Args:
        classes: their names.
        mapping_file: a YAML file that gives a class another name or WordNet id, or a list of them, where its own is no
            ImageNet class; None where there is none.

    Raises:
        UserError: classes cannot be matched, or not in one way: it names all of them. Or the file is no such mapping.
    """
    mapping = {} if mapping_file is None else _read_mapping(mapping_file, classes)
    problems: list[str] = []
    found: list[tuple[int, ...]] = []
    for name in classes:
        outputs: list[int] = []
        for word in mapping.get(name, [name]):
            candidates = _candidates(word)
            if len(candidates) == 1:
                outputs.append(candidates[0])
            else:
                problems.append(_describe_failure(name, word, candidates))
        found.append(tuple(dict.fromkeys(outputs)))
    if problems:
        raise UserError(
            f"regime off_the_shelf: {len(problems)} of {len(classes)} classes match no single ImageNet class: "
            f"{'; '.join(problems)}; give theirs with --imagenet_classes FILE (YAML, such as `ants: [ant]`), or leave "
            "them out with --data.classes"
        )
    by_output: dict[int, list[str]] = defaultdict(list)
    for name, outputs_of_class in zip(classes, found, strict=True):
        for output in outputs_of_class:
            by_output[output].append(name)
    shared = [f"{' and '.join(names)} both mean {_title(output)}" for output, names in by_output.items() if names[1:]]
    if shared:
        raise UserError(
            f"regime off_the_shelf: {'; '.join(shared)}; give each class its own with --imagenet_classes FILE"
        )
    return tuple(found)


def mapped_logits(logits: np.ndarray, outputs: Outputs) -> np.ndarray:
    """The logits of the mapped classes alone; their softmax is that over all outputs, taken as given that one is right.

    Args:
        logits: of shape (images, 1000).
        outputs: of each class.

    Returns:
        float64 of shape (images, classes): for a class of several outputs the logarithm of their exponentials' sum.
    """
    wide = logits.astype(np.float64)
    return np.stack([logsumexp(wide[:, list(members)], axis=1) for members in outputs], axis=1)


def scores_over_all_outputs(logits: np.ndarray, truth: np.ndarray, outputs: Outputs) -> dict[str, float]:
    """Scores where the answer is the highest of all 1000 outputs.

    The macro averages are scikit-learn's by its own choice of labels: every output that is some image's truth or
    answer. Answers outside of the mapped classes add labels that no image has, each with a precision, recall and F1 of
    0, which is why these averages can be near 0 beside a high accuracy.

    Args:
        logits: of shape (images, 1000).
        truth: class of each image, int64 of shape (images,).
        outputs: of each class; where it has several, each of them is a right answer.

    Returns:
        imagenet_accuracy, imagenet_precision_macro, imagenet_recall_macro and imagenet_f1_macro, 0..1;
        imagenet_num_labels, over how many labels the averages go; imagenet_outside, the share of images whose answer is
        none of the classes.
    """
    answers = logits.argmax(axis=1)
    class_of_output = {output: label for label, members in enumerate(outputs) for output in members}
    answered = np.array([class_of_output.get(answer, -1) for answer in answers.tolist()])
    right = answered == truth
    labels = np.where(right, answers, np.array([members[0] for members in outputs])[truth])
    precision, recall, f1, _ = precision_recall_fscore_support(labels, answers, average="macro", zero_division=0)
    return {
        "imagenet_accuracy": float(right.mean()),
        "imagenet_precision_macro": float(precision),
        "imagenet_recall_macro": float(recall),
        "imagenet_f1_macro": float(f1),
        "imagenet_num_labels": float(len(set(labels.tolist()) | set(answers.tolist()))),
        "imagenet_outside": float((answered < 0).mean()),
    }


def explain_scores(accuracy: float, scores: Mapping[str, float], num_classes: int) -> str:
    """Why the two scores of a network off the shelf differ, in a sentence with its numbers.

    Args:
        accuracy: over the mapped classes alone.
        scores: what scores_over_all_outputs has found.
        num_classes: number of mapped classes.
    """
    text = (
        f"Among the {num_classes} classes {accuracy:.4f} of the test images are right; among all {NUM_OUTPUTS} "
        f"ImageNet outputs {scores['imagenet_accuracy']:.4f}: for {scores['imagenet_outside']:.4f} of the images the "
        f"highest of them is none of the classes. Averaged over the {scores['imagenet_num_labels']:.0f} labels that "
        f"occur as truth or answer, macro precision is {scores['imagenet_precision_macro']:.4f}"
    )
    if scores["imagenet_outside"] == 0:
        return f"{text}."
    return f"{text}, where labels that no test image has count as 0."


def letters_and_digits(text: str) -> str:
    """What of a class's or a data set's name counts when two are matched: gas_pump and "Gas pump" are one."""
    return "".join(character for character in text.casefold() if character.isalnum())


def _read_mapping(file: str, classes: Sequence[str]) -> dict[str, list[str]]:
    expected = "a YAML file that gives classes an ImageNet name or WordNet id, or a list of them, such as `ants: [ant]`"
    try:
        content = yaml.safe_load(Path(file).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"imagenet_classes: received {file!r} ({error.strerror}); allowed: {expected}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError(f"imagenet_classes: {file} is no YAML; allowed: {expected}") from None
    if not isinstance(content, dict):
        raise UserError(f"imagenet_classes: {file} holds no mapping; allowed: {expected}")
    mapping: dict[str, list[str]] = {}
    for name, words in content.items():
        listed = words if isinstance(words, list) else [words]
        if str(name) not in classes:
            raise UserError(f"imagenet_classes: {file} names the class {name!r}; the classes are {', '.join(classes)}")
        if not listed or not all(isinstance(word, str) for word in listed):
            raise UserError(f"imagenet_classes: {file} gives {name} {words!r}; allowed: {expected}")
        mapping[str(name)] = listed
    return mapping


@functools.cache
def _outputs_by_name() -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Outputs by each class's first name, and by any of its names and its WordNet id; letters and digits alone."""
    first: dict[str, list[int]] = defaultdict(list)
    every: dict[str, list[int]] = defaultdict(list)
    for output, entry in enumerate(imagenet_classes()):
        first[letters_and_digits(entry.names[0])].append(output)
        for name in dict.fromkeys(map(letters_and_digits, (*entry.names, entry.wordnet_id))):
            every[name].append(output)
    return dict(first), dict(every)


def _candidates(word: str) -> list[int]:
    first, every = _outputs_by_name()
    name = letters_and_digits(word)
    usual = first.get(name, [])
    return usual if len(usual) == 1 else every.get(name, [])


def _describe_failure(name: str, word: str, candidates: Sequence[int]) -> str:
    shown = name if word == name else f"{name} ({word})"
    if candidates:
        return f"{shown} may be {' or '.join(_title(output) for output in candidates)}"
    _, every = _outputs_by_name()
    close = difflib.get_close_matches(letters_and_digits(word), every, n=1, cutoff=0.8)
    return f"{shown} (did you mean {_title(every[close[0]][0])}?)" if close else shown


def _title(output: int) -> str:
    entry = imagenet_classes()[output]
    return f"{entry.wordnet_id} {entry.names[0]}"
