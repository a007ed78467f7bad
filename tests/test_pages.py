"""Pictures of all pages: each is opened in Chromium and measured at three widths, light and dark, and on paper."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import plotly.graph_objects as go
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial
from playwright.sync_api import Browser, sync_playwright
from playwright.sync_api import Page as Tab

from tandem.comparison.class_figures import confusion_over_runs, f1_over_runs
from tandem.comparison.comparison import compare_runs
from tandem.comparison.page import make_page, make_plots
from tandem.comparison.predictions import SavedPredictions
from tandem.data_report.page import make_data_page
from tandem.data_report.statistics import describe
from tandem.data_report.tables import make_tables
from tandem.evaluation.metrics import per_class_table
from tandem.evaluation.predictions import Predictions, softmax
from tandem.protocol.learning_rate_finder import LearningRateFinder
from tandem.protocol.settings import flatten
from tandem.recording.figures import class_curves, f1_bars
from tandem.recording.grad_cam import GradCam, choose_images
from tandem.recording.page import write_run_page
from tandem.rendering.page import Page, Plot, Section, write_page
from tandem.rendering.tables import Column, Table
from tandem.search.learning_rate_finder import record_learning_rate_finder
from tandem.search.page import make_sweep_page
from tests.browser import CHROMIUM, draw_all, in_browser, wait_for_frames
from tests.compared import MakePredictions, MakeRun, right_images
from tests.small_runs import RecordingRun, random_images, small_data, small_settings

pytestmark = in_browser

FAULTS = Path(__file__).with_name("page_faults.js").read_text(encoding="utf-8")
PHONE, TABLET, DESKTOP = 390, 820, 1280  # pixels
PAPER = 700  # pixels between the margins of A4
CLASSES = ("sparrow", "great spotted woodpecker", "owl", "emu")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM)
        yield started
        started.close()


def history_of(phases: list[int]) -> pd.DataFrame:
    epochs = np.arange(len(phases))
    return pd.DataFrame(
        {
            "epoch": epochs,
            "phase": phases,
            **{f"{split}/loss": 2 / (epochs + place + 1) for place, split in enumerate(("train", "val"))},
            **{f"{split}/accuracy": 1 - 0.8 / (epochs + place + 1) for place, split in enumerate(("train", "val"))},
        }
    )


def write_report(path: Path, make_run: MakeRun, make_predictions: MakePredictions) -> None:
    """Eight rows of two backbones, two regimes and two frameworks."""
    right = partial(right_images, images=120)
    keys = list(itertools.product(("mobilenet_v2", "efficientnet_v2_b0"), ("scratch", "two_stage"), ("torch", "keras")))
    records, final, first_phase = [], {}, {}
    for number, (backbone, regime, framework) in enumerate(keys):
        outcome = right(0.3 + 0.08 * number, number)
        extra = {"phase_1/test/accuracy": 0.5, "phase_1/cost/train_seconds": 20.0} if regime == "two_stage" else {}
        record = make_run(
            framework,
            regime,
            float(np.mean(outcome)),
            metrics={"cost/train_seconds": 3.0 * (number + 1) ** 2, **extra},
            params={"backbone": backbone},
            run_id=f"run-{number}",
        )
        records.append(record)
        final[record.run_id] = make_predictions(outcome)
        if regime == "two_stage":
            first_phase[record.run_id] = make_predictions(right(0.5))
    comparison = compare_runs(records, lambda _: SavedPredictions(final=final, first_phase=first_phase))
    plots = []
    for compared in comparison.groups:
        histories = {
            one.label: history_of([1, 1, 1, 2, 2] if one.regime == "two_stage" else [1] * 5)
            for one in compared.group.configurations
        }
        plots.append(make_plots(compared, histories))
    write_page(path, make_page(comparison, plots, experiment="birds", folder=path.parent))


def predictions_of(classes: tuple[str, ...], images: int) -> Predictions:
    truth = np.arange(images) % len(classes)
    logits = np.random.default_rng(0).normal(size=(images, len(classes)))
    logits[np.arange(images), truth] += 1.5
    names = tuple(f"{classes[label]}/photograph_{row:04}.jpg" for row, label in enumerate(truth))
    return Predictions(keys=names, hashes=names, truth=truth, probabilities=softmax(logits), classes=classes)


def write_run(path: Path) -> None:
    predictions = predictions_of(CLASSES, 40)
    names, truth = predictions.keys, predictions.truth
    images = random_images(40, shape=(32, 32, 3))
    rows = choose_images(predictions, 4)
    grad_cam = GradCam(
        keys=tuple(names[row] for row in rows),
        hashes=tuple(names[row] for row in rows),
        classes=CLASSES,
        truth=truth[rows],
        predicted=predictions.predicted[rows],
        images=images[rows],
        maps=random_images(4, shape=(2, 32, 32)),
    )
    write_run_page(
        path,
        title="mobilenet_v2, two_stage, torch, birds",
        history=history_of([1, 1, 1, 2, 2]),
        train_seconds=90.0,
        predictions=predictions,
        image_of=lambda row: images[row],
        grad_cam=grad_cam,
        settings=flatten(small_settings()),
    )


def write_class_figures(path: Path) -> None:
    """Figures of two classes of which one has a long name, and of 5 and 200 classes with long names."""
    names = [f"great spotted woodpecker of kind {kind}" for kind in range(200)]
    rows = (
        "two_stage torch",
        "two_stage keras",
        "scratch torch",
        "finetune keras, learning_rate 0.001",
        "frozen keras",
    )
    blocks = []
    for classes in (("cat & dog", names[0]), tuple(names[:5]), tuple(names)):
        predictions = predictions_of(classes, 400)
        f1 = per_class_table(predictions)["f1"]
        figures = {
            "Confusions": confusion_over_runs({rows[0]: predictions, f"{rows[3]}, data.image_size 224": predictions}),
            "F1 of rows": f1_over_runs(pd.DataFrame(dict.fromkeys(rows, f1.to_numpy()), index=list(classes))),
            "F1": f1_bars(predictions),
            "Curves": class_curves(predictions),
        }
        for name, figure in figures.items():
            assert figure is not None
            blocks.append(Plot(figure=figure, caption=f"{name}, {len(classes)} classes."))
    section = Section(title="All", anchor="all", blocks=tuple(blocks))
    write_page(path, Page(title="Classes", lead="", sections=(section,)))


def write_data_set(path: Path) -> None:
    data = small_data(path.parent / "cache")
    statistics = describe(data, quiet=True)
    write_page(path, make_data_page(data, statistics, make_tables(data.name, statistics)))


def write_learning_rates(path: Path) -> None:
    finder = LearningRateFinder()
    losses = [2.0] * 40 + [2.0 - 0.05 * step for step in range(30)] + [40.0] * 50
    for _, number in finder.steps(itertools.count()):
        finder.add(losses[number])
    run = RecordingRun(path.parent)
    run.where_to_look = list  # type: ignore[attr-defined]
    record_learning_rate_finder(run, finder, "mobilenet_v2, frozen, birds")  # type: ignore[arg-type]


def write_sweep(path: Path) -> None:
    study = optuna.create_study()
    names = ("learning_rate", "head.dropout", "weight_decay")
    random = np.random.default_rng(0)
    for number in range(12):
        values = dict(zip(names, random.uniform(size=3), strict=True))
        loss = sum(values.values()) if number != 5 else 5e8
        trial = create_trial(
            params=values,
            distributions=dict.fromkeys(names, FloatDistribution(0, 1)),
            value=loss,
            state=TrialState.COMPLETE,
            intermediate_values={step: loss + 1 / step for step in range(1, 6)},
        )
        study.add_trial(copy.copy(trial))
    columns = tuple(Column(key=name, heading=name, kind="number") for name in ("trial", "epochs"))
    table = Table(name="trials", title="Trials", columns=columns, rows=tuple((number, 5) for number in range(12)))
    page = make_sweep_page(
        study,
        table,
        title="Sweep mobilenet_v2-finetune-torch-0123abcd",
        objective="val_loss",
        best_settings="learning_rate 0.00312, head.dropout 0.2",
        command="python train_torch.py --config runs/birds/sweep-mobilenet_v2-finetune-torch-0123abcd/best.yaml",
    )
    write_page(path, page)


def faults_of(tab: Tab, *, printed: bool = False) -> list[str]:
    return tab.evaluate(f"({FAULTS.rstrip().rstrip(';')})({{printed: {str(printed).lower()}}})")


def faults_everywhere(browser: Browser, file: Path) -> list[str]:
    """Faults of a page, each with the way in which the page was shown."""
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": DESKTOP, "height": 900}, offline=True)
    tab = context.new_page()
    tab.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(file.as_uri())
    found = {}
    for width in (DESKTOP, TABLET, PHONE):
        tab.set_viewport_size({"width": width, "height": 900})
        for scheme in ("light", "dark"):
            tab.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            draw_all(tab)
            found[f"{width} pixels, {scheme}"] = faults_of(tab)
    tab.set_viewport_size({"width": PAPER, "height": 900})
    tab.emulate_media(media="print", color_scheme="dark")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    tab.wait_for_function(
        "[...document.querySelectorAll('.plot > div')].every((plot) => plot.dataset.state === 'drawn')"
    )
    wait_for_frames(tab)
    found["printed"] = faults_of(tab, printed=True)
    context.close()
    found["console"] = complaints
    return [f"{file.stem}, {shown}: {fault}" for shown, faults in found.items() for fault in faults]


@pytest.mark.long
def test_nothing_on_a_page_overlaps_or_is_cut(
    browser: Browser, make_run: MakeRun, make_predictions: MakePredictions, tmp_path: Path
) -> None:
    files = {
        name: tmp_path / f"{name}.html" for name in ("report", "run", "classes", "data_set", "range_test", "sweep")
    }
    write_report(files["report"], make_run, make_predictions)
    write_run(files["run"])
    write_class_figures(files["classes"])
    write_data_set(files["data_set"])
    write_learning_rates(files["range_test"])
    write_sweep(files["sweep"])
    faults = [fault for file in files.values() for fault in faults_everywhere(browser, file)]
    assert not faults, "\n".join(faults)


def test_names_beside_a_narrow_figure_are_shown_where_they_have_room(browser: Browser, tmp_path: Path) -> None:
    for number, shown in ((8, 8), (200, 0)):
        names = [f"finetune {index}" for index in range(number)]
        figure = go.Figure(go.Scatter(x=list(range(number)), y=names, mode="markers"))
        figure.update_layout(height=260, yaxis={"type": "category"})
        section = Section(title="All", anchor="all", blocks=(Plot(figure=figure, caption="Rows."),))
        write_page(tmp_path / "page.html", Page(title="Names", lead="", sections=(section,)))
        context = browser.new_context(viewport={"width": PHONE, "height": 900}, offline=True)
        tab = context.new_page()
        tab.goto((tmp_path / "page.html").as_uri())
        draw_all(tab)
        assert tab.locator(".ytick text").count() == shown
        context.close()


def test_overflowing_table_and_overlapping_label_are_noticed(browser: Browser, tmp_path: Path) -> None:
    columns = tuple(Column(key=f"{index}", heading=f"column {index}", kind="score") for index in range(12))
    table = Table(name="wide", title="Wide", columns=columns, rows=((0.5,) * 12, (0.6,) * 12))
    figure = go.Figure(go.Scatter(x=[1, 2], y=[1, 2]))
    for text in ("first label", "second label"):
        figure.add_annotation(x=1.5, y=1.5, text=text, showarrow=False)
    blocks = (table, Plot(figure=figure, caption="Two labels."))
    write_page(
        tmp_path / "page.html",
        Page(title="Broken", lead="", sections=(Section(title="All", anchor="all", blocks=blocks),)),
    )
    context = browser.new_context(viewport={"width": PHONE, "height": 900}, offline=True)
    tab = context.new_page()
    tab.goto((tmp_path / "page.html").as_uri())
    draw_all(tab)
    overlap = '"first label" overlaps "second label" in the figure "Two labels."'
    assert faults_of(tab) == [overlap]
    tab.add_style_tag(content=".table { overflow: visible !important; }")
    found = faults_of(tab)
    assert any("the page is" in fault for fault in found) and any("sticks out of its box" in fault for fault in found)
    context.close()
