"""Words for the parts of a data set: the names that people give to training, validation and test images."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

from tandem.errors import UserError, some_of

PARTS = ("train", "val", "test")

UNLABELLED = "unlabelled"
"""Kind of a name like `predict` or `unlabeled`: images without classes."""

SEVERAL = "several"
"""Kind of a name with the words of several parts, such as `trainval`."""

HELD_OUT_AS_TEST = "{} is used as test, since there is no other held-out part; data.parts says otherwise"

_WORDS = {
    "train": "train training trn learn learning",
    "val": "val vali valid validate validating validation vld dev devel development eval evaluate evaluation",
    "test": "test testing tst holdout heldout",
    UNLABELLED: "pred predict predicting prediction unlabeled unlabelled unsupervised unannotated submission inference",
}
_KIND_OF_WORD = {word: kind for kind, words in _WORDS.items() for word in words.split()}

_FILLERS = "dataset datasets set sets data daten images image imgs img photos pictures files folder split part samples"
"""Words that are written together with the word of a part: trainset, testimages."""


def kind_of(name: str) -> str | None:
    """The part that a folder, a file, a split or a value in a table is named after.

    The comparison ignores case, plurals, numbers and other words in the name: `Training`, `seg_train`, `train_images`,
    `TestSet` and `train-00000-of-00002` have the name of a part.

    Args:
        name: A single name, not a path.

    Returns:
        train, val, test, UNLABELLED or SEVERAL; None for a name without such a word.
    """
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))
    words = [word.casefold() for word in words]
    joined = ["".join(pair) for pair in itertools.pairwise(words)]  # hold_out
    kinds = {kind for word in (*words, *joined) for kind in _kinds_of_word(word)}
    if UNLABELLED in kinds:
        return UNLABELLED
    return SEVERAL if len(kinds) > 1 else next(iter(kinds), None)


def _kinds_of_word(word: str) -> set[str]:
    """Kinds of one word, which may be a plural, be joined to a filler, or be the words of two parts in one."""
    for form in (word, word.removesuffix("s")):
        if form in _KIND_OF_WORD:
            return {_KIND_OF_WORD[form]}
    for filler in _FILLERS.split():
        for form in (word.removesuffix(filler), word.removeprefix(filler)):
            form = form if form in _KIND_OF_WORD else form.removesuffix("s")
            if form != word and form in _KIND_OF_WORD:
                return {_KIND_OF_WORD[form]}
    for first, kind in _KIND_OF_WORD.items():
        second = _KIND_OF_WORD.get(word.removeprefix(first)) if word.startswith(first) else None
        if second is not None and len(first) > 2:
            return {kind, second}  # trainval, testdev
    return set()


def assign_parts(
    names: Iterable[str], given: Mapping[str, str] | None, *, of: str
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Parts by their names in a source that has no folders: splits, or values of a column.

    Args:
        names: Names of the parts in the source.
        given: The setting data.parts; None to recognise the names.
        of: Words for the source and what the names are, such as "splits of pets".

    Returns:
        The part of each name that is used, and one line for the names that are not.

    Raises:
        UserError: A name is not understood, two names stand for one part, or a given name does not exist.
    """
    names = list(dict.fromkeys(names))
    if given:
        check_given(given, names, of=of)
        found = {name: part for part, name in given.items()}
        left_out = [name for name in names if name not in found]
        return found, (f"{of} that data.parts does not name are not used: {some_of(left_out)}",) if left_out else ()
    kinds = {name: kind_of(name) for name in names}
    found = {name: kind for name, kind in kinds.items() if kind in PARTS}
    strange = [name for name, kind in kinds.items() if kind in (None, SEVERAL)]
    doubled = [name for name, part in found.items() if list(found.values()).count(part) > 1]
    if strange or doubled:
        why = f"{some_of(strange)} is not understood" if strange else f"{some_of(doubled)} stand for one part"
        raise UserError(
            f"data.source: {of} are {some_of(names)}, and {why}; say which is which with data.parts, such as "
            f"{suggestion(names)}"
        )
    notes = [f"{name} has no labels by its name and is not used" for name, kind in kinds.items() if kind not in PARTS]
    if without_test(found.values()):
        [held_out] = [name for name, part in found.items() if part == "val"]
        found[held_out] = "test"
        notes.append(HELD_OUT_AS_TEST.format(held_out))
    return found, tuple(notes)


def check_given(given: Mapping[str, str], names: Sequence[str], *, of: str) -> None:
    """Raises UserError if data.parts names something that the source does not have."""
    unknown = {part: name for part, name in given.items() if name not in names}
    if unknown:
        words = ", ".join(f"{part}: {name}" for part, name in unknown.items())
        raise UserError(f"data.parts: received {{{words}}}, but {of} are {some_of(names) or 'none'}")


def without_test(parts: Iterable[str]) -> bool:
    """True for parts with training and validation images and no test images.

    The validation images are then the publisher's only held-out images. They become the test images, and validation
    images are taken from the training images.
    """
    return {"train", "val"} == set(parts)


def suggestion(names: Sequence[str]) -> str:
    """An example of the setting data.parts with the names of a source."""
    by_part = {kind_of(name): name for name in reversed(names)}
    test = by_part.get("test") or by_part.get("val")
    train = by_part.get("train") or next(name for name in (*names, "NAME") if name != test)
    test = test or next(name for name in (*names, "NAME") if name != train)
    return f"{{train: {train}, test: {test}}}"
