from __future__ import annotations

from collections.abc import Callable

import pytest
from scipy import stats

from tandem.comparison.comparison import Comparison, compare_runs
from tandem.comparison.predictions import SavedPredictions
from tandem.rendering.tables import Estimate
from tests.compared import OUTCOMES, MakePredictions, MakeRun, right, right_images, table_of
from tests.compared import rows_of as rows


def test_differences_without_a_test_have_the_reason_below_the_table(compared: Callable[..., Comparison]) -> None:
    few = {(framework, "frozen"): right_images(0.5, images=8) for framework in ("torch", "keras")}
    table = compared(few).groups[0].tables["frameworks"]
    assert "No test keeps its promise for macro F1: fewer than 4 test images per class." in table.notes
    assert not isinstance(rows(table)[0]["f1_macro_difference"], Estimate)


def test_pairs_have_a_verdict(compared: Callable[..., Comparison]) -> None:
    outcomes = {
        ("torch", "frozen"): right(0.9),
        ("keras", "frozen"): right(0.4),
        ("torch", "finetune"): right(0.5),
        ("keras", "finetune"): right(0.8),
        ("torch", "scratch"): right(0.88, 10),
        ("keras", "scratch"): right(0.9),
    }
    tables = compared(outcomes).groups[0].tables
    of_frameworks = {row["regime"]: row["verdict"] for row in rows(tables["frameworks"])}
    assert of_frameworks == {"frozen": "PyTorch better", "finetune": "Keras better", "scratch": "undecided"}
    of_transfer = {(row["regime"], row["framework"]): row["verdict"] for row in rows(tables["transfer"])}
    assert of_transfer["finetune", "torch"] == "negative" and of_transfer["frozen", "torch"] == "undecided"


def test_classes_too_small_for_a_flag_are_counted(compared: Callable[..., Comparison]) -> None:
    def notes(images: int) -> list[str]:
        outcomes = {("torch", "scratch"): [True] * images, ("torch", "frozen"): [False] * images}
        return [
            note
            for note in compared(outcomes).groups[0].tables["transfer"].notes
            if note.startswith("With one run per row, a class needs")
        ]

    # Of 4 classes: the normal quantile of 0.05 / 4 is 2.498, its square 6.24. So 7 images that only one run gets right
    # are needed; 26 images are two classes of 7 and two of 6.
    assert notes(26) == [
        "With one run per row, a class needs 7 test images to be able to differ significantly, corrected over 4 "
        "classes; 2 of them have fewer."
    ]
    assert notes(28) == []


def test_frameworks_are_side_by_side(make_run: MakeRun) -> None:
    runs = [
        make_run("torch", accuracy=0.80, metrics={"cost/train_seconds": 50.0}),
        make_run("keras", accuracy=0.78, metrics={"cost/train_seconds": 75.0}),
        make_run("keras", accuracy=0.84, backend="jax", metrics={"cost/train_seconds": 25.0}),
    ]
    frameworks = rows(table_of(runs, "frameworks"))
    assert [row["keras"] for row in frameworks] == ["keras", "keras (jax)"]
    assert [row["accuracy_torch"] for row in frameworks] == [0.80, 0.80]
    assert [row["accuracy_keras"] for row in frameworks] == [0.78, 0.84]
    assert [row["accuracy_difference"] for row in frameworks] == pytest.approx([-0.02, 0.04])
    assert [row["f1_macro_difference"] for row in frameworks] == pytest.approx([-0.02, 0.04])
    assert [row["train_seconds_ratio"] for row in frameworks] == [1.5, 0.5]


def test_frameworks_with_different_settings_are_not_compared(make_run: MakeRun) -> None:
    runs = [
        make_run("torch", "frozen"),
        make_run("keras", "frozen"),
        make_run("torch", "finetune", params={"learning_rate": "0.01"}),
        make_run("keras", "finetune"),
    ]
    frameworks = table_of(runs, "frameworks")
    assert [row["regime"] for row in rows(frameworks)] == ["frozen"]
    assert frameworks.notes[-1] == (
        "Without a row of the other framework with equal settings: finetune keras (learning_rate 0.001), finetune "
        "torch (learning_rate 0.01)."
    )


def test_regime_of_one_framework_is_named(make_run: MakeRun) -> None:
    runs = [make_run("torch", "frozen"), make_run("keras", "frozen"), make_run("torch", "finetune")]
    assert table_of(runs, "frameworks").notes[-1] == "In one framework only: finetune torch."


def test_times_on_different_machines_have_no_ratio(make_run: MakeRun) -> None:
    runs = [make_run("torch"), make_run("keras", accuracy=0.85, tags={"tandem.hardware": "H200"})]
    frameworks = table_of(runs, "frameworks")
    (row,) = rows(frameworks)
    assert row["accuracy_difference"] == pytest.approx(-0.05)
    assert row["train_seconds_ratio"] is None
    why = "Times are compared only on the same hardware and devices with the same threads and settings of speed."
    assert why in frameworks.notes


def test_notes_say_how_the_frameworks_differ(compared: Callable[..., Comparison]) -> None:
    table = compared(OUTCOMES).groups[0].tables["frameworks"]
    (row,) = rows(table)
    assert row["accuracy_difference"].value == pytest.approx(-0.02)
    # torch is right on images 0 to 179, keras on 10 to 185: 10 and 6 images are right in one only.
    assert row["p_value"] == pytest.approx(2 * stats.norm.sf(4 / 16**0.5))
    (note,) = [note for note in table.notes if note.startswith("Besides the framework")]
    assert "stride-2 convolutions pad both sides in torchvision" in note


def test_thawing_is_the_whole_run_minus_its_first_phase(make_run: MakeRun) -> None:
    phase_1 = {"phase_1/test/accuracy": 0.7, "phase_1/test/f1_macro": 0.65, "phase_1/cost/train_seconds": 20.0}
    runs = [make_run("torch", "two_stage", 0.9, metrics=phase_1), make_run("torch", "frozen", 0.72)]
    (row,) = rows(table_of(runs, "thawing"))
    assert (row["accuracy_frozen"], row["accuracy_thawed"]) == (0.7, 0.9)
    assert row["accuracy_difference"] == pytest.approx(0.2)
    assert row["f1_macro_difference"] == pytest.approx(0.24)
    assert (row["train_seconds_frozen"], row["train_seconds"]) == (20, 60)


def test_thawing_has_intervals_and_times(compared: Callable[..., Comparison]) -> None:
    table = compared(OUTCOMES).groups[0].tables["thawing"]
    torch, keras = rows(table)
    assert torch["accuracy_difference"].value == pytest.approx(0.4)
    assert torch["train_seconds_ratio"] == 3
    assert keras["p_value_holm"] >= keras["p_value"]
    assert table.notes[0].startswith("Thawing changed accuracy by +0.380 to +0.400 for 3.0 times the training time")


def test_negative_transfer_is_found_with_its_classes(compared: Callable[..., Comparison]) -> None:
    tables = compared(OUTCOMES).groups[0].tables
    of_rows = {(row["regime"], row["framework"]): row for row in rows(tables["transfer"])}
    assert of_rows["finetune", "torch"]["verdict"] == "negative"
    assert of_rows["two_stage", "torch"]["verdict"] == "positive"
    worse = of_rows["finetune", "torch"]
    assert (worse["classes_worse"], worse["classes_better"]) == (4, 0)
    assert worse["worse"] == "class 0, class 1, class 2, class 3"
    better = of_rows["two_stage", "torch"]
    assert (better["classes_worse"], better["classes_better"], better["worse"]) == (0, 4, None)
    assert {row["class"] for row in rows(tables["transfer_classes"])} == {f"class {number}" for number in range(4)}


def test_transfer_is_pretrained_minus_from_scratch(make_run: MakeRun) -> None:
    (row,) = rows(
        table_of([make_run(regime="scratch", accuracy=0.7), make_run(regime="frozen", accuracy=0.9)], "transfer")
    )
    assert (row["regime"], row["accuracy_scratch"], row["accuracy"]) == ("frozen", 0.7, 0.9)
    assert row["accuracy_difference"] == pytest.approx(0.2)
    assert "verdict" not in row
    assert row["classes_worse"] is row["classes_better"] is row["worse"] is None


def test_transfer_has_starting_performance_and_time_to_learn(make_run: MakeRun) -> None:
    def start(accuracy: float, seconds: float) -> dict[str, float]:
        return {"phase_1/val/start_accuracy": accuracy, "cost/train_seconds": seconds}

    runs = [
        make_run(regime="scratch", accuracy=0.7, metrics=start(0.1, 100.0)),
        make_run(regime="two_stage", accuracy=0.9, metrics=start(0.6, 25.0) | {"phase_2/val/start_accuracy": 0.85}),
    ]
    (row,) = rows(table_of(runs, "transfer"))
    assert (row["start_accuracy_scratch"], row["start_accuracy"], row["train_seconds_ratio"]) == (0.1, 0.6, 0.25)
    # Runs of earlier versions did not log it.
    (row,) = rows(table_of([make_run(regime="scratch"), make_run(regime="frozen")], "transfer"))
    assert "start_accuracy" not in row


def test_several_seeds_are_tested_over_seeds(make_run: MakeRun, make_predictions: MakePredictions) -> None:
    runs = [make_run(framework, seed=seed) for framework in ("torch", "keras") for seed in range(2)]
    final = {run.run_id: make_predictions(right(0.8, 7 * number)) for number, run in enumerate(runs)}
    (group,) = compare_runs(runs, lambda _: SavedPredictions(final=final)).groups
    (note,) = [note for note in group.tables["frameworks"].notes if note.startswith("p of equal accuracy")]
    assert note.startswith("p of equal accuracy: McNemar's test, over seeds too where there are several;")
