"""The classifier as a torch module: uint8 pixels, backbone, head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from tandem.errors import UserError
from tandem.on_torch.backbones import BuiltBackbone, build_backbone, load_weights
from tandem.on_torch.head import build_head
from tandem.protocol.backbones import Scaling, find_backbone, scale_and_offset, scaling_of
from tandem.protocol.settings import Settings


class Pixels(nn.Module):
    """uint8 RGB images of shape (n, height, width, 3) to the backbone's float32 input of shape (n, 3, size, size)."""

    def __init__(self, image_size: int, scaling: Scaling) -> None:
        super().__init__()
        self.image_size = image_size
        self.scaling = scaling
        self.to_bgr = scaling == "caffe"
        scale, offset = scale_and_offset(scaling)
        # not persistent: these are settings, and weights of the same network must load with any scaling
        self.scale = nn.Buffer(torch.tensor(scale).reshape(1, 3, 1, 1), persistent=False)
        self.offset = nn.Buffer(torch.tensor(offset).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2).float()
        if pixels.shape[-2:] != (self.image_size, self.image_size):
            pixels = functional.interpolate(
                pixels, (self.image_size, self.image_size), mode="bilinear", align_corners=False
            )
        pixels = pixels * self.scale + self.offset
        return pixels.flip(1) if self.to_bgr else pixels


class Classifier(nn.Module):
    """uint8 images of shape (n, height, width, 3) to float32 logits of shape (n, classes)."""

    def __init__(self, pixels: Pixels, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.pixels = pixels
        self.backbone = backbone
        self.head = head

    @property
    def device(self) -> torch.device:
        """The device of its weights, which its images have to be on."""
        return self.pixels.scale.device

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(self.pixels(images))
        if not torch.is_autocast_enabled(features.device.type):
            return self.head(features)  # entering autocast asks for GPUs each time, which takes part of a millisecond
        # the head computes in float32 in any precision, since the loss is computed from its logits
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features.float())


@contextmanager
def inference_mode_of(network: nn.Module) -> Iterator[None]:
    """Puts the network into inference mode for the length of a with block, then each module back into its own mode."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def fix_batch_norm(network: nn.Module) -> None:
    """Puts batch norm into inference mode until train(): it keeps its statistics and normalises with them."""
    for module in batch_norms_of(network):
        module.eval()


def has_batch_norm(network: nn.Module) -> bool:
    """True if there is batch norm in a network."""
    return any(True for _ in batch_norms_of(network))


def batch_norms_of(network: nn.Module) -> Iterator[_BatchNorm]:
    """The batch norm of a network, module by module."""
    return (module for module in network.modules() if isinstance(module, _BatchNorm))


def build_classifier(settings: Settings, num_classes: int, weights_file: Path | None = None) -> Classifier:
    """Pixel scaling, backbone with the settings' weights, new head.

    Args:
        settings: `backbone`, `weights`, `pixel_scaling`, `batch_norm_momentum`, `head`, `seed`, `data.image_size`.
        num_classes: Number of outputs.
        weights_file: File of the backbone's weights, if `weights` is neither `random` nor `imagenet`.

    Raises:
        UserError: The backbone cannot be built, or its weights cannot be downloaded or read.
    """
    entry = find_backbone(settings.backbone, "torch")
    built = build_backbone(entry, settings.data.image_size, pretrained=settings.weights == "imagenet")
    if weights_file is not None:
        load_weights(built.network, weights_file)
    head = build_head(settings, built.num_features, num_classes)
    return _assemble(settings, built, head)


def build_off_the_shelf(settings: Settings, weights_file: Path | None = None) -> Classifier:
    """The published network with its head of ImageNet's 1000 classes, in inference mode.

    Args:
        settings: `backbone`, `weights`, `pixel_scaling`, `batch_norm_momentum`, `data.image_size`.
        weights_file: A state dict of the whole network, if `weights` is neither `random` nor `imagenet`.

    Raises:
        UserError: As build_classifier; or the network has no such head, or the file lacks it.
    """
    entry = find_backbone(settings.backbone, "torch")
    built = build_backbone(
        entry, settings.data.image_size, pretrained=settings.weights == "imagenet", whole_weights=weights_file
    )
    if built.imagenet_head is None:
        raise UserError(f"backbone: {entry.name!r} comes without a dense layer for ImageNet's 1000 classes")
    return _assemble(settings, built, built.imagenet_head).eval()


def _assemble(settings: Settings, built: BuiltBackbone, head: nn.Module) -> Classifier:
    if settings.batch_norm_momentum is not None:
        for module in batch_norms_of(built.network):
            module.momentum = 1 - settings.batch_norm_momentum
    pixels = Pixels(settings.data.image_size, scaling_of(built.scaling, settings.pixel_scaling))
    return Classifier(pixels, built.network, head)
