"""What the Imagenette document claims."""

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
from tandem.published.judging import (
    Claim,
    Judgement,
    accuracy_gap,
    all_of,
    best_row,
    each,
    judged,
    lowest_loss,
    missing,
    ranked,
    together,
    undecided,
)
from tandem.published.rows import Results, Row
from tandem.rendering.tables import Estimate

# What "near 1" and "far below" are taken for, of accuracies.
NEAR_ONE = 0.95
FAR_BELOW = 0.1


_GAS_PUMP_AND_CHAIN_SAW = ("gas_pump", "chain_saw")
_TAKEN_FOR = ("cassette_player", "garbage_truck")


def _frozen_beats_others(results: Results) -> Judgement:
    """scratch of the same backbone, and the network off the shelf."""
    frozen, scratch = (best_row(results, backbone="efficientnet_b0", regime=regime) for regime in ("frozen", "scratch"))
    off_the_shelf = best_row(results, regime="off_the_shelf")
    return all_of(
        (
            ranked(results, frozen, scratch, ("frozen", "scratch")),
            ranked(results, frozen, off_the_shelf, ("frozen", "off_the_shelf")),
        )
    )


def _trained_rows(results: Results) -> list[Row]:
    rows = (best_row(results, regime=regime) for regime in ("scratch", "frozen"))
    return [row for row in rows if row is not None]


def _hardest(names: Sequence[str]) -> Callable[[Results], Judgement]:
    """They have the lowest F1; of ours in 95 % of the resamples of the test images."""

    def judge(results: Results) -> Judgement:
        found = []
        for row in _trained_rows(results):
            by_f1 = sorted(row.classes, key=lambda name: row.classes[name].f1)
            if _places(by_f1, names) is None:
                continue
            shown = ", ".join(f"{name} {row.classes[name].f1:.2f}" for name in by_f1[: len(names) + 1])
            because = f"{row.regime}: lowest F1 {shown}"
            if results.published:
                found.append(judged(sorted(_places(by_f1, names) or ()) == list(range(len(names))), because))
            else:
                found.append(_in_resamples(row.predictions, names, _are_hardest, because))
        return all_of(found) if found else missing(results, "F1 of each class")

    return judge


def _taken_for(names: Sequence[str], others: Sequence[str]) -> Callable[[Results], Judgement]:
    """Each is taken for one of the others more often than for any class besides; of ours in 95 % of the resamples."""

    def judge(results: Results) -> Judgement:
        found = []
        for row in _trained_rows(results):
            classes = row.predictions[0].classes if row.predictions else ()
            places, targets = _places(classes, names), _places(classes, others)
            if places is None or targets is None:
                continue
            words = []
            for place in places:
                answers = np.concatenate([run.predicted[run.truth == place] for run in row.predictions])
                counts = np.bincount(answers, minlength=len(classes))
                counts[place] = 0
                most = int(counts.argmax())
                words.append(f"{classes[place]} for {classes[most]} in {counts[most]} of {counts.sum()} errors")
            are_taken = partial(_are_taken_for, targets=targets)
            found.append(_in_resamples(row.predictions, names, are_taken, f"{row.regime}: {', '.join(words)}"))
        return all_of(found) if found else missing(results, "confusion matrices")

    return judge


def _places(classes: Sequence[str], names: Sequence[str]) -> list[int] | None:
    """Of classes among others, matched by letters and digits; None where one is not there."""
    known = [letters_and_digits(name) for name in classes]
    wanted = [letters_and_digits(name) for name in names]
    return [known.index(name) for name in wanted] if set(wanted) <= set(known) else None


def _in_resamples(
    runs: Sequence[Predictions],
    names: Sequence[str],
    are: Callable[[np.ndarray, Sequence[Predictions], list[int]], np.ndarray],
    because: str,
) -> Judgement:
    """Is it so in 95 % of the resamples of the test images, or in no more than 5 %?

    Args:
        runs: the predictions on them, of each run in the same order; at least one.
        names: of classes among them.
        are: takes weights of the images, of shape (images, resamples), the predictions and the classes' places; gives
            bool of shape (resamples,).
        because: the numbers on the images as they are.
    """
    truth, places = runs[0].truth, _places(runs[0].classes, names) or []
    blocks = weight_blocks(truth, NUM_RESAMPLES, SEED)
    share = float(np.mean(np.concatenate([are(weights, runs, places) for _, weights in blocks])))
    because = f"{because}; so in {100 * share:.0f} % of resamples"
    return undecided(because) if 1 - LEVEL < share < LEVEL else judged(share >= LEVEL, because)


def _are_hardest(weights: np.ndarray, runs: Sequence[Predictions], places: list[int]) -> np.ndarray:
    """By the mean F1 over the runs."""
    support = class_support(runs[0].truth, len(runs[0].classes)) @ weights
    f1 = np.mean([class_scores(class_counts(run) @ weights, support)["f1"] for run in runs], axis=0)
    return f1[places].max(axis=0) < np.delete(f1, places, axis=0).min(axis=0)


def _are_taken_for(
    weights: np.ndarray, runs: Sequence[Predictions], places: list[int], targets: list[int]
) -> np.ndarray:
    """By the errors of all runs together."""
    result = np.ones(weights.shape[1], dtype=bool)
    for place in places:
        of_class = runs[0].truth == place
        answers = sum(class_support(run.predicted[of_class], len(run.classes)) for run in runs)
        counts = answers @ weights[of_class]
        result &= counts[targets].max(axis=0) > np.delete(counts, [place, *targets], axis=0).max(axis=0)
    return result


def _overfits(results: Results) -> Judgement:
    row = best_row(results, regime="scratch")
    gap = None if row is None else accuracy_gap(row)
    if row is None or row.train_accuracy is None or row.val_accuracy is None or gap is None:
        return missing(results, "training and validation accuracy of scratch")
    because = f"training accuracy {row.train_accuracy:.2f}, validation {row.val_accuracy:.2f}"
    if isinstance(gap, Estimate) and gap.low < FAR_BELOW < gap.high:
        return undecided(because)
    return judged(row.train_accuracy >= NEAR_ONE and row.train_accuracy - row.val_accuracy >= FAR_BELOW, because)


def _loss_rises_early(results: Results) -> Judgement:
    """The lowest validation loss is in the first half of the epochs, of a network that was trained for all of them."""
    row = best_row(results, regime="scratch")
    if row is None or row.best_epoch is None or row.epochs is None:
        return missing(results, "the epoch of the lowest validation loss")
    if row.max_epochs is not None and row.epochs < row.max_epochs:
        # It stops a few epochs after the lowest loss, which is then in the second half wherever the loss rises.
        return undecided(f"{lowest_loss(row)}, stopped early of {row.max_epochs}")
    return judged(row.best_epoch <= row.epochs / 2, lowest_loss(row))


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
