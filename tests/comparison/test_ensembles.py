from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from sklearn.metrics import log_loss

from tandem.comparison.comparison import GroupComparison, compare_runs
from tandem.comparison.predictions import SavedPredictions
from tandem.rendering.tables import Estimate
from tests.compared import MakePredictions, MakeRun, right_images, rows_of

IMAGES = 300
right = partial(right_images, images=IMAGES)

# Each image is wrong in one of the three, so that two are right about it.
COMPLEMENTARY = (right(0.7, 0), right(0.7, 100), right(0.7, 200))

Compare = Callable[..., GroupComparison]


@pytest.fixture
def compared(make_run: MakeRun, make_predictions: MakePredictions) -> Compare:
    """Compares runs, each with its framework, regime, right images and other values."""

    def run(*made: tuple[str, str, Sequence[bool], dict[str, Any]]) -> GroupComparison:
        records, saved = [], SavedPredictions()
        for framework, regime, outcome, values in made:
            metrics = {"cost/train_seconds": 10.0}
            one = make_run(framework, regime, sum(outcome) / IMAGES, **{"metrics": metrics, **values})
            records.append(one)
            saved.final[one.run_id] = make_predictions(outcome)
        (group,) = compare_runs(records, lambda _: saved).groups
        return group

    return run


def seeds(framework: str, regime: str) -> list[tuple[str, str, Sequence[bool], dict[str, Any]]]:
    return [(framework, regime, outcome, {"seed": seed}) for seed, outcome in enumerate(COMPLEMENTARY)]


def test_seeds_of_a_row_are_right_together_where_two_of_three_are(compared: Compare) -> None:
    group = compared(*seeds("torch", "finetune"), ("torch", "scratch", right(0.2), {}))
    found = {row["ensemble"]: row for row in rows_of(group.tables["ensembles"])}
    assert list(found) == ["all runs", "runs of finetune torch"]
    together = found["runs of finetune torch"]
    assert isinstance(together["accuracy"], Estimate) and together["accuracy"].value == 1.0
    assert together["networks"] == 3 and together["best"] == "finetune torch"
    assert together["accuracy_best"].value == pytest.approx(0.7)
    assert together["accuracy_difference"].value == pytest.approx(0.3) and together["p_value_holm"] < 0.05
    assert together["train_seconds"] == 30.0
    assert found["all runs"]["networks"] == 4 and found["all runs"]["train_seconds"] == 40.0


def test_pair_of_frameworks_is_an_ensemble(compared: Compare, make_predictions: MakePredictions) -> None:
    """A tie of two networks, each with 0.9 for its class, goes to the class that comes first."""
    group = compared(
        ("torch", "finetune", right(0.9), {}),
        ("keras", "finetune", right(0.9, 30), {}),
        ("torch", "scratch", right(0.5), {}),
    )
    (all_runs, pair) = rows_of(group.tables["ensembles"])
    assert pair["ensemble"] == "finetune torch and finetune keras" and pair["networks"] == 2
    assert all_runs["networks"] == 3
    members = [make_predictions(right(0.9, start)) for start in (0, 30)]
    mean = (members[0].probabilities + members[1].probabilities) / 2
    expected = log_loss(members[0].truth, mean.astype(float), labels=range(4))
    value = pair["log_loss"].value if isinstance(pair["log_loss"], Estimate) else pair["log_loss"]
    assert value == pytest.approx(expected, rel=1e-5)


def test_same_runs_are_one_ensemble(compared: Compare) -> None:
    group = compared(("torch", "finetune", right(0.9), {}), ("keras", "finetune", right(0.8), {}))
    assert [row["ensemble"] for row in rows_of(group.tables["ensembles"])] == ["all runs"]


def test_one_run_is_no_ensemble(compared: Compare) -> None:
    assert "ensembles" not in compared(("torch", "finetune", right(0.9), {})).tables


def test_training_on_unlike_machines_is_not_added_up(compared: Compare) -> None:
    group = compared(
        ("torch", "finetune", right(0.9), {}), ("torch", "scratch", right(0.8), {"tags": {"tandem.hardware": "H200"}})
    )
    (row,) = rows_of(group.tables["ensembles"])
    assert row["train_seconds"] is None


def test_ensemble_that_beats_the_best_row_is_recommended(compared: Compare) -> None:
    (sentence,) = [one for one in compared(*seeds("torch", "finetune")).recommendation if "ensemble" in one]
    assert sentence.startswith(
        "An ensemble of all runs (3 networks, mean probabilities) is significantly more accurate than finetune torch "
        "(+0.300, 95 % interval "
    )


def test_ensemble_that_may_be_better_by_chance_is_not_recommended(compared: Compare) -> None:
    group = compared(("torch", "finetune", right(0.9), {}), ("torch", "scratch", right(0.897), {}))
    assert not [one for one in group.recommendation if "ensemble" in one]
