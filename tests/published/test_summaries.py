from __future__ import annotations

import numpy as np
import pytest

from tandem.published.documents import read_document
from tandem.published.entries import Entry, Results, published_results
from tandem.published.summaries import backbones_with_mean, best_accuracy, mean_accuracy, transfer_mark, transfer_pairs
from tandem.rendering.tables import Estimate
from tests.published.judged import entry, published
from tests.published.numbers import DATA_SETS, FROZEN


def estimate(value: float, half: float) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


def on_all_data_sets(backbone: str, accuracy: object, **values: object) -> list[Entry]:
    return [entry(backbone, "frozen", data=data, accuracy=accuracy, **values) for data in DATA_SETS]


def test_mean_accuracy_is_over_backbones_and_data_sets() -> None:
    results = published_results(read_document("eight_datasets"))
    mean = mean_accuracy(results, ("densenet121", "densenet161"), regime="frozen", framework=None)
    assert mean == pytest.approx(np.mean([FROZEN["densenet121"], FROZEN["densenet161"]]))
    assert mean_accuracy(results, ("densenet121", "unknown"), regime="frozen", framework=None) is None


def test_intervals_shrink_over_data_sets_and_not_over_backbones() -> None:
    entries = [*on_all_data_sets("a", estimate(0.8, 0.02)), *on_all_data_sets("b", estimate(0.9, 0.04))]
    mean = mean_accuracy(published("eight_datasets", *entries), ("a", "b"), regime="frozen", framework="torch")
    assert isinstance(mean, Estimate) and mean.value == pytest.approx(0.85)
    # The two backbones average to 0.03 on each data set; eight data sets shrink that by the root of 8.
    assert (mean.low, mean.high) == pytest.approx((0.85 - 0.03 / np.sqrt(8), 0.85 + 0.03 / np.sqrt(8)))


def test_backbone_with_the_stated_mean_is_found() -> None:
    results = published_results(read_document("eight_datasets"))
    resnets = ("resnet50", "resnet101", "resnet152")
    assert backbones_with_mean(results, resnets, 0.8619, regime="frozen") == ["resnet152"]


def test_best_settings_have_results_on_all_test_images() -> None:
    def one(rate: str, fold: str, accuracy: float) -> Entry:
        return entry("a", accuracy=accuracy, test_set=fold, settings=(("learning_rate", rate),))

    folds = [one("1", "x", 0.9), one("1", "y", 0.7), one("2", "x", 0.6), one("2", "y", 0.8)]
    assert best_accuracy(folds) == pytest.approx(0.8)
    assert best_accuracy([*folds, one("3", "x", 0.99)]) == pytest.approx(0.8)
    assert best_accuracy([one("1", "x", 0.9), one("2", "y", 0.7)]) is None


def pairs_of(*scratch: Entry) -> list[tuple[Entry, Entry]]:
    frozen = entry("vgg16", "frozen", data="MNIST", accuracy=0.9, settings=(("learning_rate", "1"),))
    return transfer_pairs(published("eight_datasets", frozen, *scratch))


def test_pair_has_the_same_settings_or_else_the_most_accurate_entry_from_scratch() -> None:
    def scratch(rate: str, accuracy: float) -> Entry:
        return entry("vgg16", "scratch", data="MNIST", accuracy=accuracy, settings=(("learning_rate", rate),))

    same, better, worse = scratch("1", 0.1), scratch("2", 0.8), scratch("3", 0.7)
    assert pairs_of(worse, better, same)[0][0] is same
    assert pairs_of(worse, better)[0][0] is better
    # Of equal accuracies the first counts, whatever their last bit.
    ties = scratch("2", 0.3), scratch("3", 0.1 + 0.2)
    assert pairs_of(*ties)[0][0] is ties[0]
    assert pairs_of(*reversed(ties))[0][0] is ties[1]


@pytest.mark.parametrize(
    ("scratch", "mark"), [(0.5, "positive"), (0.1 + 0.2, "tie"), (0.3, "tie"), (0.2, "positive"), (0.31, "negative")]
)
def test_published_tie_is_a_difference_of_zero(scratch: float, mark: str) -> None:
    frozen = 0.3 if scratch < 0.5 else 0.6
    results: Results = published("eight_datasets", entry("a", accuracy=scratch), entry("a", "frozen", accuracy=frozen))
    assert transfer_mark(results, *results.entries) == mark
