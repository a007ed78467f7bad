"""What the document on lightweight networks and CIFAR-100 claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tandem.published.judging import (
    BY_FAR,
    TIME_NOISE,
    Claim,
    Judgement,
    all_of,
    best_row,
    each,
    judged,
    lowest_loss,
    minutes_of,
    missing,
    most_accurate,
    times_of,
    together,
    undecided,
)
from tandem.published.rows import Results, Row

# In which of neighbouring epochs a loss is the lowest is chance; so many as this share count as neighbours.
EPOCH_NOISE = 0.1

# Float32 without tensor cores as NVIDIA's data sheets have it, TFLOPS: 8.1, 9.3, 14, 19.5, 67, 67.
_GPUS = {"T4": 8.1, "P100": 9.3, "V100": 14.0, "A100": 19.5, "H100": 67.0, "H200": 67.0}

_LIGHTWEIGHT = ("efficientnet_b0", "resnet50", "alexnet")


def _costs(
    first: str,
    others: Sequence[str],
    cost: Callable[[Row], float | None],
    *,
    words: str,
    decide: Callable[[float], bool | None],
) -> Callable[[Results], Judgement]:
    """What the first costs, as a multiple of what each of the others does; of each its most accurate row.

    Args:
        first: a backbone.
        others: more of them.
        cost: of a row.
        words: for the cost.
        decide: what a multiple means for the claim; None where it decides nothing.
    """

    def judge(results: Results) -> Judgement:
        found = []
        one = best_row(results, backbone=first)
        for other in others:
            two = best_row(results, backbone=other)
            times = times_of(one, two, cost) if one and two else None
            if times is None:
                found.append(missing(results, f"{words} of {first} and {other} on one machine"))
                continue
            because, is_so = f"{words}: {times:.2f} times that of {other}", decide(times)
            found.append(undecided(because) if is_so is None else judged(is_so, because))
        return all_of(found)

    return judge


def _is_less(times: float) -> bool | None:
    return None if abs(times - 1) < TIME_NOISE else times < 1


def _pretrained_no_faster(results: Results) -> Judgement:
    """Of a network that is trained from pretrained weights, in whatever regime."""
    scratch = best_row(results, regime="scratch")
    pretrained = [row for row in results.rows if row.regime not in (None, "scratch", "off_the_shelf")]
    found = [
        judged(times > 1 - TIME_NOISE, f"{row.regime} {times:.2f} times the training from scratch")
        for row in pretrained
        if scratch and (times := times_of(row, scratch, minutes_of)) is not None
    ]
    return all_of(found) if found else missing(results, "times from scratch and from pretrained weights on one machine")


def _on_faster_gpus(*, faster: bool) -> Callable[[Results], Judgement]:
    """Whether training takes less time on the faster of two GPUs, or does not."""

    def judge(results: Results) -> Judgement:
        found = []
        for regime in dict.fromkeys(row.regime for row in results.rows):
            timed = [(gpu, row) for row in results.of(regime=regime) if (gpu := _gpu_of(row)) and row.minutes]
            (slow, first), (fast, second) = (
                (pick(timed, key=lambda one: _GPUS[one[0]]) if timed else ("", None)) for pick in (min, max)
            )
            if first is None or second is None or slow == fast or not first.minutes or not second.minutes:
                continue
            times = second.minutes / first.minutes
            because = f"{regime} on {fast} {times:.2f} times the training on {slow}"
            found.append(judged((times < 1 - TIME_NOISE) == faster, because))
        return all_of(found) if found else missing(results, f"times on two of {', '.join(_GPUS)}")

    return judge


def _gpu_of(row: Row) -> str | None:
    words = row.gpu.replace("-", " ").replace(",", " ").split()
    return next((gpu for gpu in _GPUS if gpu in words), None)


def _needs_more_epochs(epochs: int) -> Callable[[Results], Judgement]:
    """From scratch, its validation loss is the lowest after so many epochs; a tenth of them this or that way is chance.

    A run that ends there, with its loss the lowest at the end, does not show that it would fall further.
    """

    def judge(results: Results) -> Judgement:
        row = best_row(results, regime="scratch")
        if row is None or row.best_epoch is None or row.epochs is None:
            return missing(results, "the epoch of the lowest validation loss")
        because = lowest_loss(row)
        if row.best_epoch <= (1 - EPOCH_NOISE) * min(row.epochs, epochs):
            return judged(False, because)
        return judged(True, because) if row.best_epoch > (1 + EPOCH_NOISE) * epochs else undecided(because)

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
                lambda row: row.milliseconds,
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
                decide=lambda times: times >= BY_FAR,
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
