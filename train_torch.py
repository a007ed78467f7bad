"""Trains one image classifier in PyTorch (Lightning, torchvision, timm), evaluates it and records the run in MLflow.

    python train_torch.py --config configs/demo/digits.yaml --regime two_stage --learning_rate 1e-3

Its twin train_keras.py does the same in Keras: the same settings, images, batches, phases, scores and names, section by
section; `sdiff train_torch.py train_keras.py` shows what the frameworks do differently.
"""

from __future__ import annotations

import functools
import logging
import sys
import time
import warnings
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
    asked = parse_settings("torch")
    if repeats_of(asked):
        from tandem.launch.repeats import run_repeats

        run_program("train_torch.py", lambda argv: run_repeats("torch", asked, argv), sys.argv[1:])
        sys.exit()
    prepare_environment(asked)

import numpy as np
import pytorch_lightning as lightning
import timm
import torch
import torchvision
from pytorch_lightning.callbacks import Callback
from rich.progress import track
from torch import Tensor
from torch.nn import functional

from tandem.data.features import NO_FEATURES, PhaseFeatures
from tandem.data.phase_streams import training_stream, validation_stream
from tandem.data.prepare import PreparedData, prepare
from tandem.data.stream import Stream
from tandem.data_report.report import record_data_report_after_run
from tandem.evaluation.batching import eval_batch_size, predict_as_fits
from tandem.evaluation.cost import measure_inference
from tandem.evaluation.imagenet import match_classes
from tandem.evaluation.predictions import Predictions
from tandem.on_torch import distributed
from tandem.on_torch.acceleration import forward_of, is_out_of_memory, placed, set_flags, warm_up
from tandem.on_torch.backbones import blocks_of, check_builder
from tandem.on_torch.cost import count_macs, peak_gpu_memory_megabytes
from tandem.on_torch.early_stopping import build_early_stopping
from tandem.on_torch.features import FeatureLoader, HeadOnFeatures, find_features
from tandem.on_torch.feed import StreamLoader
from tandem.on_torch.gradcam import features_and_gradients
from tandem.on_torch.learning_rate_finder import take_steps
from tandem.on_torch.lightning_loop import LeanLightningModule, NoProfiler
from tandem.on_torch.log_epochs import LogEpochs
from tandem.on_torch.mapped_head import map_head
from tandem.on_torch.networks import Classifier, build_classifier, build_off_the_shelf
from tandem.on_torch.optimizers import Blocks, build_optimizer, build_schedule
from tandem.on_torch.serving import save_model
from tandem.on_torch.weights import BACKBONE_FILE, count_parameters, hash_weights, save_weights
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

PRECISIONS: dict[str, Any] = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}


# ---------------------------------------------------------------------------------------------------------------- main


def main(argv: list[str] | None = None) -> None:
    settings = parse_settings("torch", argv)
    set_up_framework(settings)
    settings = distributed.join_processes(settings, argv)
    if not distributed.is_first():
        return distributed.train_along(settings, assemble_network, train_phase)
    for backbone in varied_backbones(settings):
        check_builder(find_backbone(backbone, "torch"))  # before a run is made
    if settings.sweep.num_trials is not None:
        from tandem.search.sweep import run_sweep  # Optuna, which other runs need not wait for

        run_sweep("torch", settings, train_trial, backend="torch", versions=framework_versions())
        return
    # nothing is augmented where nothing is trained, and no larger images are stored to be cropped
    data = prepare(settings.data, settings.augmentation if phases_of(settings) else None)
    distributed.let_others_begin(settings, data)
    if settings.regime == "off_the_shelf":
        match_classes(data.classes, settings.imagenet_classes)  # before a run is made
    if settings.find_learning_rate:
        find_learning_rate(settings, data)
        return
    with start_run(settings, framework="torch", backend="torch", versions=framework_versions()) as run:
        run.set_tags({vocabulary.DEVICE: "gpu" if on_gpu(settings) else "cpu"})
        record_data(run, data)
        train_and_evaluate(settings, data, run)
    if settings.tracking.data_report:
        record_data_report_after_run(data, settings.tracking)


def framework_versions() -> dict[str, str]:
    return {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "pytorch_lightning": lightning.__version__,
    }


def set_up_framework(settings: Settings) -> None:
    """Seeds, threads, device, what of it is used, and silence."""
    if settings.device == "gpu" and not torch.cuda.is_available():
        raise UserError("device: received 'gpu', but torch finds no GPU here; allowed: cpu or auto")
    if settings.precision == "float16" and not torch.cuda.is_available():
        raise UserError("precision: received 'float16', but torch finds no GPU here; allowed: float32 or bfloat16")
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    set_flags(settings.acceleration)
    lightning.seed_everything(settings.seed, verbose=False)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")


def on_gpu(settings: Settings) -> bool:
    return settings.device != "cpu" and torch.cuda.is_available()


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
    lightning.seed_everything(settings.seed, verbose=False)  # the attempt has drawn random numbers
    return assemble_network(settings, data, None)


def assemble_network(settings: Settings, data: PreparedData, weights_file: Path | None) -> Classifier:
    """The backbone with a new head, or with the one for ImageNet's classes that it was published with."""
    if settings.regime == "off_the_shelf":
        return build_off_the_shelf(settings, weights_file)
    return build_classifier(settings, len(data.classes), weights_file)


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
        settings, framework="torch", backend="torch", versions=framework_versions(), not_compared=tags
    ) as run:
        run.set_tags({vocabulary.DEVICE: "gpu" if on_gpu(settings) else "cpu"})
        record_data(run, data)
        network = build_network(settings, data, run)
        phase = phases_of(settings)[0]
        training, _ = open_streams(settings, data, phase)
        blocks = blocks_of(network.backbone, find_backbone(settings.backbone, "torch"))
        finder = LearningRateFinder()
        device = "cuda" if on_gpu(settings) else "cpu"
        placed(network, settings.acceleration, device).train()
        freeze_or_thaw(network, phase, blocks)
        take_steps(
            finder,
            network,
            build_optimizer(settings.optimizer, phase.learning_rate, network.head, blocks),
            chain.from_iterable(map(training.stream.epoch, count())),
            device=device,
            dtype=getattr(torch, settings.precision),
        )
        record_learning_rate_finder(run, finder, f"{settings.backbone}, {settings.regime}, {data.name}")


# --------------------------------------------------------------------------------------------------------------- phase


def train_phase(
    network: Classifier, phase: Phase, settings: Settings, data: PreparedData, curves: Curves
) -> PhaseOutcome:
    """One phase, with an optimizer and callbacks of its own; leaves the network with the weights to go on with."""
    distributed.wait_for_first(f"phase {phase.number}")
    blocks = blocks_of(network.backbone, find_backbone(settings.backbone, "torch"))
    frozen = list(chain.from_iterable(split_blocks(phase, blocks)[0]))
    placed(network, settings.acceleration, "cuda" if on_gpu(settings) else "cpu")
    freeze_or_thaw(network, phase, blocks)
    backbone_before, frozen_before = hash_weights(network.backbone), hash_weights(*frozen)
    features = find_features(network, phase, settings, data, backbone_before)
    training, validation = open_streams(settings, data, phase, features)
    early_stopping = build_early_stopping(settings, phase)
    trained: Classifier | HeadOnFeatures = network
    freezing: list[Callback] = [FreezeOrThaw(phase, blocks)]
    if features.training:
        trained, freezing = HeadOnFeatures(network.head).train(), []
    steps = TrainingSteps(trained, settings, phase, blocks, len(training))
    trainer = lightning.Trainer(
        max_epochs=phase.max_epochs,
        callbacks=[*freezing, LogEpochs(curves, phase), early_stopping],
        accelerator="gpu" if on_gpu(settings) else "cpu",
        **distributed.trainer_options(settings, phase),
        precision=PRECISIONS[settings.precision],
        logger=False,
        profiler=NoProfiler(),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stdout.isatty(),
        num_sanity_val_steps=0,
    )
    compile_seconds = features.compile_seconds
    compile_seconds += warm_up(trained, steps.forward_pass, settings, training.stream, validation.stream)
    start = time.perf_counter()
    try:
        trainer.fit(steps, training, validation)
    except SystemExit:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from None
    train_seconds = features.seconds + time.perf_counter() - start
    network.to("cuda" if on_gpu(settings) else "cpu").eval()  # Lightning takes it off the GPU
    parameters, trainable_parameters = count_parameters(network)
    return PhaseOutcome(
        epochs=trainer.current_epoch,
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
) -> tuple[StreamLoader | FeatureLoader, StreamLoader | FeatureLoader]:
    """Training batches, shuffled and augmented from the seed and the phase's number, and validation batches.

    Of images, or of their features where the phase has these.
    """
    training = training_stream(settings, data, phase, features=features.training)
    validation = validation_stream(settings, data, phase, features=features.validation)
    if features.training:
        device = "cuda" if on_gpu(settings) else "cpu"
        return FeatureLoader(training, device=device), FeatureLoader(validation, device=device)
    pin_memory = on_gpu(settings)
    return (
        distributed.share_out(training, pin_memory=pin_memory),
        distributed.share_out(validation, pin_memory=pin_memory),
    )


class TrainingSteps(LeanLightningModule):
    """What happens to a batch: cross-entropy of the logits; loss and accuracy are summed up on the device.

    Sums, for self.log in every step would cost more than the rest of Lightning.
    """

    def __init__(
        self,
        network: Classifier | HeadOnFeatures,
        settings: Settings,
        phase: Phase,
        blocks: Blocks,
        steps_per_epoch: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.forward_pass = forward_of(network, settings.acceleration)
        self.settings = settings
        self.phase = phase
        self.blocks = blocks
        self.steps_per_epoch = steps_per_epoch
        self.sums: dict[str, tuple[Any, Any, int]] = {}  # loss, correct answers, images

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        return distributed.weigh_by_share(self.loss_of("train", batch), self.trainer.train_dataloader, index)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        self.loss_of("val", batch)

    def loss_of(self, part: str, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        with distributed.synchronized_batch_norm():
            logits = self.forward_pass(images)
        loss = functional.cross_entropy(logits, labels)
        correct = (logits.argmax(dim=1) == labels).sum()
        loss_sum, num_correct, num_images = self.sums.get(part, (0, 0, 0))
        self.sums[part] = loss_sum + loss.detach() * len(labels), num_correct + correct, num_images + len(labels)
        return loss

    def on_validation_epoch_end(self) -> None:
        # once an epoch, after its training batches too: what the callbacks read
        for part in ("train", "val"):
            loss_sum, num_correct, num_images = self.sums.pop(part)
            sums = torch.stack([loss_sum, num_correct, torch.full_like(loss_sum, num_images)])
            loss, correct, images = distributed.sum_over_processes(sums).tolist()
            self.log_dict({f"{part}/loss": loss / images, f"{part}/accuracy": correct / images})

    def configure_optimizers(self) -> Any:
        settings, rate, fused = self.settings, self.phase.learning_rate, self.settings.acceleration.fused_optimizer
        optimizer = build_optimizer(settings.optimizer, rate, self.network.head, self.blocks, fused=fused)
        schedule = build_schedule(settings.schedule, self.phase, optimizer, self.steps_per_epoch)
        return {"optimizer": optimizer, **schedule}


def freeze_or_thaw(network: Classifier, phase: Phase, blocks: Blocks) -> None:
    """Makes the backbone or its last blocks trainable, as the phase says; what is frozen changes in nothing.

    Without gradients, and in inference mode, so that batch norm uses its statistics and keeps them, and dropout is off.
    (Lightning's BaseFinetuning.freeze leaves batch norm normalising with the batch's.)
    """
    network.backbone.requires_grad_(phase.trainable == "all")
    network.backbone.train(phase.trainable == "all")
    _, trained = split_blocks(phase, blocks)
    for module in chain.from_iterable(trained):
        module.requires_grad_(True)
        module.train()


class FreezeOrThaw(Callback):
    """Freezes or thaws again each epoch, since train() reaches into the backbone."""

    def __init__(self, phase: Phase, blocks: Blocks) -> None:
        self.phase = phase
        self.blocks = blocks

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: Any) -> None:
        module.train()
        freeze_or_thaw(module.network, self.phase, self.blocks)


# ---------------------------------------------------------------------------------------------------------- evaluation


def evaluate_off_the_shelf(
    network: Classifier, settings: Settings, data: PreparedData, run: Run
) -> tuple[Classifier, Predictions]:
    """The pretrained network as it is: its scores over all ImageNet outputs, then with an output for each class."""
    outputs = match_classes(data.classes, settings.imagenet_classes)
    placed(network, settings.acceleration, "cuda" if on_gpu(settings) else "cpu").eval()
    predictions = record_off_the_shelf(run, data, logits_of_test(network, settings, data), outputs)
    return map_head(network, outputs), predictions


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
    predict = functools.partial(predict_batch, network, settings)
    return predict_as_fits(predict, images, is_out_of_memory=is_out_of_memory, pad=False)


def predict_batch(network: Classifier, settings: Settings, images: np.ndarray) -> np.ndarray:
    """Logits of shape (n, classes) of uint8 images of shape (n, height, width, 3), in inference mode."""
    device = "cuda" if on_gpu(settings) else "cpu"
    dtype = getattr(torch, settings.precision)
    with torch.inference_mode(), torch.autocast(device, dtype, enabled=dtype != torch.float32):
        return network(torch.from_numpy(images).to(device)).cpu().numpy()


def measure_inference_cost(network: Classifier, settings: Settings, data: PreparedData) -> dict[str, float]:
    """What a prediction costs, by the vocabulary's names."""
    images = np.asarray(data.images[data.rows("test")[: settings.batch_size]])
    latency, throughput = measure_inference(
        lambda batch: predict_batch(network, settings, batch), images, settings.batch_size
    )
    return {
        vocabulary.PARAMETERS: count_parameters(network)[0],
        vocabulary.MACS: count_macs(network, data.images.shape[1:]),
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
    run_program("train_torch.py", main)
