"""What the birds document claims."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from tandem.published.judging import (
    TIME_NOISE,
    Claim,
    Judge,
    Judgement,
    above_zero,
    accuracy_gap,
    all_of,
    best_row,
    each,
    judged,
    minutes_of,
    missing,
    ranked,
    time_of,
    times_of,
    together,
    undecided,
)
from tandem.published.rows import Difference, Results, accuracy_of, combined_difference
from tandem.rendering.tables import Estimate

_BIRDS = ("resnet50", "efficientnet_v2_b0")


def _regimes_in_order(results: Results) -> Judgement:
    """two_stage, at most 0.01 behind it frozen, then finetune, then scratch."""
    order = ("two_stage", "frozen", "finetune", "scratch")
    rows = {regime: best_row(results, regime=regime) for regime in order}
    if all(row is None or row.accuracy is None for row in rows.values()):
        return missing(results, "the accuracies")
    steps = [ranked(results, rows[one], rows[two], (one, two)) for one, two in itertools.pairwise(order)]
    first, second = rows["two_stage"], rows["frozen"]
    lead = results.difference(first, second) if first and second else None
    if lead is not None and lead.sure:
        steps.append(_at_most(lead, 0.01, f"two_stage leads frozen by {lead.written}"))
    return all_of(steps)


def _at_most(difference: Difference, limit: float, because: str) -> Judgement:
    if isinstance(difference.value, Estimate) and difference.value.low <= limit < difference.value.high:
        return undecided(because)
    return judged(difference.number <= limit, because)


def _frozen_three_times_faster(results: Results) -> Judgement:
    """To the next whole number of times."""
    thawed, frozen = best_row(results, regime="two_stage"), best_row(results, regime="frozen")
    times = times_of(thawed, frozen, minutes_of) if thawed and frozen else None
    if times is None or thawed is None or frozen is None:
        return missing(results, "times of frozen and two_stage on one machine")
    return judged(round(times) == 3, f"{time_of(frozen)} of {time_of(thawed)}, {times:.1f} times less")


def _freezing_against_overfitting(results: Results) -> Judgement:
    """A smaller gap between training and validation accuracy than with everything trained."""
    gaps = {}
    for regime in ("finetune", "frozen"):
        row = best_row(results, regime=regime)
        gap = None if row is None else accuracy_gap(row)
        if gap is None:
            return missing(results, f"training and validation accuracy of {regime}")
        gaps[regime] = gap
    return above_zero(
        combined_difference(gaps["finetune"], gaps["frozen"]),
        "training minus validation accuracy, finetune minus frozen",
    )


def _more_efficient(better: str, worse: str, regimes: Sequence[str]) -> Callable[[Results], Judgement]:
    """In each regime ahead in accuracy or time and behind in neither; a trade of one for the other decides nothing."""

    def judge(results: Results) -> Judgement:
        found = []
        for regime in regimes:
            first, second = (best_row(results, backbone=backbone, regime=regime) for backbone in (better, worse))
            if first is None or second is None:
                found.append(missing(results, f"{better} and {worse} in {regime}"))
                continue
            times, difference = times_of(first, second, minutes_of), results.difference(first, second)
            words = [
                "no times on one machine" if times is None else f"{times:.2f} times the training",
                "no accuracies" if difference is None else f"accuracy {difference.written}",
                *(["not significant"] if difference and not difference.sure else []),
            ]
            because = f"{regime}: {', '.join(words)}"
            if times is None or difference is None:
                found.append(undecided(because))
                continue
            of_time = (times < 1 - TIME_NOISE) - (times > 1 + TIME_NOISE)
            of_accuracy = difference.sure * ((difference.number > 0) - (difference.number < 0))
            # Ahead in one and behind in the other is 0, as is ahead in neither.
            balance = of_time + of_accuracy
            found.append(judged(balance > 0, because) if balance else undecided(because))
        return all_of(found)

    return judge


def _recommended_size(size: int) -> Callable[[Results], Judgement]:
    """More accurate with images of the recommended size than with others."""

    def judge(results: Results) -> Judgement:
        others = [row for row in results.rows if row.image_size not in (None, size)]
        if not others:
            return missing(results, f"another image size than {size} pixels")
        found = []
        for other in others:
            same = [row for row in results.of(regime=other.regime) if row.image_size == size]
            names = f"{other.regime}, {size} pixels", f"{other.image_size} pixels"
            found.append(ranked(results, max(same, key=accuracy_of, default=None), other, names))
        return all_of(found)

    return judge


def _frameworks_differ(backbone: str, by: float) -> Judge:
    """In each regime by so much, to its last digit, in either direction."""

    def judge(results: Results) -> Judgement:
        found = []
        for regime, test_set in dict.fromkeys((row.regime, row.test_set) for row in results.of(backbone=backbone)):
            torch = best_row(results, backbone=backbone, regime=regime, test_set=test_set, framework="torch")
            for row in results.of(backbone=backbone, regime=regime, test_set=test_set):
                difference = results.difference(row, torch) if torch and row.framework != "torch" else None
                if difference is not None:
                    found.append(_as_large(difference, by, f"{regime}: {row.framework} minus torch"))
        return all_of(found) if found else missing(results, f"accuracy of {backbone} in both frameworks")

    return judge


def _as_large(difference: Difference, by: float, words: str) -> Judgement:
    because, value = f"{words} {difference.written}", difference.value
    if round(abs(difference.number), 1) == by:
        return judged(True, because) if difference.sure else undecided(because)
    if isinstance(value, Estimate) and (value.low <= by <= value.high or value.low <= -by <= value.high):
        return undecided(because)
    return judged(False, because)


def _no_number_decides(reason: str) -> Judge:
    return lambda results: undecided(reason)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        words="two_stage is the most accurate, frozen at most 1 % behind it, then finetune, then scratch",
        judge=each(_BIRDS, _regimes_in_order),
    ),
    Claim(
        words="frozen takes about 3 times less time than two_stage",
        judge=each(_BIRDS, _frozen_three_times_faster),
    ),
    Claim(
        words="freezing all layers but the last helps against overfitting",
        judge=each(_BIRDS, _freezing_against_overfitting),
    ),
    Claim(
        words="EfficientNet is more efficient than its best-known analogues",
        judge=together(_BIRDS, _more_efficient("efficientnet_v2_b0", "resnet50", ("scratch", "two_stage", "finetune"))),
    ),
    Claim(
        words="a network should be given images of its recommended size (224 pixels)",
        judge=each(_BIRDS, _recommended_size(224)),
    ),
    Claim(
        words="the accuracy of ResNet-50 differs by 0.1 between TensorFlow and PyTorch",
        judge=_frameworks_differ("resnet50", 0.1),
    ),
    Claim(
        words="this may be due to different versions of the network",
        judge=_no_number_decides("a suspected cause, which no score decides"),
    ),
)
