"""Cost of a network in torch: multiply-accumulates and GPU memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tandem.on_torch.networks import Classifier, inference_mode_of


def count_macs(classifier: Classifier) -> int:
    """Multiply-accumulates of convolutions and dense layers for one image.

    Counted from the shapes that flow through them. The projections of attention are dense layers; its products of
    queries, keys and values are not counted, nor are biases, batch norm and activations.
    """
    size = classifier.pixels.image_size
    images = torch.zeros((1, size, size, 3), dtype=torch.uint8, device=classifier.device)
    with inference_mode_of(classifier), torch.inference_mode(), _Counting() as counting:
        classifier(images)
    return counting.macs


class _Counting(TorchFunctionMode):
    """Adds up the multiply-accumulates of convolutions and dense layers.

    Hooks on modules would miss attention, whose weights are used without calling a Linear: nn.MultiheadAttention's and
    those of torchvision's Swin.
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
            # the layers within it cannot be seen here
            query, key, value, width = args[:4]
            self.macs += (2 * query.numel() + key.numel() + value.numel()) * width
        return output


def reset_peak_gpu_memory() -> None:
    """Starts the measurement of peak_gpu_memory_megabytes."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_gpu_memory_megabytes() -> float:
    """Peak memory that torch has held on the GPU since the last reset, in 10^6 bytes; 0 without a GPU."""
    return torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else 0.0
