"""Evaluation of a trained network: predictions on the test images, cost of inference, Grad-CAM."""

from __future__ import annotations

import dataclasses
import functools
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from rich.progress import track

from tandem.data.console import num_cores
from tandem.data.prepare import PreparedData
from tandem.data.stream import Stream
from tandem.data.views import View, further_views, num_views
from tandem.evaluation.batching import eval_batch_size, predict_as_fits
from tandem.evaluation.cost import measure_inference
from tandem.evaluation.imagenet import match_classes
from tandem.evaluation.predictions import Predictions, softmax
from tandem.experiment.framework import Framework, Network
from tandem.protocol.settings import Settings
from tandem.recording.off_the_shelf import record_off_the_shelf
from tandem.recording.run import predictions_of_test, record_grad_cam, record_views
from tandem.tracking import vocabulary
from tandem.tracking.run import Run


def predict_test(framework: Framework, network: Network, settings: Settings, data: PreparedData) -> Predictions:
    """Probabilities of all test images; the same code computes both frameworks' scores from them."""
    return predictions_of_test(data, logits_of_test(framework, network, settings, data))


def logits_of_test(
    framework: Framework, network: Network, settings: Settings, data: PreparedData, view: View | None = None
) -> np.ndarray:
    """Logits of shape (test images, outputs), in the order of data.rows("test"); of a view of each image, if given."""
    framework.package.reset_peak_gpu_memory()  # measure_inference_cost reads it
    batch_size = eval_batch_size(settings, gpu=framework.package.uses_gpu(settings))
    stream = Stream(
        data.images, data.labels, data.rows("test"), batch_size=batch_size, seed=(settings.seed,), shuffle=False
    )
    batches = track(stream.epoch(0), "Evaluating", total=len(stream), transient=True, disable=not sys.stdout.isatty())
    with ThreadPoolExecutor(settings.threads or num_cores()) as threads:
        return predict_as_fits(
            functools.partial(framework.predict_batch, network, settings),
            (images if view is None else np.stack(list(threads.map(view, images))) for images, _ in batches),
            is_out_of_memory=framework.package.is_out_of_memory,
            pad=framework.package.PAD_BATCHES,
        )


def evaluate_views(
    framework: Framework,
    network: Network,
    settings: Settings,
    data: PreparedData,
    predictions: Predictions,
    run: Run,
) -> None:
    """Records the scores of the mean probabilities over several views of each test image, if the settings ask for it.

    Args:
        framework: Of the network.
        network: The trained one.
        settings: Of the run.
        data: The images.
        predictions: Of the same network on the plain images, which are the first view.
        run: The run that is being recorded.
    """
    views = further_views(settings.test_time_augmentation)
    if not views:
        return
    total = predictions.probabilities.astype(np.float64)
    for view in views:
        total += softmax(logits_of_test(framework, network, settings, data, view))
    mean = (total / num_views(settings.test_time_augmentation)).astype(np.float32)
    record_views(run, settings, predictions, dataclasses.replace(predictions, probabilities=mean))


def evaluate_off_the_shelf(
    framework: Framework, network: Network, settings: Settings, data: PreparedData, run: Run
) -> tuple[Network, Predictions]:
    """The pretrained network with one output per class, and its predictions.

    The run also gets the scores over all ImageNet outputs.
    """
    outputs = match_classes(data.classes, settings.imagenet_classes)
    predictions = record_off_the_shelf(run, data, logits_of_test(framework, network, settings, data), outputs)
    return framework.package.map_head(network, outputs), predictions


def measure_inference_cost(
    framework: Framework, network: Network, settings: Settings, data: PreparedData
) -> dict[str, float]:
    """Cost of a prediction by the vocabulary's names: parameters, multiply-accumulates, latency, throughput, memory.

    The memory is the peak since predict_test has begun.
    """
    images = np.asarray(data.images[data.rows("test")[: settings.batch_size]])
    predict = functools.partial(framework.predict_batch, network, settings)
    latency, throughput = measure_inference(predict, images, settings.batch_size)
    return {
        vocabulary.PARAMETERS: framework.package.count_parameters(network)[0],
        vocabulary.MACS: framework.package.count_macs(network),
        vocabulary.LATENCY_MILLISECONDS: latency,
        vocabulary.IMAGES_PER_SECOND: throughput,
        vocabulary.EVALUATION_PEAK_GPU_MEMORY_MEGABYTES: framework.package.peak_gpu_memory_megabytes(),
    }


def explain_predictions(
    framework: Framework,
    network: Network,
    settings: Settings,
    data: PreparedData,
    predictions: Predictions,
    run: Run,
) -> None:
    """Records where the trained network looks on some test images (Grad-CAM)."""
    explain = functools.partial(framework.package.features_and_gradients, network)
    record_grad_cam(run, settings, data, predictions, explain)
