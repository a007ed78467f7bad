"""The layers of a torch network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tandem.evaluation.architecture import Layer
from tandem.on_torch.networks import Classifier, inference_mode_of


def layers_of(classifier: Classifier, image_shape: tuple[int, ...]) -> list[Layer]:
    """The layers of backbone and head in the order in which they are defined.

    A layer is a module without modules within it, or with weights of its own, such as an attention or a class token. A
    weight that two layers share counts for the first.

    Args:
        classifier: The network; it is unchanged afterwards.
        image_shape: (height, width, 3) of the stored images.
    """
    modules = {
        f"{part}.{name}".rstrip("."): module
        for part in ("backbone", "head")
        for name, module in getattr(classifier, part).named_modules()
        if not list(module.children()) or list(module.parameters(recurse=False))
    }
    shapes: dict[nn.Module, tuple[int, ...] | None] = {}

    def keep_shape(module: nn.Module, inputs: Any, output: Any) -> None:
        shapes[module] = tuple(output.shape[1:]) if isinstance(output, Tensor) else None

    hooks = [module.register_forward_hook(keep_shape) for module in modules.values()]
    try:
        with inference_mode_of(classifier), torch.inference_mode():
            classifier(torch.zeros((1, *image_shape), dtype=torch.uint8, device=classifier.device))
    finally:
        for hook in hooks:
            hook.remove()
    counted: set[Tensor] = set()
    layers = []
    for name, module in modules.items():
        own = set(module.parameters(recurse=False)) - counted
        counted |= own
        layers.append(
            Layer(
                name=name,
                kind=type(module).__name__,
                output_shape=shapes.get(module),
                parameters=sum(parameter.numel() for parameter in own),
            )
        )
    return layers
