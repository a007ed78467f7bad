from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tandem.comparison.comparison import Comparison, compare_runs
from tandem.comparison.configurations import family_of, group_runs
from tandem.comparison.pairing import framework_pairs, scratch_pairs
from tandem.comparison.recorded_settings import caches_features
from tandem.comparison.rows import Row
from tandem.protocol.recipes import recipe_settings
from tandem.protocol.settings import FIELDS, AugmentationSettings, Settings, flatten
from tandem.rendering.tables import Table
from tandem.tracking.reader import RunRecord
from tests.compared import MakeRun
from tests.compared import rows_of as read_rows


def tables_of(comparison: Comparison) -> dict[str, Table]:
    return {table.name: table for table in comparison.tables}


def table_rows(comparison: Comparison, name: str) -> list[dict[str, Any]]:
    return read_rows(tables_of(comparison)[name])


def rows_of(runs: Sequence[RunRecord]) -> list[Row]:
    (group,), _ = group_runs(runs)
    return [Row(configuration=configuration) for configuration in group.configurations]


def test_label_names_the_backbone_if_there_are_several(make_run: MakeRun) -> None:
    (group,), _ = group_runs([make_run("torch"), make_run("keras")])
    assert [one.label for one in group.configurations] == ["finetune torch", "finetune keras"]
    (group,), _ = group_runs([make_run(), make_run(params={"backbone": "resnet50"})])
    assert [one.label for one in group.configurations] == ["mobilenet_v2 finetune torch", "resnet50 finetune torch"]


def test_label_names_the_settings_that_differ(make_run: MakeRun) -> None:
    runs = [make_run(params={"learning_rate": "0.01"}), make_run(tags={"tandem.hardware": "H200"})]
    (group,), _ = group_runs(runs)
    assert [one.label for one in group.configurations] == [
        "finetune torch (learning_rate 0.001, hardware H200)",
        "finetune torch (learning_rate 0.01, hardware 2 cores)",
    ]


def test_runs_of_a_configuration_are_ordered_by_seed(make_run: MakeRun) -> None:
    (group,), _ = group_runs([make_run(seed=seed) for seed in (10, 0, 9)])
    assert [run.params["seed"] for run in group.configurations[0].runs] == ["0", "9", "10"]


def test_mean_is_over_the_runs_and_needs_all_of_them(make_run: MakeRun) -> None:
    runs = [make_run(accuracy=0.7, seed=0), make_run(accuracy=0.8, seed=1, metrics={"cost/macs": 1.0})]
    (group,), _ = group_runs(runs)
    (configuration,) = group.configurations
    assert configuration.accuracy == configuration.mean("test/accuracy") == pytest.approx(0.75)
    assert configuration.mean("cost/macs") is None


def test_groups_of_the_same_data_have_different_names(make_run: MakeRun) -> None:
    runs = [make_run(tags={"tandem.test_hash": name}) for name in ("a", "b", "c")]
    groups, _ = group_runs(runs)
    assert [group.name for group in groups] == ["digits 5-9", "digits 5-9 (2)", "digits 5-9 (3)"]


def test_folds_are_named(make_run: MakeRun) -> None:
    runs = [
        make_run(tags={"tandem.test_hash": fold}, params={"data.split": "folds", "data.fold": fold}) for fold in "01"
    ]
    groups, _ = group_runs(runs)
    assert {group.name for group in groups} == {"digits 5-9, fold 0", "digits 5-9, fold 1"}


def test_family_is_the_name_without_size_and_version() -> None:
    assert [family_of(name) for name in ("resnet50", "mobilenet_v2", "densenet121")] == [
        *("resnet", "mobilenet", "densenet")
    ]


def test_small_budget_is_a_separate_group_and_the_last(make_run: MakeRun) -> None:
    small = {"tandem.budget": "small"}
    runs = [make_run(tags=small), make_run("keras", tags=small), make_run(tags={"tandem.budget": "full"})]
    groups, notes = group_runs(runs)
    assert [(group.name, group.budget, group.suffix) for group in groups] == [
        ("digits 5-9", "full", ""),
        ("digits 5-9, small budget", "small", "_2"),
    ]
    assert [len(group.configurations) for group in groups] == [1, 2]
    assert groups[1].title == "digits 5-9, small budget, 5 classes, 180 test images"
    (note,) = notes
    assert note.startswith(
        "In separate tables because their budget differs from that of the first tables (digits 5-9, small budget, "
    )


def test_runs_without_a_budget_have_a_full_one(make_run: MakeRun) -> None:
    (group,), notes = group_runs([make_run(), make_run("keras", tags={"tandem.budget": "full"})])
    assert (group.budget, len(group.configurations), notes) == ("full", 2, ())


def test_small_budget_on_other_images_is_separate_because_of_its_images(make_run: MakeRun) -> None:
    other = {"tandem.budget": "small", "tandem.test_hash": "other", "tandem.data": "birds"}
    _, (note,) = group_runs([make_run(), make_run(tags=other)])
    assert note.startswith(
        "In separate tables because their test images differ from those of the first tables (birds, small budget, "
    )


def test_random_weights_in_place_of_imagenet_are_called_random(make_run: MakeRun) -> None:
    origin = {"tandem.weights_origin": "random (imagenet could not be downloaded)"}
    runs = [make_run(tags={"tandem.weights_origin": "imagenet"}), make_run("keras", tags=origin)]
    (group,), _ = group_runs(runs)
    assert [one.label for one in group.configurations] == [
        "finetune torch (weights imagenet)",
        "finetune keras (weights random)",
    ]
    assert framework_pairs(rows_of(runs)) == []


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
    labels = {one.label: one.random_weights for one in group.configurations}
    assert labels == {"scratch torch": False, "finetune torch (weights random)": True}
    assert scratch_pairs(rows_of(runs)) == []


def test_pretrained_weights_are_not_named_if_all_runs_have_them(make_run: MakeRun) -> None:
    runs = [make_run(), make_run(regime="scratch", params={"weights": "random"})]
    (group,), _ = group_runs(runs)
    assert [(one.label, one.random_weights) for one in group.configurations] == [
        ("scratch torch", False),
        ("finetune torch", False),
    ]
    assert len(scratch_pairs(rows_of(runs))) == 1


def test_settings_that_a_regime_does_not_read_make_no_column(make_run: MakeRun) -> None:
    runs = [
        make_run(regime="frozen", params={"phases": "null", "allow_random_weights": "false"}),
        make_run(regime="gradual", params={"phases": '[{"trainable": "head"}]', "allow_random_weights": "true"}),
    ]
    (group,), _ = group_runs(runs)
    assert [one.settings for one in group.configurations] == [(), ()]


def test_fixed_statistics_of_a_thawed_backbone_make_no_column_for_a_frozen_one(make_run: MakeRun) -> None:
    runs = [make_run(regime="frozen"), make_run(regime="two_stage", params={"backbone_batch_norm": "frozen"})]
    (group,), _ = group_runs(runs)
    assert [one.settings for one in group.configurations] == [(), ()]
    (group,), _ = group_runs([*runs, make_run(regime="two_stage", params={"backbone_batch_norm": "train"})])
    assert {one.settings for one in group.configurations if one.regime == "two_stage"} == {
        (("backbone_batch_norm", "frozen"),),
        (("backbone_batch_norm", "train"),),
    }


def test_settings_of_training_do_not_separate_networks_off_the_shelf(make_run: Callable[..., RunRecord]) -> None:
    training = {"max_epochs": "20", "learning_rate": "0.1", "head.hidden": "[8]", "optimizer.name": "sgd"}
    training |= {"mixing.mixup_alpha": "0.2", "loss.label_smoothing": "0.1", "sampling": "balanced"}
    runs = [
        make_run(regime="off_the_shelf", params={"max_epochs": "100", "head.hidden": "[]", "optimizer.name": "adam"}),
        make_run(regime="frozen", params=training),
        make_run("keras", regime="off_the_shelf", params={**training, "data.image_size": "64"}),
    ]
    (group,), _ = group_runs(runs)
    assert [one.label for one in group.configurations] == [
        "off_the_shelf torch (data.image_size 32)",
        "off_the_shelf keras (data.image_size 64)",
        "frozen torch (data.image_size 32)",
    ]


def test_targets_of_training_separate_rows_and_older_runs_had_plain_ones(make_run: MakeRun) -> None:
    plain = {"loss.label_smoothing": "0.0", "loss.class_weights": "none", "mixing.cutmix_alpha": "0.0"}
    (group,), _ = group_runs([make_run("torch"), make_run("torch", seed=1, params=plain)])
    assert len(group.configurations) == 1
    for changed in ({"loss.label_smoothing": "0.1"}, {"mixing.cutmix_alpha": "1.0"}, {"sampling": "balanced"}):
        (group,), _ = group_runs([make_run("torch"), make_run("torch", seed=1, params={**plain, **changed})])
        ((name, value),) = changed.items()
        assert ((name, value),) in [one.settings for one in group.configurations]


def test_cached_features_change_only_costs(make_run: MakeRun) -> None:
    without, with_them = {"cache_features": "false"}, {"cache_features": "true"}
    runs = [make_run("torch", "frozen", params=without), make_run("keras", "frozen", params=with_them)]
    (group,), _ = group_runs(runs)
    assert [name for one in group.configurations for name, _ in one.costs] == ["cache_features"] * 2
    assert len(framework_pairs(rows_of(runs))) == 1
    # Mixed images have no features that could be kept
    mixed = {"mixing.mixup_alpha": "0.2"}
    runs = [make_run("torch", "frozen", params={**params, **mixed}) for params in (without, with_them)]
    (group,), _ = group_runs(runs)
    assert [one.costs for one in group.configurations] == [()]
    # A regime without a frozen phase caches nothing, whatever its settings say
    (group,), _ = group_runs([make_run("torch", params=without), make_run("torch", seed=1, params=with_them)])
    assert [one.costs for one in group.configurations] == [()]


def test_only_runs_without_augmentation_cache_features(make_run: MakeRun) -> None:
    defaults = flatten(AugmentationSettings(), "augmentation.")
    params = {name: value if isinstance(value, str) else json.dumps(value) for name, value in defaults.items()}
    cached = {"cache_features": "true", **params}
    for changed, expected in (
        ({}, True),
        ({"augmentation.policy": "trivial_augment"}, False),
        ({"augmentation.vertical_flip": "true"}, False),
        ({"augmentation.rotation": "10.0"}, False),
    ):
        assert caches_features(make_run("torch", "frozen", params={**cached, **changed})) == expected


def test_runs_older_than_a_setting_have_its_default(make_run: MakeRun) -> None:
    newer = {"cache_views": "null", "acceleration.tf32": "true"}
    assert len(framework_pairs(rows_of([make_run("torch"), make_run("keras", params=newer)]))) == 1


def test_cached_views_change_what_is_learned(make_run: MakeRun) -> None:
    runs = [make_run(params={"cache_views": "4"}), make_run("keras", params={"cache_views": "null"})]
    (group,), _ = group_runs(runs)
    assert [one.settings for one in group.configurations] == [(("cache_views", "4"),), (("cache_views", "null"),)]
    assert framework_pairs(rows_of(runs)) == []


def test_latest_run_of_a_seed_counts_in_any_order(make_run: MakeRun) -> None:
    older, newer = make_run(accuracy=0.2, run_id="0123456789abcdef"), make_run(accuracy=0.8)
    comparison = compare_runs([newer, older])
    (row,) = table_rows(comparison, "summary")
    assert (row["accuracy"], row["runs"]) == (0.8, 1)
    assert comparison.notes == (
        "Left out because a later run has the same settings and seed: mobilenet_v2-finetune-torch (01234567).",
    )


def test_settings_that_differ_become_columns_and_are_not_averaged(make_run: MakeRun) -> None:
    runs = [
        make_run(accuracy=0.8, params={"learning_rate": "0.01"}),
        make_run(accuracy=0.9, params={"learning_rate": "0.001"}),
        make_run(
            accuracy=0.7, params={"learning_rate": "0.001", "tracking.run_name": "x", "data.source": "/elsewhere"}
        ),
    ]
    summary = table_rows(compare_runs(runs), "summary")
    assert [(row["learning_rate"], row["accuracy"]) for row in summary] == [("0.001", 0.7), ("0.01", 0.8)]
    assert "tracking.run_name" not in summary[0]


def test_setting_that_an_older_run_lacks_becomes_a_column(make_run: MakeRun) -> None:
    older = make_run(accuracy=0.8)
    newer = make_run(accuracy=0.9, params={"batch_norm_momentum": "0.9"})
    summary = table_rows(compare_runs([older, newer]), "summary")
    assert [(row["batch_norm_momentum"], row["accuracy"]) for row in summary] == [("0.9", 0.9), (None, 0.8)]


def test_weights_of_scratch_make_no_column(make_run: MakeRun) -> None:
    runs = [
        make_run(regime="scratch", params={"weights": "random", "thawed_rate_factor": "0.5"}),
        make_run(regime="finetune"),
        make_run(regime="two_stage"),
    ]
    keys = [column.key for column in tables_of(compare_runs(runs))["summary"].columns]
    assert "weights" not in keys
    assert "thawed_rate_factor" not in keys


def test_runs_on_different_machines_are_not_averaged(make_run: MakeRun) -> None:
    runs = [make_run(seed=0), make_run(seed=1, tags={"tandem.hardware": "H200"})]
    summary = table_rows(compare_runs(runs), "summary")
    assert [(row["hardware"], row["runs"]) for row in summary] == [("2 cores", 1), ("H200", 1)]


def test_different_training_images_with_the_same_settings_are_separate(make_run: MakeRun) -> None:
    runs = [make_run(accuracy=0.8), make_run(accuracy=0.9, seed=1, tags={"tandem.split_hash": "0123456789abcdef"})]
    summary = table_rows(compare_runs(runs), "summary")
    assert [(row["split"], row["accuracy"]) for row in summary] == [("01234567", 0.9), ("split", 0.8)]


def test_split_that_a_setting_explains_gets_no_column(make_run: MakeRun) -> None:
    runs = [
        make_run(params={"data.train_images_per_class": "10"}),
        make_run(params={"data.train_images_per_class": "null"}, tags={"tandem.split_hash": "other"}),
    ]
    keys = [column.key for column in tables_of(compare_runs(runs))["summary"].columns]
    assert "data.train_images_per_class" in keys
    assert "split" not in keys


def test_weights_of_each_frameworks_own_source_run_match(make_run: MakeRun) -> None:
    other = {"tandem.test_hash": "source", "tandem.data": "digits 0-4"}
    torch_source, keras_source = make_run("torch", "scratch", tags=other), make_run("keras", "scratch", tags=other)
    runs = [torch_source, keras_source]
    for framework, source in (("torch", torch_source), ("keras", keras_source)):
        weights = {"weights": f"runs:/{source.run_id}"}
        runs += [make_run(framework, regime, params=weights) for regime in ("frozen", "two_stage", "finetune")]
        runs.append(make_run(framework, "scratch"))
    comparison = compare_runs(runs)
    assert [row["regime"] for row in table_rows(comparison, "frameworks")] == [
        *("scratch", "frozen", "two_stage", "finetune")
    ]
    assert "weights" not in [column.key for column in tables_of(comparison)["summary"].columns]


def test_different_source_runs_are_separate(make_run: MakeRun) -> None:
    other = {"tandem.test_hash": "source", "tandem.data": "digits 0-4"}
    sources = [
        make_run("torch", "scratch", tags=other, params={"learning_rate": "0.001"}),
        make_run("torch", "scratch", tags=other, params={"learning_rate": "0.1"}),
        make_run("keras", "scratch", tags=other, params={"learning_rate": "0.1"}),
    ]
    accuracies = (0.8, 0.6, 0.7)
    runs = [
        make_run(source.tags["tandem.framework"], accuracy=accuracy, params={"weights": f"runs:/{source.run_id}"})
        for source, accuracy in zip(sources, accuracies, strict=True)
    ]
    comparison = compare_runs([*runs, *sources])
    summary = table_rows(comparison, "summary")
    assert [(row["weights"], row["framework"], row["accuracy"]) for row in summary] == [
        ("mobilenet_v2 scratch on digits 0-4", "torch", 0.8),
        ("mobilenet_v2 scratch on digits 0-4 (2)", "torch", 0.6),
        ("mobilenet_v2 scratch on digits 0-4 (2)", "keras", 0.7),
    ]
    (pair,) = table_rows(comparison, "frameworks")
    assert pair["accuracy_difference"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("torch_weights", "keras_weights"),
    [("/w/mobilenet.pth", "/w/mobilenet.weights.h5"), ("runs:/gone1", "runs:/gone2")],
)
def test_weights_files_of_two_frameworks_are_a_pair(make_run: MakeRun, torch_weights: str, keras_weights: str) -> None:
    runs = [
        make_run("torch", params={"weights": torch_weights}, tags={"tandem.weights_origin": "aa"}),
        make_run("keras", params={"weights": keras_weights}, tags={"tandem.weights_origin": "bb"}),
        make_run("torch", "frozen", params={"weights": torch_weights}, tags={"tandem.weights_origin": "aa"}),
    ]
    assert len(tables_of(compare_runs(runs))["frameworks"].rows) == 1


def test_several_weights_files_of_one_framework_keep_their_names(make_run: MakeRun) -> None:
    runs = [
        make_run("torch", accuracy=0.8, params={"weights": "/w/a.pth"}, tags={"tandem.weights_origin": "aa"}),
        make_run("torch", accuracy=0.7, params={"weights": "/w/b.pth"}, tags={"tandem.weights_origin": "bb"}),
        make_run("torch", accuracy=0.6, params={"weights": "/x/b.pth"}, tags={"tandem.weights_origin": "cc"}),
    ]
    summary = table_rows(compare_runs(runs), "summary")
    assert [(row["weights"], row["accuracy"]) for row in summary] == [
        ("a.pth", 0.8),
        ("b.pth", 0.7),
        ("b.pth (2)", 0.6),
    ]


def test_folds_of_the_training_images_are_one_row(make_run: MakeRun) -> None:
    """They share their test images, so that their runs are averaged as those of seeds are."""

    def of_fold(fold: int, accuracy: float, seed: int = 0) -> RunRecord:
        params = {"data.split": "publisher_folds", "data.folds": "3", "data.fold": str(fold)}
        return make_run(accuracy=accuracy, seed=seed, params=params, tags={"tandem.split_hash": f"fold {fold}"})

    runs = [of_fold(fold, accuracy) for fold, accuracy in enumerate((0.7, 0.8, 0.9))]
    comparison = compare_runs(runs)
    (row,) = table_rows(comparison, "summary")
    assert (row["accuracy"], row["runs"]) == (pytest.approx(0.8), 3)
    assert not {"data.fold", "split"} & row.keys() and comparison.notes == ()
    (table,) = [table for table in comparison.tables if table.name == "summary"]
    assert "Rows with several folds of the training images are means over these, as over seeds." in table.notes
    # The same fold again replaces the earlier run; another seed does not, nor does another number of folds.
    again = [*runs, of_fold(2, 0.6), of_fold(2, 0.6, seed=1)]
    (row,) = table_rows(compare_runs(again), "summary")
    assert (row["accuracy"], row["runs"]) == (pytest.approx((0.7 + 0.8 + 0.6 + 0.6) / 4), 4)
    other = make_run(params={"data.split": "publisher_folds", "data.folds": "5", "data.fold": "0"})
    assert [row["runs"] for row in table_rows(compare_runs([*runs, other]), "summary")] == [3, 1]


def test_latest_group_of_one_size_comes_first(make_run: MakeRun) -> None:
    old = make_run(accuracy=0.1, tags={"tandem.test_hash": "old"})
    new = make_run(accuracy=0.2, tags={"tandem.test_hash": "new"})
    assert table_rows(compare_runs([old, new]), "summary")[0]["accuracy"] == 0.2


def test_unfinished_runs_are_left_out_and_named(make_run: MakeRun) -> None:
    comparison = compare_runs(
        [
            make_run(),
            make_run("keras", run_id="broke", status="FAILED"),
            make_run("keras", run_id="stopped", status="KILLED"),
            make_run("keras", run_id="going", status="RUNNING", accuracy=None),
            make_run("keras", run_id="untested", accuracy=None),
        ]
    )
    assert len(tables_of(comparison)["summary"].rows) == 1
    assert comparison.notes == (
        "Left out because they are not finished (1 FAILED, 1 KILLED, 1 RUNNING): mobilenet_v2-finetune-keras (broke), "
        "mobilenet_v2-finetune-keras (stopped), mobilenet_v2-finetune-keras (going).",
        "Left out because they have no results on test images: mobilenet_v2-finetune-keras (untested).",
    )


def test_long_lists_of_names_are_cut(make_run: MakeRun) -> None:
    comparison = compare_runs([make_run(), *(make_run(status="FAILED") for _ in range(30))])
    assert comparison.notes[0].endswith("and 18 more.")


def test_mean_of_seeds_does_not_depend_on_their_order(make_run: MakeRun) -> None:
    accuracies = [0.1, 0.2, 0.3, 0.7, 0.9999]
    means = set()
    for order in itertools.permutations(accuracies):
        (group,), _ = group_runs([make_run(accuracy=accuracy, seed=seed) for seed, accuracy in enumerate(order)])
        means.add(group.configurations[0].accuracy)
    assert means == {math.fsum(accuracies) / 5}


# ---------------------------------------------------------------------------------------------- what settings affect


SHOWN_OTHERWISE = ("regime", "backbone", "weights", "allow_random_weights", "seed", "seeds", "data.source")


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in SHOWN_OTHERWISE])
def test_setting_is_a_column_by_what_it_affects(name: str, make_run: MakeRun) -> None:
    regime = {"phases": "gradual", "imagenet_classes": "off_the_shelf"}.get(name, "two_stage")
    (group,), _ = group_runs([make_run(regime=regime, params={name: value}) for value in ("1", "2")])
    found = {"numbers": group.configurations[0].settings, "cost": group.configurations[0].costs, "nothing": ()}
    affects = FIELDS[name].metadata["affects"]
    assert [column for column, _ in found.pop(affects)] == ([] if affects == "nothing" else [name])
    assert not any(found.values())


def test_unknown_parameter_is_a_setting_unless_it_is_about_tracking(make_run: MakeRun) -> None:
    (group,), _ = group_runs([make_run(params={"sauce": value, "tracking.colour": value}) for value in ("1", "2")])
    assert [one.settings for one in group.configurations] == [(("sauce", "1"),), (("sauce", "2"),)]


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
    assert [one.costs for one in group.configurations] == [()]
    (group,), _ = group_runs([runs[0], make_run(regime="frozen", params={name: "other"})])
    assert [dict(one.costs)[name] for one in group.configurations] == sorted([older, "other"])


def recipe_params(recipe: str | None, **changes: Any) -> dict[str, str]:
    """Parameters of a run that started from a recipe, as MLflow stores them."""
    values = {**flatten(Settings()), **(recipe_settings(recipe) if recipe else {}), "recipe": recipe, **changes}
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
        if FIELDS[name].metadata["affects"] != "cost"
    }


def test_rows_that_differ_by_their_recipe_are_named_by_it(make_run: MakeRun) -> None:
    runs = [
        make_run(framework, recipe_settings(recipe)["regime"] if recipe else "finetune", params=recipe_params(recipe))
        for framework in ("torch", "keras")
        for recipe in (None, "best", "fast")
    ]
    # Runs of versions without recipes.
    del runs[0].params["recipe"]
    labels = {row.label for row in rows_of(runs)}
    assert labels == {
        f"{words} {framework}{recipe}"
        for framework in ("torch", "keras")
        for words, recipe in (("finetune", ""), ("two_stage", " (recipe best)"), ("frozen", " (recipe fast)"))
    }
    assert len(framework_pairs(rows_of(runs))) == 3


def test_setting_that_overrides_a_recipe_has_its_own_column(make_run: MakeRun) -> None:
    changed = {"optimizer.layer_decay": 0.5}
    runs = [
        make_run(params=recipe_params(None)),
        make_run(regime="two_stage", params=recipe_params("best", **changed)),
    ]
    label = rows_of(runs)[0].label
    assert "recipe best" in label and "optimizer.layer_decay 0.5" in label and "adamw" not in label


def test_runs_of_one_recipe_are_named_by_their_settings(make_run: MakeRun) -> None:
    runs = [make_run(regime="two_stage", params=recipe_params("best", learning_rate=rate)) for rate in (0.001, 0.01)]
    assert [row.label for row in rows_of(runs)] == [
        "two_stage torch (learning_rate 0.001)",
        "two_stage torch (learning_rate 0.01)",
    ]
