"""The classifier as a torch module: uint8 pixels, backbone, head."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from tandem.errors import UserError
from tandem.on_torch.head import build_head
from tandem.protocol.backbones import Backbone, Scaling, find_backbone, scale_and_offset, scaling_of
from tandem.protocol.settings import Settings

Blocks = list[list[nn.Module]]


class Pixels(nn.Module):
    """uint8 images of shape (n, height, width, 3), RGB, to the backbone's float32 input of shape (n, 3, size, size)."""

    def __init__(self, image_size: int, scaling: Scaling) -> None:
        super().__init__()
        self.image_size = image_size
        self.to_bgr = scaling == "caffe"
        scale, offset = scale_and_offset(scaling)
        # not persistent: these are settings, and weights of the same network must load whatever the scaling
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
    """uint8 images of shape (n, height, width, 3) to logits of shape (n, classes)."""

    def __init__(self, pixels: Pixels, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.pixels = pixels
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(self.pixels(images)))


def build_classifier(settings: Settings, num_classes: int, weights_file: Path | None = None) -> Classifier:
    """Backbone with the settings' weights, a new head, and the pixel scaling in front.

    Args:
        settings: `backbone`, `weights`, `pixel_scaling`, `batch_norm_momentum`, `head`, `seed`, `data.image_size`.
        num_classes: Number of outputs.
        weights_file: Where the backbone's weights lie, for weights that are neither `random` nor `imagenet`.
    """
    entry = find_backbone(settings.backbone, "torch")
    backbone = _build_backbone(entry, pretrained=settings.weights == "imagenet")
    if weights_file is not None:
        load_backbone(backbone, weights_file)
    if settings.batch_norm_momentum is not None:
        for module in backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = 1 - settings.batch_norm_momentum
    scaling = scaling_of(entry, "torch", settings.pixel_scaling)
    head = build_head(settings, entry.num_features, num_classes)
    return Classifier(Pixels(settings.data.image_size, scaling), backbone, head)


def _build_backbone(entry: Backbone, *, pretrained: bool) -> nn.Module:
    try:
        network = torchvision.models.get_model(
            entry.torchvision, weights=entry.torchvision_weights if pretrained else None
        )
    # urllib's and the file system's errors are OSErrors; the others come from a file that was put there broken
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        if not pretrained:
            raise
        url = torchvision.models.get_model_weights(entry.torchvision)[entry.torchvision_weights].url
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"weights: imagenet could not be downloaded or read ({reason}); put {url} into "
            f"{Path(torch.hub.get_dir()) / 'checkpoints'}, or give a file with --weights"
        ) from None
    for name in ("fc", "classifier"):  # torchvision's two names for what stands behind the pooled features
        if hasattr(network, name):
            setattr(network, name, nn.Identity())
    return network


def blocks_of(backbone: nn.Module, entry: Backbone) -> Blocks:
    """The backbone's blocks, from the input on."""
    return [[backbone]]


def load_backbone(backbone: nn.Module, file: Path) -> None:
    """Fills the backbone from a state dict of a whole torchvision network, or from what save_weights wrote.

    Raises:
        UserError: The file is no state dict, or holds another network's weights.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
        wanted = backbone.state_dict()
        found = {name: state[name] for name in wanted if isinstance(state.get(name), Tensor)}
    except Exception as error:  # what torch raises here depends on the bytes it meets
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"weights: {file} cannot be read as a state dict ({type(error).__name__}: {reason})") from None
    lacking = sorted(set(wanted) - set(found))
    misshapen = sorted(name for name in found if found[name].shape != wanted[name].shape)
    if lacking or misshapen:
        raise UserError(
            f"weights: {file} is of another network: {len(lacking)} of {len(wanted)} tensors are lacking and "
            f"{len(misshapen)} have another shape, the first is {(lacking + misshapen)[0]}"
        )
    backbone.load_state_dict(found)
