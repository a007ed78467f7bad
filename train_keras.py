"""Trains one image classifier in Keras (on TensorFlow, JAX or PyTorch), evaluates it and records the run in MLflow.

    python train_keras.py --config configs/demo/digits.yaml --regime two_stage --learning_rate 1e-3

Its twin train_torch.py does the same in PyTorch: the same settings, images, batches, phases, scores and names, section
by section; `sdiff train_torch.py train_keras.py` shows what the frameworks do differently. KERAS_BACKEND chooses the
backend: tensorflow by default, jax or torch.
"""

from __future__ import annotations

import functools
import logging
import sys
import time
from itertools import chain, count
from pathlib import Path
from typing import Any

from tandem.errors import UserError, run_program
from tandem.protocol.backbones import find_backbone
from tandem.protocol.environment import prepare_environment
from tandem.protocol.parser import parse_settings
from tandem.protocol.regimes import Phase, phases_of, split_blocks
from tandem.protocol.repeats import repeats_of
from tandem.protocol.search_space import varied_backbones
from tandem.protocol.settings import Settings

if __name__ == "__main__":
    # before the seconds that the imports below take: --help, wrong settings, and what the framework reads at its import
    asked = parse_settings("keras")
    if repeats_of(asked):
        from tandem.launch.repeats import run_repeats

        run_program("train_keras.py", lambda argv: run_repeats("keras", asked, argv), sys.argv[1:])
        sys.exit()
    prepare_environment(asked)

import keras
import numpy as np
from rich.progress import track

from tandem.data.features import NO_FEATURES, PhaseFeatures
from tandem.data.phase_streams import training_stream, validation_stream
from tandem.data.prepare import PreparedData, prepare
from tandem.data.stream import Stream
from tandem.data_report.report import record_data_report_after_run
from tandem.evaluation.batching import eval_batch_size, predict_as_fits
from tandem.evaluation.cost import measure_inference
from tandem.evaluation.imagenet import match_classes
from tandem.evaluation.predictions import Predictions
from tandem.on_keras.acceleration import is_out_of_memory, jit_compile, set_flags, warm_up
from tandem.on_keras.backbones import blocks_of, check_builder, set_trainable
from tandem.on_keras.backends import backend_version, has_gpu, limit_threads, peak_gpu_memory_megabytes
from tandem.on_keras.cost import count_macs
from tandem.on_keras.distributed import join_devices
from tandem.on_keras.early_stopping import build_early_stopping
from tandem.on_keras.features import (
    FeatureLoader,
    find_features,
    head_on_features,
    steps_per_execution,
    validation_batches,
)
from tandem.on_keras.feed import CountEpochs, StreamLoader
from tandem.on_keras.gradcam import features_and_gradients
from tandem.on_keras.learning_rate_finder import take_steps
from tandem.on_keras.log_epochs import LogEpochs
from tandem.on_keras.mapped_head import map_head
from tandem.on_keras.networks import Classifier, build_classifier, build_off_the_shelf
from tandem.on_keras.optimizers import Blocks, build_optimizer, build_schedule
from tandem.on_keras.serving import save_model
from tandem.on_keras.weights import BACKBONE_FILE, count_parameters, hash_weights, save_weights
from tandem.protocol.learning_rate_finder import LearningRateFinder
from tandem.recording.off_the_shelf import record_off_the_shelf
from tandem.recording.run import (
    PhaseOutcome,
    predictions_of_test,
    record_data,
    record_end,
    record_grad_cam,
    record_phase,
    record_weights,
    without_imagenet,
)
from tandem.search.learning_rate_finder import record_learning_rate_finder
from tandem.tracking import vocabulary
from tandem.tracking.curves import Curves
from tandem.tracking.reader import find_weights
from tandem.tracking.run import Run, start_run

TRIALS_OF_A_PROCESS = {"tensorflow": 10}
"""After how many trials of a sweep its process starts anew: TensorFlow keeps 100 to 200 MB of each trial."""

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


# ---------------------------------------------------------------------------------------------------------------- main


def main(argv: list[str] | None = None) -> None:
    settings = parse_settings("keras", argv)
    settings = join_devices(settings)  # before anything asks JAX for its devices
    set_up_framework(settings)
    for backbone in varied_backbones(settings):
        check_builder(find_backbone(backbone, "keras"))  # before a run is made
    if settings.sweep.num_trials is not None:
        from tandem.search.sweep import run_sweep  # Optuna, which other runs need not wait for

        backend = keras.backend.backend()
        run_sweep(
            "keras",
            settings,
            train_trial,
            backend=backend,
            versions=framework_versions(),
            trials_of_a_process=TRIALS_OF_A_PROCESS.get(backend),
        )
        return
    # nothing is augmented where nothing is trained, and no larger images are stored to be cropped
    data = prepare(settings.data, settings.augmentation if phases_of(settings) else None)
    if settings.regime == "off_the_shelf":
        match_classes(data.classes, settings.imagenet_classes)  # before a run is made
    if settings.find_learning_rate:
        find_learning_rate(settings, data)
        return
    with start_run(settings, framework="keras", backend=keras.backend.backend(), versions=framework_versions()) as run:
        run.set_tags({vocabulary.DEVICE: "gpu" if on_gpu(settings) else "cpu"})
        record_data(run, data)
        train_and_evaluate(settings, data, run)
    if settings.tracking.data_report:
        record_data_report_after_run(data, settings.tracking)


def framework_versions() -> dict[str, str]:
    return {"keras": keras.__version__, keras.backend.backend(): backend_version()}


def set_up_framework(settings: Settings) -> None:
    """Seeds, threads, device, what of it is used, precision, and silence."""
    if settings.device == "gpu" and not has_gpu():
        raise UserError(
            f"device: received 'gpu', but {keras.backend.backend()} finds no GPU here; allowed: cpu or auto"
        )
    if settings.precision == "float16" and not has_gpu():
        raise UserError(
            f"precision: received 'float16', but {keras.backend.backend()} finds no GPU here; "
            "allowed: float32 or bfloat16"
        )
    if settings.threads is not None:
        limit_threads(settings.threads)
    set_flags(settings.acceleration)
    keras.utils.set_random_seed(settings.seed)
    keras.mixed_precision.set_global_policy(PRECISIONS[settings.precision])
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of what each phase compiles anew


def on_gpu(settings: Settings) -> bool:
    return settings.device != "cpu" and has_gpu()


# ----------------------------------------------------------------------------------------------------------------- run


def train_and_evaluate(settings: Settings, data: PreparedData, run: Run) -> None:
    """All phases of the regime, each with its evaluation, then what the run leaves behind."""
    network = build_network(settings, data, run)
    curves = Curves(run)
    outcomes, results = [], []
    if settings.regime == "off_the_shelf":
        network, predictions = evaluate_off_the_shelf(network, settings, data, run)
    for phase in phases_of(settings):
        outcomes.append(train_phase(network, phase, settings, data, curves))
        predictions = predict_test(network, settings, data)
        results.append(record_phase(run, phase, outcomes[-1], predictions, curves))
    save_network(network, settings, data, run)
    inference = measure_inference_cost(network, settings, data)
    explain_predictions(network, settings, data, predictions, run)
    record_end(run, settings, data, curves, outcomes, results, predictions, inference)


def build_network(settings: Settings, data: PreparedData, run: Run) -> Classifier:
    """The network with the weights to start from, and the tag that says which these are."""
    weights_file = locate_weights(settings)
    record_weights(run, settings, weights_file)
    try:
        return assemble_network(settings, data, weights_file)
    except UserError as error:
        settings = without_imagenet(run, settings, error)
    keras.utils.set_random_seed(settings.seed)  # the attempt has drawn random numbers
    return assemble_network(settings, data, None)


def assemble_network(settings: Settings, data: PreparedData, weights_file: Path | None) -> Classifier:
    """The backbone with a new head, or with the one for ImageNet's classes that it was published with."""
    if settings.regime == "off_the_shelf":
        return build_off_the_shelf(settings, data.images.shape[1:], weights_file)
    return build_classifier(settings, len(data.classes), data.images.shape[1:], weights_file)


def locate_weights(settings: Settings) -> Path | None:
    """The file of the pretrained weights; None where they are random or the framework downloads them."""
    if settings.weights in ("random", "imagenet"):
        return None
    if settings.weights.startswith("runs:/"):
        return find_weights(settings.tracking.uri, settings.weights, BACKBONE_FILE)
    return Path(settings.weights).expanduser()


# ------------------------------------------------------------------------------------------------- search for settings


def train_trial(settings: Settings, data: PreparedData, run: Run, curves: Curves) -> PhaseOutcome:
    """One trial of a sweep: all phases as from a fresh start, and no look at the test images."""
    keras.utils.clear_session()  # names of layers and random numbers begin anew, as in a process of its own
    set_up_framework(settings)
    run.set_tags({vocabulary.DEVICE: "gpu" if on_gpu(settings) else "cpu"})
    network = build_network(settings, data, run)
    for phase in phases_of(settings):
        outcome = train_phase(network, phase, settings, data, curves)
    return outcome


def find_learning_rate(settings: Settings, data: PreparedData) -> None:
    """The learning-rate range test of the first phase: a run that trains nothing that is kept, and suggests a rate."""
    tags = {vocabulary.RANGE_TEST: "under way"}
    with start_run(
        settings, framework="keras", backend=keras.backend.backend(), versions=framework_versions(), not_compared=tags
    ) as run:
        run.set_tags({vocabulary.DEVICE: "gpu" if on_gpu(settings) else "cpu"})
        record_data(run, data)
        network = build_network(settings, data, run)
        phase = phases_of(settings)[0]
        training, _ = open_streams(settings, data, phase)
        blocks = blocks_of(network.backbone, find_backbone(settings.backbone, "keras"))
        finder = LearningRateFinder()
        freeze_or_thaw(network, phase, blocks)
        network.compile(
            optimizer=build_optimizer(settings.optimizer, phase.learning_rate, blocks),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=jit_compile(settings.acceleration, gpu=on_gpu(settings)),
        )
        take_steps(finder, network, chain.from_iterable(map(training.stream.epoch, count())))
        record_learning_rate_finder(run, finder, f"{settings.backbone}, {settings.regime}, {data.name}")


# --------------------------------------------------------------------------------------------------------------- phase


def train_phase(
    network: Classifier, phase: Phase, settings: Settings, data: PreparedData, curves: Curves
) -> PhaseOutcome:
    """One phase, with an optimizer and callbacks of its own; leaves the network with the weights to go on with."""
    blocks = blocks_of(network.backbone, find_backbone(settings.backbone, "keras"))
    frozen = list(chain.from_iterable(split_blocks(phase, blocks)[0]))
    freeze_or_thaw(network, phase, blocks)
    backbone_before, frozen_before = hash_weights(network.backbone), hash_weights(*frozen)
    jit = jit_compile(settings.acceleration, gpu=on_gpu(settings))
    features = find_features(network, phase, settings, data, backbone_before, jit_compile=jit)
    training, validation = open_streams(settings, data, phase, features)
    early_stopping = build_early_stopping(settings, phase)
    trained, steps_per_epoch = network, None
    if features.training:
        trained, steps_per_epoch = head_on_features(network), len(training)
        network.compile(jit_compile=jit)  # to predict
    learning_rate, schedule = build_schedule(settings.schedule, phase, len(training))
    trained.compile(
        optimizer=build_optimizer(settings.optimizer, learning_rate, blocks),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=jit,
        steps_per_execution=steps_per_execution(steps_per_epoch) if steps_per_epoch else 1,
    )
    compile_seconds = features.compile_seconds
    if not features.training:  # the head alone is traced in a second
        compile_seconds += warm_up(network, training.stream, validation.stream)
    start = time.perf_counter()
    history = trained.fit(
        training,
        validation_data=validation,
        epochs=phase.max_epochs,
        steps_per_epoch=steps_per_epoch,
        shuffle=False,  # the stream does it
        callbacks=[CountEpochs(training), LogEpochs(curves, phase), *schedule, early_stopping],
        verbose=1 if sys.stdout.isatty() else 0,
    )
    train_seconds = features.seconds + time.perf_counter() - start
    parameters, trainable_parameters = count_parameters(network)
    return PhaseOutcome(
        epochs=len(history.epoch),
        best_epoch=early_stopping.best_epoch,
        train_seconds=train_seconds,
        compile_seconds=compile_seconds,
        parameters=parameters,
        trainable_parameters=trainable_parameters,
        backbone_before=backbone_before,
        backbone_after=hash_weights(network.backbone),
        frozen_before=frozen_before,
        frozen_after=hash_weights(*frozen),
        first_epoch_hash=training.stream.first_epoch_hash,
        feature_seconds=features.seconds,
        cached_feature_seconds=features.cached_seconds,
    )


def open_streams(
    settings: Settings, data: PreparedData, phase: Phase, features: PhaseFeatures = NO_FEATURES
) -> tuple[StreamLoader, Any]:
    """Training batches, shuffled and augmented from the seed and the phase's number, and validation batches.

    Of images, or of their features where the phase has these.
    """
    training = training_stream(settings, data, phase, features=features.training)
    validation = validation_stream(settings, data, phase, features=features.validation)
    if features.training:
        return FeatureLoader(training), validation_batches(validation)
    return StreamLoader(training), StreamLoader(validation)


def freeze_or_thaw(network: Classifier, phase: Phase, blocks: Blocks) -> None:
    """Makes the backbone or its last blocks trainable, as the phase says; what is frozen changes in nothing.

    Keras runs a frozen batch norm in inference mode; dropout is switched off by Classifier.call in a backbone of which
    nothing is trained, and by set_trainable in single blocks. It takes effect with the compile() that has to follow.
    """
    network.backbone.trainable = phase.trainable != "head"
    frozen, trained = split_blocks(phase, blocks)
    for block in frozen:
        set_trainable(block, False)
    for block in trained:
        set_trainable(block, True)


# ---------------------------------------------------------------------------------------------------------- evaluation


def evaluate_off_the_shelf(
    network: Classifier, settings: Settings, data: PreparedData, run: Run
) -> tuple[Classifier, Predictions]:
    """The pretrained network as it is: its scores over all ImageNet outputs, then with an output for each class."""
    outputs = match_classes(data.classes, settings.imagenet_classes)
    predictions = record_off_the_shelf(run, data, logits_of_test(network, settings, data), outputs)
    return map_head(network, outputs, data.images.shape[1:]), predictions


def predict_test(network: Classifier, settings: Settings, data: PreparedData) -> Predictions:
    """Probabilities of all test images; the scores are made from them later, by the same code for both frameworks."""
    return predictions_of_test(data, logits_of_test(network, settings, data))


def logits_of_test(network: Classifier, settings: Settings, data: PreparedData) -> np.ndarray:
    """Of shape (test images, the network's outputs)."""
    batch_size = eval_batch_size(settings, gpu=on_gpu(settings))
    stream = Stream(
        data.images, data.labels, data.rows("test"), batch_size=batch_size, seed=(settings.seed,), shuffle=False
    )
    batches = track(stream.epoch(0), "Evaluating", total=len(stream), transient=True, disable=not sys.stdout.isatty())
    images = (images for images, _ in batches)
    predict = functools.partial(predict_batch, network)
    return predict_as_fits(predict, images, is_out_of_memory=is_out_of_memory, pad=True)  # each size is compiled anew


def predict_batch(network: Classifier, images: np.ndarray) -> np.ndarray:
    """Logits of shape (n, classes) of uint8 images of shape (n, height, width, 3), in inference mode."""
    return network.predict_on_batch(images)


def measure_inference_cost(network: Classifier, settings: Settings, data: PreparedData) -> dict[str, float]:
    """What a prediction costs, by the vocabulary's names."""
    images = np.asarray(data.images[data.rows("test")[: settings.batch_size]])
    latency, throughput = measure_inference(lambda batch: predict_batch(network, batch), images, settings.batch_size)
    return {
        vocabulary.PARAMETERS: count_parameters(network)[0],
        vocabulary.MACS: count_macs(network),
        vocabulary.LATENCY_MILLISECONDS: latency,
        vocabulary.IMAGES_PER_SECOND: throughput,
        vocabulary.PEAK_GPU_MEMORY_MEGABYTES: peak_gpu_memory_megabytes(),
    }


def explain_predictions(
    network: Classifier, settings: Settings, data: PreparedData, predictions: Predictions, run: Run
) -> None:
    """Where the trained network looks on some of the test images (Grad-CAM)."""
    record_grad_cam(
        run, settings, data, predictions, lambda images, classes: features_and_gradients(network, images, classes)
    )


def save_network(network: Classifier, settings: Settings, data: PreparedData, run: Run) -> None:
    """The weights, for later runs to start from, and the network as a model that can be served."""
    if settings.tracking.log_weights:
        save_weights(network, run.folder / "weights")
        run.log_artifact(run.folder / "weights", remove=True)
    if settings.tracking.log_model:
        folder = run.folder / "model"
        save_model(network, folder, image_shape=data.images.shape[1:], num_classes=len(data.classes))
        run.log_model(folder, remove=True)


if __name__ == "__main__":
    run_program("train_keras.py", main)
