"""What a network costs in torch: multiply-accumulates and memory of the GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tandem.on_torch.networks import Classifier, inference_mode_of


def count_macs(classifier: Classifier, image_shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of convolutions and dense layers for one image of shape (height, width, 3).

    Counted from the shapes that flow through them. The projections of attention are dense layers; its products of
    queries, keys and values, biases, batch norm and activations are left out.
    """
    device = next(classifier.parameters()).device
    with inference_mode_of(classifier), torch.inference_mode(), _Counting() as counting:
        classifier(torch.zeros((1, *image_shape), dtype=torch.uint8, device=device))
    return counting.macs


class _Counting(TorchFunctionMode):
    """Adds up what convolutions and dense layers multiply.

    Not hooks on modules: attention has weights that no Linear is called with, nn.MultiheadAttention's and those of
    torchvision's Swin.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        output = function(*args, **kwargs)
        if function in (functional.linear, functional.conv2d):
            weight: Tensor = args[1] if len(args) > 1 else kwargs["weight"]
            self.macs += output.numel() * weight[0].numel()
        elif function is functional.multi_head_attention_forward:
            # the layers within it are out of sight here
            query, key, value, width = args[:4]
            self.macs += (2 * query.numel() + key.numel() + value.numel()) * width
        return output


def peak_gpu_memory_megabytes() -> float:
    """The most that torch has held on the GPU since the process began; 0 without one."""
    return torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else 0.0
