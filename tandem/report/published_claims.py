"""What the documents claim, judged on their own numbers and on ours by the same code."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from scipy import stats

from tandem.evaluation.imagenet import letters_and_digits
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
from tandem.report.published_judging import (
    Claim,
    Judge,
    Judgement,
    above_zero,
    all_of,
    best_row,
    each,
    judged,
    minutes_of,
    missing,
    named,
    ranked,
    times_of,
    together,
    undecided,
    without_lacking,
)
from tandem.report.published_rows import Difference, Results, Row, accuracy_of, combined_difference
from tandem.report.published_summaries import (
    backbones_with_mean,
    families_of,
    mean_accuracy,
    published_pairs,
    transfer_mark,
    transfer_pairs,
)
from tandem.report.tables import Column, Estimate, Table, format_value, number_of

# Times have no intervals; such as differ by less than this share count as equal.
TIME_NOISE = 0.1
# In which of neighbouring epochs a loss is the lowest is chance; so many as this share count as neighbours.
EPOCH_NOISE = 0.1
# What "near 1" and "far below" are taken for, of accuracies.
NEAR_ONE = 0.95
FAR_BELOW = 0.1
# What "by far" and "much less" are taken for, of times.
BY_FAR = 2.0

# Float32 without tensor cores as NVIDIA's data sheets have it, TFLOPS: 8.1, 9.3, 14, 19.5, 67, 67.
_GPUS = {"T4": 8.1, "P100": 9.3, "V100": 14.0, "A100": 19.5, "H100": 67.0, "H200": 67.0}

_RULES = (
    "On its numbers: as they stand, since the documents give no intervals. On ours: with runs of all that the claim "
    "names, and by differences that are significant (the paired tests of the other tables; without one, the 95 % "
    "intervals combined). Of our rows with the same backbone, regime and framework the most accurate counts.",
    "Runs of a small budget or of part of the images, and those that began with random weights or an earlier run's in "
    "place of pretrained ones, decide nothing.",
    "Times are compared on the same machine only; such as differ by less than a tenth count as equal.",
    "Of several sets of our test images, such as folds, each is judged by itself, or the mean over them.",
)


def claims_table(published: Results, ours: Results) -> Table:
    """Each claim of a document, judged on its numbers and on ours; no rows where no claims of it are known."""
    nothing = None if ours.without_stand_ins.rows else undecided(_why_nothing(ours))
    rows = []
    for claim in CLAIMS.get(published.document.name, ()):
        theirs = claim.judge(published)
        here = nothing or claim.judge(ours.without_stand_ins)
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


def _why_nothing(ours: Results) -> str:
    data_sets = ours.document.data_sets
    data = data_sets[0] if len(data_sets) == 1 else "its data sets" if data_sets else "any data set"
    if ours.rows:
        return f"only stand-ins on {data}: {'; '.join(sorted({row.stand_in for row in ours.rows}))}"
    return f"no runs on {data}"


# Birds


def _regimes_in_order(results: Results) -> Judgement:
    """two_stage, at most 0.01 behind it frozen, then finetune, then scratch."""
    order = ("two_stage", "frozen", "finetune", "scratch")
    rows = {regime: best_row(results, regime=regime) for regime in order}
    if all(row is None or row.accuracy is None for row in rows.values()):
        return missing(results, "the accuracies")
    steps = [ranked(results, rows[one], rows[two], (one, two)) for one, two in itertools.pairwise(order)]
    first, second = rows["two_stage"], rows["frozen"]
    lead = results.difference(first, second) if first and second else None
    if lead is not None and lead.sure:
        steps.append(_at_most(lead, 0.01, f"two_stage leads frozen by {lead.written}"))
    return all_of(steps)


def _at_most(difference: Difference, limit: float, because: str) -> Judgement:
    if isinstance(difference.value, Estimate) and difference.value.low <= limit < difference.value.high:
        return undecided(because)
    return judged(difference.number <= limit, because)


def _frozen_three_times_faster(results: Results) -> Judgement:
    """To the next whole number of times."""
    thawed, frozen = best_row(results, regime="two_stage"), best_row(results, regime="frozen")
    times = times_of(thawed, frozen, minutes_of) if thawed and frozen else None
    if times is None or thawed is None or frozen is None:
        return missing(results, "times of frozen and two_stage on one machine")
    return judged(round(times) == 3, f"{_time(frozen)} of {_time(thawed)}, {times:.1f} times less")


def _time(row: Row) -> str:
    return format_value(None if row.minutes is None else row.minutes * 60, "seconds")


def _freezing_against_overfitting(results: Results) -> Judgement:
    """A smaller gap between training and validation accuracy than with everything trained."""
    gaps = {}
    for regime in ("finetune", "frozen"):
        row = best_row(results, regime=regime)
        gap = None if row is None else _gap(row)
        if gap is None:
            return missing(results, f"training and validation accuracy of {regime}")
        gaps[regime] = gap
    return above_zero(
        combined_difference(gaps["finetune"], gaps["frozen"]),
        "training minus validation accuracy, finetune minus frozen",
    )


def _gap(row: Row) -> Estimate | float | None:
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


def _more_efficient(better: str, worse: str, regimes: Sequence[str]) -> Callable[[Results], Judgement]:
    """In each regime ahead in accuracy or time and behind in neither; a trade of one for the other decides nothing."""

    def judge(results: Results) -> Judgement:
        found = []
        for regime in regimes:
            first, second = (best_row(results, backbone=backbone, regime=regime) for backbone in (better, worse))
            if first is None or second is None:
                found.append(missing(results, f"{better} and {worse} in {regime}"))
                continue
            times, difference = times_of(first, second, minutes_of), results.difference(first, second)
            words = [
                "no times on one machine" if times is None else f"{times:.2f} times the training",
                "no accuracies" if difference is None else f"accuracy {difference.written}",
                *(["not significant"] if difference and not difference.sure else []),
            ]
            because = f"{regime}: {', '.join(words)}"
            if times is None or difference is None:
                found.append(undecided(because))
                continue
            of_time = (times < 1 - TIME_NOISE) - (times > 1 + TIME_NOISE)
            of_accuracy = difference.sure * ((difference.number > 0) - (difference.number < 0))
            # Ahead in one and behind in the other is 0, as is ahead in neither.
            balance = of_time + of_accuracy
            found.append(judged(balance > 0, because) if balance else undecided(because))
        return all_of(found)

    return judge


def _recommended_size(size: int) -> Callable[[Results], Judgement]:
    """More accurate with images of the recommended size than with others."""

    def judge(results: Results) -> Judgement:
        others = [row for row in results.rows if row.image_size not in (None, size)]
        if not others:
            return missing(results, f"another image size than {size} pixels")
        found = []
        for other in others:
            same = [row for row in results.of(regime=other.regime) if row.image_size == size]
            names = f"{other.regime}, {size} pixels", f"{other.image_size} pixels"
            found.append(ranked(results, max(same, key=accuracy_of, default=None), other, names))
        return all_of(found)

    return judge


def _frameworks_differ(backbone: str, by: float) -> Judge:
    """In each regime by so much, to its last digit, in either direction."""

    def judge(results: Results) -> Judgement:
        found = []
        for regime, test_set in dict.fromkeys((row.regime, row.test_set) for row in results.of(backbone=backbone)):
            torch = best_row(results, backbone=backbone, regime=regime, test_set=test_set, framework="torch")
            for row in results.of(backbone=backbone, regime=regime, test_set=test_set):
                difference = results.difference(row, torch) if torch and row.framework != "torch" else None
                if difference is not None:
                    found.append(_as_large(difference, by, f"{regime}: {row.framework} minus torch"))
        return all_of(found) if found else missing(results, f"accuracy of {backbone} in both frameworks")

    return judge


def _as_large(difference: Difference, by: float, words: str) -> Judgement:
    because, value = f"{words} {difference.written}", difference.value
    if round(abs(difference.number), 1) == by:
        return judged(True, because) if difference.sure else undecided(because)
    if isinstance(value, Estimate) and (value.low <= by <= value.high or value.low <= -by <= value.high):
        return undecided(because)
    return judged(False, because)


def _no_number_decides(reason: str) -> Judge:
    return lambda results: undecided(reason)


# CIFAR-100


def _most_accurate(best: str, others: Sequence[str], regime: str | None = None) -> Callable[[Results], Judgement]:
    """Each backbone by its most accurate row, of one regime if it is given; rows that name none stay."""

    def judge(results: Results) -> Judgement:
        rows = tuple(row for row in results.rows if regime is None or row.regime in (regime, None))
        results = replace(results, rows=rows)
        first = best_row(results, backbone=best)
        return all_of(ranked(results, first, best_row(results, backbone=other), (best, other)) for other in others)

    return judge


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
        because = _lowest_loss(row)
        if row.best_epoch <= (1 - EPOCH_NOISE) * min(row.epochs, epochs):
            return judged(False, because)
        return judged(True, because) if row.best_epoch > (1 + EPOCH_NOISE) * epochs else undecided(because)

    return judge


def _lowest_loss(row: Row) -> str:
    return f"lowest validation loss in epoch {row.best_epoch:.0f} of {row.epochs:.0f}"


# Eight data sets


def _in_each_framework(judge: Callable[[Results, str | None], Judgement]) -> Judge:
    """Of ours each framework by itself; published rows are not told apart by it."""

    def judge_each(results: Results) -> Judgement:
        if results.published:
            return judge(results, None)
        frameworks = dict.fromkeys(row.framework for row in results.of(regime="frozen"))
        found = [(str(framework), judge(results, framework)) for framework in frameworks]
        return named(without_lacking(found)) if found else missing(results, "frozen")

    return judge_each


def _stated_means(results: Results, framework: str | None) -> Judgement:
    """The means of the families are those that the document states."""
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
            found.append(judged(round(value, 4) == stated, because))
        elif isinstance(mean, Estimate) and not mean.low <= stated <= mean.high:
            found.append(judged(False, because))
        else:
            # An interval that holds a number does not show that it is the true one.
            found.append(undecided(because))
    return all_of(found)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _best_families(best: Sequence[str]) -> Callable[[Results, str | None], Judgement]:
    """Their means over the data sets are above those of all other families."""

    def judge(results: Results, framework: str | None) -> Judgement:
        families = families_of(results.document, "frozen")
        mean = partial(mean_accuracy, results, regime="frozen", framework=framework)
        found = []
        for one, two in itertools.product(best, [family for family in families if family not in best]):
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
            found.append(judged(difference.number > 0, because))
        return all_of(found)

    return judge


def _hours(results: Results) -> Judgement:
    """Times on hardware that the document does not name: shown, and not judged."""
    times = {regime: [row for row in results.of(regime=regime) if row.minutes] for regime in ("scratch", "frozen")}
    if not all(times.values()):
        return missing(results, "times of single networks")
    scratch = [row.minutes for row in times["scratch"] if row.minutes]
    frozen = sorted(times["frozen"], key=lambda row: row.minutes or 0.0)
    average = format_value(60 * sum(scratch) / len(scratch), "seconds")
    return undecided(
        f"scratch {average} on average, frozen {_time(frozen[0])} to {_time(frozen[-1])}; the document does not say on "
        "what hardware"
    )


def _frozen_much_faster(results: Results) -> Judgement:
    """At most half the time of scratch, of the same backbone on the same data set and machine."""
    pairs = transfer_pairs(results)
    times = [one for scratch, frozen in pairs if (one := times_of(frozen, scratch, minutes_of)) is not None]
    if not times:
        return missing(results, "times of single networks on one machine")
    because = f"frozen {min(times):.2f} to {max(times):.2f} times the training from scratch in {len(times)} pairs"
    if max(times) <= 1 / BY_FAR and _num_missing(results, pairs):
        return undecided(f"{because}; {_num_missing(results, pairs)} pairs are not run")
    return judged(max(times) <= 1 / BY_FAR, because)


def _num_missing(results: Results, pairs: Sequence[tuple[Row, Row]]) -> int:
    """Of the document's pairs of scratch and frozen."""
    return len(published_pairs(results.document) - {(frozen.data, frozen.backbone) for _, frozen in pairs})


def _negative_transfer(results: Results) -> Judgement:
    """One pair is enough for it to exist; for it not to, there have to be all, and without a tie."""
    marked = [
        (mark, frozen)
        for scratch, frozen in transfer_pairs(results)
        if (mark := transfer_mark(results, scratch, frozen)) is not None
    ]
    if not marked:
        return missing(results, "accuracies of scratch and frozen with their predictions")
    marks = [mark for mark, _ in marked]
    because = f"frozen below scratch in {marks.count('negative')} of {len(marks)} pairs"
    if tied := [f"{row.backbone} on {row.data}" for mark, row in marked if mark == "tie"]:
        named = f", a tie in {len(tied)}"
        because += f"{named} ({', '.join(tied)})" if results.published else f"{named} (not significant)"
    if "negative" in marks:
        return judged(True, because)
    not_run = _num_missing(results, transfer_pairs(results))
    return undecided(because) if tied or not_run else judged(False, because)


# Imagenette

_GAS_PUMP_AND_CHAIN_SAW = ("gas_pump", "chain_saw")
_TAKEN_FOR = ("cassette_player", "garbage_truck")


def _frozen_beats_others(results: Results) -> Judgement:
    """scratch of the same backbone, and the network off the shelf."""
    frozen, scratch = (best_row(results, backbone="efficientnet_b0", regime=regime) for regime in ("frozen", "scratch"))
    off_the_shelf = best_row(results, regime="off_the_shelf")
    return all_of(
        (
            ranked(results, frozen, scratch, ("frozen", "scratch")),
            ranked(results, frozen, off_the_shelf, ("frozen", "off_the_shelf")),
        )
    )


def _trained_rows(results: Results) -> list[Row]:
    rows = (best_row(results, regime=regime) for regime in ("scratch", "frozen"))
    return [row for row in rows if row is not None]


def _hardest(names: Sequence[str]) -> Callable[[Results], Judgement]:
    """They have the lowest F1; of ours in 95 % of the resamples of the test images."""

    def judge(results: Results) -> Judgement:
        found = []
        for row in _trained_rows(results):
            by_f1 = sorted(row.classes, key=lambda name: row.classes[name].f1)
            if _places(by_f1, names) is None:
                continue
            shown = ", ".join(f"{name} {row.classes[name].f1:.2f}" for name in by_f1[: len(names) + 1])
            because = f"{row.regime}: lowest F1 {shown}"
            if results.published:
                found.append(judged(sorted(_places(by_f1, names) or ()) == list(range(len(names))), because))
            else:
                found.append(_in_resamples(row.predictions, names, _are_hardest, because))
        return all_of(found) if found else missing(results, "F1 of each class")

    return judge


def _taken_for(names: Sequence[str], others: Sequence[str]) -> Callable[[Results], Judgement]:
    """Each is taken for one of the others more often than for any class besides; of ours in 95 % of the resamples."""

    def judge(results: Results) -> Judgement:
        found = []
        for row in _trained_rows(results):
            classes = row.predictions[0].classes if row.predictions else ()
            places, targets = _places(classes, names), _places(classes, others)
            if places is None or targets is None:
                continue
            words = []
            for place in places:
                answers = np.concatenate([run.predicted[run.truth == place] for run in row.predictions])
                counts = np.bincount(answers, minlength=len(classes))
                counts[place] = 0
                most = int(counts.argmax())
                words.append(f"{classes[place]} for {classes[most]} in {counts[most]} of {counts.sum()} errors")
            are_taken = partial(_are_taken_for, targets=targets)
            found.append(_in_resamples(row.predictions, names, are_taken, f"{row.regime}: {', '.join(words)}"))
        return all_of(found) if found else missing(results, "confusion matrices")

    return judge


def _places(classes: Sequence[str], names: Sequence[str]) -> list[int] | None:
    """Of classes among others, matched by letters and digits; None where one is not there."""
    known = [letters_and_digits(name) for name in classes]
    wanted = [letters_and_digits(name) for name in names]
    return [known.index(name) for name in wanted] if set(wanted) <= set(known) else None


def _in_resamples(
    runs: Sequence[Predictions],
    names: Sequence[str],
    are: Callable[[np.ndarray, Sequence[Predictions], list[int]], np.ndarray],
    because: str,
) -> Judgement:
    """Is it so in 95 % of the resamples of the test images, or in no more than 5 %?

    Args:
        runs: the predictions on them, of each run in the same order; at least one.
        names: of classes among them.
        are: takes weights of the images, of shape (images, resamples), the predictions and the classes' places; gives
            bool of shape (resamples,).
        because: the numbers on the images as they are.
    """
    truth, places = runs[0].truth, _places(runs[0].classes, names) or []
    blocks = weight_blocks(truth, NUM_RESAMPLES, SEED, within_class=True)
    share = float(np.mean(np.concatenate([are(weights, runs, places) for _, weights in blocks])))
    because = f"{because}; so in {100 * share:.0f} % of resamples"
    return undecided(because) if 1 - LEVEL < share < LEVEL else judged(share >= LEVEL, because)


def _are_hardest(weights: np.ndarray, runs: Sequence[Predictions], places: list[int]) -> np.ndarray:
    """By the mean F1 over the runs."""
    support = class_support(runs[0].truth, len(runs[0].classes)) @ weights
    f1 = np.mean([class_scores(class_counts(run) @ weights, support)["f1"] for run in runs], axis=0)
    return f1[places].max(axis=0) < np.delete(f1, places, axis=0).min(axis=0)


def _are_taken_for(
    weights: np.ndarray, runs: Sequence[Predictions], places: list[int], targets: list[int]
) -> np.ndarray:
    """By the errors of all runs together."""
    result = np.ones(weights.shape[1], dtype=bool)
    for place in places:
        of_class = runs[0].truth == place
        answers = sum(class_support(run.predicted[of_class], len(run.classes)) for run in runs)
        counts = answers @ weights[of_class]
        result &= counts[targets].max(axis=0) > np.delete(counts, [place, *targets], axis=0).max(axis=0)
    return result


def _overfits(results: Results) -> Judgement:
    row = best_row(results, regime="scratch")
    gap = None if row is None else _gap(row)
    if row is None or row.train_accuracy is None or row.val_accuracy is None or gap is None:
        return missing(results, "training and validation accuracy of scratch")
    because = f"training accuracy {row.train_accuracy:.2f}, validation {row.val_accuracy:.2f}"
    if isinstance(gap, Estimate) and gap.low < FAR_BELOW < gap.high:
        return undecided(because)
    return judged(row.train_accuracy >= NEAR_ONE and row.train_accuracy - row.val_accuracy >= FAR_BELOW, because)


def _loss_rises_early(results: Results) -> Judgement:
    """The lowest validation loss is in the first half of the epochs, of a network that was trained for all of them."""
    row = best_row(results, regime="scratch")
    if row is None or row.best_epoch is None or row.epochs is None:
        return missing(results, "the epoch of the lowest validation loss")
    if row.max_epochs is not None and row.epochs < row.max_epochs:
        # It stops a few epochs after the lowest loss, which is then in the second half wherever the loss rises.
        return undecided(f"{_lowest_loss(row)}, stopped early of {row.max_epochs}")
    return judged(row.best_epoch <= row.epochs / 2, _lowest_loss(row))


# MobileNet against EfficientNetV2


def _share_of_parameters(first: str, second: str, share: float) -> Callable[[Results], Judgement]:
    """To a twentieth."""

    def judge(results: Results) -> Judgement:
        rows = [best_row(results, backbone=backbone) for backbone in (first, second)]
        known = [row.parameters for row in rows if row is not None and row.parameters]
        if len(known) < len(rows):
            return missing(results, f"parameters of {first} and {second}")
        of_both = " of ".join(format_value(number, "amount") for number in known)
        return judged(abs(known[0] / known[1] - share) <= 0.05, f"{of_both}, {known[0] / known[1]:.2f} of them")

    return judge


_BIRDS = ("resnet50", "efficientnet_v2_b0")
_LIGHTWEIGHT = ("efficientnet_b0", "resnet50", "alexnet")
_ARTICLE = ("efficientnet_v2_b0", "mobilenet_v2", "resnet50_v2")

CLAIMS: dict[str, tuple[Claim, ...]] = {
    "birds": (
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
            judge=together(
                _BIRDS, _more_efficient("efficientnet_v2_b0", "resnet50", ("scratch", "two_stage", "finetune"))
            ),
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
    ),
    "cifar100_lightweight": (
        Claim(
            words="EfficientNet-B0 has the highest accuracy",
            judge=together(_LIGHTWEIGHT, _most_accurate("efficientnet_b0", ("resnet50", "alexnet"))),
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
    ),
    "eight_datasets": (
        Claim(
            words="the average accuracy of ResNet is 86.19 %, that of DenseNet 89.91 %",
            judge=_in_each_framework(_stated_means),
        ),
        Claim(
            words="ResNet and DenseNet are the best networks for transfer learning",
            judge=_in_each_framework(_best_families(("resnet", "densenet"))),
        ),
        Claim(words="scratch takes about 5 hours on average, frozen 5 minutes to 3 hours", judge=_hours),
        Claim(words="frozen takes much less time than scratch", judge=_frozen_much_faster),
        Claim(words="there is negative transfer: frozen less accurate than scratch", judge=_negative_transfer),
    ),
    "imagenette": (
        Claim(
            words="fine-tuning (frozen) beats training from scratch and the pretrained network as it is",
            judge=together(("efficientnet_b0", "resnet50"), _frozen_beats_others),
        ),
        Claim(
            words="gas_pump and chain_saw are the hardest classes",
            judge=each(("efficientnet_b0",), _hardest(_GAS_PUMP_AND_CHAIN_SAW)),
        ),
        Claim(
            words="gas_pump and chain_saw are taken for cassette_player and garbage_truck",
            judge=each(("efficientnet_b0",), _taken_for(_GAS_PUMP_AND_CHAIN_SAW, _TAKEN_FOR)),
        ),
        Claim(
            words="from scratch it overfits: training accuracy near 1, validation accuracy far below",
            judge=each(("efficientnet_b0",), _overfits),
        ),
        Claim(
            words="from scratch the validation loss rises from early on, after epoch 5 of 40",
            judge=each(("efficientnet_b0",), _loss_rises_early),
        ),
    ),
    "mobilenet_vs_efficientnetv2": (
        Claim(
            words="EfficientNetV2 is more accurate than MobileNetV2",
            judge=together(_ARTICLE, _most_accurate("efficientnet_v2_b0", ("mobilenet_v2",), "frozen")),
        ),
        Claim(
            words="EfficientNetV2 is more accurate than ResNet50V2",
            judge=together(_ARTICLE, _most_accurate("efficientnet_v2_b0", ("resnet50_v2",), "frozen")),
        ),
        Claim(
            words="EfficientNetV2 has a quarter of the parameters of ResNet50V2",
            judge=together(_ARTICLE, _share_of_parameters("efficientnet_v2_b0", "resnet50_v2", 0.25)),
        ),
    ),
}
