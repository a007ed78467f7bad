from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
from scipy import stats

from tandem.comparison.comparison import Comparison, compare_runs
from tandem.comparison.predictions import SavedPredictions
from tandem.rendering.tables import Estimate, Table
from tandem.tracking.reader import RunRecord
from tests.compared import MakePredictions, MakeRun, right_images
from tests.compared import rows_of as rows

IMAGES = 200
right = partial(right_images, images=IMAGES)


def table_of(runs: Sequence[RunRecord], name: str) -> Table:
    """A table of the only group of these runs, without predictions."""
    (group,) = compare_runs(runs).groups
    return group.tables[name]


@pytest.fixture
def compared(make_run: MakeRun, make_predictions: MakePredictions) -> Callable[..., Comparison]:
    def run(outcomes: dict[tuple[str, str], list[bool]], without: Sequence[tuple[str, str]] = ()) -> Comparison:
        records = {
            key: make_run(
                *key,
                float(np.mean(outcome)),
                metrics={"phase_1/test/accuracy": 0.5, "phase_1/test/f1_macro": 0.5, "phase_1/cost/train_seconds": 20.0}
                if key[1] == "two_stage"
                else {},
            )
            for key, outcome in outcomes.items()
        }
        final = {records[key].run_id: make_predictions(outcomes[key]) for key in outcomes if key not in without}
        first = {records[key].run_id: make_predictions(right(0.5)) for key in outcomes if key[1] == "two_stage"}

        def read(_: object) -> SavedPredictions:
            return SavedPredictions(final=final, first_phase=first, notes=("a note",))

        return compare_runs(list(records.values()), read)

    return run


OUTCOMES = {
    ("torch", "scratch"): right(0.7),
    ("torch", "two_stage"): right(0.9),
    ("keras", "two_stage"): right(0.88, 10),
    ("torch", "finetune"): right(0.4),
}


def test_summary_has_a_row_per_regime_and_framework(make_run: MakeRun) -> None:
    runs = [
        make_run(framework, regime)
        for framework in ("keras", "torch")
        for regime in ("two_stage", "finetune", "frozen", "scratch")
    ]
    summary = table_of(runs, "summary")
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


def test_summary_shows_what_a_run_measured(make_run: MakeRun) -> None:
    (row,) = rows(table_of([make_run(accuracy=0.75)], "summary"))
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
    (row,) = rows(table_of([make_run(accuracy=0.8, seed=0), make_run(accuracy=0.9, seed=1)], "summary"))
    assert row["accuracy"] == pytest.approx(0.85)
    assert row["runs"] == 2


def test_metric_that_a_seed_lacks_is_missing(make_run: MakeRun) -> None:
    lacking = make_run(seed=1)
    del lacking.metrics["cost/latency_milliseconds"]
    (row,) = rows(table_of([make_run(seed=0), lacking], "summary"))
    assert row["latency_milliseconds"] is None
    assert row["train_seconds"] == 60


def test_summary_has_intervals_letters_and_tied_cells(compared: Callable[..., Comparison]) -> None:
    summary = compared(OUTCOMES).groups[0].tables["summary"]
    of_rows = rows(summary)
    assert [row["tied"] for row in of_rows] == ["b", "a", "a", "c"]
    assert {number for number, key in summary.tied if key == "accuracy"} == {1, 2}
    accuracy = of_rows[1]["accuracy"]
    assert isinstance(accuracy, Estimate)
    limits = stats.binomtest(round(0.9 * IMAGES), IMAGES).proportion_ci(0.95, method="exact")
    assert (accuracy.value, accuracy.low, accuracy.high) == pytest.approx((0.9, limits.low, limits.high))
    assert "0.05, corrected over 6 pairs" in " ".join(summary.notes)


def test_summary_has_the_verdict_against_the_best(compared: Callable[..., Comparison]) -> None:
    summary = compared(OUTCOMES).groups[0].tables["summary"]
    assert [row["against_best"] for row in rows(summary)] == ["worse", "best", "undecided", "worse"]
    (note,) = [note for note in summary.notes if note.startswith("Against the best")]
    assert "differ by less than one point (0.01)" in note


def test_scores_without_an_interval_have_the_reason_below_the_table(compared: Callable[..., Comparison]) -> None:
    # Four classes of 2 images: too few for F1, enough for recall, which is not among the measured scores.
    few = {key: right_images(0.5, images=8) for key in [("torch", "frozen"), ("torch", "finetune")]}
    tables = compared(few).groups[0].tables
    reason = "No interval keeps its promise for macro F1: fewer than 4 test images per class."
    assert reason in tables["scores"].notes and reason in tables["summary"].notes
    assert not isinstance(rows(tables["scores"])[0]["f1_macro"], Estimate)


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


def test_row_without_predictions_has_its_score_and_no_interval(compared: Callable[..., Comparison]) -> None:
    comparison = compared(OUTCOMES, without=[("keras", "two_stage")])
    of_rows = rows(comparison.groups[0].tables["summary"])
    assert of_rows[2]["accuracy"] == pytest.approx(0.88) and of_rows[2]["tied"] is None
    (pair,) = rows(comparison.groups[0].tables["frameworks"])
    assert pair["accuracy_difference"] == pytest.approx(-0.02)
    assert comparison.notes == ("a note",)


def test_scores_table_has_the_scores_of_predictions_and_of_runs(compared: Callable[..., Comparison]) -> None:
    table = compared(OUTCOMES).groups[0].tables["scores"]
    # No run has logged the calibration error, which has no interval.
    assert [column.key for column in table.columns][3:] == [
        *("accuracy", "top5_accuracy", "precision_macro", "recall_macro", "f1_macro"),
        *("precision_weighted", "recall_weighted", "f1_weighted", "precision_min", "recall_min", "f1_min"),
        *("recall_at_half", "rms_calibration_error", "log_loss"),
    ]
    assert {column.key: column.better for column in table.columns}["f1_min"] == "higher"
    assert rows(table)[0]["f1_min"].value == pytest.approx(0.7, abs=0.05)


def test_lower_losses_and_calibration_errors_are_better(make_run: MakeRun) -> None:
    table = table_of([make_run(metrics={"test/log_loss": 0.3, "test/calibration_error": 0.1})], "scores")
    better = {column.key: column.better for column in table.columns}
    assert (better["accuracy"], better["log_loss"], better["calibration_error"]) == ("higher", "lower", "lower")


def test_versions_that_differ_within_a_row_or_between_rows_are_named(make_run: MakeRun) -> None:
    def notes(*versions: str, regimes: tuple[str, str] = ("frozen", "frozen")) -> list[str]:
        runs = [
            make_run(regime=regime, seed=seed, tags={"tandem.version.torch": version, "tandem.version.python": "3.13"})
            for seed, (version, regime) in enumerate(zip(versions, regimes, strict=True))
        ]
        return [note for note in table_of(runs, "summary").notes if "ersion" in note]

    assert notes("2.15.0", "2.15.0") == []
    assert notes("2.14.0", "2.15.0") == ["Versions of torch differ: 2.14.0 in frozen torch; 2.15.0 in frozen torch."]
    assert notes("2.14.0", "2.15.0", regimes=("frozen", "finetune")) == [
        "Versions of torch differ: 2.14.0 in frozen torch; 2.15.0 in finetune torch."
    ]


def test_scores_that_documents_define_have_columns(make_run: MakeRun) -> None:
    """Lowest precision and recall of a class (birds, equations 4 and 5), weighted averages, and recall at 0.5."""
    names = ("precision_min", "recall_min", "precision_weighted", "recall_weighted", "recall_at_half")
    metrics = {f"test/{name}": 0.1 * number for number, name in enumerate(names)}
    table = table_of([make_run(metrics=metrics)], "scores")
    (row,) = rows(table)
    assert {name: row[name] for name in names} == {name: metrics[f"test/{name}"] for name in names}
    assert {column.better for column in table.columns if column.key in names} == {"higher"}


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


def test_times_on_different_machines_have_no_best(make_run: MakeRun) -> None:
    def better(*runs: RunRecord) -> dict[str, str | None]:
        return {column.key: column.better for column in table_of(list(runs), "cost").columns}

    other = {"tandem.hardware": "H200"}
    assert better(make_run("torch"), make_run("keras"))["train_seconds"] == "lower"
    found = better(make_run("torch"), make_run("keras", tags=other))
    assert found["train_seconds"] is found["latency_milliseconds"] is found["seconds_per_epoch"] is None
    assert found["parameters"] == "lower"


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
    assert table.notes[0].startswith("Thawing changed accuracy by +0.3800 to +0.4000 for 3.0 times the training time")


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


def test_cost_has_the_seconds_of_each_phase_and_the_hardware(make_run: MakeRun) -> None:
    phases = {"phase_1/cost/train_seconds": 20.0, "phase_2/cost/train_seconds": 40.0, "cost/epochs": 12.0}
    runs = [make_run(regime="two_stage", metrics=phases, tags={"tandem.device": "cpu"}), make_run(regime="scratch")]
    _, row = rows(table_of(runs, "cost"))
    assert (row["train_seconds_phase_1"], row["train_seconds_phase_2"], row["epochs"]) == (20, 40, 12)
    assert row["hardware"] == "2 cores, cpu"


def test_network_off_the_shelf_has_both_kinds_of_scores(make_run: MakeRun) -> None:
    metrics = {
        "test/imagenet_accuracy": 0.827,
        "test/imagenet_precision_macro": 0.0359,
        "test/imagenet_recall_macro": 0.0296,
        "test/imagenet_f1_macro": 0.0323,
        "test/imagenet_num_labels": 279.0,
        "test/imagenet_outside": 0.17,
    }
    runs = [make_run(regime="off_the_shelf", accuracy=0.99, metrics=metrics), make_run(regime="frozen")]
    assert table_of(runs, "off_the_shelf").rows == (("off_the_shelf torch", 0.99, *metrics.values()),)


def test_without_networks_off_the_shelf_there_is_no_such_table(make_run: MakeRun) -> None:
    assert "off_the_shelf" not in {table.name for table in compare_runs([make_run()]).tables}
