"""Claims of the Imagenette document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from tandem.evaluation.imagenet import letters_and_digits
from tandem.evaluation.intervals import LEVEL
from tandem.evaluation.predictions import Predictions
from tandem.evaluation.resampling import (
    NUM_RESAMPLES,
    SEED,
    class_counts,
    class_scores,
    class_support,
    weight_blocks,
)
from tandem.evaluation.ties import TOLERANCE, is_above
from tandem.published.entries import Entry, Results
from tandem.published.judging import (
    Claim,
    Judgement,
    accuracy_gap,
    all_of,
    each,
    judged,
    lowest_loss,
    missing,
    ranked,
    together,
    undecided,
)
from tandem.rendering.tables import Estimate

# Accuracies that the document calls "near 1" and "far below", by our reading.
NEAR_ONE = 0.95
FAR_BELOW = 0.1

_GAS_PUMP_AND_CHAIN_SAW = ("gas_pump", "chain_saw")
_TAKEN_FOR = ("cassette_player", "garbage_truck")


def _frozen_beats_others(results: Results) -> Judgement:
    """frozen is more accurate than scratch with the same backbone and than the network off the shelf."""
    frozen, scratch = (results.best(backbone="efficientnet_b0", regime=regime) for regime in ("frozen", "scratch"))
    off_the_shelf = results.best(regime="off_the_shelf")
    return all_of(
        (
            ranked(results, frozen, scratch, ("frozen", "scratch")),
            ranked(results, frozen, off_the_shelf, ("frozen", "off_the_shelf")),
        )
    )


def _trained(results: Results) -> list[Entry]:
    entries = (results.best(regime=regime) for regime in ("scratch", "frozen"))
    return [entry for entry in entries if entry is not None]


def _hardest(names: Sequence[str]) -> Callable[[Results], Judgement]:
    """Judges that these classes have the lowest F1; for ours in 95 % of the resamples of the test images."""

    def judge(results: Results) -> Judgement:
        found = []
        for entry in _trained(results):
            by_f1 = sorted(entry.classes, key=lambda name: entry.classes[name].f1)
            places = _places(by_f1, names)
            if places is None:
                continue
            shown = ", ".join(f"{name} {entry.classes[name].f1:.2f}" for name in by_f1[: len(names) + 1])
            because = f"{entry.regime}: lowest F1 {shown}"
            if results.published:
                f1 = np.array([entry.classes[name].f1 for name in by_f1])
                found.append(judged(bool(_have_lowest(f1, places)), because))
            else:
                found.append(_in_resamples(entry.predictions, names, _are_hardest, because))
        return all_of(found) if found else missing(results, "F1 of each class")

    return judge


def _taken_for(names: Sequence[str], others: Sequence[str]) -> Callable[[Results], Judgement]:
    """Judges that each of these classes is confused most often with one of the others; in 95 % of the resamples."""

    def judge(results: Results) -> Judgement:
        found = []
        for entry in _trained(results):
            classes = entry.predictions[0].classes if entry.predictions else ()
            places, targets = _places(classes, names), _places(classes, others)
            if places is None or targets is None:
                continue
            words = []
            for place in places:
                answers = np.concatenate([run.predicted[run.truth == place] for run in entry.predictions])
                counts = np.bincount(answers, minlength=len(classes))
                counts[place] = 0
                most = int(counts.argmax())
                words.append(f"{classes[place]} for {classes[most]} in {counts[most]} of {counts.sum()} errors")
            are_taken = partial(_are_taken_for, targets=targets)
            found.append(_in_resamples(entry.predictions, names, are_taken, f"{entry.regime}: {', '.join(words)}"))
        return all_of(found) if found else missing(results, "confusion matrices")

    return judge


def _places(classes: Sequence[str], names: Sequence[str]) -> list[int] | None:
    """Indices of classes by name, matched by letters and digits; None if one is missing."""
    known = [letters_and_digits(name) for name in classes]
    wanted = [letters_and_digits(name) for name in names]
    return [known.index(name) for name in wanted] if set(wanted) <= set(known) else None


def _in_resamples(
    runs: Sequence[Predictions],
    names: Sequence[str],
    is_so: Callable[[np.ndarray, Sequence[Predictions], list[int]], np.ndarray],
    because: str,
) -> Judgement:
    """Holds if something is so in 95 % of the resamples of the test images, does not hold if in at most 5 %.

    Args:
        runs: Predictions of each run, with images in the same order; at least one.
        names: Of some classes.
        is_so: Takes weights of the images, of shape (images, resamples), the predictions and the indices of the
            classes; returns bool of shape (resamples,).
        because: The numbers on the test images themselves.
    """
    truth, places = runs[0].truth, _places(runs[0].classes, names) or []
    blocks = weight_blocks(truth, NUM_RESAMPLES, SEED)
    share = float(np.mean(np.concatenate([is_so(weights, runs, places) for _, weights in blocks])))
    because = f"{because}; so in {100 * share:.0f} % of resamples"
    return undecided(because) if 1 - LEVEL < share < LEVEL else judged(share >= LEVEL, because)


def _are_hardest(weights: np.ndarray, runs: Sequence[Predictions], places: list[int]) -> np.ndarray:
    """True for each resample in which the classes have the lowest mean F1 over the runs."""
    support = class_support(runs[0].truth, len(runs[0].classes)) @ weights
    f1 = np.mean([class_scores(class_counts(run) @ weights, support)["f1"] for run in runs], axis=0)
    return _have_lowest(f1, places)


def _have_lowest(f1: np.ndarray, places: list[int]) -> np.ndarray:
    """True where the highest F1 of these classes is below the lowest of the others; a tie is not below.

    Args:
        f1: Of shape (classes, ...).
        places: Indices of some classes.
    """
    return f1[places].max(axis=0) + TOLERANCE < np.delete(f1, places, axis=0).min(axis=0)


def _are_taken_for(
    weights: np.ndarray, runs: Sequence[Predictions], places: list[int], targets: list[int]
) -> np.ndarray:
    """True for each resample in which the errors of all runs together are so."""
    result = np.ones(weights.shape[1], dtype=bool)
    for place in places:
        of_class = runs[0].truth == place
        answers = sum(class_support(run.predicted[of_class], len(run.classes)) for run in runs)
        counts = answers @ weights[of_class]
        result &= counts[targets].max(axis=0) > np.delete(counts, [place, *targets], axis=0).max(axis=0)
    return result


def _overfits(results: Results) -> Judgement:
    entry = results.best(regime="scratch")
    gap = None if entry is None else accuracy_gap(entry)
    if entry is None or entry.train_accuracy is None or entry.val_accuracy is None or gap is None:
        return missing(results, "training and validation accuracy of scratch")
    because = f"training accuracy {entry.train_accuracy:.2f}, validation {entry.val_accuracy:.2f}"
    if isinstance(gap, Estimate) and gap.low < FAR_BELOW < gap.high:
        return undecided(because)
    is_near_one = not is_above(NEAR_ONE, entry.train_accuracy)
    is_far_below = not is_above(FAR_BELOW, entry.train_accuracy - entry.val_accuracy)
    return judged(is_near_one and is_far_below, because)


def _loss_rises_early(results: Results) -> Judgement:
    """The lowest validation loss is in the first half of the epochs, if training was not stopped early."""
    entry = results.best(regime="scratch")
    if entry is None or entry.best_epoch is None or entry.epochs is None:
        return missing(results, "the epoch of the lowest validation loss")
    if entry.max_epochs is not None and entry.epochs < entry.max_epochs:
        # Early stopping ends a few epochs after the lowest loss, which is then always in the second half.
        return undecided(f"{lowest_loss(entry)}, stopped early of {entry.max_epochs}")
    return judged(entry.best_epoch <= entry.epochs / 2, lowest_loss(entry))


CLAIMS: tuple[Claim, ...] = (
    Claim(
        words="fine-tuning (frozen) beats training from scratch and the pretrained network as it is",
        judge=together(("efficientnet_b0", "resnet50"), _frozen_beats_others),
    ),
    Claim(
        words="gas_pump and chain_saw are the hardest classes",
        judge=each(("efficientnet_b0",), _hardest(_GAS_PUMP_AND_CHAIN_SAW)),
    ),
    Claim(
        words="gas_pump and chain_saw are taken for cassette_player and garbage_truck",
        judge=each(("efficientnet_b0",), _taken_for(_GAS_PUMP_AND_CHAIN_SAW, _TAKEN_FOR)),
    ),
    Claim(
        words="from scratch it overfits: training accuracy near 1, validation accuracy far below",
        judge=each(("efficientnet_b0",), _overfits),
    ),
    Claim(
        words="from scratch the validation loss rises from early on, after epoch 5 of 40",
        judge=each(("efficientnet_b0",), _loss_rises_early),
    ),
)
