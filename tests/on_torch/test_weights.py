from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from tandem.errors import UserError
from tandem.on_torch.networks import Classifier, build_classifier
from tandem.on_torch.weights import count_parameters, hash_weights, save_weights
from tandem.protocol.settings import HeadSettings
from tests.small_runs import NUM_CLASSES, assert_same_outputs, small_settings, tell_images_apart
from train_torch import predict_batch

WriteFile = Callable[[Path, Path], None]
"""Writes a file, given the folder of save_weights and the file's path."""


@pytest.fixture(scope="module")
def network() -> Classifier:
    """A network with weights and batch-norm statistics of its own."""
    torch.manual_seed(1)
    network = build_classifier(small_settings(head=HeadSettings(hidden=[16])), NUM_CLASSES).train()
    with torch.no_grad():
        network(torch.from_numpy(some_images()))
    return network.eval()


@pytest.fixture(scope="module")
def folder(network: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that save_weights writes."""
    folder = tmp_path_factory.mktemp("run") / "weights"
    save_weights(network, folder)
    return folder


@pytest.fixture
def offline(no_network: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Torchvision's folder of weights, empty, on a machine without a network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch/hub/checkpoints"


def some_images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)


def build_from(file: Path) -> Classifier:
    settings = small_settings(weights=str(file))
    return build_classifier(settings, NUM_CLASSES, file)


def test_saved_backbone_is_loaded_unchanged(network: Classifier, folder: Path) -> None:
    loaded = build_from(folder / "backbone.safetensors")
    assert hash_weights(loaded.backbone) == hash_weights(network.backbone)
    assert hash_weights(build_classifier(small_settings(), NUM_CLASSES).backbone) != hash_weights(network.backbone)


def test_hash_sees_one_changed_batch_norm_statistic(folder: Path) -> None:
    backbone = build_from(folder / "backbone.safetensors").backbone
    before = hash_weights(backbone)
    last = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    assert last.running_var is not None
    last.running_var[-1] += 1e-6
    assert hash_weights(backbone) != before


def test_parameters_are_counted_all_and_trainable(network: Classifier, folder: Path) -> None:
    head = 1280 * 16 + 16 + 16 * NUM_CLASSES + NUM_CLASSES
    assert count_parameters(network) == (2_223_872 + head, 2_223_872 + head)
    frozen = build_from(folder / "backbone.safetensors")
    frozen.backbone.requires_grad_(False)
    head = 1280 * NUM_CLASSES + NUM_CLASSES
    assert count_parameters(frozen) == (2_223_872 + head, head)


def test_weights_of_a_whole_published_network_are_loaded(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).normal(size=(16, 3, 32, 32)).astype(np.float32)
    whole = tell_images_apart(torchvision.models.mobilenet_v2(weights=None), pixels)
    file = tmp_path / "mobilenet_v2-0123abcd.pth"
    torch.save(whole.state_dict(), file)
    loaded = build_from(file).eval()
    loaded.head = whole.classifier
    with torch.inference_mode():
        expected = whole(loaded.pixels(torch.from_numpy(some_images()))).numpy()
    assert_same_outputs(predict_batch(loaded, small_settings(), some_images()), expected, atol=0.0)


def wrong_network(folder: Path, file: Path) -> None:
    torch.save(torchvision.models.mobilenet_v3_small(weights=None).state_dict(), file)


def other_width(folder: Path, file: Path) -> None:
    torch.save(torchvision.models.mobilenet_v2(weights=None, width_mult=0.5).state_dict(), file)


def truncated_safetensors(folder: Path, file: Path) -> None:
    file.write_bytes((folder / "backbone.safetensors").read_bytes()[:100_000])


def truncated_state_dict(folder: Path, file: Path) -> None:
    torch.save(torchvision.models.mobilenet_v2(weights=None).state_dict(), file)
    file.write_bytes(file.read_bytes()[:100_000])


def text(folder: Path, file: Path) -> None:
    file.write_text("these are no weights\n" * 9)


def empty(folder: Path, file: Path) -> None:
    file.touch()


def whole_module(folder: Path, file: Path) -> None:
    torch.save(nn.Linear(2, 2), file)


def list_of_tensors(folder: Path, file: Path) -> None:
    torch.save([torch.zeros(2)], file)


def numbers_under_the_right_names(folder: Path, file: Path) -> None:
    torch.save(dict.fromkeys(torchvision.models.mobilenet_v2(weights=None).state_dict(), 1.0), file)


def head(folder: Path, file: Path) -> None:
    file.write_bytes((folder / "head.safetensors").read_bytes())


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (wrong_network, "weights.pth"),
        (other_width, "weights.pth"),
        (truncated_state_dict, "weights.pth"),
        (truncated_safetensors, "weights.safetensors"),
        (text, "weights.pth"),
        (text, "weights.safetensors"),
        (empty, "weights.pt"),
        (empty, "weights.safetensors"),
        (whole_module, "weights.pth"),
        (list_of_tensors, "weights.pth"),
        (numbers_under_the_right_names, "weights.pth"),
        (head, "weights.safetensors"),
    ],
)
def test_unsuitable_file_is_named_in_one_line(write: WriteFile, name: str, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / name
    write(folder, file)
    with pytest.raises(UserError) as caught:
        build_from(file)
    assert str(caught.value).startswith(f"weights: {file} ")
    assert "\n" not in str(caught.value)


def test_weights_of_a_network_with_more_layers_are_refused(tmp_path: Path) -> None:
    file, state = tmp_path / "weights.pth", torchvision.models.mobilenet_v2(weights=None).state_dict()
    torch.save({**state, "features.19.0.weight": torch.zeros(3), "features.20.bias": torch.zeros(3)}, file)
    with pytest.raises(UserError, match=r"2 of its tensors are not in this one, the first is features.19.0.weight; "):
        build_from(file)
    torch.save({**state, "discriminator.weight": torch.zeros(3)}, file)
    with pytest.raises(UserError, match=r"the first is discriminator.weight; "):
        build_from(file)
    torch.save({**state, "head.fc.weight": torch.zeros(3), "aux1.conv.weight": torch.zeros(3)}, file)
    build_from(file)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    file, state = tmp_path / "weights.pth", torchvision.models.mobilenet_v2(weights=None).state_dict()
    state["features.0.0.weight"][0, 0, 0, 0] = value
    torch.save(state, file)
    with pytest.raises(UserError, match=r"not finite in 1 of 312 tensors, the first is features.0.0.weight; "):
        build_from(file)
    state["features.0.0.weight"][0, 0, 0, 0] = 0
    torch.save({**state, "classifier.1.bias": torch.full((1000,), value)}, file)  # not a part of the backbone
    build_from(file)


def test_missing_imagenet_weights_name_the_file_and_its_folder(offline: Path) -> None:
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        build_classifier(small_settings(weights="imagenet"), NUM_CLASSES)
    assert time.monotonic() - start < 20
    message = str(caught.value)
    assert message.startswith("weights: imagenet could not be downloaded")
    assert f"put https://download.pytorch.org/models/mobilenet_v2-b0353104.pth into {offline}, or" in message
    assert "\n" not in message

    offline.mkdir(parents=True, exist_ok=True)
    whole = torchvision.models.mobilenet_v2(weights=None)
    torch.save(whole.state_dict(), offline / "mobilenet_v2-b0353104.pth")
    loaded = build_classifier(small_settings(weights="imagenet"), NUM_CLASSES)
    whole.classifier = nn.Identity()
    assert hash_weights(loaded.backbone) == hash_weights(whole)
