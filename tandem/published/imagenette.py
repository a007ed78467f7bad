"""Claims of the Imagenette document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter

import numpy as np

from tandem.evaluation.imagenet import letters_and_digits
from tandem.evaluation.intervals import LEVEL
from tandem.evaluation.predictions import Predictions, align
from tandem.evaluation.resampling import (
    NUM_RESAMPLES,
    SEED,
    class_counts,
    class_scores,
    class_support,
    weight_blocks,
)
from tandem.evaluation.ties import TOLERANCE, is_above
from tandem.published.entries import Entry, Results, combined_difference
from tandem.published.judging import (
    Claim,
    Judgement,
    above_zero,
    accuracy_gap,
    all_of,
    each,
    judged,
    lowest_loss,
    missing,
    ranked,
    together,
    undecided,
    with_differing_settings,
)
from tandem.rendering.tables import Estimate, number_of

# Accuracies that the document calls "near 1" and "far below", by our reading.
NEAR_ONE = 0.95
FAR_BELOW = 0.1
MOST_CLASSES = 3  # named for a claim about all classes

_TRAINED = ("scratch", "frozen")
_GAS_PUMP_AND_CHAIN_SAW = ("gas_pump", "chain_saw")
_TAKEN_FOR = ("cassette_player", "garbage_truck")


def _frozen_beats_others(results: Results) -> Judgement:
    """frozen is more accurate than scratch with the same backbone and than the network off the shelf."""
    wanted = ({"backbone": "efficientnet_b0", "regime": regime} for regime in ("frozen", "scratch"))
    frozen, scratch, off_the_shelf = results.alike(*wanted, {"regime": "off_the_shelf"})
    return all_of(
        (
            ranked(results, frozen, scratch, ("frozen", "scratch")),
            ranked(results, frozen, off_the_shelf, ("frozen", "off_the_shelf")),
        )
    )


def _trained(results: Results) -> list[Entry]:
    return [entry for entry in results.alike(*({"regime": regime} for regime in _TRAINED)) if entry is not None]


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
            lowest, highest = entry.classes[by_f1[0]].f1, entry.classes[by_f1[-1]].f1
            because = f"{entry.regime}: lowest F1 {shown}"
            if not is_above(highest, lowest):
                found.append(undecided(f"{entry.regime}: F1 {lowest:.2f} of every class"))
            elif results.published:
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
            errors = [_errors_of(entry.predictions, place) for place in places]
            words = [_most_frequent_error(classes, place, of) for place, of in zip(places, errors, strict=True)]
            because = f"{entry.regime}: {', '.join(words)}"
            if not all(of.any() for of in errors):
                found.append(undecided(because))
                continue
            are_taken = partial(_are_taken_for, targets=targets)
            found.append(_in_resamples(entry.predictions, names, are_taken, because))
        return all_of(found) if found else missing(results, "confusion matrices")

    return judge


def _errors_of(runs: Sequence[Predictions], place: int) -> np.ndarray:
    """How often the images of a class were taken for each other class, by all runs together.

    Args:
        runs: Of the same images and classes.
        place: Index of the class.

    Returns:
        int64 of shape (classes,); 0 for the class itself.
    """
    answers = np.concatenate([run.predicted[run.truth == place] for run in runs])
    counts = np.bincount(answers, minlength=len(runs[0].classes))
    counts[place] = 0
    return counts


def _most_frequent_error(classes: Sequence[str], place: int, counts: np.ndarray) -> str:
    """The class that one is taken for most often.

    Args:
        classes: Names of all classes.
        place: Index of the class.
        counts: From _errors_of.
    """
    if not counts.any():
        return f"no errors in {classes[place]}"
    taken_for = [classes[int(other)] for other in np.flatnonzero(counts == counts.max())]
    times = f"in {counts.max()} of {counts.sum()} errors"
    return f"{classes[place]} for {' and '.join(taken_for)} {times}" + (" each" if len(taken_for) > 1 else "")


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


def _overfits_less(results: Results) -> Judgement:
    """The gap between training and validation accuracy is smaller for frozen than from scratch."""
    scratch, frozen = results.alike(*({"regime": regime} for regime in _TRAINED))
    gaps = {}
    for regime, entry in zip(_TRAINED, (scratch, frozen), strict=True):
        gap = None if entry is None else accuracy_gap(entry)
        if gap is None:
            return missing(results, f"training and validation accuracy of {regime}")
        gaps[regime] = gap
    numbers = {regime: number_of(gap) or 0.0 for regime, gap in gaps.items()}
    because = f"gap of {numbers['frozen']:.3f} for frozen, {numbers['scratch']:.3f} for scratch"
    if results.published:
        return judged(is_above(numbers["scratch"], numbers["frozen"]), because)
    found = above_zero(combined_difference(gaps["scratch"], gaps["frozen"]), f"{because}; difference")
    return replace(found, because=with_differing_settings(found.because, scratch, frozen))


def _losses_lower(results: Results) -> Judgement:
    """Training and validation loss of the last epoch are lower for frozen than from scratch."""
    scratch, frozen = results.alike(*({"regime": regime} for regime in _TRAINED))
    found = []
    for words, loss in (("training", attrgetter("train_loss")), ("validation", attrgetter("val_loss"))):
        losses = [loss(entry) for entry in (frozen, scratch) if entry is not None and loss(entry) is not None]
        if len(losses) < 2:
            return missing(results, "training and validation losses of scratch and frozen")
        because = f"{words} loss {losses[0]:.4f} for frozen, {losses[1]:.4f} for scratch"
        found.append(judged(is_above(losses[1], losses[0]), with_differing_settings(because, frozen, scratch)))
    return all_of(found)


def _f1_rises(names: Sequence[str] = ()) -> Callable[[Results], Judgement]:
    """Judges that the F1 of some classes is higher for frozen than from scratch; for ours in 95 % of the resamples.

    Args:
        names: Of the classes; all classes if empty.
    """

    def judge(results: Results) -> Judgement:
        scratch, frozen = results.alike(*({"regime": regime} for regime in _TRAINED))
        if scratch is None or frozen is None or not scratch.classes or scratch.classes.keys() != frozen.classes.keys():
            return missing(results, "F1 of each class from scratch and frozen")
        wanted = names or tuple(scratch.classes)
        by_name = {letters_and_digits(name): name for name in scratch.classes}
        if not {letters_and_digits(name) for name in wanted} <= by_name.keys():
            return missing(results, f"F1 of {' and '.join(wanted)}")
        shown = [by_name[letters_and_digits(name)] for name in wanted]
        pairs = {name: (scratch.classes[name].f1, frozen.classes[name].f1) for name in shown}
        lowest = sorted(pairs, key=lambda name: pairs[name][1] - pairs[name][0])[:MOST_CLASSES]
        because = ", ".join(f"{name} {pairs[name][0]:.2f} to {pairs[name][1]:.2f}" for name in lowest)
        because = with_differing_settings(because, scratch, frozen)
        if results.published:
            return judged(all(is_above(after, before) for before, after in pairs.values()), because)
        return all_of(_f1_rises_in_resamples(scratch, frozen, [name], because) for name in shown)

    return judge


def _f1_rises_in_resamples(scratch: Entry, frozen: Entry, names: Sequence[str], because: str) -> Judgement:
    before, after = scratch.predictions, frozen.predictions
    aligned = iter(align([*before, *after]))
    runs = [next(aligned) for _ in (*before, *after)]

    def rises(weights: np.ndarray, runs: Sequence[Predictions], places: list[int]) -> np.ndarray:
        support = class_support(runs[0].truth, len(runs[0].classes)) @ weights
        f1 = [class_scores(class_counts(run) @ weights, support)["f1"][places] for run in runs]
        of_scratch, of_frozen = np.mean(f1[: len(before)], axis=0), np.mean(f1[len(before) :], axis=0)
        return (of_frozen > of_scratch + TOLERANCE).all(axis=0)

    return _in_resamples(runs, names, rises, because)


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
        words="fine-tuning raises F1 of chain_saw (0.58 to 0.83) and of gas_pump (0.59 to 0.87)",
        judge=each(("efficientnet_b0",), _f1_rises(("chain_saw", "gas_pump"))),
    ),
    Claim(
        words="fine-tuning is significantly better in all classes",
        judge=each(("efficientnet_b0",), _f1_rises()),
    ),
    Claim(
        words="from scratch it overfits: training accuracy near 1, validation accuracy far below",
        judge=each(("efficientnet_b0",), _overfits),
    ),
    Claim(
        words="from scratch the validation loss rises from early on, after epoch 5 of 40",
        judge=each(("efficientnet_b0",), _loss_rises_early),
    ),
    Claim(
        words="the fine-tuned network overfits less (training minus validation accuracy 0.065 against 0.25)",
        judge=each(("efficientnet_b0",), _overfits_less),
    ),
    Claim(
        words="the fine-tuned network has the lower training and validation loss",
        judge=each(("efficientnet_b0",), _losses_lower),
    ),
)
