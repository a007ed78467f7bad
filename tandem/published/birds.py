"""Claims of the birds document."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

from tandem.evaluation.ties import is_above
from tandem.published.departures import SPLIT
from tandem.published.entries import Difference, Results, combined_difference
from tandem.published.judging import (
    BY_FAR,
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
    with_differing_settings,
)
from tandem.rendering.tables import Estimate, format_value

_SIZE = "data.image_size"
_BIRDS = ("resnet50", "efficientnet_v2_b0")


def _regimes_in_order(results: Results) -> Judgement:
    """two_stage, then frozen with at most 0.01 less, then finetune, then scratch."""
    order = ("two_stage", "frozen", "finetune", "scratch")
    best = dict(zip(order, results.alike(*({"regime": regime} for regime in order)), strict=True))
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


def _times_faster(fast: str, slow: str, decide: Callable[[float], bool]) -> Callable[[Results], Judgement]:
    """Judges how many times less a regime takes than another one.

    Args:
        fast: The regime that is claimed to take less.
        slow: The other one.
        decide: True if so many times confirm the claim.
    """

    def judge(results: Results) -> Judgement:
        quick, long = results.alike({"regime": fast}, {"regime": slow})
        ratio = ratio_of(long, quick, minutes_of) if quick and long else None
        if ratio is None or quick is None or long is None:
            return missing(results, f"times of {fast} and {slow} on one machine")
        if isinstance(ratio, str):
            return undecided(ratio)
        because = f"{time_of(quick)} of {time_of(long)}, {ratio:.1f} times less"
        return judged(decide(ratio), with_differing_settings(because, quick, long))

    return judge


def _epoch_times_faster(times: float) -> Callable[[Results], Judgement]:
    """Judges that an epoch of the frozen network takes so many times less than one of the whole network, to a tenth."""

    def judge(results: Results) -> Judgement:
        frozen, whole = results.alike({"regime": "frozen"}, {"regime": "finetune"})
        ratio = ratio_of(whole, frozen, lambda entry: entry.epoch_seconds) if frozen and whole else None
        if ratio is None or frozen is None or whole is None:
            return missing(results, "times per epoch of frozen and finetune on one machine")
        if isinstance(ratio, str):
            return undecided(ratio)
        seconds = [format_value(entry.epoch_seconds, "seconds") for entry in (frozen, whole)]
        because = f"{seconds[0]} of {seconds[1]}, {ratio:.1f} times less"
        return judged(faster_or_slower(ratio / times) == 0, with_differing_settings(because, frozen, whole))

    return judge


def _freezing_against_overfitting(results: Results) -> Judgement:
    """A smaller gap between training and validation accuracy than with everything trained."""
    gaps = {}
    regimes = ("finetune", "frozen")
    finetune, frozen = results.alike(*({"regime": regime} for regime in regimes))
    for regime, entry in zip(regimes, (finetune, frozen), strict=True):
        gap = None if entry is None else accuracy_gap(entry)
        if gap is None:
            return missing(results, f"training and validation accuracy of {regime}")
        gaps[regime] = gap
    found = above_zero(
        combined_difference(gaps["finetune"], gaps["frozen"]),
        "training minus validation accuracy, finetune minus frozen",
    )
    return replace(found, because=with_differing_settings(found.because, finetune, frozen))


def _more_efficient(better: str, worse: str, regimes: Sequence[str]) -> Callable[[Results], Judgement]:
    """Judges that in each regime a backbone is better in accuracy or time and worse in neither.

    Better in one and worse in the other is undecided.
    """

    def judge(results: Results) -> Judgement:
        found = []
        for regime in regimes:
            wanted = ({"backbone": backbone, "regime": regime} for backbone in (better, worse))
            first, second = results.alike(*wanted)
            if first is None or second is None:
                found.append(missing(results, f"{better} and {worse} in {regime}"))
                continue
            ratio, difference = ratio_of(first, second, minutes_of), results.difference(first, second)
            words = [
                f"{ratio:.2f} times the training" if isinstance(ratio, float) else ratio or "no times on one machine",
                "no accuracies" if difference is None else f"accuracy {difference.written}",
                *(["not significant"] if difference and not difference.sure else []),
            ]
            because = with_differing_settings(f"{regime}: {', '.join(words)}", first, second)
            if not isinstance(ratio, float) or difference is None:
                found.append(undecided(because))
                continue
            of_accuracy = difference.sure * ((difference.number > 0) - (difference.number < 0))
            # 0 if it is better in one and worse in the other, or equal in both.
            balance = of_accuracy - faster_or_slower(ratio)
            found.append(judged(balance > 0, because) if balance else undecided(because))
        return all_of(found)

    return judge


def _recommended_size(size: int) -> Callable[[Results], Judgement]:
    """Judges that images of this size give more accuracy than others, with equal settings otherwise."""

    def judge(results: Results) -> Judgement:
        others = dict.fromkeys(
            (entry.regime, entry.image_size) for entry in results.entries if entry.image_size not in (None, size)
        )
        if not others:
            return missing(results, f"another image size than {size} pixels")
        found = []
        for regime, other_size in others:
            wanted = ({"regime": regime, "image_size": one} for one in (size, other_size))
            best, other = results.alike(*wanted, ignoring=(_SIZE,))
            names = f"{regime}, {size} pixels", f"{other_size} pixels"
            found.append(ranked(results, best, other, names, ignoring=_SIZE))
        return all_of(found)

    return judge


def _better_split(results: Results) -> Judgement:
    """More accurate with the document's split than with the publisher's.

    The test images differ, so that only intervals of independent scores can be compared. One judgement per backbone,
    regime and framework.
    """
    found = []
    kinds = dict.fromkeys((entry.backbone, entry.regime, entry.framework) for entry in results.entries)
    for backbone, regime, framework in kinds:
        same = {"backbone": backbone, "regime": regime, "framework": framework}
        first, second = (results.best(**same, split=split) for split in ("fractions", "publisher"))
        if first is not None and second is not None:
            names = f"{backbone} {regime} {framework}, 70/10/20", "the publisher's split"
            found.append(ranked(results, first, second, names, ignoring="data"))
    return all_of(found) if found else missing(results, "accuracies with the publisher's split and with 70/10/20")


def _as_many_parameters(first: str, second: str) -> Callable[[Results], Judgement]:
    """Judges that two backbones have equally many parameters, to a tenth."""

    def judge(results: Results) -> Judgement:
        entries = results.best(backbone=first), results.best(backbone=second)
        known = [entry.parameters for entry in entries if entry is not None and entry.parameters]
        if len(known) < len(entries):
            return missing(results, f"parameters of {first} and {second}")
        because = f"{first} {format_value(known[0], 'amount')}, {second} {format_value(known[1], 'amount')}"
        return judged(faster_or_slower(known[0] / known[1]) == 0, because)

    return judge


def _frameworks_differ(backbone: str, by: float) -> Judge:
    """In each regime by so much, rounded to one digit, in either direction."""

    def judge(results: Results) -> Judgement:
        found = []
        entries = results.of(backbone=backbone)
        for regime, test_set in dict.fromkeys((entry.regime, entry.test_set) for entry in entries):
            same = {"backbone": backbone, "regime": regime, "test_set": test_set}
            frameworks = dict.fromkeys(entry.framework for entry in results.of(**same))
            for framework in frameworks:
                if framework == "torch":
                    continue
                one, torch = results.alike({**same, "framework": framework}, {**same, "framework": "torch"})
                difference = results.difference(one, torch) if one and torch else None
                if difference is not None:
                    judgement = _as_large(difference, by, f"{regime}: {framework} minus torch")
                    found.append(replace(judgement, because=with_differing_settings(judgement.because, one, torch)))
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
        judge=each(_BIRDS, _times_faster("frozen", "two_stage", lambda ratio: round(ratio) == 3)),
        about_time=True,
    ),
    Claim(
        words="finetune takes much less time than two_stage",
        judge=each(_BIRDS, _times_faster("finetune", "two_stage", lambda ratio: ratio >= BY_FAR)),
        about_time=True,
    ),
    Claim(
        words="an epoch of the frozen ResNet-50 takes 70 seconds, one of the whole network 3 minutes, 2.6 times more",
        judge=each(("resnet50",), _epoch_times_faster(180 / 70)),
        about_time=True,
    ),
    Claim(
        words="freezing all layers but the last helps against overfitting",
        judge=each(_BIRDS, _freezing_against_overfitting),
    ),
    Claim(
        words="EfficientNet is more efficient than its best-known analogues",
        judge=together(_BIRDS, _more_efficient("efficientnet_v2_b0", "resnet50", ("scratch", "two_stage", "finetune"))),
        about_time=True,
    ),
    Claim(
        words="ResNet-50 and EfficientNetV2-B0 have about as many parameters",
        judge=together(_BIRDS, _as_many_parameters("resnet50", "efficientnet_v2_b0")),
    ),
    Claim(
        words="a network should be given images of its recommended size (224 pixels)",
        judge=each(_BIRDS, _recommended_size(224)),
        despite=(_SIZE,),
    ),
    Claim(
        words="a 70/10/20 split learns better than the publisher's",
        judge=_better_split,
        despite=(SPLIT,),
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
