"""Shorthands for tests of claims."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tandem.comparison.comparison import compare_runs
from tandem.comparison.predictions import SavedPredictions
from tandem.evaluation.predictions import Predictions
from tandem.published.claims import CLAIMS, claims_table
from tandem.published.documents import read_document
from tandem.published.entries import Entry, Results, published_results
from tandem.published.judging import Judgement
from tandem.published.ours import our_results
from tandem.tracking.reader import RunRecord
from tests.compared import rows_of

HOLDS, FAILS, OPEN = "holds", "does not hold", "can't tell"


def claims_of(
    name: str, runs: Sequence[RunRecord] = (), final: Mapping[str, Predictions] | None = None
) -> list[dict[str, Any]]:
    """The claims of a document, judged on its numbers and on runs with saved predictions, by run id."""
    document = read_document(name)
    groups = compare_runs(runs, lambda _: SavedPredictions(final=dict(final or {}))).groups
    return rows_of(claims_table(published_results(document), our_results(document, groups)))


def documented(name: str, backbone: str, regime: str, data: str | None = None, **params: str) -> dict[str, str]:
    """Parameters of a run that did what a document did: on as many images, with the settings that are known of it.

    Args:
        name: Of the document.
        backbone: Of the run.
        regime: Of the run.
        data: One of our names of its data sets, if it has several.
        params: More parameters, or others.
    """
    document = read_document(name)
    facts = document.facts[document.data_of(data) if data else (document.data_sets or (None,))[0]]
    images = facts.images[0]
    test = facts.test or images // 5
    val = facts.val or images // 10
    settings = document.settings_of(backbone, regime)
    return {
        "backbone": backbone,
        "num_classes": str(facts.classes[0]),
        "num_train_images": str(images - val - test),
        "num_val_images": str(val),
        "num_test_images": str(test),
        **{name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()},
        **params,
    }


def claim(name: str, start: str) -> Callable[[Results], Judgement]:
    """Judges the claim of a document that starts with these words."""
    (found,) = [one for one in CLAIMS[name] if one.words.startswith(start)]
    return found.judge


def published(name: str, *entries: Entry) -> Results:
    """Entries that count as they are, as if the document had published them."""
    return replace(published_results(read_document(name)), entries=entries)


def entry(backbone: str, regime: str | None = "scratch", **values: Any) -> Entry:
    return Entry(**{"data": "a data set", "framework": "torch", "backbone": backbone, "regime": regime, **values})
