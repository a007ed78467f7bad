from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from tandem.on_torch.gradcam import features_and_gradients
from tandem.on_torch.networks import Classifier, Pixels, build_classifier
from tandem.on_torch.weights import hash_weights
from tandem.protocol.settings import DataSettings, HeadSettings, Settings
from tandem.recording.grad_cam import class_activation_maps
from tests.small_runs import assert_same_outputs, random_images, tell_images_apart


def make_classifier(backbone: str, image_size: int = 64, **head: object) -> Classifier:
    torch.manual_seed(0)
    data = DataSettings(image_size=image_size)
    settings = Settings(backbone=backbone, weights="random", data=data, head=HeadSettings(**head))  # type: ignore[arg-type]
    network = build_classifier(settings, num_classes=3)
    return tell_images_apart(network, random_images(16, shape=(image_size, image_size, 3), seed=5))


class PooledConvolution(nn.Module):
    """A 1 x 1 convolution and global average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(self.convolution(pixels), 1).flatten(1)


def test_linear_network_has_the_gradients_of_its_weights() -> None:
    torch.manual_seed(0)
    network = Classifier(Pixels(5, "unit"), PooledConvolution(), nn.Linear(4, 3))
    images, classes = random_images(6, shape=(5, 5, 3)), np.array([0, 1, 2, 2, 1, 0])
    features, gradients = features_and_gradients(network, images, classes)
    assert features.dtype == gradients.dtype == np.float32

    convolution = network.backbone.convolution
    kernel = convolution.weight.detach().numpy()[:, :, 0, 0]
    assert_same_outputs(features, images / 255 @ kernel.T + convolution.bias.detach().numpy(), atol=1e-5)
    weights = network.head.weight.detach().numpy()[classes]
    assert_same_outputs(gradients, np.broadcast_to(weights[:, None, None] / 25, (6, 5, 5, 4)), atol=1e-7)


def test_maps_of_mobilenet_v2_agree_with_captum() -> None:
    network = make_classifier("mobilenet_v2", image_size=96, hidden=[8])
    images = random_images(8, shape=(96, 96, 3))
    with torch.inference_mode():
        classes = network(torch.from_numpy(images)).argmax(dim=1).numpy()
    features, gradients = features_and_gradients(network, images, classes)
    assert features.shape == gradients.shape == (8, 3, 3, 1280)

    captum = LayerGradCam(network, network.backbone.features)
    expected = captum.attribute(torch.from_numpy(images), torch.from_numpy(classes), relu_attributions=True)
    expected = expected.detach().numpy()[:, 0]
    positive = expected.max(axis=(1, 2)) > 0  # after the hidden layer's ReLU an image may have no gradient
    assert positive.sum() >= 5
    found, expected = class_activation_maps(features, gradients, 3, 3)[positive], expected[positive]
    assert_same_outputs(found, expected / expected.max(axis=(1, 2), keepdims=True), atol=1e-3)


@pytest.mark.parametrize(("backbone", "channels"), [("mobilenet_v2", 1280), ("resnet50", 2048), ("densenet121", 1024)])
def test_features_are_the_map_that_is_pooled(backbone: str, channels: int) -> None:
    network = make_classifier(backbone)
    images = random_images(2, shape=(64, 64, 3))
    features, gradients = features_and_gradients(network, images, np.array([0, 2]))
    assert features.shape == gradients.shape == (2, 2, 2, channels)
    with torch.inference_mode():
        pooled = network.backbone(network.pixels(torch.from_numpy(images)))
    assert_same_outputs(features.mean(axis=(1, 2)), pooled.numpy(), atol=1e-4)
    # a single dense layer: the gradient at each of the four places is a quarter of its weight
    weights = network.head[0].weight.detach().numpy()[[0, 2]]
    assert_same_outputs(gradients, np.broadcast_to(weights[:, None, None] / 4, gradients.shape), atol=1e-6)


def test_small_images_have_a_feature_map_of_one_cell() -> None:
    features, _ = features_and_gradients(make_classifier("mobilenet_v2", 32), random_images(2), np.array([0, 1]))
    assert features.shape == (2, 1, 1, 1280)


@pytest.mark.parametrize("frozen", [True, False])
def test_network_is_unchanged(frozen: bool) -> None:
    network = make_classifier("mobilenet_v2", dropout=0.5)
    network.train()
    network.backbone.train(not frozen).requires_grad_(not frozen)
    modes = [module.training for module in network.modules()]
    trainable = [parameter.requires_grad for parameter in network.parameters()]
    before = hash_weights(network)
    images = random_images(2, shape=(64, 64, 3))
    first, _ = features_and_gradients(network, images, np.array([0, 1]))
    again, _ = features_and_gradients(network, images, np.array([0, 1]))
    np.testing.assert_array_equal(first, again)  # as in inference: no dropout, no batch statistics
    assert hash_weights(network) == before
    assert [module.training for module in network.modules()] == modes
    assert [parameter.requires_grad for parameter in network.parameters()] == trainable
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.is_grad_enabled()
