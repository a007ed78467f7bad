from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Metric

import tandem.comparison.page as module
from tandem.comparison.comparison import Comparison, compare_runs
from tandem.comparison.page import make_figures, make_page, make_plots, read_histories
from tandem.comparison.predictions import SavedPredictions
from tandem.errors import UserError
from tandem.evaluation.predictions import Predictions
from tandem.recording.grad_cam import GradCam
from tandem.rendering.page import Gallery, Page, Table
from tandem.tracking.reader import RunRecord

MakeRun = Callable[..., RunRecord]
MakePredictions = Callable[..., Predictions]

IMAGES = 40


def right(share: float, start: int = 0) -> list[bool]:
    return [(index - start) % IMAGES < share * IMAGES for index in range(IMAGES)]


@pytest.fixture
def comparison(make_run: MakeRun, make_predictions: MakePredictions) -> Comparison:
    """Five cells of two frameworks; the last image is right in none, image 0 in torch's scratch alone."""
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
    return compare_runs(list(records.values()), lambda cells: saved)


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grad-CAM maps of image 0 and of the last one, of every run but Keras's."""

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

    monkeypatch.setattr(module, "download", download)


HISTORY = pd.DataFrame(
    {
        "epoch": [0, 1],
        "phase": [1, 2],
        **{f"{split}/{name}": [0.5, 0.4] for split in ("train", "val") for name in ("loss", "accuracy")},
    }
)


def page_of(comparison: Comparison, folder: Path) -> Page:
    plots = [make_plots(compared, {compared.group.cells[0].label: HISTORY}) for compared in comparison.groups]
    return make_page(comparison, plots, experiment="demo", folder=folder)


def test_every_figure_that_applies_is_made(comparison: Comparison) -> None:
    (compared,) = comparison.groups
    plots = make_plots(compared, {"scratch torch": HISTORY})
    assert set(plots) == {
        *("accuracy_time", "curves", "frameworks", "thawing", "transfer", "f1", "confusions", "reliability")
    }
    assert set(make_figures(comparison, [plots])) == set(plots)


def test_without_predictions_only_what_needs_none_is_drawn(make_run: MakeRun) -> None:
    (compared,) = compare_runs([make_run(), make_run("keras")]).groups
    assert set(make_plots(compared, {})) == {"accuracy_time"}


def test_recommendation_comes_first_and_methods_last(comparison: Comparison, maps: None, tmp_path: Path) -> None:
    page = page_of(comparison, tmp_path)
    assert [section.anchor for section in page.sections] == [
        *("recommendation", "summary", "frameworks", "training", "thawing", "cost", "classes", "confusions"),
        *("calibration", "transfer", "images", "grad-cam", "methods"),
    ]
    assert page.lead == "4 runs. digits 5-9, 5 classes, 180 test images."


def test_images_that_are_hard_or_that_one_row_gets_right_are_listed(
    comparison: Comparison, maps: None, tmp_path: Path
) -> None:
    (images,) = [section for section in page_of(comparison, tmp_path).sections if section.anchor == "images"]
    tables = {block.name: block for block in images.blocks if isinstance(block, Table)}
    galleries = [block for block in images.blocks if isinstance(block, Gallery)]
    # Image 0 is wrong in all but scratch; 37 to 39 are wrong in all.
    assert [row[0] for row in tables["all_wrong"].rows] == ["37.png", "38.png", "39.png"]
    assert ("scratch torch", "0.png", "class 0", "00000") in tables["only_right"].rows
    assert [picture.caption for gallery in galleries for picture in gallery.pictures] == [
        "39.png: class 3",
        "0.png: class 0\nonly scratch torch",
    ]


def test_maps_of_one_image_stand_side_by_side(comparison: Comparison, maps: None, tmp_path: Path) -> None:
    (section,) = [section for section in page_of(comparison, tmp_path).sections if section.anchor == "grad-cam"]
    first = section.blocks[0]
    assert isinstance(first, Gallery)
    assert first.title == "0.png: class 0"
    assert [picture.caption for picture in first.pictures] == [
        "as it is",
        *(f"{label}\nsays class 1" for label in ("scratch torch", "two_stage torch", "finetune torch")),
    ]


def test_groups_have_sections_of_their_own(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(tags={"tandem.test_hash": name, "tandem.data": name}) for name in ("birds", "cars")]
    page = page_of(compare_runs(runs), tmp_path)
    titles = [section.title for section in page.sections]
    assert titles[0] == "Data sets"
    assert {"Summary: birds", "Summary: cars"} < set(titles)


def test_histories_are_of_the_first_seed_and_of_whole_epochs(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def metric_history(run: RunRecord, key: str) -> list[Metric]:
        asked.append(run.run_id)
        epochs = 2 if key == "val/loss" else 3  # the run ended within its third epoch
        return [Metric(key, 1.0, 0, step) for step in range(epochs)]

    monkeypatch.setattr(module, "metric_history", metric_history)
    (compared,) = compare_runs([make_run(seed=1, run_id="second"), make_run(seed=0, run_id="first")]).groups
    history = read_histories(compared.group.cells)["finetune torch"]
    assert set(asked) == {"first"}
    assert history["epoch"].tolist() == [0, 1]
    assert set(history) == set(HISTORY)
