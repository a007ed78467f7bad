"""Batch norm over the images of all processes of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional
from torch.nn.modules._functions import SyncBatchNorm
from torch.overrides import TorchFunctionMode


def synchronized_batch_norm() -> contextlib.AbstractContextManager[Any]:
    """Lets batch norm in training mode normalise with the images of all processes, for the length of a with block.

    It replaces functions and not modules: a network keeps its own modules (timm's batch norm includes its activation),
    and references to them stay valid.
    """
    return _SynchronizedBatchNorm() if distributed.is_initialized() else contextlib.nullcontext()


class _SynchronizedBatchNorm(TorchFunctionMode):
    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function is functional.batch_norm:
            function = batch_norm
        return function(*args, **(kwargs or {}))


def batch_norm(
    values: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """torch.nn.functional.batch_norm over the images of all processes, values of shape (n, channels, ...)."""
    if not training:
        return functional.batch_norm(values, running_mean, running_var, weight, bias, False, momentum, eps)
    if values.is_cuda:
        return SyncBatchNorm.apply(
            values,
            weight,
            bias,
            running_mean,
            running_var,
            eps,
            momentum,
            distributed.group.WORLD,
            distributed.get_world_size(),
        )
    # torch's own synchronized batch norm is for GPUs only
    axes = [0, *range(2, values.dim())]
    shape = (1, -1, *[1] * (values.dim() - 2))
    numbers = values.to(torch.promote_types(values.dtype, torch.float32))
    count = numbers.new_tensor([numbers.numel() // numbers.shape[1]])
    sums = _SumOverProcesses.apply(torch.cat([numbers.sum(axes), count]))
    total = sums[-1].detach()
    mean = sums[:-1] / total
    centred = numbers - mean.reshape(shape)
    var = _SumOverProcesses.apply(centred.square().sum(axes)) / total
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(var * total / (total - 1), momentum)
    normal = centred * torch.rsqrt(var + eps).reshape(shape)
    if weight is not None:
        normal = normal * weight.reshape(shape)
    if bias is not None:
        normal = normal + bias.reshape(shape)
    return normal.to(values.dtype)


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over the processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return _sum(values)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _sum(gradient)


def _sum(values: Tensor) -> Tensor:
    total = values.clone()
    distributed.all_reduce(total)
    return total
