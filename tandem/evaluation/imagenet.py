"""Classification with a network's 1000 ImageNet outputs: mapping of a data set's classes to outputs, and scores.

imagenet_classes.csv lists ImageNet's classes (ILSVRC 2012) in the order of the outputs, with their WordNet names.
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
from scipy.special import logsumexp
from sklearn.metrics import precision_recall_fscore_support

from tandem.errors import UserError
from tandem.protocol.yaml_text import read_file

CLASSES_FILE = Path(__file__).with_name("imagenet_classes.csv")

NUM_OUTPUTS = 1000

Outputs = tuple[tuple[int, ...], ...]
"""ImageNet outputs, 0..999, of each class; no output belongs to two classes."""


@dataclass(frozen=True, kw_only=True)
class ImageNetClass:
    """One of ImageNet's classes."""

    wordnet_id: str
    """Such as n01440764."""
    names: tuple[str, ...]
    """WordNet names; the first one is the usual name."""


@functools.cache
def imagenet_classes() -> tuple[ImageNetClass, ...]:
    """The 1000 classes, in the order of a pretrained network's outputs."""
    with CLASSES_FILE.open(newline="", encoding="utf-8") as file:
        return tuple(
            ImageNetClass(wordnet_id=row["wordnet_id"], names=tuple(row["names"].split(", ")))
            for row in csv.DictReader(file)
        )


def match_classes(classes: Sequence[str], mapping_file: str | None = None) -> Outputs:
    """Finds the ImageNet outputs of each class.

    A class is found by its WordNet id or by one of its WordNet names; only letters and digits are compared. If several
    of ImageNet's classes have the name, it means the one whose usual name it is, if there is exactly one.

    Args:
        classes: Names of the classes.
        mapping_file: YAML file that gives a class other names or WordNet ids, for classes that are not called as in
            ImageNet; None without such a file.

    Raises:
        UserError: Classes match no ImageNet class or several; the message names all of them. Or the file is not such a
            mapping.
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
            f"{'; '.join(problems)}; give their ImageNet classes with --imagenet_classes FILE (YAML, such as `ants: "
            "[ant]`), or leave them out with --data.classes"
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
    """Logits of the mapped classes. Their softmax is the softmax over all outputs, given that one of the classes is
    right.

    Args:
        logits: Of shape (images, 1000).
        outputs: ImageNet outputs of each class.

    Returns:
        float64 of shape (images, classes); for a class with several outputs, the logarithm of the sum of their
        exponentials.
    """
    wide = logits.astype(np.float64)
    return np.stack([logsumexp(wide[:, list(members)], axis=1) for members in outputs], axis=1)


def scores_over_all_outputs(logits: np.ndarray, truth: np.ndarray, outputs: Outputs) -> dict[str, float]:
    """Scores of the highest of all 1000 outputs.

    The macro averages are scikit-learn's, over its own choice of labels: all outputs that are the truth or the
    prediction of some image. Predictions outside of the mapped classes add labels that no image has, whose precision,
    recall and F1 are 0. So these averages can be near 0 although the accuracy is high.

    Args:
        logits: Of shape (images, 1000).
        truth: Class of each image, int64 of shape (images,).
        outputs: ImageNet outputs of each class, each of which is a right prediction.

    Returns:
        imagenet_accuracy, imagenet_precision_macro, imagenet_recall_macro and imagenet_f1_macro, 0..1;
        imagenet_num_labels, the number of labels in the averages; imagenet_outside, the share of images whose
        prediction belongs to none of the classes.
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
    """Explains in a few sentences why the two kinds of scores of a network off the shelf differ.

    Args:
        accuracy: Accuracy among the mapped classes.
        scores: Result of scores_over_all_outputs.
        num_classes: Number of mapped classes.
    """
    text = (
        f"Accuracy is {accuracy:.4f} among the {num_classes} classes and {scores['imagenet_accuracy']:.4f} among all "
        f"{NUM_OUTPUTS} ImageNet outputs: for {scores['imagenet_outside']:.4f} of the images the highest output "
        f"belongs to none of the classes. Averaged over the {scores['imagenet_num_labels']:.0f} labels that occur as "
        f"truth or prediction, macro precision is {scores['imagenet_precision_macro']:.4f}"
    )
    if scores["imagenet_outside"] == 0:
        return f"{text}."
    return f"{text}; labels that no test image has count as 0."


def letters_and_digits(text: str) -> str:
    """The part of a class's or a data set's name that is compared: gas_pump and "Gas pump" are the same."""
    return "".join(character for character in text.casefold() if character.isalnum())


def _read_mapping(file: str, classes: Sequence[str]) -> dict[str, list[str]]:
    expected = "a YAML file that gives classes an ImageNet name or WordNet id, or a list of them, such as `ants: [ant]`"
    content = read_file(Path(file).expanduser(), "imagenet_classes", f"allowed: {expected}")
    if not isinstance(content, dict):
        raise UserError(f"imagenet_classes: {file} does not hold a mapping; allowed: {expected}")
    mapping: dict[str, list[str]] = {}
    for name, words in content.items():
        listed = words if isinstance(words, list) else [words]
        if str(name) not in classes:
            raise UserError(f"imagenet_classes: {file} has the class {name!r}; the classes are {', '.join(classes)}")
        if not listed or not all(isinstance(word, str) for word in listed):
            raise UserError(f"imagenet_classes: {file} gives {name} {words!r}; allowed: {expected}")
        mapping[str(name)] = listed
    return mapping


@functools.cache
def _outputs_by_name() -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Outputs by each class's first name, and by all its names and its WordNet id; only letters and digits."""
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
