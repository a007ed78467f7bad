from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import pytorch_lightning as lightning
import torch
from torch import nn

from tandem.data.phase_streams import training_stream
from tandem.data.prepare import PreparedData
from tandem.data.stream import Stream
from tandem.experiment import predict_test
from tandem.on_torch import to_device, versions
from tandem.on_torch.backbones import blocks_of
from tandem.on_torch.networks import Classifier, build_classifier
from tandem.on_torch.weights import hash_weights
from tandem.protocol.backbones import find_backbone
from tandem.protocol.regimes import Phase, phases_of
from tandem.protocol.settings import (
    EarlyStoppingSettings,
    HeadSettings,
    LossSettings,
    MixingSettings,
    OptimizerSettings,
    PhaseSettings,
    ScheduleSettings,
    Settings,
    TrackingSettings,
)
from tandem.recording.run import PhaseOutcome, record_phase
from tandem.tracking.curves import Curves
from tandem.tracking.start import start_run
from tests.oracles import accuracy, cross_entropy, soft_cross_entropy
from tests.small_runs import NUM_CLASSES, RecordingRun, small_settings, tell_images_apart
from train_torch import FRAMEWORK, freeze_or_thaw, predict_batch, train_phase

BACKBONE_PARAMETERS = 2_223_872
HEAD_PARAMETERS = 1280 * 16 + 16 + 16 * NUM_CLASSES + NUM_CLASSES

Weights = dict[str, np.ndarray]

# No later loss is lower than the first by more than 100, so each phase stops after its second epoch.
STOPS_EARLY = EarlyStoppingSettings(patience=1, min_delta=100)


def settings_of(phase: Phase) -> Settings:
    """Settings in which phase 1 keeps its last weights, and phase 2 its best."""
    stopping = dataclasses.replace(STOPS_EARLY, restore="last" if phase.number == 1 else "best")
    return small_settings(max_epochs=4, learning_rate=0.03, head=HeadSettings(hidden=[16]), early_stopping=stopping)


def build(settings: Settings) -> Classifier:
    lightning.seed_everything(settings.seed, verbose=False)
    return tell_images_apart(to_device(build_classifier(settings, NUM_CLASSES), settings))


def weights_of(network: nn.Module) -> Weights:
    return {name: value.detach().numpy().copy() for name, value in network.state_dict().items()}


def logits_of(network: Classifier, data: PreparedData, part: str) -> np.ndarray:
    return predict_batch(network, small_settings(), np.asarray(data.images[data.rows(part)]))


def new_curves() -> Curves:
    return Curves(RecordingRun())  # type: ignore[arg-type]


@dataclass(frozen=True)
class TwoStages:
    """A two_stage run. The lists have one entry per phase, and `weights` one more: those before the first phase."""

    phases: tuple[Phase, ...]
    curves: Curves
    outcomes: list[PhaseOutcome]
    weights: list[Weights]
    val_logits: list[np.ndarray]
    test_probabilities: list[np.ndarray]


@pytest.fixture(scope="module")
def two_stages(data: PreparedData) -> TwoStages:
    phases = phases_of(settings_of(Phase(number=1, trainable="head", learning_rate=1, max_epochs=1)))
    network = build(settings_of(phases[0]))
    run = TwoStages(phases, new_curves(), [], [weights_of(network)], [], [])
    for phase in phases:
        run.outcomes.append(train_phase(network, phase, settings_of(phase), data, run.curves))
        run.weights.append(weights_of(network))
        run.val_logits.append(logits_of(network, data, "val"))
        run.test_probabilities.append(predict_test(FRAMEWORK, network, settings_of(phase), data).probabilities)
    return run


def changed(before: Weights, after: Weights, part: str) -> list[bool]:
    return [not np.array_equal(before[name], after[name]) for name in before if name.startswith(part)]


def test_frozen_backbone_is_unchanged(two_stages: TwoStages) -> None:
    before, after, _ = two_stages.weights
    assert not any(changed(before, after, "backbone."))
    assert two_stages.outcomes[0].backbone_before == two_stages.outcomes[0].backbone_after
    assert two_stages.outcomes[0].frozen_before == two_stages.outcomes[0].frozen_after


def test_only_the_head_is_trained_while_the_backbone_is_frozen(two_stages: TwoStages) -> None:
    before, after, _ = two_stages.weights
    assert changed(before, after, "head.") == [True] * 4
    outcome = two_stages.outcomes[0]
    assert outcome.parameters == BACKBONE_PARAMETERS + HEAD_PARAMETERS
    assert outcome.trainable_parameters == HEAD_PARAMETERS


def test_thawed_backbone_and_its_batch_norm_statistics_change(two_stages: TwoStages) -> None:
    _, before, after = two_stages.weights
    assert all(changed(before, after, "backbone."))
    assert all(changed(before, after, "head."))
    outcome = two_stages.outcomes[1]
    assert outcome.backbone_before == two_stages.outcomes[0].backbone_after != outcome.backbone_after
    assert outcome.parameters == outcome.trainable_parameters == BACKBONE_PARAMETERS + HEAD_PARAMETERS


def test_second_phase_trains_although_the_first_stopped_early(two_stages: TwoStages) -> None:
    assert [outcome.epochs for outcome in two_stages.outcomes] == [2, 2]
    losses = [row["val/loss"] for row in two_stages.curves.rows]
    best = [int(np.argmin(losses[:2])), int(np.argmin(losses[2:]))]
    assert [outcome.best_epoch for outcome in two_stages.outcomes] == best


def test_epochs_are_counted_over_the_phases(two_stages: TwoStages) -> None:
    run = two_stages.curves.run
    assert isinstance(run, RecordingRun)
    assert [step for step, _ in run.logged] == [0, 1, 2, 3]
    assert [metrics["epoch/phase"] for _, metrics in run.logged] == [1, 1, 2, 2]
    assert [metrics["epoch/learning_rate"] for _, metrics in run.logged] == pytest.approx([0.03, 0.03, 0.003, 0.003])
    assert all(metrics["epoch/seconds"] > 0 for _, metrics in run.logged)


def test_each_phase_has_batches_of_its_own(two_stages: TwoStages, data: PreparedData) -> None:
    expected = []
    for number in (1, 2):
        stream = Stream(data.images, data.labels, data.rows("train"), batch_size=8, seed=(0, number), shuffle=True)
        list(stream.epoch(0))
        expected.append(stream.first_epoch_hash)
    assert [outcome.first_epoch_hash for outcome in two_stages.outcomes] == expected
    assert expected[0] != expected[1]


@pytest.mark.parametrize("phase", [0, 1], ids=["restore last", "restore best"])
def test_logged_validation_is_that_of_the_kept_weights(two_stages: TwoStages, data: PreparedData, phase: int) -> None:
    row = 1 if phase == 0 else 2 + two_stages.outcomes[1].best_epoch
    logits, labels = two_stages.val_logits[phase], data.labels[data.rows("val")]
    logged = two_stages.curves.rows[row]
    assert logged["val/loss"] == pytest.approx(cross_entropy(logits, labels), rel=1e-5)
    assert logged["val/accuracy"] == pytest.approx(accuracy(logits, labels))
    other = two_stages.curves.rows[2 * phase + (1 - row % 2)]
    assert other["val/loss"] != pytest.approx(cross_entropy(logits, labels), rel=1e-5)


def test_second_phase_depends_only_on_the_first_one_s_weights(two_stages: TwoStages, data: PreparedData) -> None:
    # optimizer and callbacks are new: the same phase in another process gives the same result, bit by bit
    phase = two_stages.phases[1]
    network = build(settings_of(phase))
    network.load_state_dict({name: torch.from_numpy(value) for name, value in two_stages.weights[1].items()})
    outcome = train_phase(network, phase, settings_of(phase), data, new_curves())
    assert outcome.backbone_after == two_stages.outcomes[1].backbone_after
    predictions = predict_test(FRAMEWORK, network, settings_of(phase), data)
    assert np.array_equal(predictions.probabilities, two_stages.test_probabilities[1])


def test_same_seed_gives_the_same_predictions_bit_by_bit(data: PreparedData) -> None:
    settings = small_settings(regime="frozen", max_epochs=2, head=HeadSettings(dropout=0.5), seed=5)
    probabilities = []
    for _ in range(2):
        network = build(settings)
        train_phase(network, phases_of(settings)[0], settings, data, new_curves())
        probabilities.append(predict_test(FRAMEWORK, network, settings, data).probabilities)
    assert np.array_equal(*probabilities)


TOWARDS = {
    "labels with weights": {"loss": LossSettings(class_weights={"0": 3.0, "4": 0.5}), "sampling": "balanced"},
    "smoothed labels": {"loss": LossSettings(label_smoothing=0.2, class_weights={"0": 3.0}), "sampling": "balanced"},
    "mixed images": {
        "loss": LossSettings(label_smoothing=0.2, class_weights={"0": 3.0}),
        "mixing": MixingSettings(mixup_alpha=1.0, cutmix_alpha=1.0),
        "sampling": "balanced",
    },
}


@pytest.mark.parametrize("changes", TOWARDS.values(), ids=TOWARDS)
def test_losses_of_an_epoch_follow_from_its_targets(changes: dict[str, Any], data: PreparedData) -> None:
    # at a rate that changes no weight, all losses are those of the first network, with cached features as well
    settings = small_settings(
        regime="frozen",
        max_epochs=1,
        learning_rate=1e-12,
        optimizer=OptimizerSettings(name="sgd", momentum=0.0),
        data=dataclasses.replace(small_settings().data, cache_folder=str(Path(data.images.filename).parents[2])),  # type: ignore[arg-type]
        **changes,
    )
    phase, network = phases_of(settings)[0], build(settings)
    losses, num_correct = [], 0.0
    for images, targets, weights in training_stream(settings, data, phase).epoch(0):
        logits = predict_batch(network, settings, images)
        shares = targets if targets.ndim == 2 else np.eye(NUM_CLASSES)[targets]
        losses.append(len(logits) * soft_cross_entropy(logits, shares, weights)[0])
        num_correct += len(logits) * accuracy(logits, shares.argmax(axis=1))
    val_logits, val_labels = logits_of(network, data, "val"), data.labels[data.rows("val")]
    curves = new_curves()
    outcome = train_phase(network, phase, settings, data, curves)
    assert (outcome.feature_seconds > 0) == ("mixing" not in changes)
    row = curves.rows[0]
    assert row["train/loss"] == pytest.approx(sum(losses) / 30, rel=1e-5)
    assert row["train/accuracy"] == pytest.approx(num_correct / 30)
    assert row["val/loss"] == pytest.approx(cross_entropy(val_logits, val_labels), rel=1e-5)
    assert row["val/accuracy"] == pytest.approx(accuracy(val_logits, val_labels))


def with_dropout_in_the_backbone(network: Classifier) -> Classifier:
    network.backbone.classifier = nn.Dropout(0.5)  # in place of the last dense layer
    return network


def test_frozen_backbone_runs_in_inference_mode(data: PreparedData) -> None:
    # at a rate that changes no weight, the training loss is that of the network in inference mode
    settings = small_settings(
        regime="frozen", max_epochs=1, learning_rate=1e-12, optimizer=OptimizerSettings(name="sgd", momentum=0.0)
    )
    network = with_dropout_in_the_backbone(build(settings))
    logits, labels = logits_of(network.eval(), data, "train"), data.labels[data.rows("train")]
    curves = new_curves()
    outcome = train_phase(network, phases_of(settings)[0], settings, data, curves)
    assert outcome.backbone_before == outcome.backbone_after
    assert outcome.trainable_parameters == 1280 * NUM_CLASSES + NUM_CLASSES
    assert curves.rows[0]["train/loss"] == pytest.approx(cross_entropy(logits, labels), rel=1e-5)
    assert curves.rows[0]["train/accuracy"] == pytest.approx(accuracy(logits, labels))


def test_thawed_backbone_uses_its_dropout_again(data: PreparedData) -> None:
    settings = small_settings(
        regime="finetune", max_epochs=1, learning_rate=1e-12, optimizer=OptimizerSettings(name="sgd", momentum=0.0)
    )
    network = with_dropout_in_the_backbone(build(settings))
    network.backbone.requires_grad_(False).eval()  # as a frozen phase leaves it
    logits, labels = logits_of(network.eval(), data, "train"), data.labels[data.rows("train")]
    curves = new_curves()
    outcome = train_phase(network, phases_of(settings)[0], settings, data, curves)
    assert outcome.backbone_before != outcome.backbone_after
    assert curves.rows[0]["train/loss"] != pytest.approx(cross_entropy(logits, labels), rel=1e-3)


def test_run_fails_if_its_frozen_backbone_changed(two_stages: TwoStages, data: PreparedData, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    settings = small_settings(tracking=TrackingSettings(uri=uri, folder=str(tmp_path / "runs"), system_interval=60))
    network = build(settings)
    predictions = predict_test(FRAMEWORK, network.eval(), settings, data)
    before = hash_weights(network.backbone)
    next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d)).running_mean[0] += 1e-3  # type: ignore[index]
    outcome = dataclasses.replace(
        two_stages.outcomes[0], frozen_before=before, frozen_after=hash_weights(network.backbone)
    )
    with (
        pytest.raises(RuntimeError, match="frozen backbone changed in phase 1"),
        start_run(settings, framework="torch", backend="torch", versions=versions()) as run,
    ):
        record_phase(run, two_stages.phases[0], outcome, predictions, two_stages.curves)
    recorded = mlflow.MlflowClient(tracking_uri=uri).get_run(run.id)
    assert recorded.info.status == "FAILED"


# ----------------------------------------------------------------------------------------------------- the last blocks


LAST_BLOCKS = 2
SETTINGS_OF_LAST_BLOCKS = small_settings(
    regime="gradual",
    phases=[PhaseSettings(trainable="last", blocks=LAST_BLOCKS)],
    max_epochs=2,
    learning_rate=0.03,
    optimizer=OptimizerSettings(name="adam", layer_decay=0.01),
    schedule=ScheduleSettings(name="cosine", warmup_epochs=1),
    early_stopping=EarlyStoppingSettings(patience=None, restore="last"),
)
# Four steps per epoch: 1, 2, 3 and 4 quarters of the rate, then (1 + cos(0, 45, 90, 135 degrees)) / 2 of it.
SUM_OF_RATES = 0.03 * ((1 + 2 + 3 + 4) / 4 + (4 + 1) / 2)


@dataclass(frozen=True)
class LastBlocks:
    """A phase that trains the last blocks. The lists have one entry per block, and a last one for the head."""

    outcome: PhaseOutcome
    curves: Curves
    parts: list[nn.ModuleList]
    before: list[Weights]
    after: list[Weights]


@pytest.fixture(scope="module")
def last_blocks(data: PreparedData) -> LastBlocks:
    settings, curves = SETTINGS_OF_LAST_BLOCKS, new_curves()
    network = build(settings)
    blocks = blocks_of(network.backbone, find_backbone(settings.backbone, "torch"))
    parts = [nn.ModuleList(modules) for modules in (*blocks, [network.head])]
    before = [weights_of(part) for part in parts]
    outcome = train_phase(network, phases_of(settings)[0], settings, data, curves)
    return LastBlocks(outcome, curves, parts, before, [weights_of(part) for part in parts])


def test_blocks_before_the_last_ones_are_unchanged(last_blocks: LastBlocks) -> None:
    num_frozen = len(last_blocks.parts) - 1 - LAST_BLOCKS
    assert num_frozen > 10
    for before, after in zip(last_blocks.before[:num_frozen], last_blocks.after[:num_frozen], strict=True):
        assert not any(changed(before, after, ""))
    assert last_blocks.outcome.frozen_before == last_blocks.outcome.frozen_after
    assert last_blocks.outcome.backbone_before != last_blocks.outcome.backbone_after


def test_last_blocks_and_their_batch_norm_statistics_change(last_blocks: LastBlocks) -> None:
    for before, after in zip(last_blocks.before[-3:], last_blocks.after[-3:], strict=True):
        assert all(changed(before, after, ""))
    trained = [weight for part in last_blocks.parts[-3:] for weight in part.parameters()]
    assert last_blocks.outcome.trainable_parameters == sum(weight.numel() for weight in trained)


def test_last_blocks_learn_at_their_own_rates(last_blocks: LastBlocks) -> None:
    # Adam changes a weight by about the rate in each step, whatever its gradient
    for part, before, after, factor in zip(
        last_blocks.parts[-3:], last_blocks.before[-3:], last_blocks.after[-3:], (1e-4, 1e-2, 1), strict=True
    ):
        names = [name for name, _ in part.named_parameters()]
        change = max(np.abs(after[name] - before[name]).max() for name in names)
        assert 0.2 < change / (SUM_OF_RATES * factor) < 3


def test_logged_rate_is_the_head_s_in_an_epoch_s_first_step(last_blocks: LastBlocks) -> None:
    assert [row["epoch/learning_rate"] for row in last_blocks.curves.rows] == pytest.approx([0.03 / 4, 0.03])


def test_whole_backbone_can_be_trained_after_the_last_blocks() -> None:
    network = build(SETTINGS_OF_LAST_BLOCKS)
    blocks = blocks_of(network.backbone, find_backbone("mobilenet_v2", "torch"))
    for trainable, number in (("last", LAST_BLOCKS), ("all", None)):
        phase = Phase(number=1, trainable=trainable, blocks=number, learning_rate=1, max_epochs=1)  # type: ignore[arg-type]
        freeze_or_thaw(network, phase, blocks)
        modules = [module for block in blocks for module in block]
        in_training = [module.training for module in modules if isinstance(module, nn.BatchNorm2d)]
        assert all(in_training) == (trainable == "all") and any(in_training)
    assert all(parameter.requires_grad for parameter in network.parameters())
