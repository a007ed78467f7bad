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


REGIMES = ("scratch", "frozen", "two_stage", "finetune")
FILES = {"torch": "/w/mobilenet.pth", "keras": "/w/mobilenet.weights.h5"}


def from_files(make_run: MakeRun, regimes: Sequence[str] = REGIMES) -> list[RunRecord]:
    """Runs of both frameworks, each from a file of its own framework."""
    return [
        make_run(framework, regime, params={"weights": file}, tags={"tandem.weights_origin": f"sha256:{framework}"})
        for regime in regimes
        for framework, file in FILES.items()
    ]


def regimes_of_pairs(runs: Sequence[RunRecord]) -> list[str]:
    return [keras.configuration.regime for keras, _ in framework_pairs(rows_of(runs))]


@pytest.mark.parametrize("framework", ["torch", "keras"])
@pytest.mark.parametrize("regime", ["off_the_shelf", *REGIMES])
def test_run_of_any_regime_from_another_file_removes_no_pair(make_run: MakeRun, framework: str, regime: str) -> None:
    """Such as off_the_shelf, which needs a file with a head, or one more seed from a new download."""
    runs = from_files(make_run)
    more = make_run(
        framework,
        regime,
        seed=1,
        params={"weights": "/w/with_head.bin"},
        tags={"tandem.weights_origin": "sha256:other"},
    )
    assert regimes_of_pairs(runs) == list(REGIMES)
    assert set(regimes_of_pairs([*runs, more])) == set(REGIMES)


def test_row_is_compared_with_each_file_of_the_other_framework(make_run: MakeRun) -> None:
    """Nothing says which of the two belongs to the file of Keras."""
    runs = from_files(make_run, ["finetune"])
    more = make_run(params={"weights": "/w/newer.pth"}, tags={"tandem.weights_origin": "sha256:newer"})
    pairs = framework_pairs(rows_of([*runs, more]))
    weights = [tuple(dict(row.configuration.settings)["weights"] for row in pair) for pair in pairs]
    assert weights == [("a file", "mobilenet.pth"), ("a file", "newer.pth")]


def test_several_files_of_both_frameworks_are_not_paired(make_run: MakeRun) -> None:
    more = [
        make_run(framework, params={"weights": f"/w/newer.{framework}"}, tags={"tandem.weights_origin": framework})
        for framework in ("torch", "keras")
    ]
    assert framework_pairs(rows_of([*from_files(make_run, ["finetune"]), *more])) == []


@pytest.mark.parametrize(
    "params",
    [
        {"learning_rate": "0.1"},
        {"data.image_size": "64"},
        {"batch_size": "16"},
        {"cache_features": "false"},
        {"precision": "bfloat16"},
        {"a setting of a later version": "1"},
    ],
)
def test_run_with_another_setting_removes_no_pair(make_run: MakeRun, params: dict[str, str]) -> None:
    runs = [*from_files(make_run), make_run("torch", "frozen", params={"weights": FILES["torch"], **params})]
    assert set(regimes_of_pairs(runs)) == set(REGIMES)


@pytest.mark.parametrize("known", [True, False])
def test_two_seeds_of_a_source_run_are_one_row_and_keep_the_pairs(make_run: MakeRun, known: bool) -> None:
    """With sources of this experiment each target run counts; of unknown sources the rows keep their names."""
    source = {"tandem.test_hash": "source", "tandem.data": "digits 0-4"}
    runs: list[RunRecord] = []
    for framework in ("torch", "keras"):
        for seed in (0, 1):
            pretrained = make_run(framework, "scratch", seed=seed, tags=source)
            runs += [pretrained] if known else []
            for regime in ("frozen", "finetune"):
                runs.append(make_run(framework, regime, seed=seed, params={"weights": f"runs:/{pretrained.run_id}"}))
            if known:  # the same seed again, from another network
                runs.append(make_run(framework, "frozen", params={"weights": f"runs:/{pretrained.run_id}"}))
    groups, _ = group_runs(runs)
    configurations = groups[0].configurations
    rows = [Row(configuration=one) for one in configurations]
    if known:
        assert [(one.regime, one.framework, len(one.runs)) for one in configurations] == [
            *(("frozen", "torch", 3), ("frozen", "keras", 3)),
            *(("finetune", "torch", 2), ("finetune", "keras", 2)),
        ]
        assert len(framework_pairs(rows)) == 2
    else:
        assert len(configurations) == 8 and framework_pairs(rows) == []


def test_one_more_seed_of_an_unknown_source_keeps_the_pairs_of_other_regimes(make_run: MakeRun) -> None:
    runs = [
        make_run(framework, regime, params={"weights": f"runs:/{framework}"})
        for framework in ("torch", "keras")
        for regime in ("frozen", "finetune", "two_stage")
    ]
    assert regimes_of_pairs(runs) == ["frozen", "two_stage", "finetune"]
    more = make_run("torch", "frozen", params={"weights": "runs:/torch1"})
    assert sorted(set(regimes_of_pairs([*runs, more]))) == ["finetune", "frozen", "two_stage"]


def test_order_of_the_classes_removes_no_pair(make_run: MakeRun) -> None:
    orders = {"torch": '["a", "b"]', "keras": '["b", "a"]'}
    runs = [make_run(framework, params={"data.classes": order}) for framework, order in orders.items()]
    rows = rows_of(runs)
    assert [row.label for row in rows] == [
        "finetune torch (data.classes order 1)",
        "finetune keras (data.classes order 2)",
    ]
    assert len(framework_pairs(rows)) == 1


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
