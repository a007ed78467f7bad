"""The tables over cells that were tested on the same images: scores, frameworks, thawing, transfer, cost, classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tandem.comparison.analysis import Analysis
from tandem.comparison.cells import (
    ACCURACY,
    FIRST_PHASE,
    Cell,
    Group,
    partners,
    scratch_partners,
    some,
)
from tandem.comparison.recommendation import thawing_sentence
from tandem.evaluation.intervals import Interval
from tandem.protocol.backbones import CATALOGUE
from tandem.rendering.tables import Column, Estimate, Table, Value
from tandem.tracking import vocabulary

MACRO_F1 = vocabulary.TEST_PREFIX + "f1_macro"
LOWEST_F1 = vocabulary.TEST_PREFIX + "f1_min"

CLASSES_NAMED = 5

_SCORES = (
    ("accuracy", "accuracy"),
    ("top5_accuracy", "top-5"),
    ("precision_macro", "macro precision"),
    ("recall_macro", "macro recall"),
    ("f1_macro", "macro F1"),
    ("f1_weighted", "weighted F1"),
    ("f1_min", "lowest F1"),
    ("calibration_error", "calibration error"),
    ("log_loss", "log loss"),
)
_COSTS: tuple[tuple[str, Column], ...] = (
    (vocabulary.EPOCHS, Column(key="epochs", heading="epochs", kind="number")),
    (
        vocabulary.SECONDS_PER_EPOCH,
        Column(key="seconds_per_epoch", heading="an epoch", kind="seconds", better="lower"),
    ),
    (vocabulary.TRAIN_SECONDS, Column(key="train_seconds", heading="training", kind="seconds", better="lower")),
    (vocabulary.COMPILE_SECONDS, Column(key="compile_seconds", heading="compiling", kind="seconds", better="lower")),
    (
        FIRST_PHASE + vocabulary.TRAIN_SECONDS,
        Column(key="train_seconds_phase_1", heading="first phase", kind="seconds"),
    ),
    (
        vocabulary.phase_name(2) + "/" + vocabulary.TRAIN_SECONDS,
        Column(key="train_seconds_phase_2", heading="second phase", kind="seconds"),
    ),
    (vocabulary.PARAMETERS, Column(key="parameters", heading="params", kind="amount", better="lower")),
    (vocabulary.TRAINABLE_PARAMETERS, Column(key="trainable_parameters", heading="trained", kind="amount")),
    (vocabulary.MACS, Column(key="macs", heading="MACs", kind="amount", better="lower")),
    (
        vocabulary.LATENCY_MILLISECONDS,
        Column(key="latency_milliseconds", heading="one image", kind="milliseconds", better="lower"),
    ),
    (
        vocabulary.IMAGES_PER_SECOND,
        Column(key="inference_images_per_second", heading="images a second", kind="number", better="higher"),
    ),
    (vocabulary.PEAK_MEMORY_MEGABYTES, Column(key="peak_memory_megabytes", heading="memory, MB", kind="number")),
    (
        vocabulary.PEAK_GPU_MEMORY_MEGABYTES,
        Column(key="peak_gpu_memory_megabytes", heading="GPU memory, MB", kind="number"),
    ),
)


def to_estimate(interval: Interval) -> Estimate:
    """An interval as a table's value; of accuracy, which always has limits."""
    assert interval.low is not None and interval.high is not None
    return Estimate(value=interval.estimate, low=interval.low, high=interval.high)


def value_of(interval: Interval) -> Estimate | float:
    """An interval as a table's value; the number alone where there are no limits."""
    return interval.estimate if interval.low is None else to_estimate(interval)


def score_of(cell: Cell, analysis: Analysis, score: str) -> Estimate | float | None:
    """A cell's score with its interval, or without where its predictions are not known."""
    interval = analysis.interval(score, cell.label)
    return cell.mean(vocabulary.TEST_PREFIX + score) if interval is None else value_of(interval)


def summary_table(group: Group, analysis: Analysis) -> Table:
    """Backbone x regime x framework: how good, and at what cost."""
    extra, extra_values = _extra_columns(group.cells, costs=True)
    tied = analysis.tied
    columns = (
        *NAME_COLUMNS,
        *extra,
        Column(key="accuracy", heading="accuracy", kind="score", better="higher"),
        *([Column(key="tied", heading="tied")] if tied else []),
        Column(key="f1_macro", heading="macro F1", kind="score", better="higher"),
        Column(key="f1_min", heading="lowest F1", kind="score", better="higher"),
        Column(key="train_seconds", heading="training", kind="seconds", better="lower"),
        Column(key="seconds_per_epoch", heading="an epoch", kind="seconds", better="lower"),
        Column(key="parameters", heading="params", kind="amount", better="lower"),
        Column(key="latency_milliseconds", heading="one image", kind="milliseconds", better="lower"),
        Column(key="runs", heading="runs", kind="number"),
    )
    costs = (
        vocabulary.TRAIN_SECONDS,
        vocabulary.SECONDS_PER_EPOCH,
        vocabulary.PARAMETERS,
        vocabulary.LATENCY_MILLISECONDS,
    )
    rows = tuple(
        (
            *_names_of(cell),
            *extra_values(cell),
            score_of(cell, analysis, "accuracy"),
            *([analysis.letters(cell.label)] if tied else []),
            score_of(cell, analysis, "f1_macro"),
            cell.mean(LOWEST_F1),
            *(cell.mean(metric) for metric in costs),
            len(cell.runs),
        )
        for cell in group.cells
    )
    notes = []
    if analysis.predictions:
        notes.append(f"In brackets: 95 % intervals over the {analysis.num_images:,} test images.")
    if tied:
        notes.append(
            "Rows that share a letter do not differ significantly in accuracy (0.05, corrected over "
            f"{len(analysis.tests['accuracy'])} pairs)."
        )
    row_of = {cell.label: number for number, cell in enumerate(group.cells)}
    marked = {(row_of[label], score) for score in tied for label in analysis.tied_with_best(score)}
    return Table(
        name="summary",
        title="Models, regimes, frameworks",
        columns=columns,
        rows=rows,
        notes=tuple(notes),
        tied=frozenset(marked),
    )


def scores_table(group: Group, analysis: Analysis) -> Table:
    """Every score with its interval."""
    extra, extra_values = _extra_columns(group.cells, costs=True)
    lower = {"calibration_error", "log_loss"}
    measured = [
        (key, heading)
        for key, heading in _SCORES
        if any(cell.mean(vocabulary.TEST_PREFIX + key) is not None for cell in group.cells)
    ]
    columns = tuple(
        Column(key=key, heading=heading, kind="score", better="lower" if key in lower else "higher")
        for key, heading in measured
    )
    return Table(
        name="scores",
        title="All scores",
        columns=(*NAME_COLUMNS, *extra, *columns),
        rows=tuple(
            (*_names_of(cell), *extra_values(cell), *(score_of(cell, analysis, key) for key, _ in measured))
            for cell in group.cells
        ),
    )


def framework_table(group: Group, analysis: Analysis) -> Table:
    """PyTorch and Keras side by side wherever both were trained with the same settings; Keras minus PyTorch."""
    cells = group.cells
    extra, extra_values = _extra_columns(cells, costs=False)
    tested = analysis.frameworks.get("accuracy", {})
    columns = (
        Column(key="backbone", heading="backbone"),
        Column(key="regime", heading="regime"),
        *extra,
        Column(key="keras", heading="Keras side"),
        Column(key="accuracy_torch", heading="torch accuracy", kind="score"),
        Column(key="accuracy_keras", heading="keras accuracy", kind="score"),
        Column(key="accuracy_difference", heading="difference", kind="difference"),
        *_p_value_columns(bool(tested)),
        Column(key="f1_macro_difference", heading="macro F1 difference", kind="difference"),
        Column(key="train_seconds_ratio", heading="training time", kind="ratio"),
        Column(key="runs_torch", heading="torch runs", kind="number"),
        Column(key="runs_keras", heading="keras runs", kind="number"),
    )
    pairs = partners(cells)
    rows: list[tuple[Value, ...]] = []
    for torch, keras in pairs:
        test = tested.get((torch.label, keras.label))
        macro = analysis.frameworks["f1_macro"][torch.label, keras.label] if test else None
        rows.append(
            (
                keras.backbone,
                keras.regime,
                *extra_values(keras),
                keras.framework,
                torch.mean(ACCURACY),
                keras.mean(ACCURACY),
                to_estimate(test.difference) if test else _difference(keras.mean(ACCURACY), torch.mean(ACCURACY)),
                *((test.p_value, test.p_holm) if test else (None, None) if tested else ()),
                value_of(macro.difference) if macro else _difference(keras.mean(MACRO_F1), torch.mean(MACRO_F1)),
                _ratio(keras.mean(vocabulary.TRAIN_SECONDS), torch.mean(vocabulary.TRAIN_SECONDS))
                if torch.costs == keras.costs
                else None,
                len(torch.runs),
                len(keras.runs),
            )
        )
    notes = ["Differences are Keras minus PyTorch; training time is Keras over PyTorch."]
    if tested:
        notes.append(_p_value_note(analysis, [label for pair in tested for label in pair]))
    if any(torch.costs != keras.costs for torch, keras in pairs):
        notes.append("No ratio of times where hardware, devices, threads or a setting of speed were not the same.")
    for backbone in dict.fromkeys(torch.backbone for torch, _ in pairs):
        if backbone in CATALOGUE:
            notes.append(f"{backbone} differs between the two: {'; '.join(CATALOGUE[backbone].differences)}.")
    if differing := _differing_settings(pairs):
        notes.append(f"Settings that differ between the two: {some(differing)}; all others are the same.")
    paired = {cell.label for pair in pairs for cell in pair}
    if alone := sorted({_name(cell) for cell in cells if cell.label not in paired}):
        notes.append(f"In one framework only: {some(alone)}.")
    return Table(
        name="frameworks", title="Keras against PyTorch", columns=columns, rows=tuple(rows), notes=tuple(notes)
    )


def thawing_table(group: Group, analysis: Analysis) -> Table:
    """What the second phase of two_stage, everything trained, added to the first, only the head trained."""
    extra, extra_values = _extra_columns(group.cells, costs=True)
    thawed = [
        cell for cell in group.cells if cell.regime == "two_stage" and cell.mean(FIRST_PHASE + ACCURACY) is not None
    ]
    tested = analysis.thawing.get("accuracy", {})
    columns = (
        Column(key="backbone", heading="backbone"),
        Column(key="framework", heading="framework"),
        *extra,
        Column(key="accuracy_frozen", heading="accuracy frozen", kind="score"),
        Column(key="accuracy_thawed", heading="thawed", kind="score"),
        Column(key="accuracy_difference", heading="difference", kind="difference", better="higher"),
        *_p_value_columns(bool(tested)),
        Column(key="f1_macro_difference", heading="macro F1 difference", kind="difference", better="higher"),
        Column(key="train_seconds_frozen", heading="training frozen", kind="seconds"),
        Column(key="train_seconds", heading="in all", kind="seconds"),
        Column(key="train_seconds_ratio", heading="times", kind="ratio"),
        Column(key="runs", heading="runs", kind="number"),
    )
    rows: list[tuple[Value, ...]] = []
    for cell in thawed:
        test = tested.get(cell.label)
        macro = analysis.thawing["f1_macro"][cell.label] if test else None
        frozen_seconds, seconds = (
            cell.mean(FIRST_PHASE + vocabulary.TRAIN_SECONDS),
            cell.mean(vocabulary.TRAIN_SECONDS),
        )
        rows.append(
            (
                cell.backbone,
                cell.framework,
                *extra_values(cell),
                cell.mean(FIRST_PHASE + ACCURACY),
                cell.mean(ACCURACY),
                to_estimate(test.difference)
                if test
                else _difference(cell.mean(ACCURACY), cell.mean(FIRST_PHASE + ACCURACY)),
                *((test.p_value, test.p_holm) if test else (None, None) if tested else ()),
                value_of(macro.difference)
                if macro
                else _difference(cell.mean(MACRO_F1), cell.mean(FIRST_PHASE + MACRO_F1)),
                frozen_seconds,
                seconds,
                _ratio(seconds, frozen_seconds),
                len(cell.runs),
            )
        )
    notes = [thawing_sentence(thawed, analysis)] if thawed else []
    if tested:
        notes.append(_p_value_note(analysis, list(tested)))
    return Table(
        name="thawing",
        title="What thawing changed in two_stage",
        columns=columns,
        rows=tuple(rows),
        notes=tuple(notes),
    )


def transfer_table(group: Group, analysis: Analysis) -> Table:
    """Pretrained regimes against training from scratch."""
    extra, extra_values = _extra_columns(group.cells, costs=True)
    columns = (
        *NAME_COLUMNS,
        *extra,
        Column(key="accuracy_scratch", heading="accuracy from scratch", kind="score"),
        Column(key="accuracy", heading="pretrained", kind="score"),
        Column(key="accuracy_difference", heading="difference", kind="difference", better="higher"),
        *_p_value_columns(bool(analysis.transfer)),
        Column(key="verdict", heading="transfer"),
        Column(key="classes_worse", heading="classes worse", kind="number"),
        Column(key="classes_better", heading="classes better", kind="number"),
        Column(key="worse", heading="which are worse"),
    )
    rows: list[tuple[Value, ...]] = []
    for pretrained, scratch in scratch_partners(group.cells):
        pair = pretrained.label, scratch.label
        start = (
            *_names_of(pretrained),
            *extra_values(pretrained),
            scratch.mean(ACCURACY),
            pretrained.mean(ACCURACY),
        )
        if pair in analysis.transfer:
            test, classes = analysis.transfer[pair], analysis.transfer_of_classes[pair].classes
            verdict = "not significant"
            if test.significant:
                verdict = "negative" if test.difference.estimate < 0 else "positive"
            worse = [one.name for one in classes if one.worse]
            rows.append(
                (
                    *start,
                    to_estimate(test.difference),
                    test.p_value,
                    test.p_holm,
                    verdict,
                    len(worse),
                    sum(one.better for one in classes),
                    some(worse[:CLASSES_NAMED]) + (" and more" if len(worse) > CLASSES_NAMED else "") or None,
                )
            )
        else:
            difference = _difference(pretrained.mean(ACCURACY), scratch.mean(ACCURACY))
            rows.append((*start, difference, *((None, None) if analysis.transfer else ()), None, None, None, None))
    notes = ["Differences are pretrained minus from scratch, of the same backbone and framework."]
    if analysis.transfer:
        notes.append(_p_value_note(analysis, [label for pair in analysis.transfer for label in pair]))
        notes.append("Classes: significantly lower or higher recall, corrected over the classes.")
    return Table(
        name="transfer",
        title="Pretrained against from scratch",
        columns=columns,
        rows=tuple(rows),
        notes=tuple(notes),
    )


def transfer_class_table(group: Group, analysis: Analysis) -> Table:
    """The classes that a pretrained cell finds significantly less often than one trained from scratch."""
    columns = (
        Column(key="pretrained", heading="pretrained"),
        Column(key="class", heading="class"),
        Column(key="images", heading="images", kind="number"),
        Column(key="recall_difference", heading="recall", kind="difference"),
        Column(key="f1_difference", heading="F1", kind="difference"),
        Column(key="p_value_holm", heading="corrected p", kind="p_value"),
    )
    rows = tuple(
        (label, one.name, one.support, to_estimate(one.recall), value_of(one.f1), one.p_holm)
        for (label, _), transfer in analysis.transfer_of_classes.items()
        for one in transfer.classes
        if one.worse
    )
    return Table(name="transfer_classes", title="Classes that pretraining made worse", columns=columns, rows=rows)


def cost_table(group: Group) -> Table:
    """Time, size and memory of each cell, with the hardware that they were measured on."""
    extra, extra_values = _extra_columns(group.cells, costs=False)
    columns = [*NAME_COLUMNS, *extra, Column(key="hardware", heading="hardware")]
    measured = [
        (metric, column) for metric, column in _COSTS if any(cell.mean(metric) is not None for cell in group.cells)
    ]
    rows = tuple(
        (*_names_of(cell), *extra_values(cell), _hardware(cell), *(cell.mean(metric) for metric, _ in measured))
        for cell in group.cells
    )
    return Table(
        name="cost",
        title="Time and cost",
        columns=(*columns, *(column for _, column in measured)),
        rows=rows if measured else (),
        notes=("Training is training and validation, evaluation apart; of a regime with one phase the first is all.",),
    )


NAME_COLUMNS = (
    Column(key="backbone", heading="backbone"),
    Column(key="regime", heading="regime"),
    Column(key="framework", heading="framework"),
)


def _names_of(cell: Cell) -> tuple[str, str, str]:
    return cell.backbone, cell.regime, cell.framework


def _name(cell: Cell) -> str:
    return f"{cell.backbone} {cell.regime} ({cell.framework})"


def _hardware(cell: Cell) -> str | None:
    tags = cell.runs[0].tags
    return ", ".join(filter(None, (tags.get(vocabulary.HARDWARE), tags.get(vocabulary.DEVICE)))) or None


def _p_value_columns(tested: bool) -> list[Column]:
    if not tested:
        return []
    return [
        Column(key="p_value", heading="p", kind="p_value"),
        Column(key="p_value_holm", heading="corrected p", kind="p_value"),
    ]


def _p_value_note(analysis: Analysis, labels: Sequence[str]) -> str:
    one_run_each = all(len(analysis.predictions[label]) == 1 for label in labels)
    test = "McNemar's exact test" if one_run_each else "McNemar's exact test, paired bootstrap with several seeds"
    return f"p of equal accuracy: {test}; corrected over the rows by Holm's method."


def _differing_settings(pairs: Sequence[tuple[Cell, Cell]]) -> list[str]:
    """Names of the parameters that are not the same in some pair, where the run is recorded apart."""
    names: dict[str, None] = {}
    for torch, keras in pairs:
        first, second = torch.runs[0].params, keras.runs[0].params
        for name in sorted(first.keys() | second.keys()):
            if not name.startswith("tracking.") and name != "seed" and first.get(name) != second.get(name):
                names[name] = None
    return list(names)


def _difference(value: float | None, baseline: float | None) -> float | None:
    return None if value is None or baseline is None else value - baseline


def _ratio(value: float | None, baseline: float | None) -> float | None:
    return None if value is None or not baseline else value / baseline


def _extra_columns(
    cells: Sequence[Cell], *, costs: bool
) -> tuple[tuple[Column, ...], Callable[[Cell], tuple[Value, ...]]]:
    """Columns for the settings in which the cells differ, and what gives a cell's values for them."""

    def values(cell: Cell) -> tuple[Value, ...]:
        return tuple(value or None for _, value in (*cell.settings, *(cell.costs if costs else ())))

    names = [name for name, _ in (*cells[0].settings, *(cells[0].costs if costs else ()))]
    return tuple(Column(key=name, heading=name) for name in names), values
