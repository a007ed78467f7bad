"""Fixtures of comparisons."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tandem.comparison.comparison import Comparison, compare_runs
from tandem.comparison.predictions import SavedPredictions
from tests.compared import MakePredictions, MakeRun, right


@pytest.fixture
def compared(make_run: MakeRun, make_predictions: MakePredictions) -> Callable[..., Comparison]:
    def run(outcomes: dict[tuple[str, str], list[bool]], without: Sequence[tuple[str, str]] = ()) -> Comparison:
        records = {
            key: make_run(
                *key,
                float(np.mean(outcome)),
                metrics={"phase_1/test/accuracy": 0.5, "phase_1/test/f1_macro": 0.5, "phase_1/cost/train_seconds": 20.0}
                if key[1] == "two_stage"
                else {},
            )
            for key, outcome in outcomes.items()
        }
        final = {records[key].run_id: make_predictions(outcomes[key]) for key in outcomes if key not in without}
        first = {records[key].run_id: make_predictions(right(0.5)) for key in outcomes if key[1] == "two_stage"}

        def read(_: object) -> SavedPredictions:
            return SavedPredictions(final=final, first_phase=first, notes=("a note",))

        return compare_runs(list(records.values()), read)

    return run
