"""Trains an image classifier in PyTorch (Lightning, torchvision, timm), evaluates it and records the run in MLflow.

    python train_torch.py --config configs/demo/digits.yaml --regime scratch --threads 1

MobileNetV2 from random weights, 12 epochs on 1,259 handwritten digits of 8 x 8 pixels. With seeds 0 to 4:
accuracy 0.880 to 0.944 on 359 test images, 0.916 on average; 35 to 50 seconds per run, on one core of a machine with 2
CPU cores (x86-64) that other programs used too; torch 2.15.0, torchvision 0.29.2, pytorch-lightning 2.6.6.

Its twin train_keras.py does the same in Keras, with the same settings, images, batches, phases and scores: compare them
with `sdiff -w 240 train_torch.py train_keras.py`. The code that both share is in tandem/experiment.
"""

from __future__ import annotations

from tandem.launch.scripts import begin, run_script

if __name__ == "__main__":
    SETTINGS = begin("torch")  # before the slow imports: answers --help, refuses invalid settings, starts repeats

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from tandem import experiment, on_torch
from tandem.data.phase_streams import passes_of
from tandem.data.prepare import PreparedData
from tandem.protocol import Passes, Phase, Settings, averaging_rates, find_backbone, split_blocks
from tandem.tracking.curves import Curves
from tandem.tracking.run import Run
from tandem.tracking.time_limit import PhaseTimeLimit

# Lightning's names: weights stay float32, and passes compute in the lower precision where that is safe.
PRECISIONS: dict[str, Any] = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}


# ----------------------------------------------------------------------------------------------------------------- run


def set_up_framework(settings: Settings) -> None:
    """Sets threads, flags and seeds, and silences Lightning."""
    on_torch.check_device(settings)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    on_torch.set_flags(settings.acceleration)
    lightning.seed_everything(settings.seed, verbose=False)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")


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


def build_network(settings: Settings, data: PreparedData, weights_file: Path | None) -> on_torch.Classifier:
    """The network with its first weights: uint8 pixels -> scaling -> backbone -> head -> float32 logits.

    Pixels turns uint8 images (n, height, width, 3) into float32 (n, 3, size, size), scaled as the weights expect: in
    0..1 minus ImageNet's means, over its deviations, for torchvision's. The backbone ends in one feature vector per
    image. The head is batch norm, dropout and dense layers, as the settings say; off the shelf, the backbone's own.
    """
    lightning.seed_everything(settings.seed, verbose=False)  # the same random weights, whatever was drawn before
    if settings.regime == "off_the_shelf":
        network = on_torch.build_off_the_shelf(settings, weights_file)
    else:
        network = on_torch.build_classifier(settings, len(data.classes), weights_file)
    return on_torch.to_device(network, settings)


def freeze_or_thaw(network: on_torch.Classifier, phase: Phase, blocks: on_torch.Blocks) -> None:
    """Makes the head and the blocks that the phase trains trainable; frozen blocks do not change.

    Frozen blocks have no gradients and are in inference mode: batch norm uses its statistics and keeps them, and
    dropout is off. (Lightning's BaseFinetuning.freeze lets batch norm normalise with the batch's statistics.)
    """
    network.head.train()  # in inference mode after an earlier phase
    network.backbone.requires_grad_(phase.trainable == "all")
    network.backbone.train(phase.trainable == "all")
    _, trained = split_blocks(phase, blocks)
    for block in trained:
        for module in block:
            module.requires_grad_(True)
            module.train()
    if phase.batch_norm == "frozen":
        on_torch.fix_batch_norm(network.backbone)  # its scale and offset are trained


class FreezeOrThaw(Callback):
    """Freezes again at the start of each epoch, since train() reaches into the backbone."""

    def __init__(self, phase: Phase, blocks: on_torch.Blocks) -> None:
        self.phase = phase
        self.blocks = blocks

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: Any) -> None:
        module.train()
        freeze_or_thaw(module.network, self.phase, self.blocks)


# --------------------------------------------------------------------------------------------------------------- phase


def train_phase(
    network: on_torch.Classifier, phase: Phase, settings: Settings, data: PreparedData, curves: Curves
) -> experiment.PhaseOutcome:
    """Trains one phase: Trainer.fit. Early stopping restores the best weights, if the settings say so."""
    blocks = on_torch.blocks_of(network.backbone, find_backbone(settings.backbone, "torch"))
    freeze_or_thaw(network, phase, blocks)
    meter = experiment.PhaseMeter(on_torch, network, frozen=split_blocks(phase, blocks)[0])
    features = on_torch.find_features(network, phase, settings, data, meter.backbone_before)
    training, validation = on_torch.open_streams(settings, data, phase, features)
    trained: Any = network
    callbacks: list[Callback] = [FreezeOrThaw(phase, blocks)]
    if features.training:  # of a frozen backbone, computed once for all epochs: only the head is trained
        trained, callbacks = on_torch.HeadOnFeatures(network.head).train(), []
    early_stopping, log_epochs = build_early_stopping(settings, phase), on_torch.LogEpochs(curves, phase)
    checkpoints = curves.checkpoints_of(phase)  # one of them is the beginning, if the run continues an interrupted one
    passes = passes_of(settings, training.stream)
    averages = on_torch.average_weights(averaging_rates(settings, phase, passes.num_steps))
    keep_checkpoints = on_torch.KeepCheckpoints(checkpoints, training, log_epochs, early_stopping, averages)
    limit = PhaseTimeLimit(settings, phase, curves, feature_seconds=features.seconds)
    steps = TrainingSteps(trained, settings, phase, blocks, passes)
    trainer = lightning.Trainer(
        max_epochs=phase.max_epochs,
        callbacks=[
            *(*callbacks, *averages, keep_checkpoints, log_epochs, early_stopping),
            on_torch.TimeLimit(limit, log_epochs),
        ],
        precision=PRECISIONS[settings.precision],
        **on_torch.trainer_options(settings, phase),
    )
    compile_seconds = on_torch.warm_up(trained, steps.forward_pass, settings, training, validation)
    with meter.training(checkpoints.seconds), on_torch.keyboard_interrupts():
        trainer.fit(steps, training, validation)
    on_torch.to_device(network, settings).eval()  # Lightning has moved it off the GPU
    return meter.outcome(
        epochs=trainer.current_epoch,
        best_epoch=early_stopping.best_epoch,
        compile_seconds=compile_seconds,
        features=features,
        stream=training.stream,
        ended_by_time_limit=limit.is_reached,
    )


def build_early_stopping(settings: Settings, phase: Phase) -> on_torch.EarlyStoppingWithBestWeights:
    """Lightning's early stopping, which also restores the weights of the epoch with the lowest validation loss.

    Without patience it never stops, but still finds the best epoch.
    """
    return on_torch.EarlyStoppingWithBestWeights(
        monitor="val/loss",
        mode="min",
        patience=settings.early_stopping.patience or phase.max_epochs,
        min_delta=settings.early_stopping.min_delta,
        restore=settings.early_stopping.restore,
        check_finite=False,  # Curves.add ends a run whose loss is not finite
        check_on_train_epoch_end=True,  # validation has run by then
    )


class TrainingSteps(on_torch.LeanLightningModule):
    """A phase's steps, and their mean loss and accuracy per epoch; Lightning calls the methods."""

    def __init__(self, network: Any, settings: Settings, phase: Phase, blocks: on_torch.Blocks, passes: Passes) -> None:
        super().__init__()
        self.network = network
        self.forward_pass = on_torch.forward_of(network, settings.acceleration)  # compiled, if the settings say so
        self.settings = settings
        self.phase = phase
        self.blocks = blocks
        self.passes = passes
        self.steps_per_epoch = passes.num_steps
        self.sums = on_torch.EpochSums()

    def training_step(self, batch: tuple[Tensor, ...], index: int) -> Tensor:
        images, targets, *weights = batch  # labels or soft targets, and weights if classes have them
        logits = self.forward_pass(images)
        loss = on_torch.mean_loss(logits, targets, *weights)
        self.sums.add("train", loss, logits, targets)
        return loss

    def validation_step(self, batch: tuple[Tensor, ...], index: int) -> None:
        images, targets = batch  # neither smoothed nor mixed
        logits = self.forward_pass(images)
        self.sums.add("val", on_torch.mean_loss(logits, targets), logits, targets)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.sums.means())  # validation follows the epoch's training batches

    def configure_optimizers(self) -> Any:
        settings, rate, fused = self.settings, self.phase.learning_rate, on_torch.uses_fused_optimizer(self.settings)
        optimizer = on_torch.build_optimizer(settings.optimizer, rate, self.network.head, self.blocks, fused=fused)
        schedule = on_torch.build_schedule(settings.schedule, self.phase, optimizer, self.steps_per_epoch)
        return {"optimizer": optimizer, **schedule}


def raise_learning_rate(
    network: on_torch.Classifier, phase: Phase, settings: Settings, batches: Any, finder: experiment.LearningRateFinder
) -> None:
    """Takes the steps of a learning-rate range test: the phase's, at a rate that rises from step to step."""
    blocks = on_torch.blocks_of(network.backbone, find_backbone(settings.backbone, "torch"))
    network.train()
    freeze_or_thaw(network, phase, blocks)
    optimizer = on_torch.build_optimizer(settings.optimizer, phase.learning_rate, network.head, blocks)
    on_torch.take_steps(finder, network, optimizer, batches, settings)


# ---------------------------------------------------------------------------------------------------------- prediction


def predict_batch(network: on_torch.Classifier, settings: Settings, images: np.ndarray) -> np.ndarray:
    """Logits of shape (n, classes) of uint8 images of shape (n, height, width, 3), in inference mode."""
    with torch.inference_mode(), on_torch.autocast(settings, network.device):
        return network(torch.from_numpy(images).to(network.device)).cpu().numpy()


# ---------------------------------------------------------------------------------------------------------------- main

FRAMEWORK = experiment.Framework(
    name="torch",
    package=on_torch,
    set_up=set_up_framework,
    build_network=build_network,
    train_phase=train_phase,
    predict_batch=predict_batch,
    train_and_evaluate=train_and_evaluate,
    raise_learning_rate=raise_learning_rate,
    when_prepared=on_torch.let_others_begin,
)


def main(settings: Settings) -> None:
    """Runs what the settings ask for: one run, a sweep, or a learning-rate range test."""
    set_up_framework(settings)
    settings = on_torch.join_processes(settings)  # one process per GPU
    if on_torch.is_first():
        experiment.run_experiment(FRAMEWORK, settings)
    else:
        on_torch.train_along(settings, build_network, train_phase)


if __name__ == "__main__":
    run_script("torch", main, SETTINGS)
