"""The results of a group in sentences, by the rules in RULES, which the page shows too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tandem.comparison.analysis import Analysis, Best
from tandem.comparison.configurations import some
from tandem.comparison.differences import MOST_CLAUSES, differences_sentence
from tandem.comparison.recorded_settings import same_costs
from tandem.comparison.rows import Pair, Row
from tandem.evaluation.margin import points
from tandem.evaluation.ties import TOLERANCE, highest, is_above
from tandem.rendering.tables import Estimate, Kind, format_value
from tandem.tracking import vocabulary

# "Within 1 %": a gain of less than one image in a hundred.
SMALL_GAIN = 0.01
SENTENCES_ALIKE = 5

RULES = (
    "Best: the row with the highest accuracy on the test images. Each other row is compared with it by a paired test "
    "over test images and seeds, at 0.05, corrected by Holm's method over all pairs. It is worse if it is "
    "significantly less accurate; equivalent if the test shows that the two differ by less than the margin (--margin); "
    "otherwise these images cannot tell.",
    "Cheapest: of the best row and the rows equivalent to it that ran on the same hardware with the same settings of "
    "speed, the one with the shortest training and the one with the lowest latency.",
    "First phases: a network of two_stage after its first phase that is equivalent to the best row may be the "
    "cheapest. Stop there if the thawed network is equivalent to it; do not thaw if that is significantly less "
    "accurate. These tests are corrected over all first phases.",
    "Avoid: pretrained networks that are significantly less accurate than the same backbone trained from scratch in "
    "the same framework; and networks that are significantly less accurate than one whose training on the same "
    "hardware took no longer. Rows that are equivalent are not avoided.",
    "Ensembles: the most accurate one with the best row in it, if it is significantly more accurate than that.",
    "Undecided: pairs that are neither significantly different nor equivalent; differences between methods with one "
    "run each; and differences that are too small for the number of test images.",
)


def recommend(analysis: Analysis) -> tuple[str, ...]:
    """Names the best row, the cheapest ones tied with it, those to avoid, and what remains undecided.

    Args:
        analysis: Of a group with at least one row.

    Returns:
        Sentences in the order of RULES.
    """
    rows = analysis.rows
    if len(rows) == 1:
        nothing = f"Nothing to compare {rows[0].label} with: train another backbone, regime or framework."
        return (nothing, *_thawing(analysis), *_ensemble(analysis, rows[0]))
    if len(analysis.tested) < 2:
        best = _most_accurate(rows)
        return (
            f"{best.label} has the highest accuracy: {_accuracy(best)}. This may be chance: tests need the saved "
            "predictions of at least two rows.",
            *_thawing(analysis),
        )
    assert analysis.best is not None
    best = analysis.ranking[0]
    return (
        _best(best, analysis.best),
        *_better_phase(analysis, best),
        *_as_good(analysis),
        *_cannot_tell(analysis, analysis.best),
        *_thawing(analysis),
        *_avoided(analysis),
        *_frameworks(analysis),
        *_ensemble(analysis, best),
        *_undecided(analysis),
    )


def thawing_sentence(pairs: Sequence[Pair]) -> str:
    """The effect of thawing on accuracy and training time.

    Args:
        pairs: Of Analysis.thawing; at least one.
    """
    accuracy = vocabulary.TEST_PREFIX + "accuracy"
    scores = [(pair.first.mean(accuracy), pair.second.mean(accuracy)) for pair in pairs]
    gains = sorted(after - before for after, before in scores if after is not None and before is not None)
    ratios = [ratio for pair in pairs if (ratio := pair.ratio(vocabulary.TRAIN_SECONDS))]
    decimals = max(pair.first.decimals for pair in pairs)
    sentence = f"Thawing changed accuracy by {_range([_change(gain, decimals) for gain in gains])}"
    if ratios:
        sentence += f" for {_range([f'{ratio:.1f}' for ratio in sorted(ratios)])} times the training time"
    small = sum(abs(gain) < SMALL_GAIN - TOLERANCE for gain in gains)
    sentence += f": within 1 % in {small} of {len(gains)}"
    if any(pair.tested for pair in pairs):
        number = Counter(pair.verdict for pair in pairs)
        sentence += (
            f"; significantly better in {number['better']}, significantly worse in {number['worse']}, equivalent in "
            f"{number['equivalent']}, undecided in {number['undecided']}"
        )
    return sentence + "."


def _best(row: Row, best: Best) -> str:
    interval = best.interval or row.intervals["accuracy"]
    value, low, high = (_score(number, row.decimals) for number in (interval.value, interval.low, interval.high))
    sentence = f"The most accurate is {row.label}: {value} (95 % interval {low} to {high}"
    if best.num_candidates == 1:
        return sentence + "); all others are significantly less accurate."
    allows = "does not allow" if best.interval is None else "allows"
    return f"{sentence}, which {allows} for the choice of the best of {best.num_candidates} candidates)."


def _as_good(analysis: Analysis) -> list[str]:
    """The rows that are equivalent to the best one, and the cheapest of them; first phases are such rows too."""
    best, equivalent = analysis.ranking[0], [*analysis.against_best("equivalent"), *_equivalent_phases(analysis)]
    if not equivalent:
        return []
    within = f"within {points(analysis.margin)}"
    others = [_name(row) for row in equivalent if row.configuration is not best.configuration]
    sentences = [f"Equivalent to it {within} of accuracy: {some(others)}."] if others else []
    comparable = [row for row in (best, *equivalent) if same_costs((row.configuration.costs, best.configuration.costs))]
    kinds: tuple[tuple[str, Kind, str], ...] = (
        (vocabulary.TRAIN_SECONDS, "seconds", "trains"),
        (vocabulary.LATENCY_MILLISECONDS, "milliseconds", "predicts"),
    )
    for metric, kind, does in kinds:
        costs = {row: cost for row in comparable if (cost := row.mean(metric)) is not None}
        if best not in costs or len(costs) < 2:
            continue
        cheapest = min(costs, key=lambda row: costs[row])
        written, of_best = format_value(costs[cheapest], kind), format_value(costs[best], kind)
        if written == of_best:
            sentences.append(f"No row equivalent to it {does} faster: {written}.")
        elif cheapest.configuration is not best.configuration:  # else the sentence on thawing says it
            times = f"{costs[best] / costs[cheapest]:.1f} times" if costs[cheapest] else "many times"
            sentences.append(
                f"{_name(cheapest)} is equivalent {within} and {does} {times} faster: {written} against {of_best}."
            )
    return sentences


def _cannot_tell(analysis: Analysis, best: Best) -> list[str]:
    """The rows that may be as good as the best one or not, and the number of images that would show it."""
    rows = analysis.against_best("undecided")
    if not rows:
        return []
    sentence = "These images cannot tell whether it is more accurate than " + some([row.label for row in rows])
    needed = [images for row in rows if (images := best.undecided[row].images_needed) is not None]
    if needed:
        sentence += (
            f". About {_about(max(needed))} test images would find a difference of {points(analysis.margin)} in four "
            "of five test sets"
        )
    same = [row.label for row in rows if best.undecided[row].disagreement == 0]
    if same:
        sentence += f". These images show no disagreement between the best row and {some(same)}"
    others = [row.label for row in rows if best.undecided[row].disagreement and not best.undecided[row].images_needed]
    if others:
        sentence += f". More images alone would not settle this for {some(others)}: add seeds"
    return [sentence + "."]


def _equivalent_phases(analysis: Analysis) -> list[Row]:
    """First phases that are equivalent to the best row."""
    best = analysis.ranking[0]
    pairs = [*analysis.first_phases, *(pair for pair in analysis.thawing if pair.first is best)]
    return [pair.second for pair in pairs if pair.verdict == "equivalent"]


def _better_phase(analysis: Analysis, best: Row) -> list[str]:
    """The most accurate first phase, if it is more accurate than the best row."""
    pairs = [*analysis.first_phases, *(pair for pair in analysis.thawing if pair.first is best and pair.tested)]
    pair = highest(pairs, lambda one: one.second.accuracy)
    if pair is None or not is_above(pair.second.accuracy, best.accuracy):
        return []
    significantly = "significantly" if pair.better is pair.second else "though not significantly,"
    return [f"{_name(pair.second)} is {significantly} more accurate than it: {_accuracy(pair.second)}."]


def _thawing(analysis: Analysis) -> list[str]:
    """Networks of two_stage for which the first phase is enough, or better."""
    stop, keep_frozen = {}, {}
    for pair in analysis.thawing:
        thawed, first_phase = pair.first, pair.second
        accuracies = f"{_accuracy(first_phase)} after the first phase, {_accuracy(thawed)} at the end"
        ratio = pair.ratio(vocabulary.TRAIN_SECONDS)
        times = f"{_train_time(first_phase)} of training against {_train_time(thawed)}"
        if pair.better is first_phase:
            p_value = format_value(pair.tested["accuracy"].p_holm, "p_value")
            keep_frozen[thawed.label] = (
                f"Do not thaw {thawed.label}: it became significantly less accurate ({accuracies}, corrected p "
                f"{p_value}{f'; {times}' if ratio else ''})."
            )
        elif pair.verdict == "equivalent":
            cheaper = f", {ratio:.1f} times cheaper ({times})" if ratio else ""
            stop[thawed.label] = (
                f"Stop {thawed.label} after the first phase: equivalent within {points(analysis.margin)} "
                f"({accuracies}){cheaper}."
            )
    return [*_some(keep_frozen, "Do not thaw either"), *_some(stop, "Stop after the first phase, for the same reason")]


def _some(sentences: Mapping[str, str], rest: str) -> list[str]:
    """The first sentences; of the other ones only the labels of their rows.

    Args:
        sentences: By the label of the row that each is about.
        rest: Words before the labels of the other rows.
    """
    others = list(sentences)[SENTENCES_ALIKE:]
    return [*list(sentences.values())[:SENTENCES_ALIKE], *([f"{rest}: {some(others)}."] if others else [])]


def _avoided(analysis: Analysis) -> list[str]:
    """Rows that scratch surpasses despite their pretrained weights, then others that a cheaper row surpasses."""
    transfer = _negative_transfer(analysis)
    dominated = {label: sentence for label, sentence in _dominated(analysis).items() if label not in transfer}
    return [*transfer.values(), *_some(dominated, "Avoid, for the same reason")]


def _negative_transfer(analysis: Analysis) -> dict[str, str]:
    """A sentence per row with pretrained weights that is significantly less accurate than scratch, by its label."""
    return {
        pair.first.label: f"Avoid {pair.first.label}: despite its pretrained weights it is significantly less accurate "
        f"than {pair.second.label} ({_change_with_limits(pair.tested['accuracy'].value, pair.first.decimals)})."
        for pair in analysis.transfer
        if pair.better is pair.second
    }


def _dominated(analysis: Analysis) -> dict[str, str]:
    """A sentence per row that another row surpasses significantly with no more training, by its label."""
    better_than: dict[Row, list[Row]] = {}
    for pair in analysis.pairs:
        if pair.better is None or pair.worse is None or not pair.same_costs:
            continue
        seconds, more_seconds = (row.mean(vocabulary.TRAIN_SECONDS) for row in (pair.better, pair.worse))
        if seconds is not None and more_seconds is not None and seconds <= more_seconds:
            better_than.setdefault(pair.worse, []).append(pair.better)
    sentences = {}
    for row in analysis.tested:
        if row in better_than:
            other = _most_accurate(better_than[row])
            sentences[row.label] = (
                f"Avoid {row.label}: {other.label} is significantly more accurate ({_accuracy(other)} against "
                f"{_accuracy(row)}) after {_train_time(other)} of training, no more than its {_train_time(row)}."
            )
    return sentences


def _frameworks(analysis: Analysis) -> list[str]:
    tested = [pair for pair in analysis.frameworks if pair.tested]
    if not tested:
        return []
    number = Counter(pair.verdict for pair in tested)
    sentence = (
        f"Accuracy of {_count(len(tested), 'pair')} of Keras and PyTorch: Keras is significantly better in "
        f"{number['better']}, PyTorch in {number['worse']}; equivalent within {points(analysis.margin)} "
        f"{number['equivalent']}, undecided {number['undecided']}"
    )
    return [f"{sentence}. {differences_sentence(tested, most=MOST_CLAUSES)}"]


def _ensemble(analysis: Analysis, best: Row) -> list[str]:
    """The most accurate ensemble, if it is significantly more accurate than the best row, which is in it."""
    better = [
        one for one in analysis.ensembles if one.best is best and one.gain.significant and one.gain.value.value > 0
    ]
    chosen = highest(better, lambda one: one.gain.value.value)
    if chosen is None:
        return []
    return [
        f"An ensemble of {chosen.label} ({chosen.num_runs} networks, mean probabilities) is significantly more "
        f"accurate than {best.label} ({_change_with_limits(chosen.gain.value, best.decimals)})."
    ]


def _undecided(analysis: Analysis) -> list[str]:
    sentences = []
    number = Counter(pair.verdict for pair in analysis.pairs)
    if number["equivalent"] or number["undecided"]:
        sentences.append(
            f"Accuracy of {_count(len(analysis.pairs), 'pair')} of rows: significantly different "
            f"{number['better'] + number['worse']}, equivalent within {points(analysis.margin)} "
            f"{number['equivalent']}, undecided {number['undecided']}."
        )
    if all(len(row.configuration.runs) == 1 for row in analysis.tested):
        sentences.append("With one run per row, tests compare two trained networks, not two methods: add seeds.")
    sentences.append(_smallest_difference(analysis))
    if unread := [row for row in analysis.rows if not row.predictions]:
        sentences.append(_not_considered(unread, max(row.accuracy for row in analysis.tested)))
    return sentences


def _not_considered(unread: Sequence[Row], best: float) -> str:
    above = sum(is_above(row.accuracy, best) for row in unread)
    if len(unread) == 1:
        sentence = "1 row has no saved predictions and is not considered here"
        return sentence + (", although its accuracy is higher." if above else ".")
    sentence = f"{len(unread)} rows have no saved predictions and are not considered here"
    return sentence + (
        f", although {above} of them {'has' if above == 1 else 'have'} a higher accuracy." if above else "."
    )


def _smallest_difference(analysis: Analysis) -> str:
    best = analysis.best
    assert best is not None
    if not best.disagreement:
        return (
            "The two most accurate rows are right on the same test images: these "
            f"{analysis.num_images:,} images show no disagreement, and so no smallest difference that they could find."
        )
    numbers = [len(row.predictions) for row in analysis.ranking[:2]]
    runs = f"{numbers[0]} and {numbers[1]} runs" if numbers[0] != numbers[1] else f"{_count(numbers[0], 'run')} each"
    setting = f"with {runs}, corrected over {_count(len(analysis.pairs), 'pair')}"
    start = f"The two most accurate rows disagree on {best.disagreement:.1%} of the {analysis.num_images:,} test images"
    if best.detectable is None:
        return f"{start}: no difference in accuracy between them would be found reliably ({setting})."
    detectable = _score(best.detectable, analysis.ranking[0].decimals)
    return (
        f"{start}: a difference in accuracy between them must be at least {detectable} to be found in "
        f"four of five such test sets ({setting})."
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _about(number: int) -> str:
    """A number with two significant digits."""
    return f"{float(f'{number:.2g}'):,.0f}"


def _most_accurate(rows: Sequence[Row]) -> Row:
    best = highest(rows, lambda row: row.accuracy)
    assert best is not None
    return best


def _name(row: Row) -> str:
    return f"{row.configuration.label} after its first phase" if row.after_first_phase else row.label


def _accuracy(row: Row) -> str:
    return _score(row.mean(vocabulary.TEST_PREFIX + "accuracy"), row.decimals)


def _train_time(row: Row) -> str:
    return format_value(row.mean(vocabulary.TRAIN_SECONDS), "seconds")


def _score(value: float | None, decimals: int) -> str:
    return format_value(value, "score", decimals)


def _change(value: float, decimals: int) -> str:
    return format_value(value, "difference", decimals)


def _change_with_limits(value: Estimate, decimals: int) -> str:
    change, low, high = (_change(number, decimals) for number in (value.value, value.low, value.high))
    return f"{change}, 95 % interval {low} to {high}"


def _range(written: Sequence[str]) -> str:
    """The first and last of sorted numbers."""
    return written[0] if written[0] == written[-1] else f"{written[0]} to {written[-1]}"
