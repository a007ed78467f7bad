from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Metric

import tandem.comparison.images as images
import tandem.comparison.page as module
from tandem.comparison.comparison import Comparison, compare_runs
from tandem.comparison.page import make_figures, make_page, make_plots, read_histories
from tandem.comparison.predictions import SavedPredictions
from tandem.errors import UserError
from tandem.recording.grad_cam import GradCam
from tandem.rendering.page import Page, Text
from tandem.rendering.tables import Table
from tandem.tracking.reader import RunRecord
from tests.compared import MakePredictions, MakeRun, right_images, rows_of

IMAGES = 40
right = partial(right_images, images=IMAGES)


@pytest.fixture
def comparison(make_run: MakeRun, make_predictions: MakePredictions) -> Comparison:
    """Four rows of two frameworks."""
    outcomes = {
        ("torch", "scratch"): right(0.5),
        ("torch", "two_stage"): right(0.9, 1),
        ("keras", "two_stage"): right(0.8, 1),
        ("torch", "finetune"): right(0.3, 1),
    }
    phase_1 = {"phase_1/test/accuracy": 0.5, "phase_1/cost/train_seconds": 20.0}
    records = {
        key: make_run(
            *key,
            float(np.mean(outcome)),
            metrics=phase_1 if key[1] == "two_stage" else {},
            tags={"tandem.grad_cam": "2 images", "tandem.version.python": "3.11.7"},
        )
        for key, outcome in outcomes.items()
    }
    saved = SavedPredictions(
        final={records[key].run_id: make_predictions(outcome) for key, outcome in outcomes.items()},
        first_phase={records[key].run_id: make_predictions(right(0.5)) for key in outcomes if key[1] == "two_stage"},
    )
    return compare_runs(list(records.values()), lambda _: saved)


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grad-CAM maps of image 0 and of the last one, for all runs but those of Keras."""

    def download(run: RunRecord, artifact_path: str, folder: Path) -> Path:
        assert artifact_path == "final/grad_cam.npz"
        if run.tags["tandem.framework"] == "keras":
            raise UserError("out of reach")
        path = folder / artifact_path
        GradCam(
            keys=("0.png", f"{IMAGES - 1}.png"),
            hashes=("00000", f"{IMAGES - 1:05d}"),
            classes=tuple(f"class {index}" for index in range(4)),
            truth=np.array([0, (IMAGES - 1) % 4]),
            predicted=np.array([1, 0]),
            images=np.zeros((2, 8, 8, 3), np.uint8),
            maps=np.zeros((2, 2, 8, 8), np.uint8),
        ).write(path)
        return path

    monkeypatch.setattr(images, "download", download)


HISTORY = pd.DataFrame(
    {
        "epoch": [0, 1],
        "phase": [1, 2],
        **{f"{split}/{name}": [0.5, 0.4] for split in ("train", "val") for name in ("loss", "accuracy")},
    }
)


def page_of(comparison: Comparison, folder: Path) -> Page:
    plots = [make_plots(compared, {compared.group.configurations[0].label: HISTORY}) for compared in comparison.groups]
    return make_page(comparison, plots, experiment="demo", folder=folder)


def test_every_figure_that_applies_is_made(comparison: Comparison) -> None:
    (compared,) = comparison.groups
    plots = make_plots(compared, {"scratch torch": HISTORY})
    assert set(plots) == {
        *("accuracy", "accuracy_time", "curves", "frameworks", "thawing", "transfer", "f1", "confusions", "reliability")
    }
    assert set(make_figures(comparison, [plots])) == set(plots)


def test_without_predictions_only_accuracy_and_time_are_drawn(make_run: MakeRun) -> None:
    (compared,) = compare_runs([make_run(), make_run("keras")]).groups
    assert set(make_plots(compared, {})) == {"accuracy", "accuracy_time"}


def test_parameters_are_drawn_where_they_differ(make_run: MakeRun) -> None:
    runs = [make_run(), make_run(params={"backbone": "resnet50"}, metrics={"cost/parameters": 25e6})]
    (compared,) = compare_runs(runs).groups
    assert set(make_plots(compared, {})) == {"accuracy", "accuracy_time", "accuracy_parameters"}


def test_figures_say_what_is_subtracted_from_what(comparison: Comparison) -> None:
    (compared,) = comparison.groups
    plots = make_plots(compared, {})
    assert plots["frameworks"].figure.layout.xaxis.title.text == "accuracy, Keras minus PyTorch"
    assert plots["transfer"].figure.layout.xaxis.title.text == "accuracy, pretrained minus from scratch"
    # Keras is right on 32 of 40 images, PyTorch on 36.
    (point,) = [trace for trace in plots["frameworks"].figure.data if trace.x]
    assert (point.y, point.x) == (("two_stage keras",), (pytest.approx(-0.1),))


def test_confusions_start_with_the_most_accurate_row(comparison: Comparison) -> None:
    (compared,) = comparison.groups
    (menu,) = make_plots(compared, {})["confusions"].figure.layout.updatemenus
    assert [button.label for button in menu.buttons] == [
        *("two_stage torch", "two_stage keras", "scratch torch", "finetune torch")
    ]


def test_ranks_are_a_figure_and_a_part_of_the_page(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [
        make_run(accuracy=accuracy, params={"backbone": backbone}, tags={"tandem.test_hash": data, "tandem.data": data})
        for data in ("birds", "cars", "cats")
        for backbone, accuracy in {"alexnet": 0.7, "vgg16": 0.8, "vgg19": 0.9}.items()
    ]
    compared = compare_runs(runs)
    figure = make_figures(compared, [{}] * 3)["critical_difference"]
    assert [annotation.text for annotation in figure.layout.annotations][:2] == [
        "vgg19 finetune torch 1.00",
        "vgg16 finetune torch 2.00",
    ]
    first = make_page(compared, [{}] * 3, experiment="demo", folder=tmp_path).sections[0]
    assert (first.title, len(first.blocks)) == ("Data sets", 1 + len(compared.over_data_sets))


def test_methods_list_runs_versions_and_settings(comparison: Comparison, maps: None, tmp_path: Path) -> None:
    methods = page_of(comparison, tmp_path).sections[-1]
    runs, settings = (block for block in methods.blocks if isinstance(block, Table))
    assert len(runs.rows) == 4
    assert {row["python"] for row in rows_of(runs)} == {"3.11.7"} and rows_of(runs)[0]["seed"] == "0"
    values = {row["setting"]: row["value"] for row in rows_of(settings)}
    assert values["regime"] == "scratch, two_stage, finetune"
    assert "tracking.experiment" not in values


def test_page_begins_with_the_winner_and_ends_with_methods(comparison: Comparison, maps: None, tmp_path: Path) -> None:
    page = page_of(comparison, tmp_path)
    assert [section.anchor for section in page.sections] == [
        *("summary", "recommendation", "scores", "frameworks", "ensembles", "training", "thawing", "cost", "classes"),
        *("confusions", "calibration", "transfer", "images", "grad-cam", "methods"),
    ]
    assert page.lead == "4 runs. digits 5-9, 5 classes, 180 test images."
    (compared,) = comparison.groups
    assert page.headline == compared.recommendation[:1]
    (rest, _) = page.sections[1].blocks
    assert isinstance(rest, Text) and rest.paragraphs == compared.recommendation[1:]


def test_tables_on_the_page_are_sorted_with_supported_decimals(
    comparison: Comparison, maps: None, tmp_path: Path
) -> None:
    _, summary = page_of(comparison, tmp_path).sections[0].blocks
    assert isinstance(summary, Table)
    order = [(row["regime"], row["framework"]) for row in rows_of(summary)]
    assert order == [("two_stage", "torch"), ("two_stage", "keras"), ("scratch", "torch"), ("finetune", "torch")]
    assert summary.decimals == 2  # 40 images
    # The marks move with their rows.
    (compared,) = comparison.groups
    before = {(rows_of(compared.tables["summary"])[row]["regime"], key) for row, key in compared.tables["summary"].tied}
    assert {(order[row][0], key) for row, key in summary.tied} == before


def test_groups_are_named_in_the_headline_unless_there_are_many(make_run: MakeRun, tmp_path: Path) -> None:
    def headline(*names: str) -> tuple[str, ...]:
        runs = [make_run(tags={"tandem.test_hash": name, "tandem.data": name}) for name in names]
        return page_of(compare_runs(runs), tmp_path).headline

    assert {sentence.partition(":")[0] for sentence in headline("birds", "cars")} == {"birds", "cars"}
    assert headline("birds", "cars", "cats", "dogs") == ()


def test_groups_have_sections_of_their_own(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(tags={"tandem.test_hash": name, "tandem.data": name}) for name in ("birds", "cars")]
    page = page_of(compare_runs(runs), tmp_path)
    titles = [section.title for section in page.sections]
    assert titles[0] == "Data sets"
    assert {"Summary: birds", "Summary: cars"} < set(titles)


def test_histories_are_of_the_first_seed_and_complete_epochs(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def metric_history(run: RunRecord, key: str) -> list[Metric]:
        asked.append(run.run_id)
        epochs = 2 if key == "val/loss" else 3  # the run ended within its third epoch
        return [Metric(key, 1.0, 0, step) for step in range(epochs)]

    monkeypatch.setattr(module, "metric_history", metric_history)
    (compared,) = compare_runs([make_run(seed=1, run_id="second"), make_run(seed=0, run_id="first")]).groups
    history = read_histories(compared.group.configurations)["finetune torch"]
    assert set(asked) == {"first"}
    assert history["epoch"].tolist() == [0, 1]
    assert set(history) == set(HISTORY)
