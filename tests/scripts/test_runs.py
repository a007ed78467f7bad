from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn import metrics as sklearn_metrics
from sklearn.datasets import load_digits

from tandem.data.prepare import REPORT_FILE, SPLIT_FILE
from tandem.protocol.parser import read_settings
from tandem.protocol.settings import flatten
from tandem.tracking import vocabulary
from tandem.tracking.journal import read_journal
from tandem.tracking.provenance import parameter_text
from tests.small_runs import assert_same_outputs

FRAMEWORKS = ("torch", "keras")
ROOT = Path(__file__).resolve().parents[2]
WEIGHT_FILES = {
    "torch": {"weights/backbone.safetensors", "weights/head.safetensors"},
    "keras": {"weights/backbone.weights.h5", "weights/head.weights.h5"},
}
EPOCH_METRICS = [
    "train/loss",
    "train/accuracy",
    "val/loss",
    "val/accuracy",
    "epoch/learning_rate",
    "epoch/seconds",
    "epoch/phase",
]
# MobileNetV2 without its top has 2,223,872 parameters; a dense layer from 1280 features to 5 classes has 6,405.
BACKBONE_PARAMETERS, HEAD_PARAMETERS = 2_223_872, 1280 * 5 + 5

Runs = dict[str, Any]

# The first test of each group waits for whole runs, which are several times slower on a busy machine.
pytestmark = pytest.mark.timeout(900)


# ------------------------------------------------------------------------------------------------------ one of the pair


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_run_ends_finished_and_prints_where_to_look(pair: Runs, framework: str) -> None:
    run = pair[framework]
    assert run.run.info.status == "FINISHED"
    assert run.run.info.end_time >= run.run.info.start_time
    assert run.tags[vocabulary.BACKEND] == {"torch": "torch", "keras": "tensorflow"}[framework]
    output = run.process.stdout
    assert "mlflow_server/serve.py" in output and run.id in output
    assert f"{run.metrics['test/accuracy']:.4f}" in output
    assert "Traceback" not in run.process.stderr and "warning: " not in run.process.stderr


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_output_to_a_file_has_no_progress_bars(pair: Runs, framework: str) -> None:
    for output in (pair[framework].process.stdout, pair[framework].process.stderr):
        assert not re.search(r"\r|\x1b|\x08|━━|it/s|\d+/\d+ \[|100%", output)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_parameters_are_the_settings_and_the_counts(pair: Runs, store: Any, framework: str) -> None:
    settings = read_settings("torch", ["--config", str(store.folder / "settings.yaml")])
    expected = {name: parameter_text(value) for name, value in flatten(settings).items()}
    # 100 images of each of 5 classes, 70/10/20
    expected |= {"num_classes": "5", "num_train_images": "350", "num_val_images": "50", "num_test_images": "100"}
    assert pair[framework].run.data.params == expected


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_curves_continue_over_both_phases(pair: Runs, framework: str) -> None:
    run = pair[framework]
    epochs = [int(run.metrics[f"phase_{number}/cost/epochs"]) for number in (1, 2)]
    assert all(1 <= count <= 4 for count in epochs)
    assert run.metrics["cost/epochs"] == sum(epochs)
    for name in EPOCH_METRICS:
        history = run.history(name)
        assert [metric.step for metric in history] == list(range(sum(epochs))), name
        times = [metric.timestamp for metric in history]
        assert times == sorted(times)
    assert run.values("epoch/phase") == [1] * epochs[0] + [2] * epochs[1]
    assert run.values("epoch/learning_rate") == pytest.approx([1e-2] * epochs[0] + [1e-3] * epochs[1], rel=1e-6)
    for part in ("train", "val"):
        assert all(0 <= value <= 1 for value in run.values(f"{part}/accuracy"))
        assert all(0 < value < 100 for value in run.values(f"{part}/loss"))
    # 50 validation images: accuracies are fiftieths
    assert all(abs(value * 50 - round(value * 50)) < 1e-4 for value in run.values("val/accuracy"))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_best_epoch_of_a_phase_has_the_lowest_validation_loss(pair: Runs, framework: str) -> None:
    run = pair[framework]
    phases, losses = run.values("epoch/phase"), run.values("val/loss")
    for number in (1, 2):
        of_phase = [loss for loss, phase in zip(losses, phases, strict=True) if phase == number]
        assert run.metrics[f"phase_{number}/cost/best_epoch"] == int(np.argmin(of_phase))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_each_phase_is_timed_by_itself(pair: Runs, framework: str) -> None:
    run = pair[framework]
    seconds = run.values("epoch/seconds")
    first = int(run.metrics["phase_1/cost/epochs"])
    for number, of_phase in ((1, seconds[:first]), (2, seconds[first:])):
        assert run.metrics[f"phase_{number}/cost/seconds_per_epoch"] == pytest.approx(np.median(of_phase))
        assert run.metrics[f"phase_{number}/cost/train_seconds"] >= sum(of_phase)
    total = run.metrics["phase_1/cost/train_seconds"] + run.metrics["phase_2/cost/train_seconds"]
    assert run.metrics["cost/train_seconds"] == pytest.approx(total)
    compiling = run.metrics["phase_1/cost/compile_seconds"] + run.metrics["phase_2/cost/compile_seconds"]
    assert run.metrics["cost/compile_seconds"] == pytest.approx(compiling)
    # torch compiles nothing on a CPU; in both, the first batch of cached features may take longer than the others
    assert (run.metrics["phase_2/cost/compile_seconds"] > 0) == (framework == "keras")
    assert run.metrics["cost/seconds_per_epoch"] == pytest.approx(np.median(seconds))
    assert total < (run.run.info.end_time - run.run.info.start_time) / 1000


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_parameters_are_counted_in_each_phase(pair: Runs, framework: str) -> None:
    metrics = pair[framework].metrics
    everything = BACKBONE_PARAMETERS + HEAD_PARAMETERS
    assert metrics["cost/parameters"] == metrics["phase_1/cost/parameters"] == everything
    assert metrics["phase_1/cost/trainable_parameters"] == HEAD_PARAMETERS
    assert metrics["phase_2/cost/trainable_parameters"] == metrics["cost/trainable_parameters"] == everything


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_cost_of_inference_is_measured(pair: Runs, framework: str) -> None:
    metrics = pair[framework].metrics
    assert metrics["cost/latency_milliseconds"] > 0 and metrics["cost/inference_images_per_second"] > 0
    assert 100 < metrics["cost/peak_memory_megabytes"] < 20_000
    assert metrics["cost/peak_gpu_memory_megabytes"] == 0  # the settings keep the run on the CPU


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_hashes_prove_what_was_frozen(pair: Runs, framework: str) -> None:
    tags = pair[framework].tags
    before_1, after_1, before_2, after_2 = (
        tags[f"tandem.phase_{number}.backbone_{when}"] for number in (1, 2) for when in ("before", "after")
    )
    assert before_1 == after_1 == before_2 != after_2
    assert re.fullmatch("[0-9a-f]{64}", after_2)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_artifacts_are_those_of_the_vocabulary(pair: Runs, framework: str) -> None:
    folder = pair[framework].artifacts
    evaluation = (
        vocabulary.PREDICTIONS_FILE,
        vocabulary.PER_CLASS_FILE,
        vocabulary.CONFUSION_MATRIX_FILE,
        vocabulary.CLASSIFICATION_REPORT_FILE,
    )
    folders = (vocabulary.FINAL_FOLDER, vocabulary.phase_name(1), vocabulary.phase_name(2))
    expected = {f"{name}/{file}" for name in folders for file in evaluation}
    expected |= {f"{vocabulary.DATA_FOLDER}/{file}" for file in (SPLIT_FILE, REPORT_FILE)}
    expected |= {vocabulary.SETTINGS_FILE, vocabulary.RUN_PAGE_FILE, vocabulary.ARCHITECTURE_FILE}
    expected |= {vocabulary.MODEL_CARD_FILE, vocabulary.NUMBERS_FILE}
    found = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert found == expected | WEIGHT_FILES[framework]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_journal_of_the_run_is_sent_completely(pair: Runs, store: Any, framework: str) -> None:
    (folder,) = (store.folder / "runs" / "pair").glob(f"*-{framework}-{pair[framework].id[:8]}")
    entries = [json.loads(line) for line in (folder / vocabulary.JOURNAL_FILE).read_text().splitlines()]
    kinds = [entry["kind"] for entry in entries if "kind" in entry]
    assert kinds[0] == "run" and kinds[-1] == "end"
    assert {"params", "tags", "metrics", "artifact", "dataset", "model"} <= set(kinds)
    assert not read_journal(folder / vocabulary.JOURNAL_FILE).unsent()
    # uploaded weights and models are not kept twice
    assert not (folder / "weights").exists() and not (folder / "model").exists()


@pytest.mark.parametrize("folder", ["final", "phase_1", "phase_2"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_scores_agree_with_scikit_learn_on_the_saved_predictions(pair: Runs, framework: str, folder: str) -> None:
    run = pair[framework]
    table = run.predictions(folder)
    names = [column.removeprefix("probability:") for column in run.probabilities(folder)]
    assert names == ["0", "1", "2", "3", "4"] and len(table) == 100
    probabilities = run.probabilities(folder).to_numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    truth = table["truth"].astype(str).to_numpy()
    predicted = np.array(names)[probabilities.argmax(axis=1)]
    assert (table["predicted"].astype(str) == predicted).all()

    # In float64, since scikit-learn clips at the epsilon of the type that it is given.
    in_float64 = probabilities.astype(np.float64)
    in_float64 /= in_float64.sum(axis=1, keepdims=True)
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(truth, predicted),
        "top5_accuracy": 1.0,  # there are five classes
        "log_loss": sklearn_metrics.log_loss(truth, in_float64, labels=names),
        "calibration_error": calibration_error(probabilities, predicted == truth),
        "rms_calibration_error": rms_calibration_error(probabilities.max(axis=1), predicted == truth),
        "recall_at_half": sklearn_metrics.recall_score(
            truth[:, None] == np.array(names), probabilities > 0.5, average="micro", zero_division=0
        ),
    }
    is_class = truth[:, None] == np.array(names)
    expected |= {
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(truth, predicted),
        "cohen_kappa": sklearn_metrics.cohen_kappa_score(truth, predicted),
        "matthews_correlation": sklearn_metrics.matthews_corrcoef(truth, predicted),
        "roc_auc_macro": sklearn_metrics.roc_auc_score(is_class, probabilities, average="macro"),
        "average_precision_macro": sklearn_metrics.average_precision_score(is_class, probabilities, average="macro"),
    }
    for mean in ("macro", "weighted"):
        of_mean = sklearn_metrics.precision_recall_fscore_support(truth, predicted, average=mean, zero_division=0)
        expected |= {f"{name}_{mean}": of_mean[i] for i, name in enumerate(("precision", "recall", "f1"))}
    of_classes = sklearn_metrics.precision_recall_fscore_support(truth, predicted, labels=names, zero_division=0)
    expected |= {f"{name}_min": of_classes[i].min() for i, name in enumerate(("precision", "recall", "f1"))}

    prefix = "test/" if folder == "final" else f"{folder}/test/"
    logged = {name.removeprefix(prefix): value for name, value in run.metrics.items() if name.startswith(prefix)}
    assert logged == pytest.approx(expected, abs=1e-6)


def calibration_error(probabilities: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error by definition: 15 bins ((b - 1)/15, b/15], weighted by their share of the images."""
    confidence, error = probabilities.max(axis=1), 0.0
    for low, high in zip(np.arange(15) / 15, np.arange(1, 16) / 15, strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return error


def rms_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Debiased as in Kumar et al. 2019: mean product of the gaps of two different images of a bin of equal images."""
    order = np.argsort(confidence, kind="stable")
    gaps = (correct - confidence.astype(np.float64))[order]
    limits = np.quantile(confidence.astype(np.float64), np.arange(1, 15) / 15)
    total = 0.0
    for number in range(15):
        low = limits[number - 1] if number else -np.inf
        high = limits[number] if number < 14 else np.inf
        of_bin = gaps[(confidence[order] > low) & (confidence[order] <= high)]
        products = np.outer(of_bin, of_bin)
        if len(of_bin) > 1:
            total += (products.sum() - np.trace(products)) / (len(of_bin) - 1)
    return max(total / len(gaps), 0.0) ** 0.5


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_final_scores_are_those_of_the_last_phase(pair: Runs, framework: str) -> None:
    run = pair[framework]
    assert run.predictions("final").equals(run.predictions("phase_2"))
    assert not run.predictions("phase_1").equals(run.predictions("phase_2"))
    # better than guessing among five classes, so that these tests compare more than constants
    assert run.metrics["test/accuracy"] > 0.3


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_tables_of_the_run_agree_with_its_predictions(pair: Runs, framework: str) -> None:
    run = pair[framework]
    truth, predicted = (run.predictions()[name].astype(str) for name in ("truth", "predicted"))
    with (run.artifacts / "final" / "confusion_matrix.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    counts = np.array([row[1:] for row in rows[1:]], dtype=int)
    np.testing.assert_array_equal(counts, sklearn_metrics.confusion_matrix(truth, predicted))
    with (run.artifacts / "final" / "per_class.csv").open(newline="") as file:
        per_class = list(csv.DictReader(file))
    assert [row["class"] for row in per_class] == ["0", "1", "2", "3", "4"]
    assert [int(row["support"]) for row in per_class] == [20] * 5
    for score in ("f1", "roc_auc", "average_precision"):
        mean = np.mean([float(row[score]) for row in per_class])
        assert mean == pytest.approx(run.metrics[f"test/{score}_macro"]), score


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_data_set_is_an_input_of_the_run(pair: Runs, framework: str) -> None:
    run = pair[framework]
    (logged,) = run.run.inputs.dataset_inputs
    assert logged.dataset.name == "digits"
    assert len(logged.dataset.digest) >= 8
    assert run.tags[vocabulary.SPLIT_HASH].startswith(logged.dataset.digest)
    assert json.loads(logged.dataset.profile)["num_test_images"] == 100
    assert [tag.value for tag in logged.tags] == ["train, val, test"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_saved_split_is_that_of_the_predictions(pair: Runs, framework: str) -> None:
    run = pair[framework]
    with (run.artifacts / vocabulary.DATA_FOLDER / SPLIT_FILE).open(newline="") as file:
        lines = [line for line in file if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    tested = [row["key"] for row in rows if "test" in row.values()]
    assert sorted(tested) == sorted(run.predictions()["key"])
    digits = load_digits().target
    truth = run.predictions()["truth"].astype(int)
    assert [digits[int(key.split("/")[1])] for key in run.predictions()["key"]] == truth.tolist()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_load_of_the_machine_is_sampled(pair: Runs, framework: str) -> None:
    run = pair[framework]
    assert {"system/cpu_percent", "system/memory_megabytes", "system/process_memory_megabytes"} <= set(run.metrics)
    samples = run.history("system/process_memory_megabytes")
    assert [sample.step for sample in samples] == list(range(len(samples))) and len(samples) >= 2


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_settings_of_the_run_can_be_run_again(pair: Runs, store: Any, framework: Any) -> None:
    again = read_settings(framework, ["--config", str(pair[framework].artifacts / vocabulary.SETTINGS_FILE)])
    assert again == read_settings(framework, ["--config", str(store.folder / "settings.yaml")])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_page_of_the_run_needs_no_network(pair: Runs, framework: str) -> None:
    run = pair[framework]
    page = (run.artifacts / vocabulary.RUN_PAGE_FILE).read_text(encoding="utf-8")
    opening = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page)
    assert [tag for tag in opening if re.search(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:)?//""", tag)] == []
    assert "Plotly.newPlot" in page and f"mobilenet_v2, two_stage, {framework}, digits" in page
    assert f"Accuracy {run.metrics['test/accuracy']:.2f} (95 % interval" in page  # 100 test images


@pytest.fixture(scope="session")
def served(
    pair: Runs, store: Any, serve: Callable[..., pd.DataFrame], in_both: Callable[..., dict[str, Any]]
) -> dict[str, pd.DataFrame]:
    """Predictions of each framework's logged model."""
    return in_both(lambda framework: serve(pair[framework], store.uri))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_logged_model_gives_the_logged_predictions(pair: Runs, served: dict[str, pd.DataFrame], framework: str) -> None:
    answers, recorded = served[framework], pair[framework].predictions()
    probabilities = answers.filter(like="probability:")
    assert set(probabilities.dtypes) == {np.dtype(np.float32)} and probabilities.shape == (100, 5)
    assert_same_outputs(probabilities, pair[framework].probabilities(), atol=1e-5)
    assert answers["class"].tolist() == recorded["predicted"].tolist()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_logged_model_describes_itself(pair: Runs, framework: str) -> None:
    run = pair[framework]
    (output,) = run.run.outputs.model_outputs
    logged = run.client.get_logged_model(output.model_id)
    assert logged.status == "READY" and logged.source_run_id == run.id
    location = Path(logged.artifact_location.removeprefix("file://"))
    description = yaml.safe_load((location / "MLmodel").read_text())
    outputs = json.loads(description["signature"]["outputs"])
    names = ["class", "probability", *(f"probability:{name}" for name in "01234")]
    assert [column["name"] for column in outputs] == names
    assert [column["type"] for column in outputs] == ["string", *["float"] * 6]
    about = description["metadata"]["tandem"]
    assert about["classes"] == list("01234") and (about["height"], about["width"]) == (8, 8)
    assert (about["image_size"], about["resize"], about["backbone"]) == (32, "squash", "mobilenet_v2")
    assert about["scaling"] == {"torch": "torch", "keras": "tf"}[framework]
    assert about["split_hash"] == run.tags[vocabulary.SPLIT_HASH] and about["run_id"] == run.id


# ------------------------------------------------------------------------------------------------------------ the pair


@pytest.mark.parametrize("name", ["SETTINGS_HASH", "SPLIT_HASH", "TEST_HASH", "BATCHES_HASH", "DATA_NAME", "HARDWARE"])
def test_frameworks_share_settings_split_and_batches(pair: Runs, name: str) -> None:
    tag = getattr(vocabulary, name)
    assert pair["torch"].tags[tag] == pair["keras"].tags[tag]
    assert len(pair["torch"].tags[tag]) >= 3


def test_frameworks_log_the_same_names(pair: Runs) -> None:
    torch, keras = pair["torch"], pair["keras"]
    assert torch.run.data.params == keras.run.data.params
    assert set(torch.metrics) == set(keras.metrics)
    versions = "tandem.version."
    assert {name for name in torch.tags if not name.startswith(versions)} == {
        name for name in keras.tags if not name.startswith(versions)
    }


def test_frameworks_predict_the_same_images_in_the_same_order(pair: Runs) -> None:
    for column in ("key", "hash", "truth"):
        for folder in ("phase_1", "phase_2", "final"):
            torch, keras = (pair[name].predictions(folder)[column] for name in FRAMEWORKS)
            assert torch.astype(str).tolist() == keras.astype(str).tolist()


def test_frameworks_count_the_same_work(pair: Runs) -> None:
    for name in ("cost/macs", "cost/parameters", "cost/trainable_parameters"):
        assert pair["torch"].metrics[name] == pair["keras"].metrics[name] > 0


def test_comparison_has_one_row_per_run(pair: Runs, store: Any, run: Callable[..., Any]) -> None:
    done = run(ROOT / "compare.py", "--experiment", "pair", "--output", "tables", cwd=store.folder)
    assert done.returncode == 0, done.stderr
    with (store.folder / "tables" / "summary.csv").open(newline="") as file:
        rows = {row["framework"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(FRAMEWORKS)
    for framework, row in rows.items():
        assert (row["regime"], float(row["accuracy"])) == (
            "two_stage",
            pytest.approx(pair[framework].metrics["test/accuracy"]),
        )
        assert f"{pair[framework].metrics['test/accuracy']:.4f}" in done.stdout
    for name in ("summary.md", "frameworks.md", "frameworks.csv", "tables.md"):
        assert (store.folder / "tables" / name).stat().st_size > 0
    assert "two_stage" in (store.folder / "tables" / "tables.md").read_text()


# ------------------------------------------------------------------------------------------ runs that start from others


@pytest.fixture(scope="session")
def follow_ups(
    pair: Runs, store: Any, train: Callable[..., Any], in_both: Callable[..., dict[str, Any]]
) -> dict[str, Any]:
    """A frozen run in each framework, on the weights of its run of the pair."""

    def follow(framework: str) -> Any:
        words = ["--config", "settings.yaml", "--regime", "frozen", "--weights", f"runs:/{pair[framework].id}"]
        words += ["--max_epochs", "2", "--tracking.experiment", "follow", "--tracking.log_model", "false"]
        done = train(framework, *words, cwd=store.folder)
        assert done.returncode == 0, done.stderr
        return done

    return {name: store.only_run("follow", done, framework=name) for name, done in in_both(follow).items()}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_frozen_run_keeps_the_weights_of_the_run_it_starts_from(pair: Runs, follow_ups: Runs, framework: str) -> None:
    run = follow_ups[framework]
    assert run.run.info.status == "FINISHED"
    trained = pair[framework].tags["tandem.phase_2.backbone_after"]
    assert run.tags["tandem.phase_1.backbone_before"] == trained
    assert run.tags["tandem.phase_1.backbone_after"] == trained


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_trained_weights_predict_better_than_random_ones(pair: Runs, follow_ups: Runs, framework: str) -> None:
    # the pair's first phase is the same head on a random backbone
    random, trained = pair[framework].predictions("phase_1"), follow_ups[framework].predictions()
    assert random["key"].tolist() == trained["key"].tolist()
    assert not random.equals(trained)
    assert follow_ups[framework].metrics["test/accuracy"] > pair[framework].metrics["phase_1/test/accuracy"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_run_without_a_model_logs_none(follow_ups: Runs, framework: str) -> None:
    outputs = follow_ups[framework].run.outputs
    assert not outputs or not outputs.model_outputs
    assert WEIGHT_FILES[framework] <= {
        file.relative_to(follow_ups[framework].artifacts).as_posix()
        for file in follow_ups[framework].artifacts.rglob("*")
    }


@pytest.fixture(scope="session")
def crossed(
    pair: Runs, store: Any, train: Callable[..., Any], in_both: Callable[..., dict[str, Any]]
) -> dict[str, Any]:
    """A run in each framework that is to start from the other framework's run."""
    other = {"torch": "keras", "keras": "torch"}

    def start(framework: str) -> Any:
        words = ["--regime", "frozen", "--weights", f"runs:/{pair[other[framework]].id}"]
        return train(
            framework, "--config", "settings.yaml", *words, "--tracking.experiment", "crossed", cwd=store.folder
        )

    return in_both(start)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_weights_of_the_other_framework_are_refused_in_one_line(
    pair: Runs, crossed: dict[str, Any], framework: str
) -> None:
    done = crossed[framework]
    other = {"torch": "keras", "keras": "torch"}[framework]
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(re.findall("error: ", done.stderr)) == 1
    message = done.stderr.rstrip("\n").splitlines()[-1]
    assert message.startswith(f"train_{framework}.py: error: ")
    assert pair[other].id in message  # what was received
    # the reason: it belongs to the other framework, or lacks weights
    assert other in message or "backbone." in message


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_run_that_raises_ends_failed_with_its_traceback(store: Any, crossed: dict[str, Any], framework: str) -> None:
    run = store.only_run("crossed", crossed[framework], framework=framework)
    assert run.run.info.status == "FAILED"
    traceback = (run.artifacts / vocabulary.TRACEBACK_FILE).read_text()
    assert traceback.startswith("Traceback") and "UserError" in traceback and f"train_{framework}.py" in traceback
    assert run.tags["tandem.failure"] in crossed[framework].stderr
