from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tandem.evaluation.predictions import Predictions
from tandem.recording.page import write_run_page

CLASSES = ("</script><b>bird", "dog & cat", "fish")


class Outline(HTMLParser):
    """Cells of the tables, number of scripts, and addresses that the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.headings: list[str] = []
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
            value or "" for name, value in attributes if name in ("src", "href") and (value or "")[:1] != "#"
        ]

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("strong", "u", "span"):
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("td", "th"):
            self.rows[-1][-1] += data
        elif self._inside in ("h1", "h2"):
            self.headings.append(data)


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
    settings = {"regime": "two_stage", "head.hidden": [256], "threads": None, "data.source": "<folder>"}
    write_run_page(path, title="my <run>", history=history, predictions=predictions, settings=settings)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    return parser


def test_page_loads_nothing_and_holds_plotly_once(page: str, outline: Outline) -> None:
    assert outline.loads == []
    assert outline.plots == 3
    assert len(re.findall(r"plotly\.js v\d", page)) == 1
    assert len(page) < 6_000_000


def test_page_shows_scores_confusions_and_settings(outline: Outline) -> None:
    assert outline.headings[0] == "my <run>"
    assert ["accuracy", "0.5000"] in outline.rows
    assert ["head.hidden", "[256]"] in outline.rows
    assert ["threads", "null"] in outline.rows
    assert ["data.source", "<folder>"] in outline.rows
    confusions = outline.rows[outline.rows.index(["true class", "predicted class", "images", "of the class"]) + 1 :]
    assert confusions[0] == ["</script><b>bird", "dog & cat", "2", "3"]
    assert confusions[1] == ["dog & cat", "fish", "1", "2"]
    classes = outline.rows[outline.rows.index(["class", "F1", "precision", "recall", "images"]) + 1 :]
    # One of three images of the first class is right, and no other image is predicted as it: 2 * 1 * 1/3 / (1 + 1/3).
    assert ["</script><b>bird", "0.5000", "1.0000", "0.3333", "3"] in classes


def test_confusions_after_the_first_phase_are_shown_beside_those_of_the_trained_network(tmp_path: Path) -> None:
    def outline_of(after_first_phase: Predictions | None) -> Outline:
        path = tmp_path / "run.html"
        write_run_page(
            path,
            title="run",
            history=pd.DataFrame(),
            predictions=predictions_of([0, 0, 1, 1, 2, 2]),
            after_first_phase=after_first_phase,
            settings={},
        )
        parser = Outline()
        parser.feed(path.read_text(encoding="utf-8"))
        return parser

    def predictions_of(predicted: list[int]) -> Predictions:
        return Predictions(
            keys=tuple("123456"),
            hashes=tuple("123456"),
            truth=np.array([0, 0, 1, 1, 2, 2]),
            probabilities=np.eye(3, dtype=np.float32)[predicted],
            classes=("bird", "dog", "fish"),
        )

    both = outline_of(predictions_of([0, 2, 1, 1, 2, 2]))
    assert "Confusion matrix after phase 1" in both.headings and both.plots == 3
    assert ["bird", "fish", "1", "2"] in both.rows
    alone = outline_of(None)
    assert "Confusion matrix after phase 1" not in alone.headings and alone.plots == 2


def test_class_name_cannot_end_a_script(page: str, outline: Outline) -> None:
    assert "</script><b>bird" not in page
    # Class names contain the end of a script, and must not end one.
    assert outline.scripts == page.count("</script>")
