"""Claims of the document on lightweight networks and CIFAR-100."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Literal

from tandem.comparison.recorded_settings import same_costs
from tandem.evaluation.ties import highest
from tandem.published.departures import MORE_EPOCHS
from tandem.published.entries import Entry, Results
from tandem.published.judging import (
    BY_FAR,
    CHANGE_LATENCY,
    CHANGE_TRAINING_TIME,
    Claim,
    Judge,
    Judgement,
    all_of,
    each,
    faster_or_slower,
    judged,
    lowest_loss,
    minutes_of,
    missing,
    most_accurate,
    ranked,
    ratio_of,
    together,
    undecided,
    with_differing_settings,
)
from tandem.rendering.tables import format_value

# "Slightly slower", by our reading: at most this factor between two times.
SLIGHTLY = 1.5
# The lowest loss may be in any of several neighbouring epochs by chance; this share of the epochs counts as neighbours.
EPOCH_NOISE = 0.1

_NOT_PRETRAINED = (None, "scratch", "off_the_shelf")
_EQUAL = ("data", "test_set", "backbone", "regime", "framework", "settings")
_LIGHTWEIGHT = ("efficientnet_b0", "resnet50", "alexnet")


def _costs(
    first: str,
    others: Sequence[str],
    cost: Callable[[Entry], float | None],
    *,
    words: str,
    decide: Callable[[float], bool | None],
    changed_by: Sequence[str],
) -> Callable[[Results], Judgement]:
    """Judges the cost of a backbone as a multiple of the cost of each other one, each by entries with equal settings.

    Args:
        first: A backbone.
        others: The other backbones.
        cost: Of an entry.
        words: For the cost.
        decide: True if a multiple confirms the claim, False if it refutes it, None if it decides nothing.
        changed_by: Settings that change the cost by themselves.
    """

    def judge(results: Results) -> Judgement:
        found = []
        for other in others:
            one, two = _in_the_same_regime(results, first, other)
            ratio = ratio_of(one, two, cost, changed_by) if one and two else None
            if ratio is None or one is None or two is None:
                found.append(missing(results, f"{words} of {first} and {other} on one machine"))
                continue
            if isinstance(ratio, str):
                found.append(undecided(f"{words} of {first} and {other}: {ratio}"))
                continue
            because, is_so = f"{words}: {ratio:.2f} times that of {other}", decide(ratio)
            if one.regime != two.regime and not results.published:
                because += f" ({one.regime} and {two.regime})"
            because = with_differing_settings(because, one, two)
            found.append(undecided(because) if is_so is None else judged(is_so, because))
        return all_of(found)

    return judge


def _in_the_same_regime(results: Results, first: str, second: str) -> tuple[Entry | None, Entry | None]:
    """An entry of each backbone: of the same regime if there are such, with settings that differ least."""
    regimes = [entry.regime for entry in results.of(backbone=first)]
    shared = [regime for regime in dict.fromkeys(regimes) if results.of(backbone=second, regime=regime)]
    pairs = [
        results.alike(*({"backbone": backbone, "regime": regime} for backbone in (first, second))) for regime in shared
    ] or [results.alike(*({"backbone": backbone} for backbone in (first, second)))]
    best = highest(pairs, lambda pair: pair[0].accuracy_value if pair[0] else 0.0)
    return (None, None) if best is None else (best[0], best[1])


def _is_less(ratio: float) -> bool | None:
    return {-1: True, 0: None, 1: False}[faster_or_slower(ratio)]


def _is_slightly_more(ratio: float) -> bool | None:
    order = faster_or_slower(ratio)
    return None if order == 0 else order > 0 and ratio <= SLIGHTLY


def _between(middle: str, *, above: str, below: str) -> Callable[[Results], Judgement]:
    """Judges that a backbone is less accurate than one and more accurate than another one."""

    def judge(results: Results) -> Judgement:
        found = []
        for names in ((above, middle), (middle, below)):
            first, second = results.alike(*({"backbone": backbone} for backbone in names))
            found.append(ranked(results, first, second, names))
        return all_of(found)

    return judge


def _pretrained_no_faster(results: Results) -> Judgement:
    """Training from pretrained weights, in any regime, takes no less time than from scratch."""
    regimes = [one for one in dict.fromkeys(entry.regime for entry in results.entries) if one not in _NOT_PRETRAINED]
    found = []
    for regime in regimes:
        pretrained, scratch = results.alike({"regime": regime}, {"regime": "scratch"})
        ratio = ratio_of(pretrained, scratch, minutes_of) if pretrained and scratch else None
        if isinstance(ratio, str):
            found.append(undecided(f"{regime}: {ratio}"))
        elif ratio is not None:
            because = f"{regime} {ratio:.2f} times the training from scratch"
            found.append(judged(faster_or_slower(ratio) >= 0, with_differing_settings(because, pretrained, scratch)))
    return all_of(found) if found else missing(results, "times from scratch and from pretrained weights on one machine")


def _fewer_trainable(results: Results) -> Judgement:
    """The pretrained network has at most half as many trainable parameters as the one from scratch."""
    regimes = [one for one in dict.fromkeys(entry.regime for entry in results.entries) if one not in _NOT_PRETRAINED]
    found = []
    for regime in regimes:
        entries = results.alike({"regime": regime}, {"regime": "scratch"})
        known = [entry.trainable_parameters for entry in entries if entry and entry.trainable_parameters]
        if len(known) == len(entries):
            of_both = " of ".join(format_value(number, "amount") for number in known)
            found.append(judged(known[0] <= known[1] / BY_FAR, f"{regime}: {of_both} trainable parameters"))
    return all_of(found) if found else missing(results, "trainable parameters from scratch and from pretrained weights")


def _on_faster_gpus(backbones: Sequence[str], *, faster: bool) -> Judge:
    """Judges that training on the faster of two GPUs takes less time, or that it does not.

    Which of two GPUs is faster is measured, and not looked up: the one on which our networks predict, or the other
    backbones train, in less time. Without such evidence nothing is decided.

    Args:
        backbones: All backbones of the claim.
        faster: True for the first claim, False for the second.
    """

    def judge(results: Results) -> Judgement:
        found = []
        for backbone in backbones:
            pairs = _on_two_gpus(results.of(backbone=backbone))
            found += [_judge_gpus(results, one, two, faster=faster) for one, two in pairs] or [
                missing(results, f"times of {backbone} on two GPUs with equal settings")
            ]
        return all_of(found)

    return judge


def _judge_gpus(results: Results, first: Entry, second: Entry, *, faster: bool) -> Judgement:
    """Judges the training times of two entries on different GPUs.

    Args:
        results: All entries, which may show which GPU is faster.
        first: An entry with a training time.
        second: Another one, equal in everything but the machine.
        faster: True if the faster GPU is claimed to shorten the training.
    """
    assert first.minutes is not None and second.minutes is not None
    ratio = second.minutes / first.minutes
    order = _faster_gpu(results, first, second)
    slow, fast, share = (second, first, 1 / ratio) if order < 0 else (first, second, ratio)
    names = f"{slow.backbone} {slow.regime} {slow.framework}"
    because = f"{names} on {_gpu_of(fast)} {share:.2f} times the training on {_gpu_of(slow)}"
    if not order:
        return undecided(f"{because}; neither predictions nor other networks show which of the two is faster")
    return judged((faster_or_slower(share) < 0) == faster, because)


def _on_two_gpus(entries: Sequence[Entry]) -> list[tuple[Entry, Entry]]:
    """Pairs of entries with training times on different GPUs, equal in everything else."""
    timed = [entry for entry in entries if entry.gpu and entry.minutes]
    return [
        (one, two)
        for one, two in itertools.combinations(timed, 2)
        if _gpu_of(one) != _gpu_of(two)
        and all(getattr(one, name) == getattr(two, name) for name in _EQUAL)
        and same_costs((_without_hardware(one), _without_hardware(two)))
    ]


def _without_hardware(entry: Entry) -> list[tuple[str, str]]:
    return [(name, value) for name, value in entry.costs if name != "hardware"]


def _faster_gpu(results: Results, first: Entry, second: Entry) -> Literal[-1, 0, 1]:
    """1 if the second entry's GPU is faster, -1 if the first entry's is, 0 if nothing shows it.

    A GPU is faster if a network that ran on both predicts or, with another backbone, trains faster on it, and none
    slower.
    """
    gpus = _gpu_of(first), _gpu_of(second)
    ratios = []
    for pair in _on_two_gpus(results.entries):
        one, two = pair if _gpu_of(pair[0]) == gpus[0] else pair[::-1]
        if (_gpu_of(one), _gpu_of(two)) != gpus:
            continue
        if one.images_per_second and two.images_per_second:
            ratios.append(one.images_per_second / two.images_per_second)
        if one.milliseconds and two.milliseconds:
            ratios.append(two.milliseconds / one.milliseconds)
        if one.backbone != first.backbone and one.minutes and two.minutes:
            ratios.append(two.minutes / one.minutes)
    orders = {order for ratio in ratios if (order := faster_or_slower(ratio))}
    return 0 if len(orders) != 1 else 1 if -1 in orders else -1


def _gpu_of(entry: Entry) -> str:
    """Name of the GPU: the last part of the description of the hardware, without the number of GPUs."""
    return re.sub(r"^\d+ x ", "", entry.gpu.rpartition(", ")[2])


def _needs_more_epochs(epochs: int) -> Callable[[Results], Judgement]:
    """Judges that from scratch the validation loss is lowest after so many epochs; a tenth of them is chance.

    A run that ends there with its lowest loss does not show that the loss would fall further.
    """

    def judge(results: Results) -> Judgement:
        # The longest training shows most.
        entry = highest(results.of(regime="scratch"), lambda entry: entry.epochs or 0.0)
        if entry is None or entry.best_epoch is None or entry.epochs is None:
            return missing(results, "the epoch of the lowest validation loss")
        because = lowest_loss(entry)
        if entry.best_epoch <= (1 - EPOCH_NOISE) * min(entry.epochs, epochs):
            return judged(False, because)
        return judged(True, because) if entry.best_epoch > (1 + EPOCH_NOISE) * epochs else undecided(because)

    return judge


CLAIMS: tuple[Claim, ...] = (
    Claim(
        words="EfficientNet-B0 has the highest accuracy",
        judge=together(_LIGHTWEIGHT, most_accurate("efficientnet_b0", ("resnet50", "alexnet"))),
    ),
    Claim(
        words="ResNet-50 has the second highest accuracy",
        judge=together(_LIGHTWEIGHT, _between("resnet50", above="efficientnet_b0", below="alexnet")),
    ),
    Claim(
        words="EfficientNet-B0 has the shortest inference time",
        judge=together(
            _LIGHTWEIGHT,
            _costs(
                "efficientnet_b0",
                ("resnet50", "alexnet"),
                lambda entry: entry.milliseconds,
                words="time of one image",
                decide=_is_less,
                changed_by=CHANGE_LATENCY,
            ),
        ),
    ),
    Claim(
        words="ResNet-50 predicts slightly slower than EfficientNet-B0",
        judge=together(
            _LIGHTWEIGHT,
            _costs(
                "resnet50",
                ("efficientnet_b0",),
                lambda entry: entry.milliseconds,
                words="time of one image",
                decide=_is_slightly_more,
                changed_by=CHANGE_LATENCY,
            ),
        ),
    ),
    Claim(
        words="EfficientNet-B0 trains slowest by far",
        judge=together(
            _LIGHTWEIGHT,
            _costs(
                "efficientnet_b0",
                ("resnet50", "alexnet"),
                minutes_of,
                words="training",
                decide=lambda ratio: ratio >= BY_FAR,
                changed_by=CHANGE_TRAINING_TIME,
            ),
        ),
        about_time=True,
    ),
    Claim(
        words="a faster GPU does not shorten the training of EfficientNet-B0",
        judge=_on_faster_gpus(("efficientnet_b0",), faster=False),
        about_time=True,
    ),
    Claim(
        words="pretrained weights do not shorten the training of EfficientNet-B0",
        judge=each(("efficientnet_b0",), _pretrained_no_faster),
        about_time=True,
    ),
    Claim(
        words="the pretrained EfficientNet-B0 has significantly fewer trainable parameters",
        judge=each(("efficientnet_b0",), _fewer_trainable),
    ),
    Claim(
        words="ResNet-50 and AlexNet train faster on faster GPUs",
        judge=_on_faster_gpus(("resnet50", "alexnet"), faster=True),
        about_time=True,
    ),
    Claim(
        words="a slower GPU (T4) does not slow down the training of ResNet-50 and AlexNet much, which contradicts the "
        "claim before",
        judge=_on_faster_gpus(("resnet50", "alexnet"), faster=False),
        about_time=True,
    ),
    Claim(
        words="AlexNet needs more than 25 epochs",
        judge=each(("alexnet",), _needs_more_epochs(25)),
        despite=(MORE_EPOCHS,),
    ),
)
