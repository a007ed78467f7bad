from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tandem.comparison.comparison import Comparison, compare_runs
from tandem.rendering.tables import Table
from tandem.tracking.reader import RunRecord

MakeRun = Callable[..., RunRecord]


def by_name(comparison: Comparison, name: str) -> Table:
    return {table.name: table for table in comparison.tables}[name]


def rows(table: Table) -> list[dict[str, Any]]:
    keys = [column.key for column in table.columns]
    return [dict(zip(keys, row, strict=True)) for row in table.rows]


def test_one_row_for_each_regime_and_framework_in_the_order_of_the_regimes(make_run: MakeRun) -> None:
    runs = [
        make_run(framework, regime)
        for framework in ("keras", "torch")
        for regime in ("two_stage", "finetune", "frozen", "scratch")
    ]
    summary = by_name(compare_runs(runs), "summary")
    assert [(row["regime"], row["framework"]) for row in rows(summary)] == [
        (regime, framework)
        for regime in ("scratch", "frozen", "two_stage", "finetune")
        for framework in ("torch", "keras")
    ]
    assert [column.key for column in summary.columns] == [
        *("backbone", "regime", "framework", "accuracy", "f1_macro", "f1_min"),
        *("train_seconds", "seconds_per_epoch", "parameters", "latency_milliseconds", "runs"),
    ]
    assert summary.title == "Models, regimes, frameworks: digits 5-9, 5 classes, 180 test images"


def test_row_holds_what_the_run_measured(make_run: MakeRun) -> None:
    (row,) = rows(by_name(compare_runs([make_run(accuracy=0.75)]), "summary"))
    assert row == {
        "backbone": "mobilenet_v2",
        "regime": "finetune",
        "framework": "torch",
        "accuracy": 0.75,
        "f1_macro": 0.74,
        "f1_min": 0.5,
        "train_seconds": 60.0,
        "seconds_per_epoch": 3.0,
        "parameters": 2_200_000.0,
        "latency_milliseconds": 4.0,
        "runs": 1,
    }


def test_seeds_are_averaged_and_counted(make_run: MakeRun) -> None:
    comparison = compare_runs([make_run(accuracy=0.8, seed=0), make_run(accuracy=0.9, seed=1)])
    (row,) = rows(by_name(comparison, "summary"))
    assert row["accuracy"] == pytest.approx(0.85)
    assert row["runs"] == 2


def test_latest_run_of_a_seed_counts_whatever_the_order(make_run: MakeRun) -> None:
    older, newer = make_run(accuracy=0.2, run_id="0123456789abcdef"), make_run(accuracy=0.8)
    comparison = compare_runs([newer, older])
    (row,) = rows(by_name(comparison, "summary"))
    assert (row["accuracy"], row["runs"]) == (0.8, 1)
    assert comparison.notes == (
        "Left out, repeated later with the same settings and seed: mobilenet_v2-finetune-torch (01234567).",
    )


def test_metric_that_a_seed_lacks_is_not_averaged_over_the_others(make_run: MakeRun) -> None:
    lacking = make_run(seed=1)
    del lacking.metrics["cost/latency_milliseconds"]
    (row,) = rows(by_name(compare_runs([make_run(seed=0), lacking]), "summary"))
    assert row["latency_milliseconds"] is None
    assert row["train_seconds"] == 60


def test_settings_that_differ_become_columns_and_are_not_averaged(make_run: MakeRun) -> None:
    runs = [
        make_run(accuracy=0.8, params={"learning_rate": "0.01"}),
        make_run(accuracy=0.9, params={"learning_rate": "0.001"}),
        make_run(
            accuracy=0.7, params={"learning_rate": "0.001", "tracking.run_name": "x", "data.source": "/elsewhere"}
        ),
    ]
    summary = rows(by_name(compare_runs(runs), "summary"))
    assert [(row["learning_rate"], row["accuracy"]) for row in summary] == [("0.001", 0.7), ("0.01", 0.8)]
    assert "tracking.run_name" not in summary[0]


def test_setting_that_an_older_run_lacks_becomes_a_column(make_run: MakeRun) -> None:
    older = make_run(accuracy=0.8)
    newer = make_run(accuracy=0.9, params={"batch_norm_momentum": "0.9"})
    summary = rows(by_name(compare_runs([older, newer]), "summary"))
    assert [(row["batch_norm_momentum"], row["accuracy"]) for row in summary] == [("0.9", 0.9), (None, 0.8)]


def test_settings_that_a_regime_does_not_use_make_no_column(make_run: MakeRun) -> None:
    runs = [
        make_run(regime="scratch", params={"weights": "random", "thawed_rate_factor": "0.5"}),
        make_run(regime="finetune"),
        make_run(regime="two_stage"),
    ]
    keys = [column.key for column in by_name(compare_runs(runs), "summary").columns]
    assert "weights" not in keys
    assert "thawed_rate_factor" not in keys


def test_runs_on_unlike_machines_are_not_averaged(make_run: MakeRun) -> None:
    runs = [make_run(seed=0), make_run(seed=1, tags={"tandem.hardware": "H200"})]
    summary = rows(by_name(compare_runs(runs), "summary"))
    assert [(row["hardware"], row["runs"]) for row in summary] == [("2 cores", 1), ("H200", 1)]


def test_other_training_images_under_the_same_settings_are_told_apart(make_run: MakeRun) -> None:
    runs = [make_run(accuracy=0.8), make_run(accuracy=0.9, seed=1, tags={"tandem.split_hash": "0123456789abcdef"})]
    summary = rows(by_name(compare_runs(runs), "summary"))
    assert [(row["split"], row["accuracy"]) for row in summary] == [("01234567", 0.9), ("split", 0.8)]


def test_split_that_a_setting_explains_gets_no_column_of_its_own(make_run: MakeRun) -> None:
    runs = [
        make_run(params={"data.train_images_per_class": "10"}),
        make_run(params={"data.train_images_per_class": "null"}, tags={"tandem.split_hash": "other"}),
    ]
    keys = [column.key for column in by_name(compare_runs(runs), "summary").columns]
    assert "data.train_images_per_class" in keys
    assert "split" not in keys


def test_frameworks_stand_side_by_side(make_run: MakeRun) -> None:
    runs = [
        make_run("torch", accuracy=0.80, metrics={"cost/train_seconds": 50.0}),
        make_run("keras", accuracy=0.78, metrics={"cost/train_seconds": 75.0}),
        make_run("keras", accuracy=0.84, backend="jax", metrics={"cost/train_seconds": 25.0}),
    ]
    frameworks = rows(by_name(compare_runs(runs), "frameworks"))
    assert [row["keras"] for row in frameworks] == ["keras", "keras (jax)"]
    assert [row["accuracy_torch"] for row in frameworks] == [0.80, 0.80]
    assert [row["accuracy_keras"] for row in frameworks] == [0.78, 0.84]
    assert [row["accuracy_difference"] for row in frameworks] == pytest.approx([-0.02, 0.04])
    assert [row["f1_macro_difference"] for row in frameworks] == pytest.approx([-0.02, 0.04])
    assert [row["train_seconds_ratio"] for row in frameworks] == [1.5, 0.5]


def test_frameworks_with_unlike_settings_are_no_pair(make_run: MakeRun) -> None:
    runs = [
        make_run("torch", "frozen"),
        make_run("keras", "frozen"),
        make_run("torch", "finetune", params={"learning_rate": "0.01"}),
        make_run("keras", "finetune"),
    ]
    frameworks = by_name(compare_runs(runs), "frameworks")
    assert [row["regime"] for row in rows(frameworks)] == ["frozen"]
    assert frameworks.notes[-1] == (
        "In one framework only: mobilenet_v2 finetune (keras), mobilenet_v2 finetune (torch)."
    )


def test_times_of_unlike_machines_have_no_ratio(make_run: MakeRun) -> None:
    runs = [make_run("torch"), make_run("keras", accuracy=0.85, tags={"tandem.hardware": "H200"})]
    frameworks = by_name(compare_runs(runs), "frameworks")
    (row,) = rows(frameworks)
    assert row["accuracy_difference"] == pytest.approx(-0.05)
    assert row["train_seconds_ratio"] is None
    why = "No ratio of times where hardware, devices, threads or a setting of speed were not the same."
    assert why in frameworks.notes


def test_no_table_of_frameworks_with_one_framework(make_run: MakeRun) -> None:
    comparison = compare_runs([make_run(), make_run(regime="frozen")])
    assert [table.name for table in comparison.tables] == ["summary", "scores", "cost"]


def test_weights_of_each_frameworks_own_source_run_are_the_same_weights(make_run: MakeRun) -> None:
    other = {"tandem.test_hash": "source", "tandem.data": "digits 0-4"}
    torch_source, keras_source = make_run("torch", "scratch", tags=other), make_run("keras", "scratch", tags=other)
    runs = [torch_source, keras_source]
    for framework, source in (("torch", torch_source), ("keras", keras_source)):
        weights = {"weights": f"runs:/{source.run_id}"}
        runs += [make_run(framework, regime, params=weights) for regime in ("frozen", "two_stage", "finetune")]
        runs.append(make_run(framework, "scratch"))
    comparison = compare_runs(runs)
    assert [row["regime"] for row in rows(by_name(comparison, "frameworks"))] == [
        *("scratch", "frozen", "two_stage", "finetune")
    ]
    assert "weights" not in [column.key for column in by_name(comparison, "summary").columns]


def test_unlike_source_runs_are_told_apart(make_run: MakeRun) -> None:
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
    summary = rows(by_name(comparison, "summary"))
    assert [(row["weights"], row["framework"], row["accuracy"]) for row in summary] == [
        ("mobilenet_v2 scratch on digits 0-4", "torch", 0.8),
        ("mobilenet_v2 scratch on digits 0-4 (2)", "torch", 0.6),
        ("mobilenet_v2 scratch on digits 0-4 (2)", "keras", 0.7),
    ]
    (pair,) = rows(by_name(comparison, "frameworks"))
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
    assert len(by_name(compare_runs(runs), "frameworks").rows) == 1


def test_several_weights_files_of_one_framework_keep_their_names(make_run: MakeRun) -> None:
    runs = [
        make_run("torch", accuracy=0.8, params={"weights": "/w/a.pth"}, tags={"tandem.weights_origin": "aa"}),
        make_run("torch", accuracy=0.7, params={"weights": "/w/b.pth"}, tags={"tandem.weights_origin": "bb"}),
        make_run("torch", accuracy=0.6, params={"weights": "/x/b.pth"}, tags={"tandem.weights_origin": "cc"}),
    ]
    summary = rows(by_name(compare_runs(runs), "summary"))
    assert [(row["weights"], row["accuracy"]) for row in summary] == [
        ("a.pth", 0.8),
        ("b.pth", 0.7),
        ("b.pth (2)", 0.6),
    ]


def test_runs_with_other_test_images_stand_apart_and_are_named(make_run: MakeRun) -> None:
    large = [make_run("torch", accuracy=0.7), make_run("keras", accuracy=0.6)]
    small = make_run("torch", run_id="other", tags={"tandem.test_hash": "x", "tandem.data": "digits 0-4"})
    comparison = compare_runs([*large, small])
    assert [table.name for table in comparison.tables if "cost" not in table.name and "scores" not in table.name] == [
        *("summary", "frameworks", "summary_2", "data_sets")
    ]
    assert [row["accuracy"] for row in rows(by_name(comparison, "summary"))] == [0.7, 0.6]
    assert "digits 0-4" in by_name(comparison, "summary_2").title
    (note,) = comparison.notes
    assert note.startswith("Tested on other images than the first tables (digits 0-4")
    assert note.endswith("in tables of their own: mobilenet_v2-finetune-torch (other).")


def test_of_groups_of_one_size_the_latest_comes_first(make_run: MakeRun) -> None:
    old = make_run(accuracy=0.1, tags={"tandem.test_hash": "old"})
    new = make_run(accuracy=0.2, tags={"tandem.test_hash": "new"})
    assert rows(compare_runs([old, new]).tables[0])[0]["accuracy"] == 0.2


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
    assert len(by_name(comparison, "summary").rows) == 1
    assert comparison.notes == (
        "Left out, not finished (1 FAILED, 1 KILLED, 1 RUNNING): mobilenet_v2-finetune-keras (broke), "
        "mobilenet_v2-finetune-keras (stopped), mobilenet_v2-finetune-keras (going).",
        "Left out, finished without results on test images: mobilenet_v2-finetune-keras (untested).",
    )


def test_many_names_are_cut_short(make_run: MakeRun) -> None:
    comparison = compare_runs([make_run(), *(make_run(status="FAILED") for _ in range(30))])
    assert comparison.notes[0].endswith("and 18 more.")


def test_no_finished_run_gives_no_table(make_run: MakeRun) -> None:
    assert compare_runs([make_run(status="FAILED")]).tables == ()


def test_what_thawing_changed(make_run: MakeRun) -> None:
    phase_1 = {"phase_1/test/accuracy": 0.7, "phase_1/test/f1_macro": 0.65, "phase_1/cost/train_seconds": 20.0}
    runs = [make_run("torch", "two_stage", 0.9, metrics=phase_1), make_run("torch", "frozen", 0.72)]
    (row,) = rows(by_name(compare_runs(runs), "thawing"))
    assert (row["accuracy_frozen"], row["accuracy_thawed"]) == (0.7, 0.9)
    assert row["accuracy_difference"] == pytest.approx(0.2)
    assert row["f1_macro_difference"] == pytest.approx(0.24)
    assert (row["train_seconds_frozen"], row["train_seconds"]) == (20, 60)
