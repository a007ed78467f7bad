from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest

from tandem.comparison.cells import began_at_random, family_of, group_runs, partners, scratch_partners
from tandem.protocol.settings import FIELDS
from tandem.tracking.reader import RunRecord

MakeRun = Callable[..., RunRecord]


def test_label_has_the_backbone_only_where_there_are_several(make_run: MakeRun) -> None:
    (one,), _ = group_runs([make_run("torch"), make_run("keras")])
    assert [cell.label for cell in one.cells] == ["finetune torch", "finetune keras"]
    (two,), _ = group_runs([make_run(), make_run(params={"backbone": "resnet50"})])
    assert [cell.label for cell in two.cells] == ["mobilenet_v2 finetune torch", "resnet50 finetune torch"]


def test_label_names_the_settings_that_differ(make_run: MakeRun) -> None:
    runs = [make_run(params={"learning_rate": "0.01"}), make_run(tags={"tandem.hardware": "H200"})]
    (group,), _ = group_runs(runs)
    assert [cell.label for cell in group.cells] == [
        "finetune torch (learning_rate 0.001, hardware H200)",
        "finetune torch (learning_rate 0.01, hardware 2 cores)",
    ]


def test_runs_of_a_cell_are_in_the_order_of_their_seeds(make_run: MakeRun) -> None:
    (group,), _ = group_runs([make_run(seed=seed) for seed in (10, 0, 9)])
    assert [run.params["seed"] for run in group.cells[0].runs] == ["0", "9", "10"]


def test_groups_of_the_same_data_have_names_of_their_own(make_run: MakeRun) -> None:
    runs = [make_run(tags={"tandem.test_hash": name}) for name in ("a", "b", "c")]
    groups, _ = group_runs(runs)
    assert [group.name for group in groups] == ["digits 5-9", "digits 5-9 (2)", "digits 5-9 (3)"]


def test_folds_are_named(make_run: MakeRun) -> None:
    runs = [
        make_run(tags={"tandem.test_hash": fold}, params={"data.split": "folds", "data.fold": fold}) for fold in "01"
    ]
    groups, _ = group_runs(runs)
    assert {group.name for group in groups} == {"digits 5-9, fold 0", "digits 5-9, fold 1"}


def test_frameworks_on_the_same_hardware_are_preferred_partners(make_run: MakeRun) -> None:
    gpu = {"tandem.hardware": "H200"}
    (group,), _ = group_runs([make_run("torch"), make_run("torch", tags=gpu), make_run("keras", tags=gpu)])
    ((torch, keras),) = partners(group.cells)
    assert torch.costs == keras.costs


def test_scratch_partner_has_the_same_backbone_framework_and_training_images(make_run: MakeRun) -> None:
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
    (group,), _ = group_runs(runs)
    found = {
        (dict(pretrained.settings)["learning_rate"], dict(scratch.settings)["learning_rate"])
        for pretrained, scratch in scratch_partners(group.cells)
    }
    # The one with the same rate; without such a one the more accurate.
    assert found == {("0.001", "0.001"), ("0.5", "0.1")}


def test_first_of_equally_accurate_scratch_partners_is_taken_whatever_the_last_bit(make_run: MakeRun) -> None:
    for accuracies in ((0.8, math.nextafter(0.8, 1)), (math.nextafter(0.8, 1), 0.8)):
        runs = [
            make_run("torch", "scratch", accuracy, params={"learning_rate": rate})
            for rate, accuracy in zip(("0.1", "0.2"), accuracies, strict=True)
        ]
        (group,), _ = group_runs([*runs, make_run("torch", "frozen", 0.7)])
        ((_, scratch),) = scratch_partners(group.cells)
        assert dict(scratch.settings)["learning_rate"] == "0.1"


def test_mean_of_seeds_does_not_depend_on_their_order(make_run: MakeRun) -> None:
    accuracies = [0.1, 0.2, 0.3, 0.7, 0.9999]
    means = set()
    for order in itertools.permutations(accuracies):
        (group,), _ = group_runs([make_run(accuracy=accuracy, seed=seed) for seed, accuracy in enumerate(order)])
        means.add(group.cells[0].mean("test/accuracy"))
    assert means == {math.fsum(accuracies) / 5}


def test_family_is_the_name_up_to_its_size() -> None:
    assert [family_of(name) for name in ("resnet50", "mobilenet_v2", "densenet121")] == [
        *("resnet", "mobilenet", "densenet")
    ]


def test_small_budget_stands_apart_and_last(make_run: MakeRun) -> None:
    small = {"tandem.budget": "small"}
    runs = [make_run(tags=small), make_run("keras", tags=small), make_run(tags={"tandem.budget": "full"})]
    groups, notes = group_runs(runs)
    assert [(group.name, group.budget, group.suffix) for group in groups] == [
        ("digits 5-9", "full", ""),
        ("digits 5-9, small budget", "small", "_2"),
    ]
    assert [len(group.cells) for group in groups] == [1, 2]
    assert groups[1].title == "digits 5-9, small budget, 5 classes, 180 test images"
    (note,) = notes
    assert note.startswith("Run with another budget than the first tables (digits 5-9, small budget, ")


def test_runs_without_a_budget_had_a_full_one(make_run: MakeRun) -> None:
    (group,), notes = group_runs([make_run(), make_run("keras", tags={"tandem.budget": "full"})])
    assert (group.budget, len(group.cells), notes) == ("full", 2, ())


def test_small_budget_on_other_images_is_told_by_its_images(make_run: MakeRun) -> None:
    other = {"tandem.budget": "small", "tandem.test_hash": "other", "tandem.data": "birds"}
    _, (note,) = group_runs([make_run(), make_run(tags=other)])
    assert note.startswith("Tested on other images than the first tables (birds, small budget, ")


def test_random_weights_in_place_of_imagenet_are_called_random(make_run: MakeRun) -> None:
    origin = {"tandem.weights_origin": "random (imagenet could not be downloaded)"}
    runs = [make_run(tags={"tandem.weights_origin": "imagenet"}), make_run("keras", tags=origin)]
    (group,), _ = group_runs(runs)
    assert [cell.label for cell in group.cells] == [
        "finetune torch (weights imagenet)",
        "finetune keras (weights random)",
    ]
    assert partners(group.cells) == []


@pytest.mark.parametrize(
    ("weights", "origin"),
    [("random", None), ("random", "random"), ("imagenet", "random (imagenet could not be downloaded)")],
)
def test_random_weights_are_named_even_if_all_runs_have_them(
    make_run: MakeRun, weights: str, origin: str | None
) -> None:
    tags = {} if origin is None else {"tandem.weights_origin": origin}
    runs = [make_run(regime=regime, params={"weights": weights}, tags=tags) for regime in ("finetune", "scratch")]
    (group,), _ = group_runs(runs)
    labels = {cell.label: began_at_random(cell) for cell in group.cells}
    assert labels == {"scratch torch": False, "finetune torch (weights random)": True}
    assert scratch_partners(group.cells) == []


def test_weights_that_all_runs_began_with_are_not_named_where_none_are_random(make_run: MakeRun) -> None:
    (group,), _ = group_runs([make_run(), make_run(regime="scratch", params={"weights": "random"})])
    assert [(cell.label, began_at_random(cell)) for cell in group.cells] == [
        ("scratch torch", False),
        ("finetune torch", False),
    ]
    assert len(scratch_partners(group.cells)) == 1


def test_network_off_the_shelf_has_no_scratch_partner(make_run: MakeRun) -> None:
    (group,), _ = group_runs([make_run(regime="off_the_shelf"), make_run(regime="scratch"), make_run(regime="frozen")])
    assert [pretrained.regime for pretrained, _ in scratch_partners(group.cells)] == ["frozen"]


def test_settings_that_a_regime_does_not_read_make_no_column(make_run: MakeRun) -> None:
    runs = [
        make_run(regime="frozen", params={"phases": "null", "allow_random_weights": "false"}),
        make_run(regime="gradual", params={"phases": '[{"trainable": "head"}]', "allow_random_weights": "true"}),
    ]
    (group,), _ = group_runs(runs)
    assert [cell.settings for cell in group.cells] == [(), ()]


def test_settings_of_training_make_no_column_off_the_shelf(make_run: Callable[..., RunRecord]) -> None:
    training = {"max_epochs": "20", "learning_rate": "0.1", "head.hidden": "[8]", "optimizer.name": "sgd"}
    runs = [
        make_run(regime="off_the_shelf", params={"max_epochs": "100", "head.hidden": "[]", "optimizer.name": "adam"}),
        make_run(regime="frozen", params=training),
        make_run("keras", regime="off_the_shelf", params={**training, "data.image_size": "64"}),
    ]
    (group,), _ = group_runs(runs)
    assert [cell.label for cell in group.cells] == [
        "off_the_shelf torch (data.image_size 32)",
        "off_the_shelf keras (data.image_size 64)",
        "frozen torch (data.image_size 32)",
    ]


def test_cached_features_are_a_cost(make_run: MakeRun) -> None:
    without, with_them = {"cache_features": "false"}, {"cache_features": "true"}
    runs = [make_run("torch", "frozen", params=without), make_run("keras", "frozen", params=with_them)]
    (group,), _ = group_runs(runs)
    assert [name for cell in group.cells for name, _ in cell.costs] == ["cache_features"] * 2
    assert len(partners(group.cells)) == 1
    # a regime without a frozen phase caches nothing, whatever its settings say
    (group,), _ = group_runs([make_run("torch", params=without), make_run("torch", seed=1, params=with_them)])
    assert [cell.costs for cell in group.cells] == [()]


def test_runs_older_than_a_setting_have_its_value_before(make_run: MakeRun) -> None:
    newer = {"cache_views": "null", "acceleration.tf32": "true"}
    (group,), _ = group_runs([make_run("torch"), make_run("keras", params=newer)])
    assert len(partners(group.cells)) == 1


def test_cached_views_are_a_setting(make_run: MakeRun) -> None:
    (group,), _ = group_runs([make_run(params={"cache_views": "4"}), make_run("keras", params={"cache_views": "null"})])
    assert [cell.settings for cell in group.cells] == [(("cache_views", "4"),), (("cache_views", "null"),)]
    assert partners(group.cells) == []


SHOWN_OTHERWISE = ("regime", "backbone", "weights", "allow_random_weights", "seed", "seeds", "data.source")


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in SHOWN_OTHERWISE])
def test_setting_is_a_column_by_what_it_affects(name: str, make_run: MakeRun) -> None:
    regime = {"phases": "gradual", "imagenet_classes": "off_the_shelf"}.get(name, "two_stage")
    (group,), _ = group_runs([make_run(regime=regime, params={name: value}) for value in ("1", "2")])
    found = {"numbers": group.cells[0].settings, "cost": group.cells[0].costs, "nothing": ()}
    affects = FIELDS[name].metadata["affects"]
    assert [column for column, _ in found.pop(affects)] == ([] if affects == "nothing" else [name])
    assert not any(found.values())


def test_unknown_parameter_is_a_setting_unless_it_is_about_tracking(
    make_run: MakeRun,
) -> None:
    (group,), _ = group_runs([make_run(params={"sauce": value, "tracking.colour": value}) for value in ("1", "2")])
    assert [cell.settings for cell in group.cells] == [(("sauce", "1"),), (("sauce", "2"),)]


@pytest.mark.parametrize(
    ("name", "older"),
    [
        *(("cache_features", "false"), ("num_devices", "1"), ("acceleration.compile", "null")),
        *(("acceleration.keep_memory", "false"), ("acceleration.channels_last", "false")),
    ],
)
def test_runs_older_than_a_cost_setting_have_its_value_before(name: str, older: str, make_run: MakeRun) -> None:
    runs = [make_run(regime="frozen", seed=seed, params=params) for seed, params in enumerate(({}, {name: older}))]
    (group,), _ = group_runs(runs)
    assert [cell.costs for cell in group.cells] == [()]
    (group,), _ = group_runs([runs[0], make_run(regime="frozen", params={name: "other"})])
    assert [dict(cell.costs)[name] for cell in group.cells] == sorted([older, "other"])
