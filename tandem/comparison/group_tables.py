"""Tables of the rows of a group: summary, scores, ensembles and costs; each is a list of columns over rows."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter, methodcaller

from tandem.comparison.analysis import Analysis
from tandem.comparison.configurations import FIRST_PHASE, some
from tandem.comparison.recorded_settings import has_folds_of_training, same_costs
from tandem.comparison.rows import Ensemble, Row
from tandem.errors import UserError
from tandem.evaluation.margin import points
from tandem.evaluation.metrics import SCORE_NAMES
from tandem.rendering.tables import Column, Field, Kind, Table, Value, table_of
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
_SCORES_IN_SUMMARY = ("accuracy", "f1_macro", "f1_min")
_WITH_VIEWS = ("accuracy", "f1_macro")
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

BACKBONE, REGIME, FRAMEWORK = (Column(key=name, heading=name) for name in ("backbone", "regime", "framework"))
NAMES: tuple[RowField, ...] = tuple(
    (column, attrgetter(f"configuration.{column.key}")) for column in (BACKBONE, REGIME, FRAMEWORK)
)
NUM_RUNS: RowField = (
    Column(key="runs", heading="runs", kind="number"),
    lambda row: len(row.configuration.runs),
)


def checked_scores(names: Sequence[str]) -> tuple[str, ...]:
    """Returns names of scores that a user has asked for, each once.

    Raises:
        UserError: A name is not that of a score.
    """
    for name in names:
        if name not in SCORE_NAMES:
            close = difflib.get_close_matches(name, SCORE_NAMES, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise UserError(f"--scores: received {name!r}{hint}, allowed: {', '.join(SCORE_NAMES)}")
    return tuple(dict.fromkeys(names))


def summary_table(analysis: Analysis, more_scores: Sequence[str] = ()) -> Table:
    """Accuracy, F1 and main costs of each row.

    Args:
        analysis: Of the group.
        more_scores: Names of further scores, each for a column of its own.
    """
    more_scores = [score for score in more_scores if score not in _SCORES_IN_SUMMARY]
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
    notes += _time_limit_notes(rows)
    if analysis.pairs:
        verdicts = [
            (Column(key="tied", heading="letters"), attrgetter("letters")),
            (Column(key="against_best", heading="against the best"), attrgetter("against_best")),
        ]
        pairs = f"{len(analysis.pairs)} pair{'s' if len(analysis.pairs) > 1 else ''}"
        notes.append(
            "Rows without a common letter differ significantly in accuracy (0.05, corrected over "
            f"{pairs}). A common letter, like an underline, does not show that they are equal."
        )
        notes.append(
            f"Against the best, corrected over the same pairs: worse, significantly; {verdict_words(analysis.margin)}."
        )
    notes += _interval_notes(rows, ("accuracy", "f1_macro", *more_scores))
    return table_of(
        rows,
        (
            *NAMES,
            *setting_fields(rows, costs=True),
            _score_field("accuracy"),
            *verdicts,
            _score_field("f1_macro"),
            # Without its interval, which is very wide.
            (_score_column("f1_min"), _mean(vocabulary.TEST_PREFIX + "f1_min")),
            *map(_score_field, more_scores),
            *_cost_fields(rows, _IN_SUMMARY),
            NUM_RUNS,
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


def _time_limit_notes(rows: Sequence[Row]) -> list[str]:
    """A sentence on the rows whose training a time limit ended."""
    ended = [row.label for row in rows if row.configuration.ended_by_time_limit]
    if not ended:
        return []
    return [
        f"The time limit (max_minutes) ended the training of {some(ended)}: the scores depend on the speed of the "
        "machine, and cannot be reproduced."
    ]


def scores_table(analysis: Analysis) -> Table:
    """All scores of each row with their intervals."""
    rows = analysis.rows
    scores = [score for score in SCORE_NAMES if any(row.score(score) is not None for row in rows)]
    return table_of(
        rows,
        (*NAMES, *setting_fields(rows, costs=True), *map(_score_field, scores)),
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


def verdict_words(margin: float) -> str:
    return (
        f"equivalent, shown to differ by less than {points(margin)} ({margin:g}); undecided, these images cannot tell"
    )


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


def views_table(analysis: Analysis) -> Table:
    """Scores of the mean over several views of each test image, beside those of the plain images."""
    rows = [row for row in analysis.rows if row.mean(vocabulary.TTA_VIEWS) is not None]
    fields: list[RowField] = [
        (Column(key="row", heading="row"), attrgetter("label")),
        (Column(key="views", heading="views per image", kind="number"), _mean(vocabulary.TTA_VIEWS)),
    ]
    for score in _WITH_VIEWS:
        plain, over_views = (f"{prefix}{vocabulary.TEST_PREFIX}{score}" for prefix in ("", f"{vocabulary.TTA}/"))
        of_plain = replace(_score_column(score), key=f"{score}_plain", heading=f"{SCORE_NAMES[score]}, plain image")
        difference = Column(key=f"{score}_difference", heading="difference", kind="difference", better="higher")
        fields += [
            (_score_column(score), _mean(over_views)),
            (of_plain, _mean(plain)),
            (difference, _difference(over_views, plain)),
        ]
    return table_of(
        rows,
        fields,
        name="test_time_augmentation",
        title="Test-time augmentation",
        notes=(
            "Scores of the mean probabilities over several views of each test image, with as many passes through the "
            "network: latencies in other tables are those of one view. Means over the runs of a row, as logged.",
        ),
    )


def _difference(metric: str, other: str) -> Callable[[Row], Value]:
    def value_of(row: Row) -> float | None:
        value, subtracted = row.mean(metric), row.mean(other)
        return None if value is None or subtracted is None else value - subtracted

    return value_of


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
            *NAMES,
            *setting_fields(rows, costs=False),
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


def setting_fields(rows: Sequence[Row], *, costs: bool) -> list[RowField]:
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
