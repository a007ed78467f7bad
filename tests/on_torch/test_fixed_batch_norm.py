from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tandem import on_torch
from tandem.data.prepare import PreparedData
from tandem.on_torch.backbones import blocks_of
from tandem.on_torch.head import build_head
from tandem.on_torch.networks import Classifier, Pixels, build_classifier
from tandem.protocol.backbones import find_backbone
from tandem.protocol.regimes import Phase, phases_of
from tandem.protocol.settings import HeadSettings, PhaseSettings, Settings
from tandem.tracking.curves import Curves
from tests.fixed_batch_norm import CASES, EPSILON, MEAN, VARIANCE, Weights, check_training
from tests.small_runs import NUM_CLASSES, random_images, small_settings, tell_images_apart
from train_torch import FRAMEWORK, freeze_or_thaw, train_phase


def build(settings: Settings, weights: Weights) -> Classifier:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(8 * 8 * 3, 4), nn.BatchNorm1d(4, eps=EPSILON))
    network = Classifier(Pixels(8, "unit"), backbone, build_head(settings, 4, NUM_CLASSES))
    kernel, *others, head_kernel, head_bias = weights
    channels_first = kernel.reshape(8, 8, 3, 4).transpose(3, 2, 0, 1).reshape(4, -1)
    with torch.no_grad():
        for parameter, value in zip(
            network.parameters(), (channels_first, *others, head_kernel.T, head_bias), strict=True
        ):
            parameter.copy_(torch.from_numpy(value.copy()))
        backbone[2].running_mean.copy_(torch.from_numpy(MEAN))
        backbone[2].running_var.copy_(torch.from_numpy(VARIANCE))
    return network


def weights_of(network: Classifier) -> tuple[Weights, Weights]:
    kernel, *others, head_kernel, head_bias = (parameter.detach().numpy() for parameter in network.parameters())
    norm = network.backbone[2]
    weights = [kernel.reshape(4, 3, 8, 8).transpose(2, 3, 1, 0).reshape(-1, 4), *others, head_kernel.T, head_bias]
    return weights, [norm.running_mean.numpy(), norm.running_var.numpy()]


@pytest.mark.parametrize("case", CASES)
def test_training_with_fixed_statistics_is_that_computed_by_hand(
    case: str, data: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_torch, "blocks_of", lambda backbone, entry: [[backbone]])
    check_training(case, FRAMEWORK, data, build, weights_of)


def test_last_blocks_and_then_all_train_with_the_statistics_that_they_came_with(
    data: PreparedData, curves: Curves
) -> None:
    settings = small_settings(
        regime="gradual",
        phases=[PhaseSettings(trainable="last", blocks=2), PhaseSettings(trainable="all")],
        max_epochs=1,
        backbone_batch_norm="frozen",
        head=HeadSettings(batch_norm=True),
    )
    network = tell_images_apart(build_classifier(settings, NUM_CLASSES))
    norms = [module for module in network.backbone.modules() if isinstance(module, _BatchNorm)]
    assert len(norms) == 52
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for phase in phases_of(settings):
        train_phase(network, phase, settings, data, curves)
    after = network.state_dict()
    unchanged = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert unchanged == {
        name for name in before if name.startswith("backbone.") and name.endswith(("_mean", "_var", "_tracked"))
    }


def test_thawed_network_computes_in_training_as_in_prediction() -> None:
    settings = small_settings()
    network = tell_images_apart(build_classifier(settings, NUM_CLASSES))
    images = torch.from_numpy(random_images(8))
    expected = network(images)
    blocks = blocks_of(network.backbone, find_backbone("mobilenet_v2", "torch"))
    network.backbone.classifier = nn.Identity()  # instead of the dropout before the head
    for batch_norm, is_equal in (("frozen", True), ("train", False), ("frozen", False)):
        phase = Phase(number=1, trainable="all", learning_rate=1, max_epochs=1, batch_norm=batch_norm)  # type: ignore[arg-type]
        freeze_or_thaw(network.train(), phase, blocks)
        assert torch.equal(network(images), expected) == is_equal, batch_norm  # the second time statistics have moved
        assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(("name", "expected"), [("mobilenet_v2", True), ("alexnet", False)])
def test_batch_norm_of_a_network_is_found(name: str, expected: bool) -> None:
    network = build_classifier(small_settings(backbone=name, image_size=64), NUM_CLASSES)
    assert on_torch.has_batch_norm(network.backbone) == expected
