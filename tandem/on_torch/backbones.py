"""Backbones of torchvision and timm without their ImageNet heads, and their blocks."""

from __future__ import annotations

import pickle
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from huggingface_hub import constants as hub_constants
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn

from tandem.errors import UserError, WeightsNotDownloaded, one_line
from tandem.protocol.backbones import (
    IMAGENET_CLASSES,
    Backbone,
    Build,
    Normalization,
    Scaling,
    unknown_builder,
)

# torchvision publishes these with the scaling of its other networks. With `transform_input` they convert it into the
# one that they were trained with.
_OF_INCEPTION = ("googlenet", "inception_v3")
_INCEPTION_SCALING = Normalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@dataclass(frozen=True, kw_only=True)
class BuiltBackbone:
    """A backbone, its number of features, its pixel scaling and its ImageNet head."""

    network: nn.Module
    """Pixels of shape (n, 3, size, size), scaled, to features of shape (n, num_features)."""
    num_features: int
    scaling: Scaling
    """Pixel scaling that the published weights expect."""
    imagenet_head: nn.Linear | None
    """Features to logits of ImageNet's 1000 classes; None if the library's network has no such layer."""


def check_builder(entry: Backbone) -> None:
    """Does nothing if the library has a network of that name.

    Raises:
        UserError: It has none, or timm has no weights with the tag at the end of the name.
    """
    build = entry.builds["torch"]
    if build.package == "torchvision":
        known = torchvision.models.list_models(module=torchvision.models)
        if build.builder not in known:
            raise unknown_builder(entry, build.builder, "torchvision", known)
        return
    if not timm.is_model(build.builder):
        raise unknown_builder(entry, build.builder, "timm", timm.list_models())
    try:
        timm.get_pretrained_cfg(build.builder)
    except RuntimeError as error:
        raise UserError(
            f"backbone: timm cannot build {entry.name!r} ({one_line(error, with_type=False)}); take another backbone"
        ) from None


def build_backbone(
    entry: Backbone, image_size: int, *, pretrained: bool, whole_weights: Path | None = None
) -> BuiltBackbone:
    """The backbone of a catalogue entry or of a name outside the catalogue.

    Args:
        entry: From find_backbone.
        image_size: Height and width of its input in pixels.
        pretrained: Use the ImageNet weights that its library downloads, otherwise random ones.
        whole_weights: A file with the weights of the whole network, ImageNet head included.

    Raises:
        UserError: The library has no such name or weights, the download failed, the file belongs to another network,
            or the network does not take images of that size.
    """
    check_builder(entry)
    build = entry.builds["torch"]
    network = (
        _build_timm(entry, pretrained) if build.package == "timm" else build_torchvision(entry, pretrained=pretrained)
    )
    scaling = build.scaling or _published_scaling(build, network)
    if whole_weights is not None:
        load_weights(network, whole_weights)
    head = _part_timm(network) if build.package == "timm" else _part_torchvision(network, entry)
    if head is not None and head.out_features != IMAGENET_CLASSES:
        head = None
    num_features = entry.num_features or _count_features(network, entry, image_size)
    return BuiltBackbone(network=network, num_features=num_features, scaling=scaling, imagenet_head=head)


def blocks_of(backbone: nn.Module, entry: Backbone) -> list[list[nn.Module]]:
    """The modules of each block, from input to output; every parameter belongs to exactly one block.

    For a backbone of the catalogue these are modules without children, dropout included: `train(False)` and
    `requires_grad_(False)` on each of them freezes the block and nothing else. Any other backbone is one block.
    """
    patterns = entry.builds["torch"].blocks
    if len(patterns) == 1:
        return [[backbone]]
    leaves = [(name, module) for name, module in backbone.named_modules() if not list(module.children())]
    # timm's batch norm has children (its activation) and parameters
    leaves += [(n, m) for n, m in backbone.named_modules() if list(m.children()) and list(m.parameters(recurse=False))]
    return [[module for name, module in leaves if re.match(pattern, name)] for pattern in patterns]


# Tensors of published files that a backbone may lack: heads and auxiliary heads by their names in torchvision and timm,
# and tables and counts that can be computed anew.
_NOT_OF_BACKBONE = re.compile(
    r"(fc|classifier|head|heads|head_dist|last_linear|aux\w*|AuxLogits)\.|.*\b(relative_position_index|attn_mask)$|"
    r".*\b(num_batches_tracked|total_ops|total_params)$"
)


def load_weights(network: nn.Module, file: Path) -> None:
    """Loads a backbone, or a network with its head, from a state dict or a file of save_weights.

    A head that the network does not have is ignored.

    Raises:
        UserError: The file is not a state dict, holds the weights of another network, or numbers that are not finite.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
        wanted = network.state_dict()
        found = {name: state[name] for name in wanted if isinstance(state.get(name), Tensor)}
    except Exception as error:  # torch raises many kinds of exceptions here, depending on the bytes
        raise UserError(
            f"weights: {file} cannot be read as a state dict ({one_line(error)}); give a file "
            "that torch.save or safetensors has made"
        ) from None
    lacking = sorted(set(wanted) - set(found))
    misshapen = sorted(name for name in found if found[name].shape != wanted[name].shape)
    if lacking or misshapen:
        raise UserError(
            f"weights: {file} belongs to another network, or lacks the head that is needed: {len(lacking)} of "
            f"{len(wanted)} tensors are missing and {len(misshapen)} have another shape, the first is "
            f"{(lacking + misshapen)[0]}; give the file of this backbone"
        )
    surplus = sorted(name for name in set(state) - set(wanted) if not _NOT_OF_BACKBONE.match(name))
    if surplus:
        raise UserError(
            f"weights: {file} belongs to another network: {len(surplus)} of its tensors are not in this one, the first "
            f"is {surplus[0]}; give the file of this backbone"
        )
    damaged = sorted(name for name, value in found.items() if not value.isfinite().all())
    if damaged:
        raise UserError(
            f"weights: {file} holds numbers that are not finite in {len(damaged)} of {len(found)} tensors, the first "
            f"is {damaged[0]}; the training that made it diverged, or the file is damaged: give another one"
        )
    network.load_state_dict(found)


def build_torchvision(entry: Backbone, *, pretrained: bool) -> nn.Module:
    """The whole torchvision network with its ImageNet head.

    Args:
        entry: A torchvision backbone that check_builder accepts.
        pretrained: Use the ImageNet weights that torchvision downloads, otherwise random ones.

    Raises:
        WeightsNotDownloaded: The weights could not be downloaded, or the downloaded file is damaged.
    """
    build = entry.builds["torch"]
    weights = _torchvision_weights(build)
    options = {}
    if build.builder in _OF_INCEPTION:
        # with published weights they would convert the scaling themselves
        options["transform_input"] = False
        if not pretrained:
            # they warn that their random weights are slow to draw and will change
            options["init_weights"] = False
    try:
        network = torchvision.models.get_model(build.builder, weights=weights if pretrained else None, **options)
    # errors of urllib and the file system are OSErrors; the others come from a damaged file
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        if not pretrained:
            raise
        reason = one_line(error, with_type=False)
        raise WeightsNotDownloaded(
            f"weights: imagenet could not be downloaded or read ({reason}); put {weights.url} into "
            f"{Path(torch.hub.get_dir()) / 'checkpoints'}, or give a file with --weights"
        ) from None
    if getattr(network, "aux_logits", False):
        # the auxiliary heads of GoogLeNet and Inception, which make the output a tuple in training mode
        network.aux_logits = False
        for name in ("aux1", "aux2", "AuxLogits"):
            if hasattr(network, name):
                setattr(network, name, None)
    return network


def _torchvision_weights(build: Build) -> torchvision.models.WeightsEnum:
    published = torchvision.models.get_model_weights(build.builder)
    return published[build.weights] if build.weights else next(iter(published))


def _build_timm(entry: Backbone, pretrained: bool) -> nn.Module:
    build = entry.builds["torch"]
    name = f"{build.builder}.{build.weights}" if build.weights else build.builder
    if pretrained:
        _check_hub(name)
    try:
        return timm.create_model(name, pretrained=pretrained, **build.options)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        if not pretrained:
            reason = one_line(error, with_type=False)
            raise UserError(f"backbone: timm cannot build {entry.name!r} ({reason}); take another backbone") from None
        raise _no_timm_weights(name, error) from None


def _check_hub(name: str) -> None:
    """Raises WeightsNotDownloaded if the Hugging Face hub does not answer; timm would try for 47 seconds."""
    preset = timm.get_pretrained_cfg(name)
    if preset is None or not preset.hf_hub_id or try_to_load_from_cache(preset.hf_hub_id, "model.safetensors"):
        return
    try:
        urllib.request.urlopen(urllib.request.Request(hub_constants.ENDPOINT, method="HEAD"), timeout=10).close()  # nosec B310: https
    except urllib.error.HTTPError:
        pass  # it answers
    except OSError as error:
        raise _no_timm_weights(name, error) from None


def _no_timm_weights(name: str, error: Exception) -> WeightsNotDownloaded:
    return WeightsNotDownloaded(
        f"weights: imagenet could not be downloaded or read for {name} ({one_line(error, with_type=False)}); run once "
        f"where {hub_constants.ENDPOINT} can be reached, or give a file with --weights"
    )


def _published_scaling(build: Build, network: Any) -> Normalization:
    if build.package == "timm":
        preset = network.pretrained_cfg
        return Normalization(mean=tuple(preset["mean"]), std=tuple(preset["std"]))
    if build.builder in _OF_INCEPTION:
        return _INCEPTION_SCALING
    preset = _torchvision_weights(build).transforms()
    return Normalization(mean=tuple(preset.mean), std=tuple(preset.std))


def _part_torchvision(network: nn.Module, entry: Backbone) -> nn.Linear:
    """Removes the last dense layer, and the dropout before it if that follows the pooling."""
    dense = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not dense:
        raise UserError(
            f"backbone: {entry.name!r} does not end in a dense layer that could be replaced; take another backbone"
        )
    name, head = dense[-1]
    above = name.rpartition(".")[0]
    siblings = [module for module in network.get_submodule(above).children() if module is not head]
    if above and siblings and all(isinstance(module, nn.Dropout) for module in siblings):
        name = above
    network.set_submodule(name, nn.Identity())
    return head


def _part_timm(network: Any) -> nn.Linear | None:
    head = network.get_classifier()
    network.reset_classifier(0)
    if isinstance(head, nn.Conv2d) and head.kernel_size == (1, 1) and head.bias is not None:
        # on pooled features of shape (n, c, 1, 1) it is a dense layer
        dense = nn.Linear(head.in_channels, head.out_channels)
        with torch.no_grad():
            dense.weight.copy_(head.weight[:, :, 0, 0])
            dense.bias.copy_(head.bias)
        return dense
    return head if isinstance(head, nn.Linear) else None


def _count_features(network: nn.Module, entry: Backbone, image_size: int) -> int:
    network.eval()
    try:
        with torch.inference_mode():
            features = network(torch.zeros(1, 3, image_size, image_size))
    except (ValueError, RuntimeError, AssertionError) as error:
        raise UserError(
            f"data.image_size: received {image_size}, but {entry.name} does not take images of that size "
            f"({one_line(error, with_type=False)})"
        ) from None
    network.train()
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise UserError(f"backbone: {entry.name!r} does not give one feature vector per image; take another backbone")
    return features.shape[1]
