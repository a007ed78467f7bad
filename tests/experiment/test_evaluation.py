from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tandem.data.prepare import PreparedData
from tandem.evaluation.imagenet import imagenet_classes
from tandem.evaluation.predictions import Predictions
from tandem.experiment import (
    evaluate_off_the_shelf,
    evaluate_views,
    explain_predictions,
    measure_inference_cost,
    predict_test,
)
from tandem.experiment.evaluation import logits_of_test
from tandem.protocol.settings import TrackingSettings, Views
from tandem.tracking import vocabulary
from tests.experiment.made_framework import LinearNetwork, MadePackage, MadeScript
from tests.oracles import softmax
from tests.small_runs import NUM_CLASSES, RecordingRun, assert_same_outputs, small_settings

BILINEAR = Image.Resampling.BILINEAR


def network_and_logits(script: MadeScript, data: PreparedData) -> tuple[LinearNetwork, np.ndarray]:
    network = script.build_network(small_settings(), data, None)
    return network, network(np.asarray(data.images[data.rows("test")]))


@pytest.mark.parametrize(
    ("largest_batch", "eval_batch_size", "batches"),
    [
        (1000, None, [8, 8]),  # the training batch size on a CPU; the second one is filled up
        (1000, 15, [15]),
        (5, 15, [15, 8, 4, 4, 4, 4]),  # halved twice
    ],
)
def test_test_images_are_predicted_in_order_in_batches_that_fit(
    largest_batch: int, eval_batch_size: int | None, batches: list[int], data: PreparedData
) -> None:
    script = MadeScript()
    network, expected = network_and_logits(script, data)
    script.package.largest_batch = largest_batch
    settings = small_settings(eval_batch_size=eval_batch_size)
    logits = logits_of_test(script.framework(), network, settings, data)
    assert_same_outputs(logits, expected, atol=1e-9)
    assert script.batches == batches


def test_gpu_predicts_more_images_at_once(data: PreparedData) -> None:
    script = MadeScript()
    network, _ = network_and_logits(script, data)
    logits_of_test(script.framework(), network, small_settings(device="gpu", batch_size=3), data)
    assert script.batches == [12, 12]


def test_smaller_batches_stay_small_if_they_cost_no_compilation(data: PreparedData) -> None:
    class Unpadded(MadePackage):
        PAD_BATCHES = False

    script = MadeScript(package=Unpadded())
    network, _ = network_and_logits(script, data)
    logits_of_test(script.framework(), network, small_settings(), data)
    assert script.batches == [8, 7]


def test_predictions_have_the_probabilities_and_names_of_the_test_images(data: PreparedData) -> None:
    script = MadeScript()
    network, logits = network_and_logits(script, data)
    predictions = predict_test(script.framework(), network, small_settings(), data)
    assert_same_outputs(predictions.probabilities, softmax(logits), atol=1e-6)
    rows = data.rows("test")
    assert predictions.keys == tuple(data.keys[row] for row in rows)
    assert np.array_equal(predictions.truth, data.labels[rows])


@pytest.mark.parametrize("kind", ["flip", "flip_and_crops"])
def test_views_are_scored_by_their_mean_probabilities(kind: Views, data: PreparedData, tmp_path: Path) -> None:
    script, run = MadeScript(), RecordingRun(tmp_path)
    network, logits = network_and_logits(script, data)
    settings = small_settings(test_time_augmentation=kind)
    plain = predict_test(script.framework(), network, settings, data)
    script.batches.clear()
    evaluate_views(script.framework(), network, settings, data, plain, run)  # type: ignore[arg-type]
    images = np.asarray(data.images[data.rows("test")])
    # images of 8 x 8 pixels have crops of 7 x 7, of which the centre is the first
    crops = [
        np.stack(
            [
                np.asarray(Image.fromarray(image[top : top + 7, left : left + 7]).resize((8, 8), BILINEAR))
                for image in images
            ]
        )
        for top, left in ((0, 0), (0, 1), (1, 0), (1, 1), (0, 0))
    ]
    views = [images] if kind == "flip" else [images, *crops]
    probabilities = [softmax(network(view)) for each in views for view in (each, each[:, :, ::-1])]
    recorded = Predictions.read(tmp_path / "tta" / "predictions.parquet")
    assert_same_outputs(recorded.probabilities, np.mean(probabilities, axis=0), atol=1e-6)
    assert not np.allclose(recorded.probabilities, softmax(logits), atol=1e-3)
    assert recorded.keys == plain.keys and recorded.hashes == plain.hashes
    logged = {name: value for _, values in run.logged for name, value in values.items()}
    assert logged["tta/views"] == len(probabilities)
    truth = data.labels[data.rows("test")]
    assert logged["tta/test/accuracy"] == pytest.approx(np.mean(np.mean(probabilities, axis=0).argmax(1) == truth))
    assert all(name.startswith("tta/") for name in logged)
    assert script.batches == [8, 8] * (len(probabilities) - 1)  # the plain images were predicted before


def test_without_test_time_augmentation_no_view_is_predicted(data: PreparedData, tmp_path: Path) -> None:
    script, run = MadeScript(), RecordingRun(tmp_path)
    network, _ = network_and_logits(script, data)
    plain = predict_test(script.framework(), network, small_settings(), data)
    script.batches.clear()
    evaluate_views(script.framework(), network, small_settings(), data, plain, run)  # type: ignore[arg-type]
    assert script.batches == run.logged == run.artifacts == [] and list(tmp_path.iterdir()) == []


def test_cost_of_inference_has_the_vocabulary_s_names(data: PreparedData) -> None:
    script = MadeScript()
    network, _ = network_and_logits(script, data)
    script.package.peaks = [9000.0, 7.0]
    predict_test(script.framework(), network, small_settings(), data)  # the memory is measured from here on
    script.batches.clear()
    cost = measure_inference_cost(script.framework(), network, small_settings(), data)
    size = 8 * 8 * 3 * 4 + 4 * NUM_CLASSES
    assert cost[vocabulary.PARAMETERS] == cost[vocabulary.MACS] == size
    assert cost[vocabulary.EVALUATION_PEAK_GPU_MEMORY_MEGABYTES] == 7.0
    assert set(script.batches) == {1, 8}  # latency of one image, throughput in batches
    assert len(cost) == 5 and all(value > 0 for value in cost.values())


def test_network_off_the_shelf_is_mapped_to_the_classes(data: PreparedData, tmp_path: Path) -> None:
    outputs = [7, 999, 0, 12, 301]
    mapping = tmp_path / "classes.yaml"
    lines = [f"'{label}': {imagenet_classes()[output].wordnet_id}\n" for label, output in enumerate(outputs)]
    mapping.write_text("".join(lines))
    script, run = MadeScript(num_outputs=1000), RecordingRun(tmp_path)
    network, logits = network_and_logits(script, data)
    settings = small_settings(regime="off_the_shelf", imagenet_classes=str(mapping))
    framework = script.framework()
    mapped, predictions = evaluate_off_the_shelf(framework, network, settings, data, run)  # type: ignore[arg-type]
    assert np.array_equal(mapped.head, network.head[:, outputs])
    assert_same_outputs(predictions.probabilities, softmax(logits[:, outputs]), atol=1e-6)
    assert any("test/imagenet_accuracy" in values for _, values in run.logged)


@pytest.mark.parametrize("num_images", [0, 3])
def test_explanation_has_as_many_images_as_the_settings_say(
    num_images: int, data: PreparedData, tmp_path: Path
) -> None:
    script, run = MadeScript(), RecordingRun(tmp_path)
    (tmp_path / vocabulary.FINAL_FOLDER).mkdir()
    network, _ = network_and_logits(script, data)
    settings = small_settings(tracking=TrackingSettings(grad_cam_images=num_images))
    predictions = predict_test(script.framework(), network, settings, data)
    explain_predictions(script.framework(), network, settings, data, predictions, run)  # type: ignore[arg-type]
    assert [path.name for path in run.artifacts] == (["grad_cam.npz", "grad_cam.png"] if num_images else [])
    assert run.tags == ({"tandem.grad_cam": f"{num_images} images"} if num_images else {})
