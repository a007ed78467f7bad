"""Page and figures of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from tandem.comparison.analysis import Analysis
from tandem.comparison.class_figures import confusion_over_runs, f1_over_runs
from tandem.comparison.class_tables import class_f1
from tandem.comparison.comparison import Comparison, GroupComparison
from tandem.comparison.configurations import Configuration, some
from tandem.comparison.critical_difference import critical_difference_diagram
from tandem.comparison.data_set_tables import ModelRanks
from tandem.comparison.figures import (
    accuracies,
    accuracy_against_parameters,
    accuracy_against_time,
    accuracy_differences,
    curves_over_runs,
    parameters_of,
    reliability_over_runs,
    thawing_gains,
)
from tandem.comparison.images import image_blocks, map_blocks, read_grad_cam
from tandem.comparison.recommendation import RULES
from tandem.comparison.recorded_settings import same_costs
from tandem.comparison.rows import Row
from tandem.comparison.styles import RunStyle, run_styles
from tandem.evaluation.metrics import TOP, reliability_bins
from tandem.rendering.page import Block, Page, Plot, Section, Text
from tandem.rendering.tables import (
    DECIMALS,
    Column,
    Field,
    Table,
    sorted_by,
    supported_decimals,
    table_of,
    with_columns,
)
from tandem.tracking import vocabulary
from tandem.tracking.reader import RunRecord, metric_history

# For 300 classes, twelve confusion matrices are 3 MB of a page.
MOST_CONFUSION_MATRICES = 12
MOST_HEADLINES = 3  # groups whose result is in large type
MOST_IN_FIGURE = 40  # rows of the figure of accuracies
# Columns by which tables of rows are sorted on the page.
_SORTED_BY = {"summary": "accuracy", "scores": "accuracy", "cost": "train_seconds"}

METHODS = (
    "Scores: computed from saved predictions by the same code for both frameworks. Precision, recall and F1 are 0 if "
    "their denominator is 0; macro is the mean over classes, worst-class the minimum; the calibration error has 15 "
    "bins of equal width (Guo et al. 2017).",
    "Intervals: 95 %, over test images and, with several seeds, over seeds (Gallas 2006; Clopper and Pearson 1934 for "
    "shares; Takahashi et al. 2022 for macro F1). With one run per row they are about that trained network. Scores "
    "without an interval have none that keeps its promise.",
    "Tests: from the intervals of paired differences (Tango 1998); for accuracies of single runs this is McNemar's "
    "test. Equivalence: two one-sided tests (Schuirmann 1987). Corrected by Holm's method (1979), in the summary over "
    "all pairs, in every other table over its rows. Letters: Piepho 2004. Ranks over data sets: Friedman's and "
    "Nemenyi's tests (Demšar 2006).",
    "Costs: training time covers training and validation of all phases, excluding evaluation. Latency is the median "
    "time to predict one image, over up to 20 calls. MACs are multiply-accumulates of convolutions and dense layers "
    "for one image.",
    "Grad-CAM (Selvaraju et al. 2017): of the network's last feature map; each map is scaled to its own maximum.",
)

_CURVES = (vocabulary.TRAIN_LOSS, vocabulary.VAL_LOSS, vocabulary.TRAIN_ACCURACY, vocabulary.VAL_ACCURACY)


def read_histories(configurations: Sequence[Configuration]) -> dict[str, pd.DataFrame]:
    """Loss and accuracy of each complete epoch of the first run of each configuration, by label.

    Returns:
        Data frames with one line per epoch and the columns epoch (from 0), phase (from 1), train/loss, val/loss,
        train/accuracy, val/accuracy.
    """
    columns = {"phase": vocabulary.EPOCH_PHASE, **{name: name for name in _CURVES}}
    histories = {}
    for configuration in configurations:
        values = {
            column: {metric.step: metric.value for metric in metric_history(configuration.runs[0], name)}
            for column, name in columns.items()
        }
        history = pd.DataFrame(values).dropna().sort_index()
        if len(history):
            histories[configuration.label] = history.rename_axis("epoch").reset_index()
    return histories


def make_plots(compared: GroupComparison, histories: Mapping[str, pd.DataFrame]) -> dict[str, Plot]:
    """All figures of a group that its runs can fill.

    Args:
        compared: The group.
        histories: From read_histories.

    Returns:
        By file name without the group's suffix.
    """
    analysis = compared.analysis
    styles = run_styles(compared.group.configurations)
    plots = {}
    ordered = sorted((row for row in analysis.rows if row.score("accuracy") is not None), key=_minus_accuracy)
    if len(ordered) > 1:
        shown = ordered[:MOST_IN_FIGURE]
        caption = "Accuracy on the test images"
        if analysis.tested:
            caption += " with 95 % intervals; the band is that of the best row"
        if analysis.pairs:
            caption += ". Filled marks: not significantly less accurate than the best"
        if left_out := len(ordered) - len(shown):
            caption += f". The {left_out} least accurate rows are left out"
        plots["accuracy"] = Plot(figure=accuracies(shown, styles), caption=f"{caption}.")
    timed = [row for row in analysis.rows if row.mean(vocabulary.TRAIN_SECONDS) and row.score("accuracy") is not None]
    if timed:
        plots["accuracy_time"] = Plot(
            figure=accuracy_against_time(timed, styles),
            caption="Accuracy against training time, with 95 % intervals. "
            + (
                "No row beats those on the dotted line in both."
                if same_costs(row.configuration.costs for row in timed)
                else "Times on different machines or with different settings of speed cannot be compared."
            ),
        )
    sized = [row for row in analysis.rows if parameters_of(row) and row.score("accuracy") is not None]
    if len({parameters_of(row) for row in sized}) > 1:
        plots["accuracy_parameters"] = Plot(
            figure=accuracy_against_parameters(sized, styles),
            caption="Accuracy against the number of parameters, with 95 % intervals. No row beats those on the dotted "
            "line in both.",
        )
    if histories:
        plots["curves"] = Plot(
            figure=curves_over_runs(histories, styles),
            caption="The run with the lowest seed of each row. Wide lines: regimes of several phases, whose first "
            "phase may be the same as the training of another row; a star marks the first epoch after thawing.",
        )
    if tested := [pair for pair in analysis.frameworks if pair.tested]:
        plots["frameworks"] = Plot(
            figure=accuracy_differences(tested, "accuracy, Keras minus PyTorch"),
            caption="Keras minus PyTorch with 95 % intervals; significant differences are filled.",
        )
    plots |= _thawing_plot(analysis, styles)
    if tested := [pair for pair in analysis.transfer if pair.tested]:
        plots["transfer"] = Plot(
            figure=accuracy_differences(tested, "accuracy, pretrained minus from scratch"),
            caption="Pretrained minus from scratch with 95 % intervals; left of the line transfer is negative.",
        )
    return plots | _prediction_plots(analysis, styles)


def _thawing_plot(analysis: Analysis, styles: Mapping[str, RunStyle]) -> dict[str, Plot]:
    shown = [
        pair
        for pair in analysis.thawing
        if pair.tested and all(row.mean(vocabulary.TRAIN_SECONDS) for row in (pair.first, pair.second))
    ]
    if not shown:
        return {}
    caption = "two_stage after its first phase, in which only the head is trained, and at the end."
    return {"thawing": Plot(figure=thawing_gains(shown, styles), caption=caption)}


def _prediction_plots(analysis: Analysis, styles: Mapping[str, RunStyle]) -> dict[str, Plot]:
    if not analysis.tested:
        return {}
    matrices = {row.label: row.predictions[0] for row in analysis.ranking[:MOST_CONFUSION_MATRICES]}
    left_out = len(analysis.ranking) - len(matrices)
    bins = {row.label: reliability_bins(row.predictions[0]) for row in analysis.tested}
    return {
        "f1": Plot(
            figure=f1_over_runs(class_f1(analysis.tested)), caption="F1 of each class in each row, hardest on top."
        ),
        "confusions": Plot(
            figure=confusion_over_runs(matrices),
            caption="Share of the images of each true class by predicted class, for one row at a time, the most "
            "accurate first" + (f"; {left_out} less accurate ones are left out." if left_out else "."),
        ),
        "reliability": Plot(
            figure=reliability_over_runs(bins, styles),
            caption="Accuracy (vertical) of the predictions of a certain confidence (horizontal): below the dotted "
            "line a network is too confident. The area of a mark is the number of images.",
        ),
    }


def make_figures(comparison: Comparison, plots: Sequence[Mapping[str, Plot]]) -> dict[str, go.Figure]:
    """All figures by file name.

    Args:
        comparison: Of the experiment.
        plots: Of each of its groups, from make_plots.
    """
    figures = {
        name + compared.group.suffix: plot.figure
        for compared, of_group in zip(comparison.groups, plots, strict=True)
        for name, plot in of_group.items()
    }
    if comparison.ranks:
        figures["critical_difference"] = _rank_diagram(comparison.ranks)
    return figures


def _rank_diagram(ranks: ModelRanks) -> go.Figure:
    return critical_difference_diagram(
        {model.name: rank for model, rank in ranks.average.items()},
        [[model.name for model in clique] for clique in ranks.cliques],
        ranks.critical_difference,
    )


def make_page(comparison: Comparison, plots: Sequence[Mapping[str, Plot]], *, experiment: str, folder: Path) -> Page:
    """The page of a comparison.

    Args:
        comparison: Of the experiment.
        plots: Of each of its groups, from make_plots.
        experiment: Its name.
        folder: Where files of the runs are copied to.
    """
    sections: list[Section] = []
    if comparison.over_data_sets:
        sections.append(_data_set_section(comparison))
    for compared, of_group in zip(comparison.groups, plots, strict=True):
        sections += _group_sections(compared, of_group, folder, comparison)
    if comparison.published:
        sections.append(Section(title="Published results", anchor="published", blocks=comparison.published))
    if comparison.notes:
        sections.append(Section(title="Notes", anchor="notes", blocks=(Text(paragraphs=comparison.notes),)))
    runs = [run for compared in comparison.groups for one in compared.group.configurations for run in one.runs]
    rules = Text(paragraphs=("The recommendation follows these rules.", *RULES, *METHODS))
    methods = (rules, _run_table(runs), _settings_table(runs))
    sections.append(Section(title="Methods, settings, versions", anchor="methods", blocks=methods, folded=True))
    lead = "; ".join(compared.group.title for compared in comparison.groups)
    return Page(
        title=f"Comparison: {experiment}",
        lead=f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}. {lead}.",
        headline=_headline(comparison),
        sections=tuple(sections),
    )


def _data_set_section(comparison: Comparison) -> Section:
    blocks: tuple[Block, ...] = comparison.over_data_sets
    if comparison.ranks:
        caption = "Mean ranks over the data sets; bars join models that do not differ significantly."
        blocks = (Plot(figure=_rank_diagram(comparison.ranks), caption=caption), *blocks)
    return Section(title="Data sets", anchor="data-sets", blocks=blocks)


def _headline(comparison: Comparison) -> tuple[str, ...]:
    """The best row of each group; empty with many groups, for which the page starts with tables over all of them."""
    groups = comparison.groups
    if len(groups) > MOST_HEADLINES:
        return ()
    return tuple((f"{one.group.name}: " if len(groups) > 1 else "") + one.recommendation[0] for one in groups)


def _group_sections(
    compared: GroupComparison, plots: Mapping[str, Plot], folder: Path, comparison: Comparison
) -> list[Section]:
    group, analysis = compared.group, compared.analysis
    sentences = compared.recommendation[1:] if _headline(comparison) else compared.recommendation
    table, plot = _page_tables(compared).get, plots.get
    maps = read_grad_cam(analysis.rows, folder)
    contents: tuple[tuple[str, str, Sequence[Block | None]], ...] = (
        ("Summary", "summary", [plot("accuracy"), table("summary")]),
        (
            "Recommendation",
            "recommendation",
            [
                Text(paragraphs=sentences) if sentences else None,
                plot("accuracy_time"),
                plot("accuracy_parameters"),
            ],
        ),
        ("All scores", "scores", [table("scores")]),
        ("Keras against PyTorch", "frameworks", [table("frameworks"), plot("frameworks")]),
        ("Ensembles", "ensembles", [table("ensembles")]),
        ("Test-time augmentation", "test-time-augmentation", [table("test_time_augmentation")]),
        ("Off the shelf", "off-the-shelf", [table("off_the_shelf")]),
        ("Training", "training", [plot("curves")]),
        ("Thawing", "thawing", [table("thawing"), plot("thawing")]),
        ("Time and cost", "cost", [table("cost")]),
        ("Classes", "classes", [plot("f1"), table("class_extremes"), table("classes")]),
        ("Confusions", "confusions", [plot("confusions"), table("confusions")]),
        ("Calibration", "calibration", [plot("reliability")]),
        ("Negative transfer", "transfer", [table("transfer"), plot("transfer"), table("transfer_classes")]),
        ("Images", "images", image_blocks(analysis.tested, maps, folder)),
        ("Grad-CAM", "grad-cam", map_blocks(maps)),
    )
    sections = []
    for title, anchor, blocks in contents:
        if shown := tuple(block for block in blocks if block is not None):
            full_title = f"{title}: {group.name}" if len(comparison.groups) > 1 else title
            sections.append(Section(title=full_title, anchor=anchor + group.suffix, blocks=shown))
    return sections


def _page_tables(compared: GroupComparison) -> dict[str, Table]:
    """The group's tables as the page shows them: sorted, and with as many decimals as the test images support."""
    analysis = compared.analysis
    decimals = supported_decimals(analysis.num_images) if analysis.num_images else DECIMALS
    tables = {name: replace(table, decimals=decimals) for name, table in compared.tables.items()}
    for name, key in _SORTED_BY.items():
        if name in tables and any(column.key == key for column in tables[name].columns):
            tables[name] = sorted_by(tables[name], key)
    if "scores" in tables and analysis.tested and len(analysis.tested[0].predictions[0].classes) <= TOP:
        scores = tables["scores"]
        kept = [column.key for column in scores.columns if column.key != "top5_accuracy"]
        if len(kept) < len(scores.columns):
            note = f"Top-{TOP} accuracy is 1 in every row, because there are no more than {TOP} classes."
            tables["scores"] = replace(with_columns(scores, kept), notes=(*scores.notes, note))
    return tables


def _minus_accuracy(row: Row) -> float:
    return -row.accuracy


def _run_table(runs: Sequence[RunRecord]) -> Table:
    """The compared runs with their hardware and versions."""
    prefix = vocabulary.VERSION_PREFIX
    versions = sorted({name for run in runs for name in run.tags if name.startswith(prefix)})

    def tag(name: str, heading: str) -> Field[RunRecord]:
        return Column(key=heading, heading=heading), lambda run: run.tags.get(name)

    return table_of(
        runs,
        (
            (Column(key="run", heading="run"), attrgetter("name")),
            (Column(key="id", heading="id"), attrgetter("run_id")),
            (Column(key="seed", heading="seed"), lambda run: run.params.get("seed")),
            tag(vocabulary.HARDWARE, "hardware"),
            tag(vocabulary.DEVICE, "device"),
            *(tag(name, name.removeprefix(prefix)) for name in versions),
        ),
        name="runs",
        title="Runs and versions",
    )


def _settings_table(runs: Sequence[RunRecord]) -> Table:
    """Each setting with all of its values."""
    values: dict[str, dict[str, None]] = {}
    for run in runs:
        for name, value in run.params.items():
            if not name.startswith("tracking."):
                values.setdefault(name, {})[value] = None
    return table_of(
        list(values),
        (
            (Column(key="setting", heading="setting"), str),
            (Column(key="value", heading="values"), lambda name: some(list(values[name]))),
        ),
        name="settings",
        title="Settings",
    )
