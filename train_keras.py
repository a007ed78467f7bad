"""Trains an image classifier in Keras (on TensorFlow, JAX or PyTorch), evaluates it and records the run in MLflow.

    python train_keras.py --config configs/demo/digits.yaml --regime scratch --threads 1

MobileNetV2 from random weights, 12 epochs on 1,259 handwritten digits of 8 x 8 pixels. With seeds 0 to 4:
accuracy 0.914 to 0.958 on 359 test images, 0.935 on average; 60 to 140 seconds per run, on one core of a machine with 2
CPU cores (x86-64) that other programs used too; keras 3.15.1, tensorflow 2.21.0.

KERAS_BACKEND chooses the backend: tensorflow (the default), jax or torch. Its twin train_torch.py does the same in
PyTorch, with the same settings, images, batches, phases and scores: compare them with
`sdiff -w 240 train_torch.py train_keras.py`. The code that both share is in tandem/experiment.
"""

from __future__ import annotations

from tandem.launch.scripts import begin, run_script

if __name__ == "__main__":
    SETTINGS = begin("keras")  # before the slow imports: answers --help, refuses invalid settings, starts repeats

import functools
import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tandem import experiment, on_keras
from tandem.data.phase_streams import passes_of
from tandem.data.prepare import PreparedData
from tandem.protocol import Phase, Settings, averaging_rates, find_backbone, split_blocks
from tandem.tracking.curves import Curves
from tandem.tracking.run import Run
from tandem.tracking.time_limit import PhaseTimeLimit

# Keras's names: weights stay float32, and layers compute in the lower precision.
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


# ----------------------------------------------------------------------------------------------------------------- run


def set_up_framework(settings: Settings) -> None:
    """Sets threads, flags, seeds and precision, and silences TensorFlow."""
    on_keras.check_device(settings)
    if settings.threads is not None:
        on_keras.limit_threads(settings.threads)
    on_keras.set_flags(settings.acceleration)
    keras.utils.set_random_seed(settings.seed)
    keras.mixed_precision.set_global_policy(PRECISIONS[settings.precision])
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns when a phase is compiled again


def train_and_evaluate(settings: Settings, data: PreparedData, run: Run) -> None:
    """A run in order: first weights, each phase and its evaluation, cost of inference, explanation, summary."""
    network = experiment.first_network(FRAMEWORK, settings, data, run)
    progress = experiment.Progress(FRAMEWORK, network, settings, run)  # begins where the run was interrupted, if it was
    if settings.regime == "off_the_shelf":
        network, predictions = experiment.evaluate_off_the_shelf(FRAMEWORK, network, settings, data, run)
    for phase in progress.phases_left():
        if not progress.is_trained(phase):
            with progress.keeping_good_weights():
                progress.add_outcome(train_phase(network, phase, settings, data, progress.curves))
        predictions = experiment.predict_test(FRAMEWORK, network, settings, data)
        progress.add_predictions(phase, predictions)  # fails if the hash of a frozen part has changed
    experiment.save_network(FRAMEWORK, network, settings, data, run)
    cost = experiment.measure_inference_cost(FRAMEWORK, network, settings, data)
    experiment.evaluate_views(FRAMEWORK, network, settings, data, predictions, run)  # test-time augmentation
    experiment.explain_predictions(FRAMEWORK, network, settings, data, predictions, run)
    progress.record_end(data, predictions, cost)


# ------------------------------------------------------------------------------------------------------------- network


def build_network(settings: Settings, data: PreparedData, weights_file: Path | None) -> on_keras.Classifier:
    """The network with its first weights: uint8 pixels -> scaling -> backbone -> head -> float32 logits.

    Pixels turns uint8 images (n, height, width, 3) into float32 (n, size, size, 3), scaled as the weights expect: to
    -1..1 for Keras's MobileNetV2, blue before red and without division for its ResNet50. The backbone is a model of
    Keras Applications without its top. The head's weights are the bytes that train_torch.py's head starts with.
    """
    keras.utils.set_random_seed(settings.seed)  # the same random weights, whatever was drawn before
    if settings.regime == "off_the_shelf":
        return on_keras.build_off_the_shelf(settings, weights_file)
    return on_keras.build_classifier(settings, len(data.classes), weights_file)


def freeze_or_thaw(network: on_keras.Classifier, phase: Phase, blocks: on_keras.Blocks) -> None:
    """Makes the head and the blocks that the phase trains trainable; frozen blocks do not change.

    It takes effect with the next compile(). Keras runs a frozen batch norm in inference mode, but not a frozen dropout:
    Classifier.call switches it off in a backbone that is frozen as a whole, set_trainable in single blocks.
    """
    network.backbone.trainable = phase.trainable != "head"
    frozen, trained = split_blocks(phase, blocks)
    for block in frozen:
        on_keras.set_trainable(block, False)
    for block in trained:
        on_keras.set_trainable(block, True)
    on_keras.fix_batch_norm(network.backbone, phase.batch_norm == "frozen")  # its scale and offset are trained


# --------------------------------------------------------------------------------------------------------------- phase


def train_phase(
    network: on_keras.Classifier, phase: Phase, settings: Settings, data: PreparedData, curves: Curves
) -> experiment.PhaseOutcome:
    """Trains one phase: compile and fit. Early stopping restores the best weights, if the settings say so."""
    blocks = on_keras.blocks_of(network.backbone, find_backbone(settings.backbone, "keras"))
    freeze_or_thaw(network, phase, blocks)
    meter = experiment.PhaseMeter(on_keras, network, frozen=split_blocks(phase, blocks)[0])
    features = on_keras.find_features(network, phase, settings, data, meter.backbone_before)
    training, validation = on_keras.open_streams(settings, data, phase, features)
    trained, steps_per_epoch, steps_per_execution = network, None, 1
    if features.training:  # of a frozen backbone, computed once for all epochs: only the head is trained
        trained, steps_per_epoch = on_keras.head_on_features(network), len(training)
        steps_per_execution = on_keras.steps_per_execution(len(training))
        network.compile(jit_compile=on_keras.jit_compile(settings))  # to predict
    passes = passes_of(settings, training.stream)
    learning_rate, schedule = on_keras.build_schedule(settings.schedule, phase, passes.num_steps)
    early_stopping, log_epochs = build_early_stopping(settings, phase), on_keras.LogEpochs(curves, phase)
    checkpoints = curves.checkpoints_of(phase)  # one of them is the beginning, if the run continues an interrupted one
    keep_checkpoints = on_keras.KeepCheckpoints(checkpoints, training, log_epochs, schedule, early_stopping)
    limit = PhaseTimeLimit(settings, phase, curves, feature_seconds=features.seconds)
    trained.compile(
        optimizer=on_keras.build_optimizer(settings.optimizer, learning_rate, blocks, passes),
        loss=on_keras.build_loss(settings),
        metrics=[on_keras.build_accuracy(settings)],
        jit_compile=on_keras.jit_compile(settings),
        steps_per_execution=steps_per_execution,
    )
    averages = on_keras.average_weights(trained, averaging_rates(settings, phase, passes.num_steps))
    # the head alone is traced in a second
    compile_seconds = 0.0 if features.training else on_keras.warm_up(network, training.stream, validation.stream)
    fit = functools.partial(
        trained.fit,
        training,
        validation_data=validation,
        steps_per_epoch=steps_per_epoch,
        shuffle=False,  # the stream shuffles
        callbacks=[
            *(on_keras.CountEpochs(training), *averages, keep_checkpoints, log_epochs, *schedule, early_stopping),
            on_keras.TimeLimit(limit, log_epochs, training, phase.max_epochs),
        ],
        verbose=0,  # LogEpochs prints a line per epoch
    )
    with meter.training(checkpoints.seconds):
        epochs = keep_checkpoints.fit(fit, phase.max_epochs)
    return meter.outcome(
        epochs=epochs,
        best_epoch=early_stopping.best_epoch,
        compile_seconds=compile_seconds,
        features=features,
        stream=training.stream,
        ended_by_time_limit=limit.is_reached,
    )


def build_early_stopping(settings: Settings, phase: Phase) -> on_keras.EarlyStoppingWithBestWeights:
    """Keras's early stopping, which also restores the weights of the epoch with the lowest validation loss.

    Without patience it never stops, but still finds the best epoch.
    """
    return on_keras.EarlyStoppingWithBestWeights(
        monitor="val_loss",
        mode="min",
        patience=settings.early_stopping.patience or phase.max_epochs,
        min_delta=settings.early_stopping.min_delta,
        restore=settings.early_stopping.restore,
    )


def raise_learning_rate(
    network: on_keras.Classifier, phase: Phase, settings: Settings, batches: Any, finder: experiment.LearningRateFinder
) -> None:
    """Takes the steps of a learning-rate range test: train_on_batch, at a rate that rises from step to step."""
    blocks = on_keras.blocks_of(network.backbone, find_backbone(settings.backbone, "keras"))
    freeze_or_thaw(network, phase, blocks)
    network.compile(
        optimizer=on_keras.build_optimizer(settings.optimizer, phase.learning_rate, blocks),
        loss=on_keras.build_loss(settings),
        jit_compile=on_keras.jit_compile(settings),
    )
    on_keras.take_steps(finder, network, batches)


# ---------------------------------------------------------------------------------------------------------- prediction


def predict_batch(network: on_keras.Classifier, settings: Settings, images: np.ndarray) -> np.ndarray:
    """Logits of shape (n, classes) of uint8 images of shape (n, height, width, 3), in inference mode.

    The settings' precision is the global policy that the network was built with.
    """
    return network.predict_on_batch(images)


# ---------------------------------------------------------------------------------------------------------------- main

FRAMEWORK = experiment.Framework(
    name="keras",
    package=on_keras,
    set_up=set_up_framework,
    build_network=build_network,
    train_phase=train_phase,
    predict_batch=predict_batch,
    train_and_evaluate=train_and_evaluate,
    raise_learning_rate=raise_learning_rate,
    before_trial=keras.utils.clear_session,  # names of layers and random numbers begin again, as in a new process
    trials_per_process=on_keras.trials_per_process(),
)


def main(settings: Settings) -> None:
    """Runs what the settings ask for: one run, a sweep, or a learning-rate range test."""
    set_up_framework(settings)
    experiment.run_experiment(FRAMEWORK, on_keras.join_devices(settings))


if __name__ == "__main__":
    run_script("keras", main, SETTINGS)
