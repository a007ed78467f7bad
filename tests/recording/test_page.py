from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tandem.evaluation.intervals import Interval
from tandem.evaluation.predictions import Predictions
from tandem.protocol.settings import Settings, flatten
from tandem.recording.grad_cam import GradCam
from tandem.recording.page import result_in_words, write_run_page

CLASSES = ("</script><b>bird", "dog & cat", "fish")


class Outline(HTMLParser):
    """Cells of the tables, number of scripts, and addresses that the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.headings: list[str] = []
        self.texts: list[str] = []
        self.images: list[str] = []
        self.scripts = 0
        self.loads: list[str] = []
        self.plots = 0
        self._inside = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in ("strong", "u", "span"):
            return
        self._inside = tag
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        self.scripts += tag == "script"
        self.plots += "data-figure" in dict(attributes)
        self.loads += [
            value or ""
            for name, value in attributes
            if name in ("src", "href") and not (value or "").startswith(("#", "data:"))
        ]
        self.images += [value or "" for name, value in attributes if (tag, name) == ("img", "src")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("strong", "u", "span"):
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("td", "th"):
            self.rows[-1][-1] += data
        elif self._inside in ("h1", "h2", "h3"):
            self.headings.append(data)
        elif self._inside in ("p", "figcaption"):
            self.texts.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "folder" / "run.html"
    history = pd.DataFrame(
        {
            "epoch": [0, 1, 2],
            "phase": [1, 1, 2],
            "train/loss": [1.0, 0.5, 0.4],
            "val/loss": [1.1, 0.6, float("nan")],
            "train/accuracy": [0.5, 0.6, 0.7],
            "val/accuracy": [0.4, 0.5, 0.6],
        }
    )
    predictions = Predictions(
        keys=tuple("123456"),
        hashes=tuple("123456"),
        truth=np.array([0, 0, 0, 1, 1, 2]),
        probabilities=np.eye(3, dtype=np.float32)[[1, 1, 0, 1, 2, 2]],
        classes=CLASSES,
    )
    default = flatten(Settings())
    settings = {"regime": "two_stage", "head.hidden": [256], "threads": default["threads"], "data.source": "<folder>"}
    write_run_page(
        path,
        title="my <run>",
        history=history,
        train_seconds=90.0,
        predictions=predictions,
        image_of=lambda row: np.full((8, 8, 3), 10 * row, np.uint8),
        grad_cam=GradCam(
            keys=("1", "4"),
            hashes=("1", "4"),
            classes=CLASSES,
            truth=np.array([0, 1]),
            predicted=np.array([1, 1]),
            images=np.zeros((2, 8, 8, 3), np.uint8),
            maps=np.zeros((2, 2, 8, 8), np.uint8),
        ),
        settings=settings,
    )
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    return parser


def test_page_loads_nothing_and_holds_plotly_once(page: str, outline: Outline) -> None:
    assert outline.loads == []
    assert outline.plots == 4
    assert len(re.findall(r"plotly\.js v\d", page)) == 1
    assert len(page) < 6_000_000


def test_page_shows_scores_confusions_and_settings(outline: Outline) -> None:
    assert outline.headings[0] == "my <run>"
    (accuracy,) = [row for row in outline.rows if row[0] == "accuracy"]
    assert re.fullmatch(r"0\.50 \[0\.\d\d, [01]\.\d\d\]", accuracy[1])
    shown = {row[0]: row[1] for row in outline.rows if len(row) == 2}
    assert {"worst-class F1", "calibration error", "macro ROC-AUC", "macro average precision"} < set(shown)
    # Recalls 1/3, 1/2 and 1; 3 of 6 are right, and row sums 3, 2, 1 times column sums 1, 3, 2 add up to 11 of 36.
    assert shown["balanced accuracy"].startswith("0.61")
    assert shown["Cohen's kappa"].startswith("0.28")
    assert outline.plots == 4
    assert not any("_" in row[0] for row in outline.rows if row[0] != "head.hidden")
    assert ["head.hidden", "[256]"] in outline.rows
    assert ["threads", "null"] in outline.rows
    assert ["data.source", "<folder>"] in outline.rows
    confusions = outline.rows[outline.rows.index(["true class", "predicted class", "images", "of the class"]) + 1 :]
    assert confusions[0] == ["</script><b>bird", "dog & cat", "2", "3"]
    assert confusions[1] == ["dog & cat", "fish", "1", "2"]
    heads = ["class", "F1", "precision", "recall", "ROC-AUC", "average precision", "images"]
    classes = outline.rows[outline.rows.index(heads) + 1 :]
    # One of three images of the first class is right, and no other image is predicted as it: 2 * 1 * 1/3 / (1 + 1/3).
    # Its probability is 1, that of all other images is 0: (3 + 2 * 3 / 2) / 9, and (1 + 1/2 + 1/2) / 3.
    assert ["</script><b>bird", "0.50", "1.00", "0.33", "0.67", "0.67", "3"] in classes


def test_headline_has_accuracy_best_epoch_and_time(outline: Outline) -> None:
    # The last phase has one epoch, without a validation loss.
    (headline,) = [text for text in outline.texts if text.startswith("Accuracy 0.50 (95 % interval 0.")]
    assert headline.endswith("Training took 90.0 s.")


@pytest.mark.parametrize(
    ("phases", "losses", "best"),
    [
        ([1, 1, 1], [0.5, 0.4, 0.6], "Best epoch: 2 of 3."),
        # The best epoch of the first phase does not count: the network is that of the last phase.
        ([1, 1, 2, 2], [0.1, 0.2, 0.9, 0.8], "Best epoch: 4 of 4."),
        ([1, 1], [float("nan"), 0.3], "Best epoch: 2 of 2."),
        ([], [], "The network was not trained."),
    ],
)
def test_best_epoch_is_that_of_the_last_phase(phases: list[int], losses: list[float], best: str) -> None:
    history = pd.DataFrame({"epoch": range(len(phases)), "phase": phases, "val/loss": losses})
    assert best in result_in_words(Interval(estimate=0.5, low=0.4, high=0.6), 100, history, 3.0)


def test_wrong_images_and_grad_cam_are_shown(outline: Outline) -> None:
    assert "Wrong: 3 of 6 test images" in outline.headings and "Grad-CAM" in outline.headings
    shown = [Image.open(io.BytesIO(base64.b64decode(image.partition(",")[2]))) for image in outline.images]
    # The wrong images are 0, 1 and 4. Of the two with maps one is wrong, and has a map of its true class too.
    assert [np.asarray(image)[0, 0, 0] for image in shown] == [0, 10, 40] + [0] * 5
    assert "dog & cat\npredicted fish, 1.00\n5" in outline.texts


def test_settings_that_differ_from_the_defaults_come_first(outline: Outline) -> None:
    first = outline.rows[outline.rows.index(["setting", "value", "default"]) + 1 :]
    end = first.index(["setting", "value"])
    assert [row[0] for row in first[:end]] == ["regime", "head.hidden", "data.source"]
    assert len(first[end + 1 :]) == 4


def predictions_of(predicted: list[int]) -> Predictions:
    """Certain predictions of six images, two of each class."""
    return Predictions(
        keys=tuple("123456"),
        hashes=tuple("123456"),
        truth=np.array([0, 0, 1, 1, 2, 2]),
        probabilities=np.eye(3, dtype=np.float32)[predicted],
        classes=("bird", "dog", "fish"),
    )


def outline_of(folder: Path, predicted: list[int], **options: Any) -> Outline:
    """The page of a network that was not trained, with some predictions of its own."""
    path = folder / "run.html"
    write_run_page(
        path,
        title="run",
        history=pd.DataFrame(),
        train_seconds=0.0,
        predictions=predictions_of(predicted),
        image_of=lambda row: np.zeros((8, 8, 3), np.uint8),
        grad_cam=None,
        settings={},
        **options,
    )
    parser = Outline()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


def test_scores_with_test_time_augmentation_are_shown_beside_those_of_the_plain_images(tmp_path: Path) -> None:
    predicted, over_views = [0, 0, 1, 1, 2, 0], predictions_of([0, 1, 1, 0, 2, 0])
    heading = "With test-time augmentation"
    assert heading not in outline_of(tmp_path, predicted).headings
    shown = outline_of(tmp_path, predicted, over_views=over_views, views_per_image=12)
    assert heading in shown.headings
    table = shown.rows[shown.rows.index(["score", "mean over 12 views", "plain image", "difference"]) + 1 :]
    # 3 and 5 of 6 are right
    assert table[0][0] == "accuracy" and table[0][1].startswith("0.50 [")
    assert table[0][2:] == ["0.83", "\N{MINUS SIGN}0.33"]
    # the headline is still that of the plain images
    assert [text for text in shown.texts if text.startswith("Accuracy 0.83")]


def test_confusions_after_the_first_phase_are_shown_beside_those_of_the_trained_network(tmp_path: Path) -> None:
    right = [0, 0, 1, 1, 2, 2]
    both = outline_of(tmp_path, right, after_first_phase=predictions_of([0, 2, 1, 1, 2, 2]))
    assert "Confusion matrix after phase 1" in both.headings and both.plots == 4
    assert ["bird", "fish", "1", "2"] in both.rows
    alone = outline_of(tmp_path, right)
    assert "Confusion matrix after phase 1" not in alone.headings and alone.plots == 3


def test_class_name_cannot_end_a_script(page: str, outline: Outline) -> None:
    assert "</script><b>bird" not in page
    # Class names contain the end of a script, and must not end one.
    assert outline.scripts == page.count("</script>")
