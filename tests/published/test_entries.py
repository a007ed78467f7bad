from __future__ import annotations

import math

import pytest

from tandem.published.documents import PublishedResult, read_document
from tandem.published.entries import Results, combined_difference, matching, published_results
from tandem.rendering.tables import Estimate
from tests.published.judged import entry, published


def test_published_numbers_count_as_they_are() -> None:
    results = published_results(read_document("imagenette"))
    scratch, frozen = results.of(regime="scratch")[0], results.of(regime="frozen")[0]
    difference = results.difference(frozen, scratch)
    assert difference is not None and difference.sure and difference.number == pytest.approx(0.91 - 0.73)
    same = results.difference(frozen, frozen)
    assert same is not None and not same.sure


def test_difference_of_equal_published_numbers_is_not_sure() -> None:
    results = published("imagenette", entry("a", accuracy=0.1 + 0.2), entry("b", accuracy=0.3))
    difference = results.difference(*results.entries)
    assert difference is not None and not difference.sure


def test_best_entry_of_a_tie_is_the_first_whatever_the_last_bit() -> None:
    for accuracies in ((0.3, 0.1 + 0.2), (0.1 + 0.2, 0.3)):
        results = published(
            "imagenette", *(entry(name, accuracy=one) for name, one in zip("ab", accuracies, strict=True))
        )
        best = results.best()
        assert best is not None and best.backbone == "a"


@pytest.mark.parametrize(
    ("wanted", "matched"),
    [
        ({"data": "x", "regime": "frozen"}, ["x frozen torch", "x frozen keras (jax)"]),
        ({"data": "x", "regime": "frozen", "framework": "keras"}, ["x frozen keras (jax)"]),
        ({"regime": "frozen"}, ["x frozen torch", "x frozen keras (jax)", "y frozen torch"]),
        ({"data": "y"}, ["y frozen torch"]),
        ({"data": "z"}, []),
    ],
)
def test_entries_match_in_everything_that_a_result_names(wanted: dict[str, str], matched: list[str]) -> None:
    ours: Results = published(
        "imagenette",
        *(
            entry("vgg16", "frozen", data=data, framework=framework, name=f"{data} frozen {framework}")
            for data, framework in (("x", "torch"), ("x", "keras (jax)"), ("y", "torch"))
        ),
        entry("vgg19", "frozen", data="x", name="another backbone"),
    )
    assert [one.name for one in matching(PublishedResult(backbone="vgg16", **wanted), ours)] == matched


def test_intervals_of_independent_scores_combine_as_a_hypotenuse() -> None:
    first, second = Estimate(value=0.9, low=0.87, high=0.92), Estimate(value=0.8, low=0.79, high=0.84)
    difference = combined_difference(first, second)
    assert isinstance(difference.value, Estimate)
    assert difference.number == pytest.approx(0.1)
    assert difference.value.low == pytest.approx(0.1 - 0.05)  # 3-4-5
    assert difference.value.high == pytest.approx(0.1 + math.sqrt(0.02**2 + 0.01**2))
    assert difference.sure
    assert not combined_difference(first, Estimate(value=0.88, low=0.79, high=0.9)).sure
