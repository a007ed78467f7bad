from __future__ import annotations

from collections.abc import Callable

import pytest
from scipy import stats

from tandem.comparison.comparison import Comparison, compare_runs
from tandem.comparison.group_tables import checked_scores
from tandem.errors import UserError
from tandem.evaluation.metrics import SCORE_NAMES, scores
from tandem.rendering.tables import Estimate
from tandem.tracking.reader import RunRecord
from tests.compared import IMAGES, OUTCOMES, MakePredictions, MakeRun, right_images, table_of
from tests.compared import rows_of as rows


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
    reason = "No interval keeps its promise for macro F1{}: fewer than 4 test images per class."
    assert reason.format("") in tables["summary"].notes
    assert reason.format(", weighted F1") in tables["scores"].notes
    assert not isinstance(rows(tables["scores"])[0]["f1_macro"], Estimate)


def test_row_without_predictions_has_its_score_and_no_interval(compared: Callable[..., Comparison]) -> None:
    comparison = compared(OUTCOMES, without=[("keras", "two_stage")])
    of_rows = rows(comparison.groups[0].tables["summary"])
    assert of_rows[2]["accuracy"] == pytest.approx(0.88) and of_rows[2]["tied"] is None
    (pair,) = rows(comparison.groups[0].tables["frameworks"])
    assert pair["accuracy_difference"] == pytest.approx(-0.02)
    assert comparison.notes == ("a note",)


def test_scores_table_has_the_scores_of_predictions_and_of_runs(compared: Callable[..., Comparison]) -> None:
    table = compared(OUTCOMES).groups[0].tables["scores"]
    assert [column.key for column in table.columns][3:] == list(SCORE_NAMES)
    assert {column.key: column.better for column in table.columns}["f1_min"] == "higher"
    assert rows(table)[0]["f1_min"].value == pytest.approx(0.7, abs=0.05)


def test_scores_that_no_run_logged_are_computed_from_predictions(
    compared: Callable[..., Comparison], make_predictions: MakePredictions
) -> None:
    """Runs of older versions lack some scores; the calibration error never has an interval."""
    key = ("torch", "scratch")
    outcome = OUTCOMES[key]
    row = rows(compared({key: outcome}).groups[0].tables["scores"])[0]
    expected = scores(make_predictions(outcome))
    assert row["calibration_error"] == pytest.approx(expected["calibration_error"])
    assert row["cohen_kappa"].value == pytest.approx(expected["cohen_kappa"])
    without = rows(compared({key: outcome}, without=[key]).groups[0].tables["scores"])[0]
    assert "calibration_error" not in without and "cohen_kappa" not in without


def test_summary_has_the_columns_that_are_asked_for(make_run: MakeRun) -> None:
    run = make_run(metrics={"test/cohen_kappa": 0.4, "test/f1_macro": 0.5})
    usual = compare_runs([run]).groups[0].tables["summary"]
    more = compare_runs([run], more_scores=("cohen_kappa", "f1_macro")).groups[0].tables["summary"]
    assert "cohen_kappa" not in rows(usual)[0]
    assert rows(more)[0]["cohen_kappa"] == 0.4
    # Columns that the summary has anyway are not repeated.
    assert len(more.columns) == len(usual.columns) + 1


def test_unknown_score_is_refused_with_the_names() -> None:
    with pytest.raises(UserError, match=r"received 'cohens_kappa' \(did you mean cohen_kappa\?\), allowed: accuracy, "):
        checked_scores(["accuracy", "cohens_kappa"])
    assert checked_scores(["log_loss", "accuracy", "log_loss"]) == ("log_loss", "accuracy")


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


def test_rows_that_a_time_limit_ended_are_named(make_run: MakeRun) -> None:
    limited = {"tandem.time_limit": "ended phase 2"}
    runs = [make_run(regime=regime, tags=tags) for regime, tags in (("frozen", {}), ("finetune", limited))]
    (note,) = [note for note in table_of(runs, "summary").notes if "max_minutes" in note]
    assert note.startswith("The time limit (max_minutes) ended the training of finetune torch: ")
    assert not [note for note in table_of(runs[:1], "summary").notes if "max_minutes" in note]


def test_scores_that_documents_define_have_columns(make_run: MakeRun) -> None:
    """Lowest precision and recall of a class (birds, equations 4 and 5), weighted averages, and recall at 0.5."""
    names = ("precision_min", "recall_min", "precision_weighted", "recall_weighted", "recall_at_half")
    metrics = {f"test/{name}": 0.1 * number for number, name in enumerate(names)}
    table = table_of([make_run(metrics=metrics)], "scores")
    (row,) = rows(table)
    assert {name: row[name] for name in names} == {name: metrics[f"test/{name}"] for name in names}
    assert {column.better for column in table.columns if column.key in names} == {"higher"}


def test_times_on_different_machines_have_no_best(make_run: MakeRun) -> None:
    def better(*runs: RunRecord) -> dict[str, str | None]:
        return {column.key: column.better for column in table_of(list(runs), "cost").columns}

    other = {"tandem.hardware": "H200"}
    assert better(make_run("torch"), make_run("keras"))["train_seconds"] == "lower"
    found = better(make_run("torch"), make_run("keras", tags=other))
    assert found["train_seconds"] is found["latency_milliseconds"] is found["seconds_per_epoch"] is None
    assert found["parameters"] == "lower"


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


def test_test_time_augmentation_is_shown_beside_the_plain_images(make_run: MakeRun) -> None:
    def metrics(accuracy: float) -> dict[str, float]:
        return {"tta/test/accuracy": accuracy, "tta/test/f1_macro": 0.7, "tta/views": 12.0}

    runs = [
        make_run(accuracy=0.80, seed=0, metrics=metrics(0.85)),
        make_run(accuracy=0.90, seed=1, metrics=metrics(0.93)),
        make_run("keras", accuracy=0.5),
    ]
    (row,) = rows(table_of(runs, "test_time_augmentation"))
    assert (row["row"], row["views"], row["accuracy"]) == ("finetune torch", 12, pytest.approx(0.89))
    assert (row["accuracy_plain"], row["accuracy_difference"]) == pytest.approx((0.85, 0.04))
    assert row["f1_macro_difference"] == pytest.approx(0.7 - row["f1_macro_plain"])
    # all other tables are of the plain images
    assert rows(table_of(runs, "summary"))[0]["accuracy"] == pytest.approx(0.85)
    assert "test_time_augmentation" not in {table.name for table in compare_runs([make_run()]).tables}


def test_without_networks_off_the_shelf_there_is_no_such_table(make_run: MakeRun) -> None:
    assert "off_the_shelf" not in {table.name for table in compare_runs([make_run()]).tables}
