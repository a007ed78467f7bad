"""Claims of the birds document."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from tandem.evaluation.ties import is_above
from tandem.published.entries import Difference, Results, combined_difference
from tandem.published.judging import (
    Claim,
    Judge,
    Judgement,
    above_zero,
    accuracy_gap,
    all_of,
    each,
    faster_or_slower,
    judged,
    minutes_of,
    missing,
    ranked,
    ratio_of,
    rounds_to,
    time_of,
    together,
    undecided,
)
from tandem.rendering.tables import Estimate

_BIRDS = ("resnet50", "efficientnet_v2_b0")


def _regimes_in_order(results: Results) -> Judgement:
    """two_stage, then frozen with at most 0.01 less, then finetune, then scratch."""
    order = ("two_stage", "frozen", "finetune", "scratch")
    best = {regime: results.best(regime=regime) for regime in order}
    if all(entry is None or entry.accuracy is None for entry in best.values()):
        return missing(results, "the accuracies")
    steps = [ranked(results, best[one], best[two], (one, two)) for one, two in itertools.pairwise(order)]
    first, second = best["two_stage"], best["frozen"]
    lead = results.difference(first, second) if first and second else None
    if lead is not None and lead.sure:
        steps.append(_at_most(lead, 0.01, f"two_stage leads frozen by {lead.written}"))
    return all_of(steps)


def _at_most(difference: Difference, limit: float, because: str) -> Judgement:
    if isinstance(difference.value, Estimate) and difference.value.low <= limit < difference.value.high:
        return undecided(because)
    return judged(not is_above(difference.number, limit), because)


def _frozen_three_times_faster(results: Results) -> Judgement:
    """Rounded to a whole number."""
    thawed, frozen = results.best(regime="two_stage"), results.best(regime="frozen")
    ratio = ratio_of(thawed, frozen, minutes_of) if thawed and frozen else None
    if ratio is None or thawed is None or frozen is None:
        return missing(results, "times of frozen and two_stage on one machine")
    return judged(round(ratio) == 3, f"{time_of(frozen)} of {time_of(thawed)}, {ratio:.1f} times less")


def _freezing_against_overfitting(results: Results) -> Judgement:
    """A smaller gap between training and validation accuracy than with everything trained."""
    gaps = {}
    for regime in ("finetune", "frozen"):
        entry = results.best(regime=regime)
        gap = None if entry is None else accuracy_gap(entry)
        if gap is None:
            return missing(results, f"training and validation accuracy of {regime}")
        gaps[regime] = gap
    return above_zero(
        combined_difference(gaps["finetune"], gaps["frozen"]),
        "training minus validation accuracy, finetune minus frozen",
    )


def _more_efficient(better: str, worse: str, regimes: Sequence[str]) -> Callable[[Results], Judgement]:
    """Judges that in each regime a backbone is better in accuracy or time and worse in neither.

    Better in one and worse in the other is undecided.
    """

    def judge(results: Results) -> Judgement:
        found = []
        for regime in regimes:
            first, second = (results.best(backbone=backbone, regime=regime) for backbone in (better, worse))
            if first is None or second is None:
                found.append(missing(results, f"{better} and {worse} in {regime}"))
                continue
            ratio, difference = ratio_of(first, second, minutes_of), results.difference(first, second)
            words = [
                "no times on one machine" if ratio is None else f"{ratio:.2f} times the training",
                "no accuracies" if difference is None else f"accuracy {difference.written}",
                *(["not significant"] if difference and not difference.sure else []),
            ]
            because = f"{regime}: {', '.join(words)}"
            if ratio is None or difference is None:
                found.append(undecided(because))
                continue
            of_accuracy = difference.sure * ((difference.number > 0) - (difference.number < 0))
            # 0 if it is better in one and worse in the other, or equal in both.
            balance = of_accuracy - faster_or_slower(ratio)
            found.append(judged(balance > 0, because) if balance else undecided(because))
        return all_of(found)

    return judge


def _recommended_size(size: int) -> Callable[[Results], Judgement]:
    """More accurate with images of the recommended size than with others."""

    def judge(results: Results) -> Judgement:
        others = [entry for entry in results.entries if entry.image_size not in (None, size)]
        if not others:
            return missing(results, f"another image size than {size} pixels")
        found = []
        for other in others:
            best = results.best(regime=other.regime, image_size=size)
            names = f"{other.regime}, {size} pixels", f"{other.image_size} pixels"
            found.append(ranked(results, best, other, names))
        return all_of(found)

    return judge


def _frameworks_differ(backbone: str, by: float) -> Judge:
    """In each regime by so much, rounded to one digit, in either direction."""

    def judge(results: Results) -> Judgement:
        found = []
        entries = results.of(backbone=backbone)
        for regime, test_set in dict.fromkeys((entry.regime, entry.test_set) for entry in entries):
            torch = results.best(backbone=backbone, regime=regime, test_set=test_set, framework="torch")
            for entry in results.of(backbone=backbone, regime=regime, test_set=test_set):
                difference = results.difference(entry, torch) if torch and entry.framework != "torch" else None
                if difference is not None:
                    found.append(_as_large(difference, by, f"{regime}: {entry.framework} minus torch"))
        return all_of(found) if found else missing(results, f"accuracy of {backbone} in both frameworks")

    return judge


def _as_large(difference: Difference, by: float, words: str) -> Judgement:
    because, value = f"{words} {difference.written}", difference.value
    if rounds_to(abs(difference.number), by, digits=1):
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
