from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tandem.evaluation.imagenet import NUM_OUTPUTS, mapped_logits
from tandem.on_torch.cost import count_macs
from tandem.on_torch.gradcam import features_and_gradients
from tandem.on_torch.mapped_head import map_head
from tandem.on_torch.networks import Classifier, build_classifier
from tandem.on_torch.serving import save_model
from tests.oracles import softmax
from tests.small_runs import assert_same_outputs, random_images, small_settings, tell_images_apart
from train_torch import predict_batch

OUTPUTS = ((7,), (0, 999, 12), (301,))
IMAGES = random_images(5)


@pytest.fixture(scope="module")
def network() -> Classifier:
    return tell_images_apart(build_classifier(small_settings(), NUM_OUTPUTS))


def test_mapped_network_gives_the_mapped_logits(network: Classifier) -> None:
    logits = predict_batch(network, small_settings(), IMAGES)
    mapped = predict_batch(map_head(network, OUTPUTS), small_settings(), IMAGES)
    assert_same_outputs(mapped, mapped_logits(logits, OUTPUTS), atol=1e-5)


def test_grad_cam_of_a_class_is_that_of_its_output(network: Classifier) -> None:
    of_class = features_and_gradients(map_head(network, OUTPUTS), IMAGES, np.array([0, 2, 2, 0, 0]))
    of_output = features_and_gradients(network, IMAGES, np.array([7, 301, 301, 7, 7]))
    for mapped, plain in zip(of_class, of_output, strict=True):
        assert_same_outputs(mapped, plain, atol=1e-6)


def test_mapping_does_not_change_the_cost(network: Classifier) -> None:
    # MobileNetV2 at 32 pixels, and a dense layer of 1280 x 1000
    assert count_macs(map_head(network, OUTPUTS)) == count_macs(network) > 1_280_000


def test_mapped_network_can_be_served(network: Classifier, tmp_path: Path) -> None:
    mapped = map_head(network, OUTPUTS)
    save_model(mapped, tmp_path / "model", image_shape=(8, 8, 3), num_classes=3)
    probabilities = np.asarray(mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(IMAGES))
    assert_same_outputs(probabilities, softmax(predict_batch(mapped, small_settings(), IMAGES)), atol=1e-5)


class Created(TorchDispatchMode):
    """Names of operations that make tensors from Python's numbers, or copy tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function.overloadpacket.__name__ in ("lift_fresh", "_to_copy", "copy_", "detach", "clone", "stack"):
            self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def test_call_copies_nothing_to_the_device(network: Classifier) -> None:
    head = map_head(network, OUTPUTS).head
    features = torch.rand(2, network.head[0].weight.shape[1])
    with torch.inference_mode(), Created() as created:
        features[:, [0, 1]]  # as an example, this does
        assert "lift_fresh" in created.names or "_to_copy" in created.names or "detach" in created.names
        created.names.clear()
        head(features)
    assert created.names == []


def test_mapped_head_is_on_the_network_s_device(network: Classifier) -> None:
    on_meta = Classifier(*(copy.deepcopy(part).to("meta") for part in (network.pixels, network.backbone, network.head)))
    head = map_head(on_meta, OUTPUTS).head
    assert {tensor.device.type for tensor in [*head.parameters(), *head.buffers()]} == {"meta"}


def test_weights_are_those_of_the_imagenet_head(network: Classifier) -> None:
    assert set(map_head(network, OUTPUTS).state_dict()) == {
        name.replace("head.", "head.head.") for name in network.state_dict()
    }
