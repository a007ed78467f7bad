"""A group's numbers in words, by the rules that stand in RULES and on the page."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

from tandem.comparison.analysis import Analysis, detectable_difference
from tandem.comparison.cells import ACCURACY, FIRST_PHASE, Cell, some
from tandem.rendering.tables import Kind, format_value
from tandem.tracking import vocabulary

# "Within 1 %": a gain of less than one image in a hundred.
SMALL_GAIN = 0.01
DOMINATED_NAMED = 5

RULES = (
    "Best: the highest accuracy on the test images. Tied with it are those that are not significantly less accurate: "
    "McNemar's exact test, or the paired bootstrap where there are several seeds, at 0.05, corrected by Holm's method "
    "over all pairs.",
    "Cheapest: of the best and those tied with it, as far as they ran on the same hardware, the one with the shortest "
    "training and the one that predicts a single image fastest.",
    "To be avoided: pretrained networks that are significantly less accurate than their backbone trained from scratch "
    "in the same framework; and those that took at least as long to train, on the same hardware, as one that is "
    "significantly more accurate.",
    "Not to be told: pairs without a significant difference; differences between methods where each has one run; and "
    "differences that are too small for the number of test images.",
)


def recommend(cells: Sequence[Cell], analysis: Analysis) -> tuple[str, ...]:
    """Says which cell is the best, which is cheaper and as good, what to avoid, and what the data cannot tell.

    Args:
        cells: of one group, at least one.
        analysis: of their predictions.

    Returns:
        Sentences, by RULES, in their order.
    """
    if len(cells) == 1:
        return (f"There is nothing to compare {cells[0].label} with: train another backbone, regime or framework.",)
    known = [cell for cell in cells if cell.label in analysis.predictions]
    if len(known) < 2:
        best = max(cells, key=lambda cell: cell.mean(ACCURACY) or 0.0)
        return (
            f"The highest accuracy has {best.label}: {_score(best.mean(ACCURACY))}. Without predictions of two or more "
            "rows it cannot be said whether that is chance.",
        )
    best = next(cell for cell in known if cell.label == analysis.tied_with_best("accuracy")[0])
    tied = [cell for cell in known if cell.label in analysis.tied_with_best("accuracy")]
    return (
        _best(best, tied, analysis),
        *_cheapest(best, tied),
        *_avoid(known, analysis),
        *_frameworks(analysis),
        *_unknown(cells, known, analysis),
    )


def thawing_sentence(cells: Sequence[Cell], analysis: Analysis) -> str:
    """What thawing brought and took, over some two_stage cells.

    Args:
        cells: of the regime two_stage, with results after the first phase; at least one.
        analysis: of their predictions, as far as there are any.
    """
    gains, times = [], []
    for cell in cells:
        after, before = cell.mean(ACCURACY), cell.mean(FIRST_PHASE + ACCURACY)
        if after is not None and before is not None:
            gains.append(after - before)
        seconds, first = cell.mean(vocabulary.TRAIN_SECONDS), cell.mean(FIRST_PHASE + vocabulary.TRAIN_SECONDS)
        if seconds and first:
            times.append(seconds / first)
    sentence = f"Thawing changed accuracy by {_range([_change(gain) for gain in sorted(gains)])}"
    if times:
        sentence += f" for {_range([f'{time:.1f}' for time in sorted(times)])} times the training time"
    within = sum(abs(gain) < SMALL_GAIN for gain in gains)
    sentence += f": within 1 % in {within} of {len(gains)}"
    if tests := analysis.thawing.get("accuracy"):
        better = sum(test.significant and test.difference.estimate > 0 for test in tests.values())
        worse = sum(test.significant and test.difference.estimate < 0 for test in tests.values())
        sentence += f", significantly better in {better}, significantly worse in {worse}"
    return sentence + "."


def _best(best: Cell, tied: Sequence[Cell], analysis: Analysis) -> str:
    interval = analysis.interval("accuracy", best.label)
    assert interval is not None
    sentence = (
        f"The most accurate is {best.label}: {_score(interval.estimate)} (95 % interval {_score(interval.low)} to "
        f"{_score(interval.high)})"
    )
    others = [cell.label for cell in tied if cell is not best]
    if not others:
        return sentence + "; all others are significantly less accurate."
    return f"{sentence}; statistically tied with it: {some(others)}."


def _cheapest(best: Cell, tied: Sequence[Cell]) -> list[str]:
    comparable = [cell for cell in tied if cell.costs == best.costs]
    if len(comparable) < 2:
        return []
    sentences = []
    kinds: tuple[tuple[str, Kind, str], ...] = (
        (vocabulary.TRAIN_SECONDS, "seconds", "to train"),
        (vocabulary.LATENCY_MILLISECONDS, "milliseconds", "to predict one image"),
    )
    for metric, kind, words in kinds:
        costs = {cell.label: cost for cell in comparable if (cost := cell.mean(metric)) is not None}
        if best.label not in costs:
            continue
        cheapest = min(costs, key=lambda label: costs[label])
        written, of_best = format_value(costs[cheapest], kind), format_value(costs[best.label], kind)
        if written == of_best:
            sentences.append(f"None of those tied with it is faster {words}: {written}.")
        else:
            sentences.append(
                f"As good, as far as these images can tell, and the fastest {words} is {cheapest}: {written} against "
                f"{of_best}."
            )
    return sentences


def _avoid(known: Sequence[Cell], analysis: Analysis) -> list[str]:
    sentences = []
    for (pretrained, scratch), test in analysis.transfer.items():
        if test.significant and test.difference.estimate < 0:
            change = test.difference
            assert change.low is not None and change.high is not None  # accuracy always has limits
            sentences.append(
                f"Avoid {pretrained}: pretraining made it significantly worse than {scratch} "
                f"({_change(change.estimate)}, {_change(change.low)} to {_change(change.high)})."
            )
    by_label = {cell.label: cell for cell in known}
    better_than: dict[str, list[str]] = {}
    for better, worse in analysis.significantly_better("accuracy"):
        first, second = by_label[better], by_label[worse]
        seconds, more_seconds = first.mean(vocabulary.TRAIN_SECONDS), second.mean(vocabulary.TRAIN_SECONDS)
        if first.costs == second.costs and seconds is not None and more_seconds is not None and seconds <= more_seconds:
            better_than.setdefault(worse, []).append(better)
    dominated = [cell for cell in known if cell.label in better_than]
    for cell in dominated[:DOMINATED_NAMED]:
        other = max((by_label[label] for label in better_than[cell.label]), key=lambda one: one.mean(ACCURACY) or 0.0)
        sentences.append(
            f"Avoid {cell.label}: {other.label} is significantly more accurate ({_score(other.mean(ACCURACY))} against "
            f"{_score(cell.mean(ACCURACY))}) after {format_value(other.mean(vocabulary.TRAIN_SECONDS), 'seconds')} of "
            f"training, no more than its {format_value(cell.mean(vocabulary.TRAIN_SECONDS), 'seconds')}."
        )
    if rest := [cell.label for cell in dominated[DOMINATED_NAMED:]]:
        sentences.append(f"Likewise slower to train and significantly less accurate than others: {some(rest)}.")
    return sentences


def _frameworks(analysis: Analysis) -> list[str]:
    tests = analysis.frameworks.get("accuracy", {})
    if not tests:
        return []
    found = [test for test in tests.values() if test.significant]
    keras = sum(test.difference.estimate > 0 for test in found)
    sentence = f"Keras and PyTorch differ significantly in accuracy in {len(found)} of {len(tests)} pairs"
    if found:
        sentence += f": Keras is better in {keras}, PyTorch in {len(found) - keras}"
    return [sentence + "."]


def _unknown(cells: Sequence[Cell], known: Sequence[Cell], analysis: Analysis) -> list[str]:
    sentences = []
    pairs = comb(len(known), 2)
    open_pairs = pairs - len(analysis.significantly_better("accuracy"))
    if open_pairs:
        sentences.append(f"These test images cannot tell {open_pairs} of {pairs} pairs apart.")
    if all(len(cell.runs) == 1 for cell in known):
        sentences.append("Tests with one run a row speak of two trained networks, not of two methods: add seeds.")
    disagreement = analysis.disagreement()
    if disagreement is not None:
        start = f"With {analysis.num_images:,} test images, of which the two best rows disagree on {disagreement:.1%}, "
        smallest = detectable_difference(analysis.num_images, disagreement)
        if smallest is None:
            sentences.append(start + "no difference between the two could be relied on to be found.")
        else:
            sentences.append(
                f"{start}a difference in accuracy has to be {_score(smallest)} to be found in four of five such test "
                "sets, and larger where many rows are compared."
            )
    unread = [cell for cell in cells if cell not in known]
    if unread:
        top = max(cell.mean(ACCURACY) or 0.0 for cell in known)
        above = sum((cell.mean(ACCURACY) or 0.0) > top for cell in unread)
        sentences.append(
            f"Nothing of this speaks of {len(unread)} rows without intervals"
            + (f", {above} of which have a higher accuracy." if above else ".")
        )
    return sentences


def _score(value: float | None) -> str:
    return format_value(value, "score")


def _change(value: float) -> str:
    return format_value(value, "difference")


def _range(written: Sequence[str]) -> str:
    """From the first to the last of some sorted numbers."""
    return written[0] if written[0] == written[-1] else f"{written[0]} to {written[-1]}"
