"""One run on one page of HTML that needs no network: curves, confusions, classes, scores, settings."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from tandem.evaluation.metrics import confusion_matrix, per_class_table, scores
from tandem.evaluation.predictions import Predictions
from tandem.report.figures import confusion_heatmap, f1_bars, training_curves

LISTED = 15  # confusions and classes in the lists beside the figures

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1180px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; overflow-wrap: anywhere; } h2 { font-size: 1.2em; margin: 2em 0 .4em; }
table { border-collapse: collapse; margin: .5em 0; }
th, td { text-align: left; padding: .15em 1.2em .15em 0; border-bottom: 1px solid #ddd; overflow-wrap: anywhere; }
th { font-weight: 600; } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.side { display: flex; flex-wrap: wrap; gap: 1em 4em; } p { max-width: 75ch; }
.figure { overflow-x: auto; }
"""


def write_run_page(
    path: Path, *, title: str, history: pd.DataFrame, predictions: Predictions, settings: Mapping[str, Any]
) -> None:
    """Writes the page of a run.

    Args:
        path: of the HTML file, about 5 MB, most of it plotly.js.
        title: of the page.
        history: one row an epoch with the columns epoch (from 0), phase (from 1), train/loss, val/loss, train/accuracy,
            val/accuracy.
        predictions: of the trained network on the test images.
        settings: under dotted names.
    """
    result = scores(predictions)
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{len(predictions.keys):,} test images of {len(predictions.classes)} classes</p>",
        _table(("on the test images", ""), [(name, f"{value:.4f}") for name, value in result.items()]),
        "<h2>Training</h2>",
        _figure(training_curves(history)),
        "<h2>Confusion matrix</h2>",
        _figure(confusion_heatmap(predictions)),
        "<h2>F1 of each class</h2>",
        _figure(f1_bars(predictions)),
        '<div class="side">',
        f"<div><h2>Weakest classes</h2>{_weakest_classes(predictions)}</div>",
        f"<div><h2>Most frequent confusions</h2>{_confusions(predictions)}</div>",
        "</div>",
        "<h2>Settings</h2>",
        _table(("setting", "value"), [(name, _setting(value)) for name, value in settings.items()], numbers=False),
    ]
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n<script>{get_plotlyjs()}</script></head>\n<body>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _figure(figure: go.Figure) -> str:
    # Without plotly.js, which stands in the page's head once; some 5 MB each time otherwise.
    drawn = figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True})
    return f'<div class="figure">{drawn}</div>'


def _weakest_classes(predictions: Predictions) -> str:
    table = per_class_table(predictions).sort_values("f1", kind="stable").head(LISTED)
    rows = [
        (row["class"], f"{row['f1']:.4f}", f"{row['precision']:.4f}", f"{row['recall']:.4f}", str(row["support"]))
        for _, row in table.iterrows()
    ]
    return _table(("class", "F1", "precision", "recall", "images"), rows)


def _confusions(predictions: Predictions) -> str:
    counts = confusion_matrix(predictions).to_numpy(copy=True)
    support = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    rows = []
    for flat in np.argsort(-counts, axis=None, kind="stable")[:LISTED]:
        truth, predicted = np.unravel_index(flat, counts.shape)
        if count := counts[truth, predicted]:
            names = predictions.classes[truth], predictions.classes[predicted]
            rows.append((*names, f"{count} of {support[truth]}"))
    return _table(("true class", "taken for", "images"), rows, texts=2) if rows else "<p>None.</p>"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]], *, texts: int = 1, numbers: bool = True) -> str:
    def cells(tag: str, values: tuple[str, ...]) -> str:
        written = []
        for index, value in enumerate(values):
            kind = ' class="number"' if numbers and index >= texts else ""
            written.append(f"<{tag}{kind}>{html.escape(value)}</{tag}>")
        return f"<tr>{''.join(written)}</tr>"

    return "<table>" + cells("th", head) + "\n".join(cells("td", row) for row in rows) + "</table>"


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
