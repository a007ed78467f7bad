"""What documents claim, judged on their own numbers and on ours by the same code."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

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
from tandem.report.cells import family_of
from tandem.report.published import letters_and_digits
from tandem.report.published_rows import Difference, Results, Row, combined_difference
from tandem.report.tables import Column, Estimate, Table, format_value, number_of

Verdict = Literal["holds", "does not hold", "can't tell"]

# A time has no interval; two that differ by less than this share count as equal.
TIME_NOISE = 0.1
NEAR_ONE = 0.95  # a training accuracy from which on "near 1" is said
FAR_BELOW = 0.1  # how far a validation accuracy is below the training accuracy of a network that overfits
MOST_REASONS = 4

# By NVIDIA's figures for float32, the slowest first.
_GPUS = ("T4", "P100", "V100", "A100", "H100", "H200")

_RULES = (
    "On its numbers: as they stand, since documents give no intervals. On ours: with runs of all that the claim names, "
    "and by differences that are significant (the paired tests of the other tables; without one, the 95 % intervals "
    "combined). Of several rows of ours with the same backbone, regime and framework the most accurate counts.",
    "Runs of a small budget, and those with random weights in place of pretrained ones, decide nothing.",
    "Times are compared on the same machine only; such as differ by less than a tenth count as equal.",
)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Whether something holds, and the numbers that decide."""

    verdict: Verdict
    because: str


Judge = Callable[[Results], Judgement]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a document says, and what decides it."""

    words: str
    judge: Judge


def claims_table(published: Results, ours: Results) -> Table:
    """Each claim of the document, judged on its numbers and on ours; no rows where no claims of it are known."""
    decisive = replace(ours, rows=tuple(row for row in ours.rows if not row.stand_in))
    nothing = _nothing_of_ours(ours) if not decisive.rows else None
    rows = []
    for claim in CLAIMS.get(published.document.name, ()):
        theirs = claim.judge(published)
        here = nothing or claim.judge(decisive)
        rows.append((claim.words, theirs.verdict, theirs.because, here.verdict, here.because))
    return Table(
        name="published_claims",
        title=f"Published claims: {published.document.name}",
        columns=(
            Column(key="claim", heading="claim"),
            Column(key="published", heading="on its numbers"),
            Column(key="published_because", heading="because"),
            Column(key="ours", heading="on ours"),
            Column(key="ours_because", heading="because"),
        ),
        rows=tuple(rows),
        notes=_RULES,
    )


def _nothing_of_ours(ours: Results) -> Judgement:
    data_sets = ours.document.data_sets
    data = data_sets[0] if len(data_sets) == 1 else "its data sets" if data_sets else "any data set"
    reason = f"no runs on {data}"
    if ours.rows:
        reason = f"only stand-ins on {data}: {'; '.join(sorted({row.stand_in for row in ours.rows}))}"
    return Judgement(verdict="can't tell", because=reason)


def _holds(because: str) -> Judgement:
    return Judgement(verdict="holds", because=because)


def _fails(because: str) -> Judgement:
    return Judgement(verdict="does not hold", because=because)


def _open(because: str) -> Judgement:
    return Judgement(verdict="can't tell", because=because)


def _judged(holds: bool, because: str) -> Judgement:
    return _holds(because) if holds else _fails(because)


def _missing(results: Results, *what: str) -> Judgement:
    some = ", ".join(dict.fromkeys(what))
    return _open(f"not published: {some}" if results.published else f"not in our runs: {some}")


def _all_of(judgements: Iterable[Judgement]) -> Judgement:
    """A claim that says several things holds if all of them do; the ones that decide are named."""
    found = list(judgements)
    for verdict in ("does not hold", "can't tell", "holds"):
        reasons = list(dict.fromkeys(one.because for one in found if one.verdict == verdict))
        if reasons:
            more = f"; and {len(reasons) - MOST_REASONS} more" if len(reasons) > MOST_REASONS else ""
            return Judgement(verdict=verdict, because="; ".join(reasons[:MOST_REASONS]) + more)
    return _open("nothing to compare")


def _parts(results: Results, backbones: Sequence[str]) -> list[tuple[str, Results]]:
    """The rows of some backbones, of ours by data set and framework; with the words that tell the parts apart.

    One part without rows where there are none.
    """
    rows = [row for row in results.rows if row.backbone in backbones]
    if results.published or not rows:
        return [("", replace(results, rows=tuple(rows)))]
    found: dict[tuple[str | None, str | None], list[Row]] = {}
    for row in rows:
        found.setdefault((row.data, row.framework), []).append(row)
    several_data = len({data for data, _ in found}) > 1
    return [
        (
            " ".join(filter(None, (data if several_data else "", framework))),
            replace(results, rows=tuple(members)),
        )
        for (data, framework), members in found.items()
    ]


def _each(backbones: Sequence[str], judge: Callable[[Results, str], Judgement]) -> Judge:
    """A claim about several backbones, each by itself: in each framework, on each data set."""

    def judge_all(results: Results) -> Judgement:
        # Backbones of which the same is said are named together.
        found: dict[Judgement, list[str]] = {}
        for backbone in backbones:
            for words, part in _parts(results, (backbone,)):
                found.setdefault(judge(part, backbone), []).append(f"{backbone} {words}".strip())
        if len(backbones) == 1 and results.published:
            return _all_of(found)
        return _all_of(_prefixed(f"{', '.join(names)}: ", judgement) for judgement, names in found.items())

    return judge_all


def _together(backbones: Sequence[str], judge: Callable[[Results], Judgement]) -> Judge:
    """A claim that compares backbones: in each framework, on each data set."""

    def judge_all(results: Results) -> Judgement:
        return _all_of(
            _prefixed(f"{words}: " if words else "", judge(part)) for words, part in _parts(results, backbones)
        )

    return judge_all


def _prefixed(words: str, judgement: Judgement) -> Judgement:
    return replace(judgement, because=words + judgement.because)


def _best(results: Results, **wanted: str | None) -> Row | None:
    """The most accurate of the rows with these values."""
    rows = results.of(**wanted)
    return max(rows, key=lambda row: number_of(row.accuracy) or 0.0) if rows else None


def _ranked(results: Results, first: Row | None, second: Row | None, names: tuple[str, str]) -> Judgement:
    """Is the first more accurate than the second?"""
    lacking = [
        f"accuracy of {name}"
        for name, row in zip(names, (first, second), strict=True)
        if row is None or row.accuracy is None
    ]
    if first is None or second is None or lacking:
        return _missing(results, *lacking)
    found = results.difference(first, second)
    assert found is not None
    one, two = number_of(first.accuracy), number_of(second.accuracy)
    assert one is not None and two is not None
    numbers = f"{names[0]} {one:.4f}, {names[1]} {two:.4f}"
    if results.published:
        return _judged(one > two, numbers)
    numbers += f" ({format_value(found.value, 'difference')})"
    value = number_of(found.value)
    assert value is not None
    return _judged(value > 0, numbers) if found.sure else _open(f"{numbers}, not significant")


def _by(first: Row, second: Row, of: Callable[[Row], float | None], same_machine: bool = True) -> float | None:
    """The first's number over the second's; None where one is missing, or the times are of two machines."""
    one, two = of(first), of(second)
    if one is None or not two or (same_machine and first.machine != second.machine):
        return None
    return one / two


def _minutes(row: Row) -> float | None:
    return row.minutes


def _time(minutes: float) -> str:
    return format_value(minutes * 60, "seconds")


# What the documents claim.


def _regimes_in_order(results: Results, backbone: str) -> Judgement:
    """two_stage, at most 0.01 behind it frozen, then finetune, then scratch."""
    order = ("two_stage", "frozen", "finetune", "scratch")
    rows = {regime: _best(results, backbone=backbone, regime=regime) for regime in order}
    lacking = [regime for regime, row in rows.items() if row is None or row.accuracy is None]
    if len(lacking) == len(order):
        return _missing(results, "the accuracies")
    steps = [_ranked(results, rows[one], rows[two], (one, two)) for one, two in itertools.pairwise(order)]
    first, second = rows["two_stage"], rows["frozen"]
    lead = results.difference(first, second) if first and second else None
    if lead is not None:
        steps.append(_at_most(lead, 0.01, "frozen behind two_stage by"))
    return _all_of(steps)


def _at_most(difference: Difference, limit: float, words: str) -> Judgement:
    because = f"{words} {format_value(difference.value, 'difference')}"
    if not isinstance(difference.value, Estimate):
        return _judged(difference.value <= limit, because)
    if difference.value.low <= limit < difference.value.high:
        return _open(because)
    return _judged(difference.value.high <= limit, because)


def _frozen_three_times_faster(results: Results, backbone: str) -> Judgement:
    thawed, frozen = (_best(results, backbone=backbone, regime=regime) for regime in ("two_stage", "frozen"))
    if thawed is None or frozen is None:
        return _missing(results, *_names_of_missing(thawed=thawed, frozen=frozen))
    ratio = _by(thawed, frozen, _minutes)
    if ratio is None or thawed.minutes is None or frozen.minutes is None:
        return _missing(results, "both times on one machine")
    because = f"{_time(frozen.minutes)} against {_time(thawed.minutes)}, {ratio:.1f} times less"
    return _judged(round(ratio) == 3, because)


def _names_of_missing(*, thawed: Row | None, frozen: Row | None) -> list[str]:
    return [name for name, row in (("time of two_stage", thawed), ("time of frozen", frozen)) if row is None]


def _freezing_against_overfitting(results: Results, backbone: str) -> Judgement:
    """A smaller gap between training and validation accuracy than with everything trained."""
    gaps = {}
    for regime in ("frozen", "finetune"):
        row = _best(results, backbone=backbone, regime=regime)
        gap = None if row is None else _gap(row)
        if gap is None:
            return _missing(results, f"training and validation accuracy of {regime}")
        gaps[regime] = gap
    found = combined_difference(gaps["finetune"], gaps["frozen"])
    because = ", ".join(f"{regime} {format_value(number_of(gap), 'difference')}" for regime, gap in gaps.items())
    because = f"training minus validation accuracy: {because}"
    value = number_of(found.value)
    assert value is not None
    return _judged(value > 0, because) if found.sure else _open(f"{because}, not significant")


def _gap(row: Row) -> Estimate | float | None:
    """Training minus validation accuracy, with the normal approximation of two binomial shares' interval."""
    if row.train_accuracy is None or row.val_accuracy is None:
        return None
    value = row.train_accuracy - row.val_accuracy
    train, val = row.num_images.get("train"), row.num_images.get("val")
    if not train or not val:
        return value
    variance = row.train_accuracy * (1 - row.train_accuracy) / train + row.val_accuracy * (1 - row.val_accuracy) / val
    half = 1.96 * math.sqrt(variance)
    return Estimate(value=value, low=value - half, high=value + half)


def _more_efficient(better: str, worse: str, regimes: Sequence[str]) -> Callable[[Results], Judgement]:
    """Not less accurate, and trained in less time; a trade of one for the other decides nothing."""

    def judge(results: Results) -> Judgement:
        found = []
        for regime in regimes:
            rows = [_best(results, backbone=backbone, regime=regime) for backbone in (better, worse)]
            first, second = rows
            if first is None or second is None:
                lacking = [f"{name} {regime}" for name, row in zip((better, worse), rows, strict=True) if row is None]
                found.append(_missing(results, *lacking))
                continue
            ratio = _by(first, second, _minutes)
            accuracy = results.difference(first, second)
            times = "" if ratio is None else f"{regime} in {ratio:.2f} of the time"
            if ratio is None or accuracy is None:
                reason = "no accuracies" if accuracy is None else "no times on one machine"
                found.append(_open(f"{times}, {reason}" if times else f"{regime}: {reason}"))
                continue
            value = number_of(accuracy.value)
            assert value is not None
            because = f"{times}, accuracy {format_value(accuracy.value, 'difference')}"
            faster, slower = ratio < 1 - TIME_NOISE, ratio > 1 + TIME_NOISE
            if faster and (value >= 0 or not accuracy.sure):
                found.append(_holds(because))
            elif not faster and (value <= 0 or not accuracy.sure) and (slower or accuracy.sure):
                found.append(_fails(because))
            else:
                found.append(_open(because))
        return _all_of(found)

    return judge


def _recommended_size(size: int) -> Callable[[Results, str], Judgement]:
    """More accurate with images of the recommended size than with others."""

    def judge(results: Results, backbone: str) -> Judgement:
        others = [row for row in results.rows if row.image_size not in (None, size)]
        if not others:
            sizes = sorted({row.image_size for row in results.rows if row.image_size})
            tried = ", ".join(f"{one} pixels" for one in sizes) or "none"
            return _open(f"no two image sizes to compare: {tried}")
        found = []
        for other in others:
            same = [row for row in results.of(regime=other.regime) if row.image_size == size]
            row = max(same, key=lambda row: number_of(row.accuracy) or 0.0, default=None)
            found.append(_ranked(results, row, other, (f"{size} pixels", f"{other.image_size} pixels")))
        return _all_of(found)

    return judge


def _frameworks_differ(backbone: str, by: float) -> Judge:
    """By so much, to its last digit, in the accuracy of the same backbone and regime."""

    def judge(results: Results) -> Judgement:
        found = []
        for regime in dict.fromkeys(row.regime for row in results.of(backbone=backbone)):
            rows = results.of(backbone=backbone, regime=regime)
            torch = max((r for r in rows if r.framework == "torch"), key=_accuracy_of, default=None)
            for keras in (row for row in rows if row.framework not in (None, "torch")):
                difference = results.difference(keras, torch) if torch else None
                if difference is None:
                    continue
                because = f"{regime}: {keras.framework} minus torch {format_value(difference.value, 'difference')}"
                found.append(_as_large(difference, by, because))
        return _all_of(found) if found else _missing(results, f"accuracy of {backbone} in both frameworks")

    return judge


def _accuracy_of(row: Row) -> float:
    return number_of(row.accuracy) or 0.0


def _as_large(difference: Difference, by: float, because: str) -> Judgement:
    value = number_of(difference.value)
    assert value is not None
    if round(abs(value), 1) == by:
        return _holds(because) if difference.sure else _open(because)
    if not isinstance(difference.value, Estimate):
        return _fails(because)
    low, high = difference.value.low, difference.value.high
    return _open(because) if low <= by <= high or low <= -by <= high else _fails(because)


def _undecidable(reason: str) -> Judge:
    return lambda results: _open(reason)


def _most_accurate(best: str, others: Sequence[str], regime: str | None = None) -> Callable[[Results], Judgement]:
    """Each backbone by its most accurate row, of one regime if it is given."""

    def judge(results: Results) -> Judgement:
        if regime is not None:
            # Published rows that name no regime stay.
            results = replace(results, rows=tuple(row for row in results.rows if row.regime in (regime, None)))
        first = _best(results, backbone=best)
        return _all_of(
            _ranked(results, first, _best(results, backbone=other), (_title(first, best), other)) for other in others
        )

    return judge


def _title(row: Row | None, name: str) -> str:
    return name if row is None or row.regime is None else f"{name} {row.regime}"


def _extreme_cost(
    first: str, others: Sequence[str], of: Callable[[Row], float | None], *, what: str, at_least: float | None
) -> Callable[[Results], Judgement]:
    """The first's cost is at least so many times that of each other; with None, it is the lowest."""

    def judge(results: Results) -> Judgement:
        found = []
        one = _best(results, backbone=first)
        for other in others:
            two = _best(results, backbone=other)
            if one is None or two is None or of(one) is None or of(two) is None:
                lacking = [name for name, row in ((first, one), (other, two)) if row is None or of(row) is None]
                found.append(_missing(results, *(f"{what} of {name}" for name in lacking)))
                continue
            ratio = _by(one, two, of)
            if ratio is None:
                found.append(_missing(results, f"{what} of {first} and {other} on one machine"))
                continue
            because = f"{what}: {first} {ratio:.2f} times {other}"
            if at_least is not None:
                found.append(_judged(ratio >= at_least, because))
            elif abs(ratio - 1) < TIME_NOISE:
                found.append(_open(because))
            else:
                found.append(_judged(ratio < 1, because))
        return _all_of(found)

    return judge


def _pretrained_no_faster(results: Results, backbone: str) -> Judgement:
    scratch = _best(results, backbone=backbone, regime="scratch")
    others = [row for row in results.rows if row.regime not in (None, "scratch", "off_the_shelf")]
    ratios = {row.regime: _by(row, scratch, _minutes) for row in others} if scratch else {}
    known = {regime: ratio for regime, ratio in ratios.items() if ratio is not None}
    if not known:
        return _missing(results, "time from scratch and from pretrained weights on one machine")
    return _all_of(
        _judged(ratio >= 1 - TIME_NOISE, f"{regime} takes {ratio:.2f} of the time from scratch")
        for regime, ratio in known.items()
    )


def _on_faster_gpus(*, faster: bool) -> Callable[[Results, str], Judgement]:
    """Whether training takes less time on the faster of two GPUs, or does not."""

    def judge(results: Results, backbone: str) -> Judgement:
        found = []
        for regime in dict.fromkeys(row.regime for row in results.rows):
            timed = [
                (_GPUS.index(gpu), row)
                for row in results.of(regime=regime)
                for gpu in _GPUS
                if row.minutes and gpu in row.machine.replace("-", " ").replace(",", " ").split()
            ]
            if len({rank for rank, _ in timed}) < 2:
                continue
            (slow, first), *_, (fast, second) = sorted(timed, key=lambda item: item[0])
            assert first.minutes is not None and second.minutes is not None
            ratio = second.minutes / first.minutes
            because = f"{regime} on {_GPUS[fast]} takes {ratio:.2f} of the time on {_GPUS[slow]}"
            found.append(_judged((ratio < 1 - TIME_NOISE) == faster, because))
        return _all_of(found) if found else _missing(results, "times on two of the GPUs " + ", ".join(_GPUS))

    return judge


def _needs_more_epochs(epochs: int) -> Callable[[Results, str], Judgement]:
    """Its validation loss is the lowest in the last of so many epochs."""

    def judge(results: Results, backbone: str) -> Judgement:
        row = _best(results, backbone=backbone, regime="scratch")
        if row is None or row.best_epoch is None or row.epochs is None:
            return _missing(results, "epoch of the lowest validation loss")
        because = f"lowest validation loss in epoch {row.best_epoch:.0f} of {row.epochs:.0f}"
        if row.best_epoch < min(row.epochs, epochs):
            return _fails(because)
        return _holds(because) if row.epochs >= epochs else _open(because)

    return judge


def mean_accuracy(results: Results, backbones: Sequence[str], **wanted: str | None) -> Estimate | float | None:
    """The mean over some backbones and all data sets of the document.

    Errors of different data sets are independent, those of backbones on the same images go together: the interval's
    distances are averaged over backbones, and combined as roots of sums of squares over data sets.

    Returns:
        None where one of them is missing.
    """
    means: list[Estimate | float] = []
    for data in results.document.data_sets:
        rows = [_best(results, backbone=backbone, data=data, **wanted) for backbone in backbones]
        scores = [row.accuracy for row in rows if row is not None and row.accuracy is not None]
        if len(scores) < len(backbones):
            return None
        means.append(_average(scores, independent=False))
    return _average(means, independent=True)


def _average(scores: Sequence[Estimate | float], *, independent: bool) -> Estimate | float:
    values = [number_of(score) or 0.0 for score in scores]
    mean = sum(values) / len(values)
    estimates = [score for score in scores if isinstance(score, Estimate)]
    if len(estimates) < len(scores):
        return mean
    add = (lambda distances: math.hypot(*distances)) if independent else sum
    low = add([one.value - one.low for one in estimates]) / len(scores)
    high = add([one.high - one.value for one in estimates]) / len(scores)
    return Estimate(value=mean, low=mean - low, high=mean + high)


def families_of(results: Results, regime: str) -> dict[str, list[str]]:
    """The document's backbones of a regime by their families, in its order."""
    families: dict[str, list[str]] = {}
    for result in results.document.results:
        if result.regime == regime and result.backbone not in families.get(family_of(result.backbone), []):
            families.setdefault(family_of(result.backbone), []).append(result.backbone)
    return families


def backbones_with_mean(results: Results, backbones: Sequence[str], stated: float, regime: str) -> list[str]:
    """Those whose own mean is the stated one to four digits."""
    means = {backbone: number_of(mean_accuracy(results, (backbone,), regime=regime)) for backbone in backbones}
    return [backbone for backbone, mean in means.items() if mean is not None and round(mean, 4) == stated]


def _stated_means(results: Results) -> Judgement:
    """The families' means are those that the document states."""
    families = families_of(results, "frozen")
    found = []
    for framework in _frameworks(results):
        wanted = {"regime": "frozen"} | ({} if framework is None else {"framework": framework})
        for family, stated in results.document.stated_means.items():
            mean = mean_accuracy(results, families[family], **wanted)
            if mean is None:
                found.append(_missing(results, f"{family} on all {len(results.document.data_sets)} data sets"))
                continue
            value = number_of(mean)
            assert value is not None
            because = f"{family} {_percent(value)}, stated {_percent(stated)}"
            if alone := backbones_with_mean(results, families[family], stated, "frozen"):
                because += f" ({', '.join(alone)} alone)"
            if round(value, 4) == stated:
                found.append(_holds(because))
            elif isinstance(mean, Estimate) and mean.low <= stated <= mean.high:
                found.append(_open(f"{because}, within the interval"))
            elif results.published or isinstance(mean, Estimate):
                found.append(_fails(because))
            else:
                found.append(_open(f"{because}, no interval"))
    return _all_of(found)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _frameworks(results: Results) -> list[str | None]:
    """The frameworks of ours; a published table is taken as one."""
    if results.published:
        return [None]
    return list(dict.fromkeys(row.framework for row in results.rows)) or [None]


def _best_families(best: Sequence[str]) -> Judge:
    """Their means over the data sets are above those of all other families."""

    def judge(results: Results) -> Judgement:
        families = families_of(results, "frozen")
        found = []
        for framework in _frameworks(results):
            wanted = {"regime": "frozen"} | ({} if framework is None else {"framework": framework})
            means = {family: mean_accuracy(results, members, **wanted) for family, members in families.items()}
            for one in best:
                for two in (family for family in families if family not in best):
                    first, second = means[one], means[two]
                    if first is None or second is None:
                        lacking = [name for name in (one, two) if means[name] is None]
                        data_sets = f"on all {len(results.document.data_sets)} data sets"
                        found.append(_missing(results, *(f"{name} {data_sets}" for name in lacking)))
                        continue
                    values = number_of(first), number_of(second)
                    assert values[0] is not None and values[1] is not None
                    because = f"{one} {_percent(values[0])}, {two} {_percent(values[1])}"
                    tops = [_highest_mean(results, families[family], **wanted) for family in (one, two)]
                    because += f" (the best of each {' and '.join(map(_percent, tops))})"
                    sure = results.published or combined_difference(first, second).sure
                    found.append(
                        _judged(values[0] > values[1], because) if sure else _open(f"{because}, not significant")
                    )
        return _all_of(found)

    return judge


def _highest_mean(results: Results, backbones: Sequence[str], **wanted: str | None) -> float:
    return max(number_of(mean_accuracy(results, (backbone,), **wanted)) or 0.0 for backbone in backbones)


def _hours(results: Results) -> Judgement:
    """Times of hardware that the document does not name: shown, and not judged."""
    times = {
        regime: [row.minutes for row in results.of(regime=regime) if row.minutes] for regime in ("scratch", "frozen")
    }
    if not all(times.values()):
        return _missing(results, *(f"times of {regime} by network" for regime, found in times.items() if not found))
    scratch, frozen = times["scratch"], times["frozen"]
    return _open(
        f"scratch {_time(sum(scratch) / len(scratch))} on average, frozen {_time(min(frozen))} to "
        f"{_time(max(frozen))}, on other hardware than the document's, which it does not name"
    )


def _frozen_much_faster(results: Results) -> Judgement:
    """At most half the time of scratch, of the same backbone on the same data set and machine."""
    ratios = [
        ratio for scratch, frozen in transfer_pairs(results) if (ratio := _by(frozen, scratch, _minutes)) is not None
    ]
    if not ratios:
        return _missing(results, "times of scratch and frozen by network on one machine")
    because = f"frozen takes {min(ratios):.2f} to {max(ratios):.2f} of the time, {len(ratios)} pairs"
    return _judged(max(ratios) <= 0.5, because)


def transfer_pairs(results: Results) -> list[tuple[Row, Row]]:
    """(scratch, frozen) of the same backbone, data set and framework, where the document has both.

    Of our rows those with the same settings, else each frozen one with the most accurate one from scratch.
    """
    wanted = {(result.data, result.backbone) for result in results.document.results if result.regime == "scratch"}
    pairs = []
    for frozen in results.of(regime="frozen"):
        choice = results.of(regime="scratch", data=frozen.data, backbone=frozen.backbone, framework=frozen.framework)
        if choice and (frozen.data, frozen.backbone) in wanted:
            alike = max(choice, key=lambda row: (row.settings == frozen.settings, _accuracy_of(row)))
            pairs.append((alike, frozen))
    return pairs


def transfer_mark(results: Results, scratch: Row, frozen: Row) -> str:
    """negative, tie, or nothing; of ours a tie is a difference that is not significant."""
    found = results.difference(frozen, scratch)
    if found is None:
        return ""
    value = number_of(found.value)
    assert value is not None
    if results.published:
        return "negative" if value < 0 else "tie" if value == 0 else ""
    if not isinstance(found.value, Estimate):
        return ""
    return "tie" if not found.sure else "negative" if value < 0 else ""


def _negative_transfer(results: Results) -> Judgement:
    """One pair is enough for it to exist."""
    pairs = [pair for pair in transfer_pairs(results) if results.difference(pair[1], pair[0]) is not None]
    if not pairs:
        return _missing(results, "accuracy of scratch and frozen of one network")
    marks = [transfer_mark(results, *pair) for pair in pairs]
    tied = [frozen for mark, (_, frozen) in zip(marks, pairs, strict=True) if mark == "tie"]
    word = "equal" if results.published else "not significant"
    because = f"frozen below scratch in {marks.count('negative')} of {len(pairs)} pairs, {len(tied)} {word}"
    if results.published and tied:
        because += f" ({', '.join(f'{row.backbone} on {row.data}' for row in tied)})"
    if "negative" in marks:
        return _holds(because)
    decided = all(results.published or _is_sure(results, *pair) for pair in pairs)
    return _fails(because) if decided else _open(because)


def _is_sure(results: Results, scratch: Row, frozen: Row) -> bool:
    found = results.difference(frozen, scratch)
    return found is not None and found.sure


def _transfer_beats_the_others(results: Results) -> Judgement:
    """frozen against scratch of the same backbone, and against the network off the shelf."""
    frozen = _best(results, regime="frozen", backbone="efficientnet_b0")
    others = {
        "scratch": _best(results, regime="scratch", backbone="efficientnet_b0"),
        "off_the_shelf": _best(results, regime="off_the_shelf"),
    }
    return _all_of(_ranked(results, frozen, row, ("frozen", name)) for name, row in others.items())


def _hardest(names: Sequence[str]) -> Callable[[Results, str], Judgement]:
    """They have the lowest F1; on ours in at least 95 % of resamples of the test images."""

    def judge(results: Results, backbone: str) -> Judgement:
        found = []
        for row in (_best(results, backbone=backbone, regime=regime) for regime in ("scratch", "frozen")):
            if row is None or not row.classes:
                continue
            f1 = {letters_and_digits(name): scores.f1 for name, scores in row.classes.items()}
            if not set(map(letters_and_digits, names)) <= f1.keys():
                continue
            lowest = sorted(row.classes, key=lambda name: row.classes[name].f1)[: len(names) + 1]
            because = f"{row.regime}: lowest F1 {', '.join(f'{name} {row.classes[name].f1:.2f}' for name in lowest)}"
            if results.published:
                last = max(f1[letters_and_digits(name)] for name in names)
                others = [value for name, value in f1.items() if name not in map(letters_and_digits, names)]
                found.append(_judged(last < min(others), because))
                continue
            share = _share_of_resamples(row.predictions[0], names, _are_hardest)
            found.append(_by_share(share, because))
        return _all_of(found) if found else _missing(results, "F1 of each class")

    return judge


def _confused_with(names: Sequence[str], others: Sequence[str]) -> Callable[[Results, str], Judgement]:
    """Each is taken for one of the others more often than for any class besides; on ours in 95 % of resamples."""

    def judge(results: Results, backbone: str) -> Judgement:
        found = []
        for row in (_best(results, backbone=backbone, regime=regime) for regime in ("scratch", "frozen")):
            if row is None or not row.predictions:
                continue
            run = row.predictions[0]
            classes = [letters_and_digits(name) for name in run.classes]
            if not {letters_and_digits(name) for name in (*names, *others)} <= set(classes):
                continue
            taken = []
            for name in names:
                truth = classes.index(letters_and_digits(name))
                counts = np.bincount(run.predicted[run.truth == truth], minlength=len(classes))
                counts[truth] = 0
                most = int(counts.argmax())
                taken.append(f"{run.classes[truth]} for {run.classes[most]} {counts[most]} of {counts.sum()} times")
            targets = [classes.index(letters_and_digits(name)) for name in others]

            share = _share_of_resamples(run, names, partial(_are_taken_for, targets=targets))
            found.append(_by_share(share, f"{row.regime}: {', '.join(taken)}"))
        return _all_of(found) if found else _missing(results, "confusion matrices")

    return judge


def _by_share(share: float, because: str) -> Judgement:
    because = f"{because}; so in {share:.0%} of resamples".replace("%", " %")
    if share >= LEVEL:
        return _holds(because)
    return _fails(because) if share <= 1 - LEVEL else _open(because)


def _share_of_resamples(
    run: Predictions, names: Sequence[str], are: Callable[[np.ndarray, Predictions, list[int]], np.ndarray]
) -> float:
    """The share of resamples of the test images in which something is so.

    Args:
        run: the predictions on them.
        names: of classes.
        are: takes weights of the images, of shape (images, resamples), the predictions and the classes' places; gives
            bool of shape (resamples,).
    """
    classes = [letters_and_digits(name) for name in run.classes]
    places = [classes.index(letters_and_digits(name)) for name in names]
    blocks = weight_blocks(run.truth, NUM_RESAMPLES, SEED, within_class=True)
    return float(np.mean(np.concatenate([are(weights, run, places) for _, weights in blocks])))


def _are_hardest(weights: np.ndarray, run: Predictions, places: list[int]) -> np.ndarray:
    support = class_support(run.truth, len(run.classes)) @ weights
    f1 = class_scores(class_counts(run) @ weights, support)["f1"]
    return f1[places].max(axis=0) < np.delete(f1, places, axis=0).min(axis=0)


def _are_taken_for(weights: np.ndarray, run: Predictions, places: list[int], targets: list[int]) -> np.ndarray:
    num_classes = len(run.classes)
    result = np.ones(weights.shape[1], dtype=bool)
    for place in places:
        of_class = run.truth == place
        counts = class_support(run.predicted[of_class], num_classes) @ weights[of_class]
        counts[place] = 0
        rest = np.delete(counts, [place, *targets], axis=0)
        result &= counts[targets].max(axis=0) > rest.max(axis=0)
    return result


def _overfits(results: Results, backbone: str) -> Judgement:
    row = _best(results, backbone=backbone, regime="scratch")
    if row is None or row.train_accuracy is None or row.val_accuracy is None:
        return _missing(results, "training and validation accuracy of scratch")
    because = f"training accuracy {row.train_accuracy:.2f}, validation {row.val_accuracy:.2f}"
    gap = _gap(row)
    holds = row.train_accuracy >= NEAR_ONE and row.train_accuracy - row.val_accuracy >= FAR_BELOW
    if isinstance(gap, Estimate) and gap.low < FAR_BELOW < gap.high:
        return _open(because)
    return _judged(holds, because)


def _loss_rises_early(results: Results, backbone: str) -> Judgement:
    """The lowest validation loss is in the first half of the epochs."""
    row = _best(results, backbone=backbone, regime="scratch")
    if row is None or row.best_epoch is None or row.epochs is None:
        return _missing(results, "epoch of the lowest validation loss")
    because = f"lowest validation loss in epoch {row.best_epoch:.0f} of {row.epochs:.0f}"
    return _judged(row.best_epoch <= row.epochs / 2, because)


def _fewer_parameters(first: str, second: str, share: float) -> Callable[[Results], Judgement]:
    """The first has about that share of the second's parameters, to a twentieth."""

    def judge(results: Results) -> Judgement:
        rows = [_best(results, backbone=backbone) for backbone in (first, second)]
        known = [row.parameters for row in rows if row is not None and row.parameters]
        if len(known) < 2:
            return _missing(results, f"parameters of {first} and {second}")
        amounts = ", ".join(f"{format_value(number, 'amount')}" for number in known)
        return _judged(abs(known[0] / known[1] - share) <= 0.05, f"{amounts}: {known[0] / known[1]:.2f}")

    return judge


_BIRDS = ("resnet50", "efficientnet_v2_b0")
_LIGHTWEIGHT = ("efficientnet_b0", "resnet50", "alexnet")
_ARTICLE = ("efficientnet_v2_b0", "mobilenet_v2", "resnet50_v2")

CLAIMS: dict[str, tuple[Claim, ...]] = {
    "birds": (
        Claim(
            words="two_stage is the most accurate, frozen less than 1 % behind it, then finetune, then scratch",
            judge=_each(_BIRDS, _regimes_in_order),
        ),
        Claim(
            words="frozen takes about 3 times less time than two_stage",
            judge=_each(_BIRDS, _frozen_three_times_faster),
        ),
        Claim(
            words="freezing all layers but the last helps against overfitting",
            judge=_each(_BIRDS, _freezing_against_overfitting),
        ),
        Claim(
            words="EfficientNet is much more efficient than its best-known analogues",
            judge=_together(
                _BIRDS, _more_efficient("efficientnet_v2_b0", "resnet50", ("scratch", "two_stage", "finetune"))
            ),
        ),
        Claim(
            words="a network learns best from images of its recommended size",
            judge=_each(_BIRDS, _recommended_size(224)),
        ),
        Claim(
            words="the accuracy of ResNet-50 differs by 0.1 between TensorFlow and PyTorch",
            judge=_frameworks_differ("resnet50", 0.1),
        ),
        Claim(
            words="this may be due to different versions of the network",
            judge=_undecidable("a suspected cause, which no score decides"),
        ),
    ),
    "cifar100_lightweight": (
        Claim(
            words="EfficientNet-B0 has the highest accuracy",
            judge=_together(_LIGHTWEIGHT, _most_accurate("efficientnet_b0", ("resnet50", "alexnet"))),
        ),
        Claim(
            words="EfficientNet-B0 has the shortest inference time",
            judge=_together(
                _LIGHTWEIGHT,
                _extreme_cost(
                    "efficientnet_b0",
                    ("resnet50", "alexnet"),
                    lambda row: row.milliseconds,
                    what="time of one image",
                    at_least=None,
                ),
            ),
        ),
        Claim(
            words="EfficientNet-B0 trains slowest by far",
            judge=_together(
                _LIGHTWEIGHT,
                _extreme_cost("efficientnet_b0", ("resnet50", "alexnet"), _minutes, what="training", at_least=2),
            ),
        ),
        Claim(
            words="a faster GPU does not shorten the training of EfficientNet-B0",
            judge=_each(("efficientnet_b0",), _on_faster_gpus(faster=False)),
        ),
        Claim(
            words="pretrained weights do not shorten the training of EfficientNet-B0",
            judge=_each(("efficientnet_b0",), _pretrained_no_faster),
        ),
        Claim(
            words="ResNet-50 and AlexNet train faster on faster GPUs",
            judge=_each(("resnet50", "alexnet"), _on_faster_gpus(faster=True)),
        ),
        Claim(words="AlexNet needs more than 25 epochs", judge=_each(("alexnet",), _needs_more_epochs(25))),
    ),
    "eight_datasets": (
        Claim(
            words="the average accuracy of ResNet is 86.19 %, that of DenseNet 89.91 %",
            judge=_stated_means,
        ),
        Claim(
            words="ResNet and DenseNet are the best networks for transfer learning",
            judge=_best_families(("resnet", "densenet")),
        ),
        Claim(words="scratch takes about 5 hours on average, frozen 5 minutes to 3 hours", judge=_hours),
        Claim(words="frozen takes much less time than scratch", judge=_frozen_much_faster),
        Claim(words="there is negative transfer: frozen less accurate than scratch", judge=_negative_transfer),
    ),
    "imagenette": (
        Claim(
            words="fine-tuning (frozen) beats training from scratch and the pretrained network as it is",
            judge=_together(("efficientnet_b0", "resnet50"), _transfer_beats_the_others),
        ),
        Claim(
            words="gas_pump and chain_saw are the hardest classes",
            judge=_each(("efficientnet_b0",), _hardest(("gas_pump", "chain_saw"))),
        ),
        Claim(
            words="gas_pump and chain_saw are taken for cassette_player and garbage_truck",
            judge=_each(
                ("efficientnet_b0",),
                _confused_with(("gas_pump", "chain_saw"), ("cassette_player", "garbage_truck")),
            ),
        ),
        Claim(
            words="from scratch it overfits: training accuracy near 1, validation far below",
            judge=_each(("efficientnet_b0",), _overfits),
        ),
        Claim(
            words="from scratch the validation loss rises from early on, after epoch 5 of 40",
            judge=_each(("efficientnet_b0",), _loss_rises_early),
        ),
    ),
    "mobilenet_vs_efficientnetv2": (
        Claim(
            words="EfficientNetV2 is more accurate than MobileNetV2",
            judge=_together(_ARTICLE, _most_accurate("efficientnet_v2_b0", ("mobilenet_v2",), "frozen")),
        ),
        Claim(
            words="EfficientNetV2 is more accurate than ResNet50V2",
            judge=_together(_ARTICLE, _most_accurate("efficientnet_v2_b0", ("resnet50_v2",), "frozen")),
        ),
        Claim(
            words="EfficientNetV2 has a quarter of the parameters of ResNet50V2",
            judge=_together(_ARTICLE, _fewer_parameters("efficientnet_v2_b0", "resnet50_v2", 0.25)),
        ),
    ),
}
