"""Hardware acceleration in torch: device, TF32, channels_last, mixed precision, torch.compile and memory."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import shutil
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tandem.data.stream import Batch
from tandem.errors import UserError, says_out_of_memory
from tandem.on_torch.loss import mean_loss
from tandem.on_torch.networks import Classifier, inference_mode_of
from tandem.protocol.devices import check_gpu
from tandem.protocol.gpus import compute_capability, gpu_names
from tandem.protocol.settings import AccelerationSettings, Settings

COMPILERS = ("c++", "g++", "clang++")
"""Compilers that torch.compile uses on a CPU, and Triton for its launchers on a GPU."""

PAD_BATCHES = False
"""Predicting a smaller batch costs no compilation, so it is predicted as it is."""


class Batches(Protocol):
    """A stream, or a loader that serves it."""

    def batch_of_each_size(self) -> list[Batch]: ...


# mallopt's parameters, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_BLOCKS = (2**30, 2**25)  # bytes; older versions of glibc accept no more than the second


# -------------------------------------------------------------------------------------------------------------- device


def uses_gpu(settings: Settings) -> bool:
    """True if the run computes on a GPU."""
    return settings.device != "cpu" and torch.cuda.is_available()


def device_of(settings: Settings) -> torch.device:
    """The device that the run computes on."""
    return torch.device("cuda" if uses_gpu(settings) else "cpu")


def check_device(settings: Settings) -> None:
    """Raises UserError if `device` or `precision` needs a GPU and torch finds none, or has no code for the GPU."""
    check_gpu(settings, has_gpu=torch.cuda.is_available(), backend="torch")
    if uses_gpu(settings):
        _check_card()


def _check_card() -> None:
    # without this, the first kernel fails with "no kernel image is available for execution on the device"
    capability, built_for = compute_capability(), torch.cuda.get_arch_list()
    if capability is None or not built_for:
        return
    for name in built_for:  # such as sm_90, sm_90a and compute_120
        kind, _, digits = name.partition("_")
        number = int(digits.rstrip("af"))
        major, minor = divmod(number, 10)
        # CUDA: binaries run on cards of the same major number and a minor one not below theirs, PTX on newer cards
        if (minor <= capability[1] and major == capability[0]) or (kind == "compute" and (major, minor) <= capability):
            return
    raise UserError(
        f"device: torch {torch.__version__} has no code for {gpu_names()[0]} (compute capability "
        f"{capability[0]}.{capability[1]}), only for {', '.join(built_for)}; install torch for an older CUDA "
        "(docs/gpu.md), or give --device cpu"
    )


def to_device(network: Classifier, settings: Settings) -> Classifier:
    """Moves the network to the run's device, with its convolution weights in the memory format of the settings."""
    memory_format = torch.channels_last if uses_channels_last(settings) else torch.contiguous_format
    return network.to(device_of(settings)).to(memory_format=memory_format)


def uses_channels_last(settings: Settings) -> bool:
    """The setting channels_last, or its default, which depends on device and precision."""
    if settings.acceleration.channels_last is not None:
        return settings.acceleration.channels_last
    # torch's own depthwise kernel is for contiguous float32; cuDNN's, for lower precision, is for channels_last
    return not (uses_gpu(settings) and settings.precision == "float32")


def uses_fused_optimizer(settings: Settings) -> bool:
    """The setting fused_optimizer, except where loss scaling must be done outside of the fused kernel.

    That kernel unscales the gradients, which have to be unscaled before they are clipped; and it does not tell of steps
    that are skipped, which must not be averaged.
    """
    needs_unscaled = settings.optimizer.clip_norm is not None or settings.ema_decay is not None
    return settings.acceleration.fused_optimizer and not (settings.precision == "float16" and needs_unscaled)


def is_out_of_memory(error: BaseException) -> bool:
    """True if a CPU or a GPU had too little memory, cuDNN's and cuBLAS's errors included."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and says_out_of_memory(error)


# --------------------------------------------------------------------------------------------------------------- flags


def set_flags(settings: AccelerationSettings) -> None:
    """Sets torch's global flags for GPUs, and on a CPU lets the process keep memory that it has freed.

    Raises:
        UserError: acceleration.compile is set and there is no C++ compiler.
    """
    # not torch.set_float32_matmul_precision, which also changes the arithmetic on a CPU
    torch.backends.cuda.matmul.allow_tf32 = settings.tf32
    torch.backends.cudnn.allow_tf32 = settings.tf32
    torch.backends.cudnn.benchmark = settings.cudnn_autotune and not settings.deterministic
    torch.backends.cudnn.deterministic = settings.deterministic
    torch.use_deterministic_algorithms(settings.deterministic, warn_only=True)
    if settings.keep_memory:
        keep_freed_memory()
    if settings.compile and not any(map(shutil.which, COMPILERS)):
        raise UserError(
            f"acceleration.compile: received True, but torch.compile needs a C++ compiler and none of "
            f"{', '.join(COMPILERS)} is installed; install one, or set it to false"
        )


def keep_freed_memory() -> None:
    """Lets the process keep memory that it has freed; does nothing if the C library is not glibc.

    glibc returns the free end of the heap to the system, for example after each pass of a network. The next pass asks
    for it again, with a page fault per 4 KiB.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    # large blocks from the heap first: after a call for the trim threshold alone, glibc no longer raises this limit
    if any(mallopt(M_MMAP_THRESHOLD, size) for size in LARGEST_BLOCKS):
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


# -------------------------------------------------------------------------------------------------------------- passes


def autocast(settings: Settings, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Context for passes in the settings' precision.

    The same as Lightning's, whose autocast has no cache, and which enters none in float32: torch.compile compiles again
    where this differs.
    """
    if settings.precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, getattr(torch, settings.precision), cache_enabled=False)


def forward_of(network: nn.Module, settings: AccelerationSettings) -> Callable[[Tensor], Tensor]:
    """The network's forward pass, compiled if the settings say so.

    A function and no module, so that a module that keeps it does not register the network twice.
    """
    if not settings.compile:
        return network.__call__
    torch.compiler.reset()  # variants that an earlier phase compiled count towards torch's limit
    return torch.compile(network.forward)


def warm_up(
    network: nn.Module,
    forward_pass: Callable[[Tensor], Tensor],
    settings: Settings,
    training: Batches,
    validation: Batches,
) -> float:
    """Takes a training and a validation step with each batch size, so that the epochs compile nothing.

    The network is unchanged afterwards: no weight is stepped, and batch-norm statistics and random numbers are
    restored. Without compilation, a GPU still loads its kernels and chooses among them at their first use.

    Args:
        network: On its device, frozen or thawed for the phase.
        forward_pass: The function that its steps call.
        settings: `precision` and `acceleration.compile`.
        training: The phase's training batches; in a run on several devices, this process's share of them.
        validation: The phase's validation batches.

    Returns:
        Seconds spent; 0, and no step is taken, on a CPU without compilation.
    """
    device = next(network.parameters()).device
    if device.type == "cpu" and not settings.acceleration.compile:
        return 0.0
    start = time.perf_counter()
    statistics = {name: value.clone() for name, value in network.named_buffers()}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for batch in training.batch_of_each_size():
            images, *targets = (torch.from_numpy(part).to(device) for part in batch)
            with autocast(settings, device):
                loss = mean_loss(forward_pass(images), *targets)
            loss.backward()
    # no_grad, as in Lightning's fit: torch.compile compiles again for inference_mode
    with inference_mode_of(network), torch.no_grad(), autocast(settings, device):
        for batch in validation.batch_of_each_size():
            forward_pass(torch.from_numpy(batch[0]).to(device))
    network.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, value in network.named_buffers():
            value.copy_(statistics[name])
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
