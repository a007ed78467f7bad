"""What a network costs in torch: multiply-accumulates and memory of the GPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tandem.on_torch.networks import Classifier


def count_macs(classifier: Classifier, image_shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of convolutions and dense layers for one image of shape (height, width, 3).

    Counted from the shapes that flow through the layers; biases, batch norm and activations are left out.
    """
    total = 0

    def add(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            height, width = module.kernel_size
            total += output[0].numel() * (module.in_channels // module.groups) * height * width
        elif isinstance(module, nn.Linear):
            total += output[0].numel() * module.in_features

    handles = [
        module.register_forward_hook(add)  # type: ignore[arg-type]
        for module in classifier.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    was_training = {module: module.training for module in classifier.modules()}
    device = next(classifier.parameters()).device
    with torch.inference_mode():
        classifier.eval()(torch.zeros((1, *image_shape), dtype=torch.uint8, device=device))
    for module, training in was_training.items():
        module.training = training
    for handle in handles:
        handle.remove()
    return total


def peak_gpu_memory_megabytes() -> float:
    """The most that torch has held on the GPU since the process began; 0 without one."""
    return torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else 0.0
