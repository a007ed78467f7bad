"""Tables of pairs of rows: frameworks, thawing and transfer, with their tests; each is a list of columns over pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from operator import attrgetter

from tandem.comparison.analysis import Analysis
from tandem.comparison.configurations import FIRST_PHASE, some
from tandem.comparison.differences import differences_sentence
from tandem.comparison.group_tables import (
    CLASSES_NAMED,
    NAMES,
    NUM_RUNS,
    RowField,
    setting_fields,
    verdict_words,
)
from tandem.comparison.recommendation import thawing_sentence
from tandem.comparison.rows import ClassDifference, Pair, Row
from tandem.evaluation.metrics import SCORE_NAMES
from tandem.evaluation.transfer import fewest_images_for_flag
from tandem.rendering.tables import MISSING, Column, Field, Table, Value, table_of
from tandem.tracking import vocabulary

PairField = Field[Pair]


def framework_table(analysis: Analysis) -> Table:
    """Keras minus PyTorch for each backbone, regime and setting that was trained in both."""
    pairs = analysis.frameworks
    return table_of(
        pairs,
        (
            *map(_of_first, NAMES[:2]),
            *map(_of_both, setting_fields(analysis.rows, costs=False)),
            (Column(key="keras", heading="Keras"), attrgetter("first.configuration.framework")),
            (Column(key="accuracy_torch", heading="torch accuracy", kind="score"), _second_accuracy),
            (Column(key="accuracy_keras", heading="keras accuracy", kind="score"), _first_accuracy),
            (Column(key="accuracy_difference", heading="difference", kind="difference"), _difference("accuracy")),
            *_p_value_fields(pairs),
            *_verdict_fields(pairs, better="Keras better", worse="PyTorch better"),
            (
                Column(key="f1_macro_difference", heading="macro F1 difference", kind="difference"),
                _difference("f1_macro"),
            ),
            (
                Column(key="train_seconds_ratio", heading="training time", kind="ratio"),
                lambda pair: pair.ratio(vocabulary.TRAIN_SECONDS),
            ),
            (
                Column(key="runs_torch", heading="torch runs", kind="number"),
                lambda pair: len(pair.second.configuration.runs),
            ),
            (
                Column(key="runs_keras", heading="keras runs", kind="number"),
                lambda pair: len(pair.first.configuration.runs),
            ),
        ),
        name="frameworks",
        title="Keras against PyTorch",
        notes=_framework_notes(analysis),
    )


def _framework_notes(analysis: Analysis) -> list[str]:
    pairs = analysis.frameworks
    notes = [
        "Differences are Keras minus PyTorch; training time is Keras divided by PyTorch.",
        *_test_notes(pairs, analysis.margin),
    ]
    if not all(pair.same_costs for pair in pairs):
        notes.append(
            "Times are compared only on the same hardware and devices with the same threads and settings of speed."
        )
    if pairs:
        notes.append(differences_sentence(pairs))
    paired = {row for pair in pairs for row in (pair.first, pair.second)}
    frameworks = defaultdict(set)
    for row in analysis.rows:
        frameworks[_kind_of(row)].add(row.configuration.framework)
    alone: list[str] = []
    unlike: list[str] = []
    for row in analysis.rows:
        if row not in paired:
            one_framework = len(frameworks[_kind_of(row)]) == 1
            (alone if one_framework else unlike).append(row.label)
    if alone:
        notes.append(f"In one framework only: {some(alone)}.")
    if unlike:
        notes.append(f"Without a row of the other framework with equal settings: {some(unlike)}.")
    return notes


def _kind_of(row: Row) -> tuple[str, str]:
    return row.configuration.backbone, row.configuration.regime


def thawing_table(analysis: Analysis) -> Table:
    """Effect of the second phase of two_stage, in which everything is trained, after the head alone in the first."""
    pairs = analysis.thawing
    return table_of(
        pairs,
        (
            *map(_of_first, (NAMES[0], NAMES[2], *setting_fields(analysis.rows, costs=True))),
            (Column(key="accuracy_frozen", heading="accuracy frozen", kind="score"), _second_accuracy),
            (Column(key="accuracy_thawed", heading="thawed", kind="score"), _first_accuracy),
            (
                Column(key="accuracy_difference", heading="difference", kind="difference", better="higher"),
                _difference("accuracy"),
            ),
            *_p_value_fields(pairs),
            *_verdict_fields(pairs, better="better", worse="worse"),
            (
                Column(key="f1_macro_difference", heading="macro F1 difference", kind="difference", better="higher"),
                _difference("f1_macro"),
            ),
            (
                Column(key="train_seconds_frozen", heading="training frozen", kind="seconds"),
                lambda pair: pair.second.mean(vocabulary.TRAIN_SECONDS),
            ),
            (
                Column(key="train_seconds", heading="total", kind="seconds"),
                lambda pair: pair.first.mean(vocabulary.TRAIN_SECONDS),
            ),
            (
                Column(key="train_seconds_ratio", heading="ratio", kind="ratio"),
                lambda pair: pair.ratio(vocabulary.TRAIN_SECONDS),
            ),
            _of_first(NUM_RUNS),
        ),
        name="thawing",
        title="Effect of thawing in two_stage",
        notes=[thawing_sentence(pairs), *_test_notes(pairs, analysis.margin)] if pairs else (),
    )


def transfer_table(analysis: Analysis) -> Table:
    """Pretrained minus from scratch, for each pretrained row with a row from scratch."""
    pairs = analysis.transfer
    notes = [
        "Differences are pretrained minus from scratch, with the same backbone and framework; training time is "
        "pretrained divided by from scratch.",
        *_test_notes(pairs, analysis.margin),
    ]
    if any(pair.tested for pair in pairs):
        notes.append(
            "Worse and better classes have a significantly lower or higher recall, corrected over the classes."
        )
    notes += _small_class_notes(pairs)
    return table_of(
        pairs,
        (
            *map(_of_first, (*NAMES, *setting_fields(analysis.rows, costs=True))),
            (Column(key="accuracy_scratch", heading="accuracy from scratch", kind="score"), _second_accuracy),
            (Column(key="accuracy", heading="pretrained", kind="score"), _first_accuracy),
            (
                Column(key="accuracy_difference", heading="difference", kind="difference", better="higher"),
                _difference("accuracy"),
            ),
            *_p_value_fields(pairs),
            *_verdict_fields(pairs, better="positive", worse="negative"),
            *_learning_fields(pairs),
            (
                Column(key="classes_worse", heading="classes worse", kind="number"),
                lambda pair: len(_changed(pair, "worse")) if pair.tested else None,
            ),
            (
                Column(key="classes_better", heading="classes better", kind="number"),
                lambda pair: len(_changed(pair, "better")) if pair.tested else None,
            ),
            (Column(key="worse", heading="worse classes"), _worse_classes),
        ),
        name="transfer",
        title="Pretrained against from scratch",
        notes=notes,
    )


def _learning_fields(pairs: Sequence[Pair]) -> list[PairField]:
    """Starting performance and time to learn, which are two of three effects of transfer, as far as they are known.

    The three are those of the document on eight data sets; final performance is the third.
    """
    start = FIRST_PHASE + vocabulary.START_ACCURACY

    def of_start(row: Row) -> float | None:
        return row.configuration.mean(start)

    fields: list[PairField] = [
        (
            Column(
                key="start_accuracy_scratch", heading="validation accuracy after 1 epoch, from scratch", kind="score"
            ),
            lambda pair: of_start(pair.second),
        ),
        (
            Column(key="start_accuracy", heading="after 1 epoch, pretrained", kind="score"),
            lambda pair: of_start(pair.first),
        ),
        (
            Column(key="train_seconds_ratio", heading="training time", kind="ratio"),
            lambda pair: pair.ratio(vocabulary.TRAIN_SECONDS),
        ),
    ]
    return [(column, value_of) for column, value_of in fields if any(value_of(pair) is not None for pair in pairs)]


def _small_class_notes(pairs: Sequence[Pair]) -> list[str]:
    """A word on classes that are too small for any difference between two single runs to be significant."""
    small: dict[tuple[int, int], set[str]] = {}
    for pair in pairs:
        if len(pair.first.predictions) == len(pair.second.predictions) == 1:
            needed = fewest_images_for_flag(len(pair.classes))
            names = {one.name for one in pair.classes if one.num_images < needed}
            small.setdefault((len(pair.classes), needed), set()).update(names)
    return [
        f"With one run per row, a class needs {needed} test images to be able to differ significantly, corrected over "
        f"{num_classes} classes; {len(names)} of them {'has' if len(names) == 1 else 'have'} fewer."
        for (num_classes, needed), names in small.items()
        if names
    ]


def _changed(pair: Pair, change: str) -> list[ClassDifference]:
    return [one for one in pair.classes if one.change == change]


def _worse_classes(pair: Pair) -> str | None:
    worse = [one.name for one in _changed(pair, "worse")]
    return some(worse[:CLASSES_NAMED]) + (" and more" if len(worse) > CLASSES_NAMED else "") or None


def transfer_class_table(analysis: Analysis) -> Table:
    """Classes in which a pretrained row has a significantly lower recall than its row from scratch."""
    found = [(pair, one) for pair in analysis.transfer for one in _changed(pair, "worse")]
    fields: tuple[Field[tuple[Pair, ClassDifference]], ...] = (
        (Column(key="pretrained", heading="pretrained"), lambda found: found[0].first.label),
        (Column(key="class", heading="class"), lambda found: found[1].name),
        (Column(key="images", heading="images", kind="number"), lambda found: found[1].num_images),
        (Column(key="recall_difference", heading="recall", kind="difference"), lambda found: found[1].recall),
        (Column(key="f1_difference", heading="F1", kind="difference"), lambda found: found[1].f1),
        (Column(key="p_value_holm", heading="corrected p", kind="p_value"), lambda found: found[1].p_holm),
    )
    return table_of(found, fields, name="transfer_classes", title="Classes that pretraining made worse")


def _of_first(field: RowField) -> PairField:
    """The field of the first row of a pair."""
    column, value_of = field
    return column, lambda pair: value_of(pair.first)


def _of_both(field: RowField) -> PairField:
    """The field of both rows of a pair: one value if they agree."""
    column, value_of = field

    def value(pair: Pair) -> Value:
        first, second = value_of(pair.first), value_of(pair.second)
        return first if first == second else f"{first or MISSING} and {second or MISSING}"

    return column, value


def _first_accuracy(pair: Pair) -> Value:
    return pair.first.mean(vocabulary.TEST_PREFIX + "accuracy")


def _second_accuracy(pair: Pair) -> Value:
    return pair.second.mean(vocabulary.TEST_PREFIX + "accuracy")


def _difference(score: str) -> Callable[[Pair], Value]:
    return lambda pair: pair.difference(score)


def _p_value_fields(pairs: Sequence[Pair]) -> list[PairField]:
    if not any(pair.tested for pair in pairs):
        return []

    def value_of(name: str) -> Callable[[Pair], Value]:
        return lambda pair: getattr(pair.tested["accuracy"], name) if pair.tested else None

    return [
        (Column(key="p_value", heading="p", kind="p_value"), value_of("p_value")),
        (Column(key="p_value_holm", heading="corrected p", kind="p_value"), value_of("p_holm")),
    ]


def _verdict_fields(pairs: Sequence[Pair], *, better: str, worse: str) -> list[PairField]:
    """A column with the verdict of each pair, if any pair is tested.

    Args:
        pairs: Of a table.
        better: Word for a first row that is better.
        worse: Word for a first row that is worse.
    """
    if not any(pair.tested for pair in pairs):
        return []
    words = {"better": better, "worse": worse}
    return [(Column(key="verdict", heading="verdict"), lambda pair: words.get(pair.verdict or "", pair.verdict))]


def _test_notes(pairs: Sequence[Pair], margin: float) -> list[str]:
    of_networks = [pair.tested["accuracy"].of_networks for pair in pairs if pair.tested]
    if not of_networks:
        return []
    words = "McNemar's test" + ("" if all(of_networks) else ", over seeds too where there are several")
    notes = [
        f"p of equal accuracy: {words}; corrected over the rows of this table by Holm's method. Verdicts on accuracy, "
        f"corrected likewise: {verdict_words(margin)}; otherwise the difference is significant."
    ]
    reasons = dict.fromkeys((reason, SCORE_NAMES[score]) for pair in pairs for score, reason in pair.untested.items())
    return notes + [f"No test keeps its promise for {score}: {reason}." for reason, score in reasons]
