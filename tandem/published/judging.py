"""How a claim is judged: holds, does not hold or can't tell, with the numbers that decide."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from scipy import stats

from tandem.evaluation.intervals import LEVEL
from tandem.published.rows import Difference, Results, Row, accuracy_of
from tandem.rendering.tables import Estimate, format_value

Verdict = Literal["holds", "does not hold", "can't tell"]

MOST_REASONS = 4  # that are given for a verdict

# Times have no intervals; such as differ by less than this share count as equal.
TIME_NOISE = 0.1
# What "by far" and "much less" are taken for, of times.
BY_FAR = 2.0


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Whether something holds.

    Args:
        because: the numbers that decide, in a phrase.
        lacking: whether it can't be told for want of results.
    """

    verdict: Verdict
    because: str
    lacking: bool = False


Judge = Callable[[Results], Judgement]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a document says, and what decides it on any results."""

    words: str
    judge: Judge


def judged(is_so: bool, because: str) -> Judgement:
    """Holds or does not."""
    return Judgement(verdict="holds" if is_so else "does not hold", because=because)


def undecided(because: str) -> Judgement:
    """Can't tell."""
    return Judgement(verdict="can't tell", because=because)


def missing(results: Results, *what: str) -> Judgement:
    """Can't tell, for what is not among the results."""
    where = "not published" if results.published else "not in our runs"
    return replace(undecided(f"{where}: {', '.join(dict.fromkeys(what))}"), lacking=True)


def all_of(judgements: Iterable[Judgement]) -> Judgement:
    """Holds if all of them hold, and does not if one does not; those that decide are named."""
    found = list(judgements)
    verdicts: tuple[Verdict, ...] = ("does not hold", "can't tell", "holds")
    for verdict in verdicts:
        deciding = [one for one in found if one.verdict == verdict]
        if deciding:
            reasons = list(dict.fromkeys(one.because for one in deciding))
            more = f"; and {len(reasons) - MOST_REASONS} more" if len(reasons) > MOST_REASONS else ""
            because = "; ".join(reasons[:MOST_REASONS]) + more
            return Judgement(verdict=verdict, because=because, lacking=any(one.lacking for one in deciding))
    raise ValueError("at least one judgement is needed")


def each(backbones: Sequence[str], judge: Callable[[Results], Judgement]) -> Judge:
    """Judges each backbone by itself: of ours in each framework, and on each set of test images.

    Args:
        backbones: all of which the claim speaks of.
        judge: takes the rows of one of them.
    """

    def judge_each(results: Results) -> Judgement:
        several = len(backbones) > 1
        return named(
            (f"{backbone if several else ''} {words}".strip(), judgement)
            for backbone in backbones
            for words, judgement in without_lacking(
                [(words, judge(part)) for words, part in _parts(results, (backbone,))]
            )
        )

    return judge_each


def together(backbones: Sequence[str], judge: Callable[[Results], Judgement]) -> Judge:
    """Judges several backbones against each other: of ours in each framework, and on each set of test images.

    Where no framework has all that it takes, as in a document that trained one backbone in PyTorch and another in
    Keras, the rows of all frameworks are judged together.

    Args:
        backbones: all of which the claim speaks of.
        judge: takes the rows of all of them.
    """

    def judge_together(results: Results) -> Judgement:
        found = [(words, judge(part)) for words, part in _parts(results, backbones)]
        if all(judgement.lacking for _, judgement in found):
            found = [(words, judge(part)) for words, part in _parts(results, backbones, apart=False)]
        return named(without_lacking(found))

    return judge_together


def without_lacking(judgements: Sequence[tuple[str, Judgement]]) -> Sequence[tuple[str, Judgement]]:
    """Those of frameworks and test images that have all that it takes, if there are such."""
    return [one for one in judgements if not one[1].lacking] or judgements


def named(judgements: Iterable[tuple[str, Judgement]]) -> Judgement:
    """All of several judgements, each with words for what it is of; those that say the same are named together."""
    found: dict[Judgement, list[str]] = {}
    for words, judgement in judgements:
        found.setdefault(judgement, []).extend([words] if words else [])
    return all_of(
        replace(judgement, because=f"{', '.join(names)}: {judgement.because}") if names else judgement
        for judgement, names in found.items()
    )


def _parts(results: Results, backbones: Sequence[str], *, apart: bool = True) -> list[tuple[str, Results]]:
    """The rows of some backbones in parts, with words for each; one without rows if need be.

    Args:
        results: published ones are one part.
        backbones: of the rows.
        apart: whether the frameworks are parts of their own.
    """
    rows = [row for row in results.rows if row.backbone in backbones]
    if results.published or not rows:
        return [("", replace(results, rows=tuple(rows)))]
    found: dict[tuple[str, str | None], list[Row]] = {}
    for row in rows:
        found.setdefault((row.test_set, row.framework if apart else None), []).append(row)
    several = len({test_set for test_set, _ in found}) > 1
    return [
        (" ".join(filter(None, (test_set if several else "", framework))), replace(results, rows=tuple(members)))
        for (test_set, framework), members in found.items()
    ]


def best_row(results: Results, **wanted: str | None) -> Row | None:
    """The most accurate of the rows with these values."""
    return max(results.of(**wanted), key=accuracy_of, default=None)


def above_zero(difference: Difference, words: str) -> Judgement:
    """Is it, and more than by chance?

    Args:
        difference: of ours with an interval where there is one.
        words: what it is a difference of.
    """
    because = f"{words} {difference.written}"
    return judged(difference.number > 0, because) if difference.sure else undecided(f"{because}, not significant")


def ranked(results: Results, first: Row | None, second: Row | None, names: tuple[str, str]) -> Judgement:
    """Is the first row more accurate than the second?"""
    rows = dict(zip(names, (first, second), strict=True))
    lacking = [f"accuracy of {name}" for name, row in rows.items() if row is None or row.accuracy is None]
    difference = results.difference(first, second) if first and second else None
    if first is None or second is None or difference is None:
        return missing(results, *lacking)
    if results.published:
        because = ", ".join(f"{name} {accuracy_of(row):.4f}" for name, row in rows.items() if row)
        return judged(difference.number > 0, because)
    return above_zero(difference, f"{names[0]} minus {names[1]}")


def times_of(first: Row, second: Row, cost: Callable[[Row], float | None]) -> float | None:
    """The first's cost over the second's; None where one is not known, or they are not of the same machine."""
    one, two = cost(first), cost(second)
    return None if one is None or not two or first.machine != second.machine else one / two


def minutes_of(row: Row) -> float | None:
    """Of training: a cost."""
    return row.minutes


def time_of(row: Row) -> str:
    """Training time in words."""
    return format_value(None if row.minutes is None else row.minutes * 60, "seconds")


def accuracy_gap(row: Row) -> Estimate | float | None:
    """Training minus validation accuracy; the interval is that of two binomial shares, approximately normal."""
    if row.train_accuracy is None or row.val_accuracy is None:
        return None
    gap = row.train_accuracy - row.val_accuracy
    shares = ((row.train_accuracy, row.num_images.get("train")), (row.val_accuracy, row.num_images.get("val")))
    variances = [share * (1 - share) / images for share, images in shares if images]
    if len(variances) < len(shares):
        return gap
    distance = float(stats.norm.ppf((1 + LEVEL) / 2)) * math.sqrt(sum(variances))
    return Estimate(value=gap, low=gap - distance, high=gap + distance)


def lowest_loss(row: Row) -> str:
    """In which epoch the validation loss was the lowest, in words."""
    return f"lowest validation loss in epoch {row.best_epoch:.0f} of {row.epochs:.0f}"


def most_accurate(best: str, others: Sequence[str], regime: str | None = None) -> Callable[[Results], Judgement]:
    """Each backbone by its most accurate row, of one regime if it is given; rows that name none stay."""

    def judge(results: Results) -> Judgement:
        rows = tuple(row for row in results.rows if regime is None or row.regime in (regime, None))
        results = replace(results, rows=rows)
        first = best_row(results, backbone=best)
        return all_of(ranked(results, first, best_row(results, backbone=other), (best, other)) for other in others)

    return judge
