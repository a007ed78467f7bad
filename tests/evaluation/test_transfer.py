from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from tandem.evaluation.predictions import Predictions, softmax
from tandem.evaluation.transfer import compare_with_scratch, fewest_images_for_flag

MakeRun = Callable[..., Predictions]


def weaken(run: Predictions, name: str) -> Predictions:
    """The run as if it hardly knew a class."""
    index = run.classes.index(name)
    logits = np.log(run.probabilities.astype(np.float64))
    logits[run.truth == index, index] -= 4
    return replace(run, probabilities=softmax(logits))


def take(run: Predictions, kept: np.ndarray) -> Predictions:
    return replace(
        run,
        keys=tuple(run.keys[row] for row in kept),
        hashes=tuple(run.hashes[row] for row in kept),
        truth=run.truth[kept],
        probabilities=run.probabilities[kept],
    )


def test_classes_that_pretraining_made_worse_are_found(make_run: MakeRun) -> None:
    scratch = make_run(0, images=600)
    transfer = compare_with_scratch([weaken(make_run(1, images=600), "class 2")], [scratch])
    worst = transfer.classes[0]
    assert worst.name == "class 2"
    assert [one.name for one in transfer.classes if one.worse] == ["class 2"]
    assert not any(one.better for one in transfer.classes)
    assert worst.recall.high is not None and worst.recall.high < 0
    assert worst.f1.high is not None and worst.f1.high < 0
    assert transfer.negative
    back = compare_with_scratch([scratch], [weaken(make_run(1, images=600), "class 2")])
    assert [one.name for one in back.classes if one.better] == ["class 2"]
    assert not back.negative
    assert back.accuracy.difference.estimate == pytest.approx(-transfer.accuracy.difference.estimate)


def test_class_differences_and_tests_agree_with_other_implementations(make_run: MakeRun) -> None:
    pretrained, scratch = make_run(1, images=300, skill=2.6), make_run(0, images=300)
    transfer = compare_with_scratch([pretrained], [scratch])
    by_name = {one.name: one for one in transfer.classes}
    of_both = [
        sklearn_metrics.precision_recall_fscore_support(run.truth, run.predicted, zero_division=0)
        for run in (pretrained, scratch)
    ]
    p_values = []
    for index, name in enumerate(pretrained.classes):
        own = pretrained.truth == index
        first, second = pretrained.predicted[own] == index, scratch.predicted[own] == index
        table = [[0, (first & ~second).sum()], [(~first & second).sum(), 0]]
        p_values.append(mcnemar(table, exact=False, correction=False).pvalue)
        found = by_name[name]
        assert found.support == own.sum()
        assert found.recall.estimate == pytest.approx(of_both[0][1][index] - of_both[1][1][index])
        assert found.f1.estimate == pytest.approx(of_both[0][2][index] - of_both[1][2][index])
        # The normal interval of the paired difference.
        difference = first.astype(float) - second
        half = 1.96 * difference.std() / len(difference) ** 0.5
        assert found.recall.low is not None and found.recall.high is not None
        assert found.recall.high - found.recall.low == pytest.approx(2 * half, rel=0.15, abs=0.03)
    corrected = multipletests(p_values, method="holm")[1]
    assert [by_name[name].p_value for name in pretrained.classes] == pytest.approx(p_values)
    assert [by_name[name].p_holm for name in pretrained.classes] == pytest.approx(corrected.tolist())


def test_classes_stand_from_the_largest_loss_to_the_largest_gain(make_run: MakeRun) -> None:
    transfer = compare_with_scratch([make_run(1)], [make_run(0)])
    differences = [one.recall.estimate for one in transfer.classes]
    assert differences == sorted(differences)
    assert differences[0] < 0 < differences[-1]


def test_identical_runs_differ_in_no_class(make_run: MakeRun) -> None:
    transfer = compare_with_scratch([make_run(0)], [make_run(0)])
    assert not transfer.negative
    assert len(transfer.classes) == 6
    for one in transfer.classes:
        assert (one.p_value, one.p_holm, one.worse, one.better) == (1, 1, False, False)
        assert (one.recall.estimate, one.f1.estimate) == (0, 0)
        assert one.recall.low is not None and one.recall.low < 0


def test_class_without_test_images_is_left_out(make_run: MakeRun) -> None:
    runs = [take(run, np.flatnonzero(run.truth != 3)) for run in (make_run(0), make_run(1))]
    names = {one.name for one in compare_with_scratch(runs[:1], runs[1:]).classes}
    assert names == {"class 0", "class 1", "class 2", "class 4", "class 5"}


def test_small_class_has_no_interval_of_f1(make_run: MakeRun) -> None:
    runs = []
    for run in (make_run(0), make_run(1)):
        of_class = np.flatnonzero(run.truth == 3)
        runs.append(take(run, np.concatenate([np.flatnonzero(run.truth != 3), of_class[:5]])))
    by_name = {one.name: one for one in compare_with_scratch(runs[:1], runs[1:]).classes}
    assert by_name["class 3"].f1.why_not == "fewer than 10 test images"
    assert by_name["class 3"].f1.low is None
    assert by_name["class 3"].recall.low is not None
    assert by_name["class 0"].f1.low is not None


def test_rows_of_several_runs_are_compared_by_their_means(make_run: MakeRun) -> None:
    pretrained = [weaken(make_run(seed, images=600), "class 2") for seed in range(3)]
    scratch = [make_run(10 + seed, images=600) for seed in range(3)]
    transfer = compare_with_scratch(pretrained, scratch)
    recalls = [np.mean([np.mean(run.predicted[run.truth == 2] == 2) for run in cell]) for cell in (pretrained, scratch)]
    assert transfer.classes[0].recall.estimate == pytest.approx(recalls[0] - recalls[1])
    assert [one.name for one in transfer.classes if one.worse] == ["class 2"]
    # Three seeds that disagree about a class show less than one would seem to.
    alone = compare_with_scratch(pretrained[:1], scratch[:1]).classes
    by_name = {one.name: one for one in transfer.classes}
    assert any(one.p_value < by_name[one.name].p_value for one in alone)


@pytest.mark.parametrize(("classes", "images"), [(1, 4), (2, 6), (10, 8), (100, 13), (1000, 17)])
def test_fewest_images_for_a_flag(classes: int, images: int) -> None:
    assert fewest_images_for_flag(classes) == images
    for number, possible in ((images, True), (images - 1, False)):
        p_value = mcnemar([[0, number], [0, 0]], exact=False, correction=False).pvalue
        assert (p_value * classes < 0.05) == possible
