"""Judges a claim: holds, does not hold or can't tell, with the numbers that decide."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from scipy import stats

from tandem.comparison.recorded_settings import same_costs
from tandem.evaluation.intervals import LEVEL
from tandem.evaluation.ties import TOLERANCE, is_above
from tandem.published.entries import Difference, Entry, Results, differing_settings
from tandem.rendering.tables import Estimate, format_value

Verdict = Literal["holds", "does not hold", "can't tell"]

MOST_REASONS = 4  # given for a verdict

# Times have no intervals; two that differ by less than this share count as equal.
TIME_NOISE = 0.1
# Settings, or the first part of their names, that change the time of a step or the number of steps by themselves.
CHANGE_TRAINING_TIME = (
    *("data", "split", "batch_size", "precision", "augmentation.", "mixing.", "cache_views", "phases"),
    *("max_epochs", "early_stopping."),
)
# The same for the time to predict one image.
CHANGE_LATENCY = ("data.image_size", "precision")
# The factor between two times that documents call "by far" or "much less", by our reading.
BY_FAR = 2.0


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict with its reason."""

    verdict: Verdict
    because: str
    """The numbers that decide, in a phrase."""
    lacking: bool = False
    """True if results are missing."""


Judge = Callable[[Results], Judgement]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement of a document."""

    words: str
    judge: Judge
    """Decides it on the document's results or on ours."""
    about_time: bool = False
    """True if it compares times, so that rows with other costs than the document's do not decide it."""
    despite: tuple[str, ...] = ()
    """Subjects of departures from the document's experiment that do not matter, because the claim is about them."""


def judged(is_so: bool, because: str) -> Judgement:
    """Holds, or does not hold."""
    return Judgement(verdict="holds" if is_so else "does not hold", because=because)


def undecided(because: str) -> Judgement:
    """Can't tell."""
    return Judgement(verdict="can't tell", because=because)


def missing(results: Results, *what: str) -> Judgement:
    """Can't tell, because results are missing."""
    where = "not published" if results.published else "not in our runs"
    return replace(undecided(f"{where}: {', '.join(dict.fromkeys(what))}"), lacking=True)


def all_of(judgements: Iterable[Judgement]) -> Judgement:
    """Holds if all judgements hold, does not hold if one does not; the reason names those that decide."""
    found = list(judgements)
    verdicts: tuple[Verdict, ...] = ("does not hold", "can't tell", "holds")
    for verdict in verdicts:
        deciding = [one for one in found if one.verdict == verdict]
        if deciding:
            reasons = list(dict.fromkeys(one.because for one in deciding))
            more = f"; and {len(reasons) - MOST_REASONS} more" if len(reasons) > MOST_REASONS else ""
            because = "; ".join(reasons[:MOST_REASONS]) + more
            return Judgement(verdict=verdict, because=because, lacking=any(one.lacking for one in deciding))
    raise ValueError("all_of needs at least one judgement")


def each(backbones: Sequence[str], judge: Callable[[Results], Judgement]) -> Judge:
    """Judges each backbone by itself; ours also in each framework and on each set of test images by itself.

    Args:
        backbones: All backbones of the claim.
        judge: Takes the entries of one of them.
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
    """Judges several backbones against each other; ours in each framework and on each set of test images by itself.

    If no framework has all results that are needed, as in a document that trained one backbone in PyTorch and another
    in Keras, the entries of all frameworks are judged together.

    Args:
        backbones: All backbones of the claim.
        judge: Takes the entries of all of them.
    """

    def judge_together(results: Results) -> Judgement:
        found = [(words, judge(part)) for words, part in _parts(results, backbones)]
        if all(judgement.lacking for _, judgement in found):
            found = [(words, judge(part)) for words, part in _parts(results, backbones, apart=False)]
        return named(without_lacking(found))

    return judge_together


def without_lacking(judgements: Sequence[tuple[str, Judgement]]) -> Sequence[tuple[str, Judgement]]:
    """The judgements for which no results are missing; all of them if there is none."""
    return [one for one in judgements if not one[1].lacking] or judgements


def named(judgements: Iterable[tuple[str, Judgement]]) -> Judgement:
    """Combines judgements by all_of; each comes with words for its subject, and equal ones are merged."""
    found: dict[Judgement, list[str]] = {}
    for words, judgement in judgements:
        found.setdefault(judgement, []).extend([words] if words else [])
    return all_of(
        replace(judgement, because=f"{', '.join(names)}: {judgement.because}") if names else judgement
        for judgement, names in found.items()
    )


def _parts(results: Results, backbones: Sequence[str], *, apart: bool = True) -> list[tuple[str, Results]]:
    """The entries of some backbones in parts, each with words for it; a single empty part without entries.

    Args:
        results: Published results are a single part.
        backbones: Of the entries.
        apart: True to make each framework a part of its own.
    """
    entries = [entry for entry in results.entries if entry.backbone in backbones]
    if results.published or not entries:
        return [("", replace(results, entries=tuple(entries)))]
    found: dict[tuple[str, str | None], list[Entry]] = {}
    for entry in entries:
        found.setdefault((entry.test_set, entry.framework if apart else None), []).append(entry)
    several = len({test_set for test_set, _ in found}) > 1
    return [
        (" ".join(filter(None, (test_set if several else "", framework))), replace(results, entries=tuple(members)))
        for (test_set, framework), members in found.items()
    ]


def above_zero(difference: Difference, words: str) -> Judgement:
    """Holds if a difference is positive, does not hold if it is negative, can't tell if it may be chance.

    Args:
        difference: With its interval if there is one.
        words: For the difference.
    """
    because = f"{words} {difference.written}"
    return judged(difference.number > 0, because) if difference.sure else undecided(f"{because}, not significant")


def ranked(
    results: Results, first: Entry | None, second: Entry | None, names: tuple[str, str], ignoring: str = ""
) -> Judgement:
    """Holds if the first entry is more accurate than the second.

    Args:
        results: Among which the entries are.
        first: None if there is none; the same for the next one.
        second: The other entry.
        names: Of the two, for people.
        ignoring: A setting that the claim is about, whose difference is not mentioned.
    """
    entries = dict(zip(names, (first, second), strict=True))
    lacking = [f"accuracy of {name}" for name, entry in entries.items() if entry is None or entry.accuracy is None]
    difference = results.difference(first, second) if first and second else None
    if first is None or second is None or difference is None:
        return missing(results, *lacking)
    if results.published:
        because = ", ".join(f"{name} {entry.accuracy_value:.4f}" for name, entry in entries.items() if entry)
        return judged(is_above(difference.number, 0), because)
    found = above_zero(difference, f"{names[0]} minus {names[1]}")
    return replace(found, because=with_differing_settings(found.because, first, second, ignoring))


def rounds_to(value: float, stated: float, digits: int) -> bool:
    """True if a value, rounded to so many digits, is the stated one; a value halfway between two is both."""
    return not is_above(abs(value - stated), 0.5 * 10**-digits)


def ratio_of(
    first: Entry, second: Entry, cost: Callable[[Entry], float | None], changed_by: Sequence[str] | None = None
) -> float | str | None:
    """The first cost divided by the second.

    Args:
        first: An entry.
        second: Another one.
        cost: Of an entry.
        changed_by: Names of settings, or their beginnings, that change the cost by themselves; by default those that
            change the training time.

    Returns:
        The ratio; the reason why the two costs cannot be compared; None if one is unknown.
    """
    one, two = cost(first), cost(second)
    if one is None or not two:
        return None
    if not same_costs((first.costs, second.costs)) or first.machine != second.machine:
        return f"measured on unlike machines ({first.machine or 'unknown'}; {second.machine or 'unknown'})"
    if unlike := unlike_settings(first, second, CHANGE_TRAINING_TIME if changed_by is None else changed_by):
        return f"unlike: {', '.join(unlike)}"
    return one / two


def unlike_settings(first: Entry, second: Entry, names: Sequence[str]) -> list[str]:
    """The settings with these names, or beginnings of names, that differ between two entries, with both values."""
    return [words for words in differing_settings(first, second) if words.startswith(tuple(names))]


def with_differing_settings(because: str, first: Entry | None, second: Entry | None, ignoring: str = "") -> str:
    """A reason, and the settings in which the two entries differ that it is about."""
    if first is None or second is None:
        return because
    found = differing_settings(first, second, (ignoring,))
    return f"{because} (settings differ: {', '.join(found)})" if found else because


def faster_or_slower(ratio: float) -> Literal[-1, 0, 1]:
    """-1 if a ratio of times means faster, 1 if it means slower, 0 if the times count as equal."""
    if abs(ratio - 1) < TIME_NOISE - TOLERANCE:
        return 0
    return -1 if ratio < 1 else 1


def minutes_of(entry: Entry) -> float | None:
    """Training time, as a cost."""
    return entry.minutes


def time_of(entry: Entry) -> str:
    """Training time for people."""
    return format_value(None if entry.minutes is None else entry.minutes * 60, "seconds")


def accuracy_gap(entry: Entry) -> Estimate | float | None:
    """Training minus validation accuracy; with numbers of images also the interval of a difference of two shares.

    The interval is the normal approximation of two independent binomial shares.
    """
    if entry.train_accuracy is None or entry.val_accuracy is None:
        return None
    gap = entry.train_accuracy - entry.val_accuracy
    shares = (
        (entry.train_accuracy, entry.num_images.get("train")),
        (entry.val_accuracy, entry.num_images.get("val")),
    )
    variances = [share * (1 - share) / images for share, images in shares if images]
    if len(variances) < len(shares):
        return gap
    distance = float(stats.norm.ppf((1 + LEVEL) / 2)) * math.sqrt(sum(variances))
    return Estimate(value=gap, low=gap - distance, high=gap + distance)


def lowest_loss(entry: Entry) -> str:
    """The epoch with the lowest validation loss, for people."""
    return f"lowest validation loss in epoch {entry.best_epoch:.0f} of {entry.epochs:.0f}"


def most_accurate(best: str, others: Sequence[str], regime: str | None = None) -> Callable[[Results], Judgement]:
    """Judges that a backbone is more accurate than others, each by its most accurate entry with equal settings.

    Args:
        best: The backbone that is claimed to be more accurate.
        others: The other backbones.
        regime: Only entries of this regime and those that name none; all entries by default.
    """

    def judge(results: Results) -> Judgement:
        entries = tuple(entry for entry in results.entries if regime is None or entry.regime in (regime, None))
        results = replace(results, entries=entries)
        found = []
        for other in others:
            first, second = results.alike({"backbone": best}, {"backbone": other})
            found.append(ranked(results, first, second, (best, other)))
        return all_of(found)

    return judge
