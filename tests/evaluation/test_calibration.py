"""A small part of benchmarks/calibration.py: intervals and tests keep their promises, and broken ones are noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.calibration import Promise, families, intervals, power
from benchmarks.made_test_sets import World
from tandem.evaluation import scored_rows, significance
from tandem.evaluation.contributions import Contributions
from tandem.evaluation.crossed import Side

SMALL_CLASSES = World(images=(5,) * 300, recall=0.7, recall_spread=0.15)
SEEDS = World(images=(200,) * 10, recall=0.9, deviation=0.02)
ROWS = World(images=(50,) * 10, recall=0.9)
SETS, FEWER_SETS = 300, 150


def share(promise: Promise) -> float:
    found = promise.summary()["share"]
    assert found is not None
    return found


def three_errors(of: float, sets: int) -> float:
    return 3 * (of * (1 - of) / sets) ** 0.5


def of_small_classes() -> dict[str, Promise]:
    return intervals(np.random.default_rng(0), SMALL_CLASSES, SETS, runs=1, scores=("f1_macro",))


def of_seeds(runs: int = 3, sets: int = SETS) -> dict[str, Promise]:
    return intervals(np.random.default_rng(0), SEEDS, sets, runs=runs, scores=("accuracy",))


def of_rows() -> dict[str, Promise]:
    random = np.random.default_rng(0)
    return families(random, ROWS, FEWER_SETS, gaps=(0.0,) * 8, runs=(1,) * 8, deviations=None)


@pytest.mark.long
def test_intervals_of_macro_f1_hold_the_truth_with_five_images_per_class() -> None:
    found = of_small_classes()
    for name in ("f1_macro", "f1_macro difference"):
        assert share(found[name]) >= 0.95 - three_errors(0.95, SETS), name
        width = found[name].summary()["width"]
        assert width is not None and width < 1.25, name


@pytest.mark.long
@pytest.mark.parametrize(("runs", "widest"), [(2, None), (3, 2.5), (10, 1.35)])
def test_intervals_over_seeds_hold_the_truth(runs: int, widest: float | None) -> None:
    found = of_seeds(runs)
    for name in ("accuracy", "accuracy difference"):
        assert share(found[name]) >= 0.95 - three_errors(0.95, SETS), name
        width = found[name].summary()["width"]
        assert widest is None or (width is not None and width < widest), name


@pytest.mark.long
def test_images_on_which_runs_differ_count_once() -> None:
    found = intervals(np.random.default_rng(0), ROWS, SETS, runs=6, scores=("accuracy",))["accuracy difference"]
    width = found.summary()["width"]
    assert width is not None and width < 1.35
    assert share(found) >= 0.95 - three_errors(0.95, SETS)


@pytest.mark.long
@pytest.mark.parametrize("runs", [1, 3])
def test_equal_rows_are_rarely_told_apart(runs: int) -> None:
    world = ROWS if runs == 1 else SEEDS
    found = families(np.random.default_rng(1), world, FEWER_SETS, gaps=(0.0,) * 8, runs=(runs,) * 8, deviations=None)
    assert share(found["any false difference"]) <= 0.05 + three_errors(0.05, FEWER_SETS)
    assert share(found["any false equivalence"]) <= 0.05 + three_errors(0.05, FEWER_SETS)


@pytest.mark.long
def test_rows_a_margin_apart_are_rarely_called_equivalent() -> None:
    world = World(images=(1000,) * 10, recall=0.9)
    found = families(np.random.default_rng(2), world, 40, gaps=(0.0, 0.01) * 2, runs=(1,) * 4, deviations=None)
    assert share(found["any false equivalence"]) <= 0.05 + three_errors(0.05, 40)
    # Rows that are equal are found to be equivalent now and then.
    assert share(found["pairs found equivalent"]) > 0


@pytest.mark.long
@pytest.mark.parametrize("runs", [1, 5])
def test_detectable_differences_are_found_in_four_of_five_test_sets(runs: int) -> None:
    found = power(np.random.default_rng(3), ROWS, 200, runs=runs, num_tests=1)
    assert share(found["found as said"]) == pytest.approx(0.8, abs=0.03 + three_errors(0.8, 200) / 1.5)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Breaks a method on purpose."""

    def break_it(what: str) -> None:
        if what == "spread of seeds left out":
            right = scored_rows.side_of_runs

            def without_spread(*arguments: object) -> Side:
                side = right(*arguments)  # type: ignore[arg-type]
                return replace(side, spread=np.zeros_like(side.spread), noise=np.zeros_like(side.noise))

            monkeypatch.setattr(scored_rows, "side_of_runs", without_spread)
        elif what == "variance over images left out":
            of_mean = scored_rows.mean_contributions

            def without_images(values: np.ndarray) -> Contributions:
                found = of_mean(values)
                return replace(found, images=0.1 * found.images)

            monkeypatch.setattr(scored_rows, "mean_contributions", without_images)
        elif what == "bias correction turned round":
            of_class = scored_rows.class_contributions

            def turned(*arguments: object) -> Contributions:
                found = of_class(*arguments)  # type: ignore[arg-type]
                return replace(found, bias=-found.bias)

            monkeypatch.setattr(scored_rows, "class_contributions", turned)
        else:
            assert what == "Holm's correction left out"
            monkeypatch.setattr(significance, "holm", lambda p_values: np.asarray(p_values))

    return break_it


@pytest.mark.long
@pytest.mark.parametrize(
    ("what", "simulate", "name"),
    [
        ("spread of seeds left out", of_seeds, "accuracy"),
        ("variance over images left out", lambda: of_seeds(runs=1), "accuracy difference"),
        ("bias correction turned round", of_small_classes, "f1_macro"),
    ],
)
def test_broken_interval_is_noticed(
    broken: Callable[[str], None], what: str, simulate: Callable[[], dict[str, Promise]], name: str
) -> None:
    broken(what)
    assert share(simulate()[name]) < 0.95 - three_errors(0.95, SETS)


@pytest.mark.long
def test_broken_correction_is_noticed(broken: Callable[[str], None]) -> None:
    broken("Holm's correction left out")
    assert share(of_rows()["any false difference"]) > 0.05 + three_errors(0.05, FEWER_SETS)
