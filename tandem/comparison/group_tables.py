"""Tables of a group: scores, frameworks, thawing, transfer and costs; each is a list of columns over rows or pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter, methodcaller

from tandem.comparison.analysis import Analysis
from tandem.comparison.configurations import FIRST_PHASE, has_folds_of_training, same_costs, some
from tandem.comparison.differences import differences_sentence
from tandem.comparison.recommendation import thawing_sentence
from tandem.comparison.rows import ClassDifference, Ensemble, Pair, Row
from tandem.evaluation.margin import points
from tandem.evaluation.metrics import SCORE_NAMES
from tandem.evaluation.transfer import fewest_images_for_flag
from tandem.rendering.tables import MISSING, Column, Field, Kind, Table, Value, table_of
from tandem.tracking import vocabulary

CLASSES_NAMED = 5

_LOWER_IS_BETTER = ("calibration_error", "rms_calibration_error", "log_loss")
_IMAGENET_SCORES: dict[str, tuple[str, Kind]] = {
    "imagenet_accuracy": ("accuracy over all 1000 classes", "score"),
    "imagenet_precision_macro": ("macro precision", "score"),
    "imagenet_recall_macro": ("macro recall", "score"),
    "imagenet_f1_macro": ("macro F1", "score"),
    "imagenet_num_labels": ("labels", "number"),
    "imagenet_outside": ("predicted outside", "score"),
}
_COSTS: tuple[tuple[str, Column], ...] = (
    (vocabulary.EPOCHS, Column(key="epochs", heading="epochs", kind="number")),
    (
        vocabulary.SECONDS_PER_EPOCH,
        Column(key="seconds_per_epoch", heading="per epoch", kind="seconds", better="lower"),
    ),
    (vocabulary.TRAIN_SECONDS, Column(key="train_seconds", heading="training", kind="seconds", better="lower")),
    (vocabulary.COMPILE_SECONDS, Column(key="compile_seconds", heading="compilation", kind="seconds", better="lower")),
    (
        FIRST_PHASE + vocabulary.TRAIN_SECONDS,
        Column(key="train_seconds_phase_1", heading="first phase", kind="seconds"),
    ),
    (
        vocabulary.phase_name(2) + "/" + vocabulary.TRAIN_SECONDS,
        Column(key="train_seconds_phase_2", heading="second phase", kind="seconds"),
    ),
    (vocabulary.PARAMETERS, Column(key="parameters", heading="parameters", kind="amount", better="lower")),
    (vocabulary.TRAINABLE_PARAMETERS, Column(key="trainable_parameters", heading="trainable", kind="amount")),
    (vocabulary.MACS, Column(key="macs", heading="MACs", kind="amount", better="lower")),
    (
        vocabulary.LATENCY_MILLISECONDS,
        Column(key="latency_milliseconds", heading="latency", kind="milliseconds", better="lower"),
    ),
    (
        vocabulary.ONNX_LATENCY_MILLISECONDS,
        Column(key="onnx_latency_milliseconds", heading="latency in ONNX", kind="milliseconds", better="lower"),
    ),
    (
        vocabulary.IMAGES_PER_SECOND,
        Column(key="inference_images_per_second", heading="images per second", kind="number", better="higher"),
    ),
    (vocabulary.PEAK_MEMORY_MEGABYTES, Column(key="peak_memory_megabytes", heading="memory, MB", kind="number")),
    (
        vocabulary.PEAK_GPU_MEMORY_MEGABYTES,
        Column(key="peak_gpu_memory_megabytes", heading="GPU memory, MB", kind="number"),
    ),
)
_TIMES = (
    vocabulary.SECONDS_PER_EPOCH,
    vocabulary.TRAIN_SECONDS,
    vocabulary.COMPILE_SECONDS,
    vocabulary.LATENCY_MILLISECONDS,
    vocabulary.IMAGES_PER_SECOND,
)
_OF_ENSEMBLES = ("accuracy", "f1_macro", "log_loss")
_IN_SUMMARY = (
    vocabulary.TRAIN_SECONDS,
    vocabulary.SECONDS_PER_EPOCH,
    vocabulary.PARAMETERS,
    vocabulary.LATENCY_MILLISECONDS,
)

_LOG_LOSS_NOTE = (
    "Log loss: the natural logarithm, from saved probabilities, of which those below 1.2e-38 count as that. Rows "
    "without saved predictions have what their runs logged; up to version 0.2.0, these took 1.2e-7 for all smaller "
    "probabilities."
)

RowField = Field[Row]
PairField = Field[Pair]

BACKBONE, REGIME, FRAMEWORK = (Column(key=name, heading=name) for name in ("backbone", "regime", "framework"))
_NAMES: tuple[RowField, ...] = tuple(
    (column, attrgetter(f"configuration.{column.key}")) for column in (BACKBONE, REGIME, FRAMEWORK)
)
_NUM_RUNS: RowField = (
    Column(key="runs", heading="runs", kind="number"),
    lambda row: len(row.configuration.runs),
)


def summary_table(analysis: Analysis) -> Table:
    """Accuracy, F1 and main costs of each row."""
    rows = analysis.rows
    verdicts: list[RowField] = []
    notes = []
    if analysis.num_images:
        notes.append(
            f"In brackets: 95 % intervals over the {analysis.num_images:,} test images, and over seeds where there are "
            "several; that of the best row does not allow for its choice."
        )
    if any(has_folds_of_training(run) for row in rows for run in row.configuration.runs):
        notes.append("Rows with several folds of the training images are means over these, as over seeds.")
    notes += _version_notes(rows)
    if analysis.pairs:
        verdicts = [
            (Column(key="tied", heading="letters"), attrgetter("letters")),
            (Column(key="against_best", heading="against the best"), attrgetter("against_best")),
        ]
        notes.append(
            "Rows without a common letter differ significantly in accuracy (0.05, corrected over "
            f"{len(analysis.pairs)} pairs). A common letter, like an underline, does not show that they are equal."
        )
        notes.append(
            f"Against the best, corrected over the same pairs: worse, significantly; {_verdict_words(analysis.margin)}."
        )
    notes += _interval_notes(rows, ("accuracy", "f1_macro"))
    return table_of(
        rows,
        (
            *_NAMES,
            *_setting_fields(rows, costs=True),
            _score_field("accuracy"),
            *verdicts,
            _score_field("f1_macro"),
            # Without its interval, which is very wide.
            (_score_column("f1_min"), _mean(vocabulary.TEST_PREFIX + "f1_min")),
            *_cost_fields(rows, _IN_SUMMARY),
            _NUM_RUNS,
        ),
        name="summary",
        title="Models, regimes, frameworks",
        notes=notes,
        tied=frozenset((number, score) for number, row in enumerate(rows) for score in row.tied_with_best),
    )


def _version_notes(rows: Sequence[Row]) -> list[str]:
    """Sentences on frameworks and other packages of which the runs had several versions, in one row or in several."""
    found: dict[str, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        for run in row.configuration.runs:
            for tag, version in run.tags.items():
                if tag.startswith(vocabulary.VERSION_PREFIX):
                    found[tag.removeprefix(vocabulary.VERSION_PREFIX)][version][row.label] = None
    return [
        f"Versions of {name} differ: "
        + "; ".join(f"{version} in {some(list(of))}" for version, of in versions.items())
        + "."
        for name, versions in sorted(found.items())
        if len(versions) > 1
    ]


def scores_table(analysis: Analysis) -> Table:
    """All scores of each row with their intervals."""
    rows = analysis.rows
    scores = [score for score in SCORE_NAMES if any(row.score(score) is not None for row in rows)]
    return table_of(
        rows,
        (*_NAMES, *_setting_fields(rows, costs=True), *map(_score_field, scores)),
        name="scores",
        title="All scores",
        notes=[*_interval_notes(rows, scores), *([_LOG_LOSS_NOTE] if "log_loss" in scores else [])],
    )


def _interval_notes(rows: Sequence[Row], scores: Sequence[str]) -> list[str]:
    """The reasons why scores have no interval."""
    without: dict[str, dict[str, None]] = {}
    for score in scores:
        for row in rows:
            if score in row.without_interval:
                without.setdefault(row.without_interval[score], {})[SCORE_NAMES[score]] = None
    return [f"No interval keeps its promise for {some(list(names))}: {reason}." for reason, names in without.items()]


def _verdict_words(margin: float) -> str:
    return (
        f"equivalent, shown to differ by less than {points(margin)} ({margin:g}); undecided, these images cannot tell"
    )


def framework_table(analysis: Analysis) -> Table:
    """Keras minus PyTorch for each backbone, regime and setting that was trained in both."""
    pairs = analysis.frameworks
    return table_of(
        pairs,
        (
            *map(_of_first, _NAMES[:2]),
            *map(_of_both, _setting_fields(analysis.rows, costs=False)),
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


def off_the_shelf_table(analysis: Analysis) -> Table:
    """Accuracy of each network off the shelf among the classes and over all ImageNet classes."""
    rows = [row for row in analysis.rows if row.mean(vocabulary.TEST_PREFIX + "imagenet_accuracy") is not None]
    return table_of(
        rows,
        (
            (Column(key="row", heading="row"), attrgetter("label")),
            (
                Column(key="accuracy", heading="accuracy among the classes", kind="score"),
                lambda row: row.score("accuracy"),
            ),
            *(
                (Column(key=score, heading=heading, kind=kind), _mean(vocabulary.TEST_PREFIX + score))
                for score, (heading, kind) in _IMAGENET_SCORES.items()
            ),
        ),
        name="off_the_shelf",
        title="Pretrained networks without training",
        notes=(
            "Among the classes: the prediction is the highest of the outputs that stand for one of the classes. Over "
            "all 1000: the highest of all ImageNet outputs, which may stand for none of the classes (predicted "
            "outside). These macro averages are over every label that occurs as truth or prediction (labels); labels "
            "without test images count as 0, so the averages can be near 0.",
        ),
    )


def thawing_table(analysis: Analysis) -> Table:
    """Effect of the second phase of two_stage, in which everything is trained, after the head alone in the first."""
    pairs = analysis.thawing
    return table_of(
        pairs,
        (
            *map(_of_first, (_NAMES[0], _NAMES[2], *_setting_fields(analysis.rows, costs=True))),
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
            _of_first(_NUM_RUNS),
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
            *map(_of_first, (*_NAMES, *_setting_fields(analysis.rows, costs=True))),
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


def ensemble_table(analysis: Analysis) -> Table:
    """Scores of runs that predict together, beside their most accurate member."""
    fields: tuple[Field[Ensemble], ...] = (
        (Column(key="ensemble", heading="ensemble"), attrgetter("label")),
        (Column(key="networks", heading="networks", kind="number"), attrgetter("num_runs")),
        *((_score_column(score), methodcaller("score", score)) for score in _OF_ENSEMBLES),
        (Column(key="best", heading="most accurate member"), attrgetter("best.label")),
        (Column(key="accuracy_best", heading="its accuracy", kind="score"), lambda one: one.best.score("accuracy")),
        (
            Column(key="accuracy_difference", heading="difference", kind="difference", better="higher"),
            attrgetter("gain.value"),
        ),
        (Column(key="p_value_holm", heading="corrected p", kind="p_value"), attrgetter("gain.p_holm")),
        (Column(key="train_seconds", heading="training of all", kind="seconds"), attrgetter("train_seconds")),
    )
    return table_of(
        analysis.ensembles,
        fields,
        name="ensembles",
        title="Ensembles",
        notes=(
            "An ensemble predicts by the mean of its networks' probabilities, here from saved predictions, without "
            "training. Its latency and memory are those of all its networks together. Differences are the ensemble "
            "minus its most accurate member, which is a mean over its runs if it has several; p is corrected over the "
            "rows of this table by Holm's method.",
        ),
    )


def cost_table(analysis: Analysis) -> Table:
    """Time, size and memory of each row, with the hardware on which they were measured."""
    rows = analysis.rows
    measured = [metric for metric, _ in _COSTS if any(row.mean(metric) is not None for row in rows)]
    return table_of(
        rows if measured else (),
        (
            *_NAMES,
            *_setting_fields(rows, costs=False),
            (Column(key="hardware", heading="hardware"), _hardware),
            *_cost_fields(rows, measured),
        ),
        name="cost",
        title="Time and cost",
        notes=(
            "Training includes validation and excludes evaluation; regimes with one phase have only a first phase.",
            *_about_onnx(rows),
        ),
    )


def _about_onnx(rows: Sequence[Row]) -> list[str]:
    tags = [run.tags.get(vocabulary.ONNX_HARDWARE) for row in rows for run in row.configuration.runs]
    hardware = sorted({tag for tag in tags if tag})
    if not hardware:
        return []
    return [f"Latency in ONNX: of exported networks, in ONNX Runtime on one thread of {' or '.join(hardware)}."]


def _hardware(row: Row) -> str | None:
    tags = row.configuration.runs[0].tags
    return ", ".join(filter(None, (tags.get(vocabulary.HARDWARE), tags.get(vocabulary.DEVICE)))) or None


def _setting_fields(rows: Sequence[Row], *, costs: bool) -> list[RowField]:
    """A column for each setting in which the rows differ.

    Args:
        rows: All rows of the group.
        costs: True to include settings that change only the costs.
    """

    def value_of(name: str) -> Callable[[Row], Value]:
        return lambda row: dict((*row.configuration.costs, *row.configuration.settings))[name] or None

    first = rows[0].configuration
    names = [name for name, _ in (*first.settings, *(first.costs if costs else ()))]
    return [(Column(key=name, heading=name), value_of(name)) for name in names]


def _score_column(score: str) -> Column:
    return Column(
        key=score,
        heading=SCORE_NAMES[score],
        kind="score",
        better="lower" if score in _LOWER_IS_BETTER else "higher",
    )


def _score_field(score: str) -> RowField:
    return _score_column(score), lambda row: row.score(score)


def _cost_fields(rows: Sequence[Row], metrics: Sequence[str]) -> list[RowField]:
    """Columns of costs; times have a best value only if all rows were measured on equal machines.

    Args:
        rows: All rows of the table.
        metrics: Names of the costs.
    """
    comparable = same_costs(row.configuration.costs for row in rows)
    fields = []
    for metric in metrics:
        column = dict(_COSTS)[metric]
        if metric in _TIMES and not comparable:
            column = replace(column, better=None)
        fields.append((column, _mean(metric)))
    return fields


def _mean(metric: str) -> Callable[[Row], Value]:
    return lambda row: row.mean(metric)


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
        f"corrected likewise: {_verdict_words(margin)}; otherwise the difference is significant."
    ]
    reasons = dict.fromkeys((reason, SCORE_NAMES[score]) for pair in pairs for score, reason in pair.untested.items())
    return notes + [f"No test keeps its promise for {score}: {reason}." for reason, score in reasons]
