"""Claims of the document on eight data sets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial

from tandem.evaluation.ties import is_above
from tandem.published.entries import Entry, Results, combined_difference
from tandem.published.judging import (
    BY_FAR,
    Claim,
    Judge,
    Judgement,
    above_zero,
    all_of,
    judged,
    minutes_of,
    missing,
    named,
    ratio_of,
    rounds_to,
    time_of,
    undecided,
    without_lacking,
)
from tandem.published.summaries import (
    backbones_with_mean,
    families_of,
    mean_accuracy,
    published_pairs,
    transfer_mark,
    transfer_pairs,
)
from tandem.rendering.tables import Estimate, format_value, number_of


def _in_each_framework(judge: Callable[[Results, str | None], Judgement]) -> Judge:
    """Judges our results in each framework by itself; published results are not separated by it."""

    def judge_each(results: Results) -> Judgement:
        if results.published:
            return judge(results, None)
        frameworks = dict.fromkeys(entry.framework for entry in results.of(regime="frozen"))
        found = [(str(framework), judge(results, framework)) for framework in frameworks]
        return named(without_lacking(found)) if found else missing(results, "frozen")

    return judge_each


def _stated_means(results: Results, framework: str | None) -> Judgement:
    """The means of the families are the stated ones."""
    families = families_of(results.document, "frozen")
    found = []
    for family, stated in results.document.stated_means.items():
        mean = mean_accuracy(results, families[family], regime="frozen", framework=framework)
        if mean is None:
            found.append(missing(results, f"{family} on every data set"))
            continue
        value = mean.value if isinstance(mean, Estimate) else mean
        because = f"{family} {_percent(value)}, stated {_percent(stated)}"
        alone = backbones_with_mean(results, families[family], stated, regime="frozen") if results.published else []
        if alone:
            because += f", which is {' and '.join(alone)} alone"
        if results.published:
            found.append(judged(rounds_to(value, stated, digits=4), because))
        elif isinstance(mean, Estimate) and not mean.low <= stated <= mean.high:
            found.append(judged(False, because))
        else:
            # That an interval contains a number does not show that the number is right.
            found.append(undecided(because))
    return all_of(found)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _best_families(best: Sequence[str], others: Sequence[str] = ()) -> Callable[[Results, str | None], Judgement]:
    """Judges that the means of these families over the data sets are above those of others.

    Args:
        best: The families that are claimed to be better.
        others: The other families; all others by default.
    """

    def judge(results: Results, framework: str | None) -> Judgement:
        families = families_of(results.document, "frozen")
        mean = partial(mean_accuracy, results, regime="frozen", framework=framework)
        found = []
        for one, two in itertools.product(best, others or [family for family in families if family not in best]):
            first, second = mean(families[one]), mean(families[two])
            if first is None or second is None:
                found.append(missing(results, f"{one} and {two} on every data set"))
                continue
            difference = combined_difference(first, second)
            if not results.published:
                found.append(above_zero(difference, f"{one} minus {two}"))
                continue
            tops = [max(number_of(mean([backbone])) or 0.0 for backbone in families[of]) for of in (one, two)]
            means = f"{one} {_percent(number_of(first) or 0.0)}, {two} {_percent(number_of(second) or 0.0)}"
            because = f"{means} (the best of each {_percent(tops[0])} and {_percent(tops[1])})"
            found.append(judged(is_above(difference.number, 0), because))
        return all_of(found)

    return judge


def _hours(results: Results) -> Judgement:
    """Times on hardware that the document does not name are shown and not judged."""
    timed = {regime: [one for one in results.of(regime=regime) if one.minutes] for regime in ("scratch", "frozen")}
    if not all(timed.values()):
        return missing(results, "times of single networks")
    scratch = [entry.minutes for entry in timed["scratch"] if entry.minutes]
    frozen = sorted(timed["frozen"], key=lambda entry: entry.minutes or 0.0)
    average = format_value(60 * sum(scratch) / len(scratch), "seconds")
    return undecided(
        f"scratch {average} on average, frozen {time_of(frozen[0])} to {time_of(frozen[-1])}; the document does not "
        "say on what hardware"
    )


def _frozen_much_faster(results: Results) -> Judgement:
    """At most half the time of scratch, with the same backbone, data set and machine."""
    pairs = transfer_pairs(results)
    found = [one for scratch, frozen in pairs if (one := ratio_of(frozen, scratch, minutes_of)) is not None]
    ratios = [one for one in found if isinstance(one, float)]
    if not ratios:
        reasons = [one for one in found if isinstance(one, str)]
        return undecided(reasons[0]) if reasons else missing(results, "times of single networks on one machine")
    because = f"frozen {min(ratios):.2f} to {max(ratios):.2f} times the training from scratch in {len(ratios)} pairs"
    if max(ratios) <= 1 / BY_FAR and _num_missing(results, pairs):
        return undecided(f"{because}; {_num_missing(results, pairs)} pairs are not run")
    return judged(max(ratios) <= 1 / BY_FAR, because)


def _num_missing(results: Results, pairs: Sequence[tuple[Entry, Entry]]) -> int:
    """Number of the document's pairs of scratch and frozen that are not among these."""
    return len(published_pairs(results.document) - {(frozen.data, frozen.backbone) for _, frozen in pairs})


def _negative_transfer(results: Results) -> Judgement:
    """One negative pair shows that it exists; only all pairs, without a tie, show that it does not."""
    marked = [
        (mark, frozen)
        for scratch, frozen in transfer_pairs(results)
        if (mark := transfer_mark(results, scratch, frozen)) is not None
    ]
    if not marked:
        return missing(results, "accuracies of scratch and frozen with their predictions")
    marks = [mark for mark, _ in marked]
    because = f"frozen below scratch in {marks.count('negative')} of {len(marks)} pairs"
    if tied := [f"{frozen.backbone} on {frozen.data}" for mark, frozen in marked if mark == "tie"]:
        because += f", a tie in {len(tied)} ({', '.join(tied) if results.published else 'not significant'})"
    if "negative" in marks:
        return judged(True, because)
    not_run = _num_missing(results, transfer_pairs(results))
    return undecided(because) if tied or not_run else judged(False, because)


def _more_effective(results: Results, framework: str | None) -> Judgement:
    """The mean accuracy of frozen is above that of scratch, over all pairs of both that the document has."""
    pairs = published_pairs(results.document)
    backbones = sorted({backbone for _, backbone in pairs})
    frozen, scratch = (
        mean_accuracy(results, backbones, regime=regime, framework=framework) for regime in ("frozen", "scratch")
    )
    if frozen is None or scratch is None:
        return missing(results, f"frozen and scratch of {', '.join(backbones)} on every data set")
    because = f"frozen {number_of(frozen):.4f}, scratch {number_of(scratch):.4f} over {len(pairs)} pairs"
    difference = combined_difference(frozen, scratch)
    if results.published:
        return judged(is_above(difference.number, 0), because)
    return above_zero(difference, f"{because}: difference")


def _deeper_is_better(families: Sequence[str]) -> Callable[[Results, str | None], Judgement]:
    """Judges that within these families the mean accuracy over the data sets rises with the number of layers."""

    def judge(results: Results, framework: str | None) -> Judgement:
        members = families_of(results.document, "frozen")
        found = []
        for family in families:
            for shallow, deep in itertools.pairwise(members[family]):
                found.append(_ranked_means(results, deep, shallow, framework))
        return all_of(found)

    return judge


def _ranked_means(results: Results, first: str, second: str, framework: str | None) -> Judgement:
    """Holds if the mean accuracy of one backbone over the data sets is above that of another one."""
    one, two = (
        mean_accuracy(results, (backbone,), regime="frozen", framework=framework) for backbone in (first, second)
    )
    if one is None or two is None:
        return missing(results, f"{first} and {second} on every data set")
    difference = combined_difference(one, two)
    if not results.published:
        return above_zero(difference, f"{first} minus {second}")
    because = f"{first} {_percent(number_of(one) or 0.0)}, {second} {_percent(number_of(two) or 0.0)}"
    return judged(is_above(difference.number, 0), because)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        words="the average accuracy of ResNet is 86.19 %, that of DenseNet 89.91 %",
        judge=_in_each_framework(_stated_means),
    ),
    Claim(
        words="ResNet and DenseNet are the best networks for transfer learning",
        judge=_in_each_framework(_best_families(("resnet", "densenet"))),
    ),
    Claim(
        words="DenseNet was more effective than ResNet",
        judge=_in_each_framework(_best_families(("densenet",), ("resnet",))),
    ),
    Claim(
        words="deeper ResNets and DenseNets are more accurate",
        judge=_in_each_framework(_deeper_is_better(("resnet", "densenet"))),
    ),
    Claim(
        words="training from pretrained weights (frozen) was more effective than from scratch, on average",
        judge=_in_each_framework(_more_effective),
    ),
    Claim(words="scratch takes about 5 hours on average, frozen 5 minutes to 3 hours", judge=_hours, about_time=True),
    Claim(words="frozen takes much less time than scratch", judge=_frozen_much_faster, about_time=True),
    Claim(words="there is negative transfer: frozen less accurate than scratch", judge=_negative_transfer),
)
