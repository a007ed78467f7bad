"""Claims of the document on lightweight networks and CIFAR-100."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tandem.published.entries import Entry, Results
from tandem.published.judging import (
    BY_FAR,
    Claim,
    Judgement,
    all_of,
    each,
    faster_or_slower,
    judged,
    lowest_loss,
    minutes_of,
    missing,
    most_accurate,
    ratio_of,
    together,
    undecided,
)

# The lowest loss may be in any of several neighbouring epochs by chance; this share of the epochs counts as neighbours.
EPOCH_NOISE = 0.1

# TFLOPS in float32 without tensor cores, from NVIDIA's data sheets.
_GPUS = {"T4": 8.1, "P100": 9.3, "V100": 14.0, "A100": 19.5, "H100": 67.0, "H200": 67.0}

_LIGHTWEIGHT = ("efficientnet_b0", "resnet50", "alexnet")


def _costs(
    first: str,
    others: Sequence[str],
    cost: Callable[[Entry], float | None],
    *,
    words: str,
    decide: Callable[[float], bool | None],
) -> Callable[[Results], Judgement]:
    """Judges the cost of a backbone as a multiple of the cost of each other one, each by its most accurate entry.

    Args:
        first: A backbone.
        others: The other backbones.
        cost: Of an entry.
        words: For the cost.
        decide: True if a multiple confirms the claim, False if it refutes it, None if it decides nothing.
    """

    def judge(results: Results) -> Judgement:
        found = []
        one = results.best(backbone=first)
        for other in others:
            two = results.best(backbone=other)
            ratio = ratio_of(one, two, cost) if one and two else None
            if ratio is None:
                found.append(missing(results, f"{words} of {first} and {other} on one machine"))
                continue
            because, is_so = f"{words}: {ratio:.2f} times that of {other}", decide(ratio)
            found.append(undecided(because) if is_so is None else judged(is_so, because))
        return all_of(found)

    return judge


def _is_less(ratio: float) -> bool | None:
    return {-1: True, 0: None, 1: False}[faster_or_slower(ratio)]


def _pretrained_no_faster(results: Results) -> Judgement:
    """Training from pretrained weights, in any regime, takes no less time than from scratch."""
    scratch = results.best(regime="scratch")
    pretrained = [entry for entry in results.entries if entry.regime not in (None, "scratch", "off_the_shelf")]
    found = [
        judged(faster_or_slower(ratio) >= 0, f"{entry.regime} {ratio:.2f} times the training from scratch")
        for entry in pretrained
        if scratch and (ratio := ratio_of(entry, scratch, minutes_of)) is not None
    ]
    return all_of(found) if found else missing(results, "times from scratch and from pretrained weights on one machine")


def _on_faster_gpus(*, faster: bool) -> Callable[[Results], Judgement]:
    """Judges that training on the faster of two GPUs takes less time, or that it does not.

    Args:
        faster: True for the first claim, False for the second.
    """

    def judge(results: Results) -> Judgement:
        found = []
        for regime in dict.fromkeys(entry.regime for entry in results.entries):
            timed = [(gpu, entry) for entry in results.of(regime=regime) if (gpu := _gpu_of(entry)) and entry.minutes]
            (slow, first), (fast, second) = (
                (pick(timed, key=lambda one: _GPUS[one[0]]) if timed else ("", None)) for pick in (min, max)
            )
            if first is None or second is None or slow == fast or not first.minutes or not second.minutes:
                continue
            ratio = second.minutes / first.minutes
            because = f"{regime} on {fast} {ratio:.2f} times the training on {slow}"
            found.append(judged((faster_or_slower(ratio) < 0) == faster, because))
        return all_of(found) if found else missing(results, f"times on two of {', '.join(_GPUS)}")

    return judge


def _gpu_of(entry: Entry) -> str | None:
    words = entry.gpu.replace("-", " ").replace(",", " ").split()
    return next((gpu for gpu in _GPUS if gpu in words), None)


def _needs_more_epochs(epochs: int) -> Callable[[Results], Judgement]:
    """Judges that from scratch the validation loss is lowest after so many epochs; a tenth of them is chance.

    A run that ends there with its lowest loss does not show that the loss would fall further.
    """

    def judge(results: Results) -> Judgement:
        entry = results.best(regime="scratch")
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
        words="EfficientNet-B0 has the shortest inference time",
        judge=together(
            _LIGHTWEIGHT,
            _costs(
                "efficientnet_b0",
                ("resnet50", "alexnet"),
                lambda entry: entry.milliseconds,
                words="time of one image",
                decide=_is_less,
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
            ),
        ),
    ),
    Claim(
        words="a faster GPU does not shorten the training of EfficientNet-B0",
        judge=each(("efficientnet_b0",), _on_faster_gpus(faster=False)),
    ),
    Claim(
        words="pretrained weights do not shorten the training of EfficientNet-B0",
        judge=each(("efficientnet_b0",), _pretrained_no_faster),
    ),
    Claim(
        words="ResNet-50 and AlexNet train faster on faster GPUs",
        judge=each(("resnet50", "alexnet"), _on_faster_gpus(faster=True)),
    ),
    Claim(words="AlexNet needs more than 25 epochs", judge=each(("alexnet",), _needs_more_epochs(25))),
)
