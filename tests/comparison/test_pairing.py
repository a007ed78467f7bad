from __future__ import annotations

from collections.abc import Sequence

import pytest

from tandem.comparison.configurations import group_runs
from tandem.comparison.pairing import framework_pairs, scratch_pairs
from tandem.comparison.rows import Row
from tandem.tracking.reader import RunRecord
from tests.compared import MakeRun


def rows_of(runs: Sequence[RunRecord]) -> list[Row]:
    (group,), _ = group_runs(runs)
    return [Row(configuration=configuration) for configuration in group.configurations]


def test_framework_pair_is_keras_and_pytorch_with_the_same_settings(make_run: MakeRun) -> None:
    runs = [
        make_run("torch", "frozen"),
        make_run("keras", "frozen"),
        make_run("keras", "frozen", backend="jax"),
        make_run("torch", "finetune", params={"learning_rate": "0.01"}),
        make_run("keras", "finetune"),
    ]
    pairs = [
        (first.configuration.framework, second.configuration.framework)
        for first, second in framework_pairs(rows_of(runs))
    ]
    assert pairs == [("keras", "torch"), ("keras (jax)", "torch")]


def test_pytorch_on_the_same_hardware_is_preferred(make_run: MakeRun) -> None:
    gpu = {"tandem.hardware": "H200"}
    runs = [make_run("torch"), make_run("torch", tags=gpu), make_run("keras", tags=gpu)]
    ((keras, torch),) = framework_pairs(rows_of(runs))
    assert dict(torch.configuration.costs)["hardware"] == dict(keras.configuration.costs)["hardware"] == "H200"


def test_scratch_pair_has_the_same_backbone_framework_and_training_images(make_run: MakeRun) -> None:
    few, many = {"data.train_images_per_class": "10"}, {"data.train_images_per_class": "90"}
    runs = [
        make_run("torch", "scratch", 0.9, params=many),
        make_run("torch", "scratch", 0.3, params=few),
        make_run("torch", "scratch", 0.4, params=few | {"learning_rate": "0.1"}),
        make_run("keras", "scratch", 0.5, params=few),
        make_run("torch", "frozen", 0.7, params=few),
        make_run("torch", "frozen", 0.7, params=few | {"learning_rate": "0.5"}),
        make_run("torch", "frozen", 0.7, params=few | {"backbone": "resnet50"}),
    ]
    found = {
        tuple(dict(row.configuration.settings)["learning_rate"] for row in pair)
        for pair in scratch_pairs(rows_of(runs))
    }
    # The row with the same rate, or else the most accurate one.
    assert found == {("0.001", "0.001"), ("0.5", "0.1")}


@pytest.mark.parametrize("accuracies", [(0.3, 0.1 + 0.2), (0.1 + 0.2, 0.3)])
def test_scratch_pair_of_a_tie_is_the_first_whatever_the_last_bit(
    make_run: MakeRun, accuracies: tuple[float, float]
) -> None:
    runs = [
        make_run(regime="scratch", accuracy=accuracy, params={"learning_rate": rate})
        for rate, accuracy in zip(("0.1", "0.2"), accuracies, strict=True)
    ]
    ((_, scratch),) = scratch_pairs(rows_of([*runs, make_run(regime="frozen")]))
    assert dict(scratch.configuration.settings)["learning_rate"] == "0.1"


def test_network_off_the_shelf_has_no_scratch_pair(make_run: MakeRun) -> None:
    runs = [make_run(regime=regime) for regime in ("off_the_shelf", "scratch", "frozen")]
    assert [pretrained.label for pretrained, _ in scratch_pairs(rows_of(runs))] == ["frozen torch"]
