from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tandem.comparison.drawing as module
from tandem.comparison.comparison import Comparison, compare_runs
from tandem.comparison.drawing import draw_comparison
from tandem.errors import UserError
from tests.compared import MakeRun


@pytest.fixture
def comparison(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> Comparison:
    """Two rows without curves, and no MLflow."""
    monkeypatch.setattr(module, "read_histories", lambda configurations: {})
    monkeypatch.setattr(module, "record_comparison", lambda runs, experiment, page: f"{experiment}/{page.name}")
    return compare_runs([make_run("torch"), make_run("keras")])


def draw(comparison: Comparison, folder: Path, **asked: Any) -> None:
    defaults = {"page": None, "figures": folder / "figures", "kind": None}
    draw_comparison(comparison, [], experiment="demo", folder=folder, **{**defaults, **asked})


def test_page_is_written_and_logged(comparison: Comparison, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(comparison, tmp_path, page=tmp_path / "new" / "page.html")
    assert "<h1>Comparison: demo</h1>" in (tmp_path / "new" / "page.html").read_text()
    written, logged = capsys.readouterr().out.splitlines()
    assert written.startswith(f"Written to {tmp_path}/new/page.html (") and written.endswith(" MB)")
    assert logged == "Logged to the experiment demo as the run demo/page.html"
    assert not (tmp_path / "figures").exists()


def test_figures_are_written_in_the_format(
    comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple] = []

    def write_figures(figures: dict, folder: Path, formats: tuple) -> list[Path]:
        asked.append((list(figures), folder, formats))
        return [folder / "accuracy_time.svg"]

    monkeypatch.setattr(module, "write_figures", write_figures)
    draw(comparison, tmp_path, kind="svg")
    assert asked == [(["accuracy", "accuracy_time"], tmp_path / "figures", ("svg",))]
    assert capsys.readouterr().out == f"Written to {tmp_path}/figures/ (1 figure)\n"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("page", r"cannot write the page to .*page\.html: .*choose another --html"),
        ("figures", r"cannot write the figures to .*figures: .*choose another --output"),
    ],
)
def test_failure_to_write_names_the_option(comparison: Comparison, tmp_path: Path, asked: str, message: str) -> None:
    (tmp_path / "taken").write_text("a file")
    paths = {
        "page": {"page": tmp_path / "taken" / "page.html"},
        "figures": {"figures": tmp_path / "taken" / "figures", "kind": "svg"},
    }
    with pytest.raises(UserError, match=message):
        draw(comparison, tmp_path, **paths[asked])
