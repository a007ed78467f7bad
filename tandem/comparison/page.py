"""The comparison of an experiment as figures, and on one page."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tandem.comparison.analysis import Analysis
from tandem.comparison.cells import FIRST_PHASE, Cell, some
from tandem.comparison.class_figures import confusion_over_runs, f1_over_runs
from tandem.comparison.class_tables import class_f1
from tandem.comparison.comparison import Comparison, GroupComparison
from tandem.comparison.figures import (
    Difference,
    Thawing,
    TimedScore,
    accuracy_against_time,
    critical_difference_diagram,
    curves_over_runs,
    differences_with_intervals,
    reliability_over_runs,
    thawing_gains,
)
from tandem.comparison.group_tables import score_of, to_estimate
from tandem.comparison.recommendation import RULES
from tandem.comparison.styles import RunLabel, RunStyle, run_styles
from tandem.errors import UserError
from tandem.evaluation.agreement import agreement
from tandem.evaluation.metrics import reliability_bins
from tandem.recording.grad_cam import GradCam
from tandem.rendering.page import Block, Gallery, Page, Picture, Plot, Section, Text
from tandem.rendering.tables import Column, Estimate, Table, Value
from tandem.tracking import vocabulary
from tandem.tracking.reader import download, metric_history

# Of 300 classes, twelve confusion matrices are 3 MB of a page.
MOST_CONFUSION_MATRICES = 12
MOST_MAPS = 12  # cells whose Grad-CAM maps stand side by side
MOST_IMAGES = 8  # of which maps are shown, and that a gallery holds
MOST_LISTED = 50  # images in a table

METHODS = (
    "Every score is computed from the saved predictions, by the same code for both frameworks: precision, recall, F1 "
    "are 0 where their denominator is, macro is the mean over classes, lowest the minimum; the calibration error has "
    "15 bins of equal width (Guo et al. 2017).",
    "Intervals: 95 %, from resamples of the test images that are the same for all rows (bias-corrected percentiles, "
    "Efron 1987; Clopper and Pearson 1934 for accuracies of 0 and 1). For the lowest F1 images are resampled within "
    "their classes; its intervals and those of the calibration error are rough, since neither score is smooth. With "
    "several seeds a row is the mean over its runs, which are resampled too (Rao and Wu 1988).",
    "Tests: McNemar's exact test for accuracies of single runs, the paired bootstrap otherwise, corrected by Holm's "
    "method (1979) over all pairs for ties, and over its rows in every other table. Letters: Piepho 2004. Ranks over "
    "data sets: Friedman's and Nemenyi's tests (Demšar 2006).",
    "Training time is training and validation of all phases, evaluation apart. The time of one image is the median of "
    "up to 20 calls. MACs are multiply-accumulates of convolutions and dense layers for one image.",
    "Grad-CAM: Selvaraju et al. 2017, of the network's last feature map; each map is scaled to its own highest value.",
)


def read_histories(cells: Sequence[Cell]) -> dict[str, pd.DataFrame]:
    """Loss and accuracy of every epoch of the first run of each cell, as figures take them; by label."""
    columns = {
        "phase": vocabulary.EPOCH_PHASE,
        **{
            name: name
            for name in (
                vocabulary.TRAIN_LOSS,
                vocabulary.VAL_LOSS,
                vocabulary.TRAIN_ACCURACY,
                vocabulary.VAL_ACCURACY,
            )
        },
    }
    histories = {}
    for cell in cells:
        values = {
            column: {metric.step: metric.value for metric in metric_history(cell.runs[0], name)}
            for column, name in columns.items()
        }
        history = pd.DataFrame(values).dropna().sort_index()
        if len(history):
            histories[cell.label] = history.rename_axis("epoch").reset_index()
    return histories


def styles_of(cells: Sequence[Cell]) -> dict[str, RunStyle]:
    """How the cells look in all figures, by label."""
    return run_styles(
        [
            RunLabel(name=cell.label, backbone=cell.backbone, regime=cell.regime, framework=cell.framework)
            for cell in cells
        ]
    )


def make_plots(compared: GroupComparison, histories: Mapping[str, pd.DataFrame]) -> dict[str, Plot]:
    """All figures of a group for which there is something to be shown.

    Args:
        compared: the group.
        histories: from `read_histories`.

    Returns:
        By the name of the figure's file, without the group's suffix.
    """
    cells, analysis = compared.group.cells, compared.analysis
    styles = styles_of(cells)
    plots = {}
    points = [
        TimedScore(name=cell.label, train_seconds=seconds, accuracy=_as_estimate(score))
        for cell in cells
        if (seconds := cell.mean(vocabulary.TRAIN_SECONDS))
        and (score := score_of(cell, analysis, "accuracy")) is not None
    ]
    if points:
        plots["accuracy_time"] = Plot(
            figure=accuracy_against_time(points, styles),
            caption="Accuracy against training time. On the dotted line are those that none beats in both; bars are "
            "95 % intervals.",
        )
    if histories:
        plots["curves"] = Plot(
            figure=curves_over_runs(histories, styles),
            caption="The run with the lowest seed of each row, over all its phases; a star is the first epoch after "
            "thawing.",
        )
    if pairs := analysis.frameworks.get("accuracy"):
        differences = [
            Difference(
                label=keras,
                estimate=to_estimate(test.difference),
                significant=test.significant,
            )
            for (_, keras), test in pairs.items()
        ]
        plots["frameworks"] = Plot(
            figure=differences_with_intervals(differences, "accuracy, Keras minus PyTorch"),
            caption="Keras minus PyTorch with 95 % intervals; filled where the test finds a difference.",
        )
    plots |= _thawing_plot(cells, analysis, styles)
    if analysis.transfer:
        plots["transfer"] = Plot(
            figure=differences_with_intervals(
                [
                    Difference(label=pretrained, estimate=to_estimate(test.difference), significant=test.significant)
                    for (pretrained, _), test in analysis.transfer.items()
                ],
                "accuracy, pretrained minus from scratch",
            ),
            caption="Pretrained minus from scratch with 95 % intervals; left of the line is negative transfer.",
        )
    return plots | _prediction_plots(analysis, styles)


def _thawing_plot(cells: Sequence[Cell], analysis: Analysis, styles: Mapping[str, RunStyle]) -> dict[str, Plot]:
    thawings = []
    for cell in cells:
        seconds, first = cell.mean(vocabulary.TRAIN_SECONDS), cell.mean(FIRST_PHASE + vocabulary.TRAIN_SECONDS)
        after = score_of(cell, analysis, "accuracy")
        if cell.label not in analysis.before_thawing or not seconds or not first or after is None:
            continue
        before = to_estimate(analysis.before_thawing[cell.label])
        thawings.append(
            Thawing(
                name=cell.label,
                before=TimedScore(name=cell.label, train_seconds=first, accuracy=before),
                after=TimedScore(name=cell.label, train_seconds=seconds, accuracy=_as_estimate(after)),
            )
        )
    if not thawings:
        return {}
    return {
        "thawing": Plot(
            figure=thawing_gains(thawings, styles),
            caption="two_stage after its first phase, the head alone trained, and at its end.",
        )
    }


def _prediction_plots(analysis: Analysis, styles: Mapping[str, RunStyle]) -> dict[str, Plot]:
    if not analysis.predictions:
        return {}
    f1 = class_f1(analysis)
    support = np.bincount(next(iter(analysis.predictions.values()))[0].truth, minlength=len(f1))
    of_first_runs = {label: runs[0] for label, runs in analysis.predictions.items()}
    by_accuracy = sorted(of_first_runs, key=lambda label: -_accuracy(analysis, label))
    matrices = {label: of_first_runs[label] for label in by_accuracy[:MOST_CONFUSION_MATRICES]}
    left_out = len(of_first_runs) - len(matrices)
    return {
        "f1": Plot(figure=f1_over_runs(f1[support > 0]), caption="F1 of each class in each row, the hardest on top."),
        "confusions": Plot(
            figure=confusion_over_runs(matrices),
            caption="Shares of each true class's images by predicted class, one row of the summary at a time, the most "
            "accurate first" + (f"; {left_out} less accurate ones are left out." if left_out else "."),
        ),
        "reliability": Plot(
            figure=reliability_over_runs(
                {label: reliability_bins(run) for label, run in of_first_runs.items()}, styles
            ),
            caption="How often a network is right that is this sure of its prediction; below the dotted line it is too "
            "sure. The area of a mark is the number of images.",
        ),
    }


def make_figures(comparison: Comparison, plots: Sequence[Mapping[str, Plot]]) -> dict[str, go.Figure]:
    """All figures by the names of their files.

    Args:
        comparison: of the experiment.
        plots: of each of its groups, from `make_plots`.
    """
    figures = {
        name + compared.group.suffix: plot.figure
        for compared, of_group in zip(comparison.groups, plots, strict=True)
        for name, plot in of_group.items()
    }
    if comparison.ranks:
        figures["critical_difference"] = _rank_diagram(comparison)
    return figures


def _rank_diagram(comparison: Comparison) -> go.Figure:
    assert comparison.ranks is not None
    names, ranks = comparison.ranks
    return critical_difference_diagram(
        dict(zip(names, ranks.average_ranks.tolist(), strict=True)),
        [[names[place] for place in clique] for clique in ranks.cliques],
        ranks.critical_difference,
    )


def make_page(comparison: Comparison, plots: Sequence[Mapping[str, Plot]], *, experiment: str, folder: Path) -> Page:
    """The page of an experiment.

    Args:
        comparison: of the experiment.
        plots: of each of its groups, from `make_plots`.
        experiment: its name.
        folder: where files of the runs are copied to.
    """
    sections: list[Section] = []
    for compared, of_group in zip(comparison.groups, plots, strict=True):
        sections += _group_sections(compared, of_group, folder, several=len(comparison.groups) > 1)
    if comparison.over_data_sets:
        blocks: list[Block] = list(comparison.over_data_sets)
        if comparison.ranks:
            caption = "Mean ranks over the data sets; bars join models that do not differ significantly."
            blocks.insert(0, Plot(figure=_rank_diagram(comparison), caption=caption))
        sections.insert(0, Section(title="Data sets", anchor="data-sets", blocks=tuple(blocks)))
    if comparison.published:
        sections.append(Section(title="Published results", anchor="published", blocks=comparison.published))
    cells = [cell for compared in comparison.groups for cell in compared.group.cells]
    methods: list[Block] = [Text(paragraphs=("The recommendation follows these rules.", *RULES, *METHODS))]
    methods += [_run_table(cells), _settings_table(cells)]
    if comparison.notes:
        sections.append(Section(title="Notes", anchor="notes", blocks=(Text(paragraphs=comparison.notes),)))
    sections.append(Section(title="Methods, settings, versions", anchor="methods", blocks=tuple(methods), folded=True))
    num_runs = sum(len(cell.runs) for cell in cells)
    lead = "; ".join(compared.group.title for compared in comparison.groups)
    return Page(title=f"Comparison: {experiment}", lead=f"{num_runs} runs. {lead}.", sections=tuple(sections))


def _group_sections(
    compared: GroupComparison, plots: Mapping[str, Plot], folder: Path, *, several: bool
) -> list[Section]:
    group, analysis, tables = compared.group, compared.analysis, compared.tables
    sections: list[Section] = []

    def add(title: str, anchor: str, blocks: Sequence[Block | None]) -> None:
        shown = tuple(block for block in blocks if block is not None)
        if shown:
            full_title = f"{title}: {group.name}" if several else title
            sections.append(Section(title=full_title, anchor=anchor + group.suffix, blocks=shown))

    table, plot = tables.get, plots.get
    add("Recommendation", "recommendation", [Text(paragraphs=compared.recommendation)])
    add("Summary", "summary", [table("summary"), plot("accuracy_time"), table("scores")])
    add("Keras against PyTorch", "frameworks", [table("frameworks"), plot("frameworks")])
    add("Off the shelf", "off-the-shelf", [table("off_the_shelf")])
    add("Training", "training", [plot("curves")])
    add("Thawing", "thawing", [table("thawing"), plot("thawing")])
    add("Time and cost", "cost", [table("cost")])
    add("Classes", "classes", [plot("f1"), table("class_extremes"), table("classes")])
    add("Confusions", "confusions", [plot("confusions"), table("confusions")])
    add("Calibration", "calibration", [plot("reliability")])
    add("Negative transfer", "transfer", [table("transfer"), plot("transfer"), table("transfer_classes")])
    maps = read_grad_cam(group.cells, folder)
    add("Images", "images", _image_blocks(analysis, maps))
    add("Grad-CAM", "grad-cam", _map_blocks(maps))
    return sections


def read_grad_cam(cells: Sequence[Cell], folder: Path) -> dict[str, GradCam]:
    """The Grad-CAM maps of the first run of each cell that has some, of at most 12 cells, by label.

    Args:
        cells: of one group.
        folder: where the files are copied to.
    """
    found: dict[str, GradCam] = {}
    for cell in cells:
        run = cell.runs[0]
        if len(found) == MOST_MAPS:
            break
        if run.tags.get(vocabulary.GRAD_CAM, "none").startswith("none"):
            continue
        # The page is worth having without a run's maps.
        with contextlib.suppress(UserError):
            found[cell.label] = GradCam.read(download(run, vocabulary.GRAD_CAM_FILE, folder))
    return found


def _image_blocks(analysis: Analysis, maps: Mapping[str, GradCam]) -> list[Block | None]:
    """The images that all rows get wrong, and those that only one gets right."""
    if len(analysis.predictions) < 2:
        return []
    pictures = {
        image_hash: image
        for grad_cam in maps.values()
        for image_hash, image in zip(grad_cam.hashes, grad_cam.images, strict=True)
    }
    runs = {label: of_cell[0] for label, of_cell in analysis.predictions.items()}
    first = next(iter(runs.values()))
    found = agreement(first.truth, [run.predicted for run in runs.values()])

    wrong: list[tuple[Value, ...]] = []
    for image in found.all_wrong[:MOST_LISTED]:
        (taken_for, times), *_ = Counter(int(run.predicted[image]) for run in runs.values()).most_common(1)
        names = first.classes[first.truth[image]], first.classes[taken_for]
        wrong.append((first.keys[image], *names, times, first.hashes[image][:12]))
    right: list[tuple[Value, ...]] = []
    for label, images in zip(runs, found.only_right, strict=True):
        for image in images[: MOST_LISTED // 5]:
            right.append((label, first.keys[image], first.classes[first.truth[image]], first.hashes[image][:12]))

    def gallery(title: str, images: Sequence[int], captions: Sequence[str]) -> Gallery | None:
        shown = [
            Picture(image=pictures[first.hashes[image]], caption=caption)
            for image, caption in zip(images, captions, strict=True)
            if first.hashes[image] in pictures
        ]
        return Gallery(title=title, pictures=tuple(shown[:MOST_IMAGES])) if shown else None

    alone = [(int(image), label) for label, images in zip(runs, found.only_right, strict=True) for image in images]
    total = f"{len(found.all_wrong)} of {len(first.truth)} images"
    key, image_hash = Column(key="image", heading="image"), Column(key="hash", heading="hash")
    truth = Column(key="truth", heading="true class")
    return [
        gallery(
            "All rows get them wrong",
            found.all_wrong.tolist(),
            [f"{first.keys[image]}: {first.classes[first.truth[image]]}" for image in found.all_wrong],
        ),
        Table(
            name="all_wrong",
            title=f"All rows get them wrong: {total}",
            columns=(
                key,
                truth,
                Column(key="predicted", heading="mostly taken for"),
                Column(key="rows", heading="by rows", kind="number"),
                image_hash,
            ),
            rows=tuple(wrong),
            notes=(f"The first {MOST_LISTED}.",) if len(found.all_wrong) > MOST_LISTED else (),
        ),
        gallery(
            "Only one row gets them right",
            [image for image, _ in alone],
            [f"{first.keys[image]}: {first.classes[first.truth[image]]}\nonly {label}" for image, label in alone],
        ),
        Table(
            name="only_right",
            title=f"Only one row gets them right: {len(alone)} of {len(first.truth)} images",
            columns=(Column(key="row", heading="only right"), key, truth, image_hash),
            rows=tuple(right),
            notes=(f"The first {MOST_LISTED // 5} of each row.",) if len(right) < len(alone) else (),
        ),
    ]


def _map_blocks(maps: Mapping[str, GradCam]) -> list[Block | None]:
    """One image after the other: as it is, and where each network found what speaks for its prediction."""
    blocks: list[Block | None] = []
    overlays = {label: grad_cam.overlays for label, grad_cam in maps.items()}
    images = {
        image_hash: (label, place)
        for label, grad_cam in reversed(list(maps.items()))
        for place, image_hash in enumerate(grad_cam.hashes)
    }
    shown = sorted(images, key=lambda image_hash: (images[image_hash][1], image_hash))[:MOST_IMAGES]
    for image_hash in shown:
        label, place = images[image_hash]
        source = maps[label]
        pictures = [Picture(image=source.images[place], caption="as it is")]
        for other, grad_cam in maps.items():
            if image_hash in grad_cam.hashes:
                at = grad_cam.hashes.index(image_hash)
                predicted = grad_cam.classes[grad_cam.predicted[at]]
                pictures.append(Picture(image=overlays[other][at, 0], caption=f"{other}\nsays {predicted}"))
        title = f"{source.keys[place]}: {source.classes[source.truth[place]]}"
        blocks.append(Gallery(title=title, pictures=tuple(pictures)))
    return blocks


def _run_table(cells: Sequence[Cell]) -> Table:
    """Which runs were compared, and what they ran with and on."""
    versions = sorted(
        {
            name.removeprefix(vocabulary.VERSION_PREFIX)
            for cell in cells
            for run in cell.runs
            for name in run.tags
            if name.startswith(vocabulary.VERSION_PREFIX)
        }
    )
    columns = (
        Column(key="run", heading="run"),
        Column(key="id", heading="id"),
        Column(key="seed", heading="seed"),
        Column(key="hardware", heading="hardware"),
        Column(key="device", heading="device"),
        *(Column(key=name, heading=name) for name in versions),
    )
    rows = tuple(
        (
            run.name,
            run.run_id,
            run.params.get("seed"),
            run.tags.get(vocabulary.HARDWARE),
            run.tags.get(vocabulary.DEVICE),
            *(run.tags.get(vocabulary.VERSION_PREFIX + name) for name in versions),
        )
        for cell in cells
        for run in cell.runs
    )
    return Table(name="runs", title="Runs and versions", columns=columns, rows=rows)


def _settings_table(cells: Sequence[Cell]) -> Table:
    """Every setting, with its value or values."""
    values: dict[str, dict[str, None]] = {}
    for cell in cells:
        for run in cell.runs:
            for name, value in run.params.items():
                if not name.startswith("tracking."):
                    values.setdefault(name, {})[value] = None
    return Table(
        name="settings",
        title="Settings",
        columns=(Column(key="setting", heading="setting"), Column(key="value", heading="values")),
        rows=tuple((name, some(list(found))) for name, found in values.items()),
    )


def _as_estimate(score: Estimate | float) -> Estimate:
    return score if isinstance(score, Estimate) else Estimate(value=score, low=score, high=score)


def _accuracy(analysis: Analysis, label: str) -> float:
    interval = analysis.interval("accuracy", label)
    assert interval is not None
    return interval.estimate
