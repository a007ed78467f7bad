"""What torch takes of the hardware: kernels, number formats, a compiled network."""

from __future__ import annotations

import ctypes
import platform
import shutil
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tandem.data.stream import Stream
from tandem.errors import UserError
from tandem.on_torch.networks import Classifier, inference_mode_of
from tandem.protocol.settings import AccelerationSettings, Settings

COMPILERS = ("c++", "g++", "clang++")
"""What torch.compile builds its code with on a CPU, and Triton its launchers on a GPU."""


# Of glibc's malloc.h: what mallopt is told.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_BLOCKS = (2**30, 2**25)  # bytes; the second is the most that an older glibc accepts


def set_flags(settings: AccelerationSettings) -> None:
    """Sets torch's switches for GPUs, which mean nothing to a CPU, and lets freed memory be kept, which is for a CPU.

    Raises:
        UserError: The network is to be compiled, and there is no compiler.
    """
    # not torch.set_float32_matmul_precision, which also changes what a CPU may do
    torch.backends.cuda.matmul.allow_tf32 = settings.tf32
    torch.backends.cudnn.allow_tf32 = settings.tf32
    torch.backends.cudnn.benchmark = settings.cudnn_autotune
    if settings.keep_memory:
        keep_freed_memory()
    if settings.compile and not any(map(shutil.which, COMPILERS)):
        raise UserError(
            f"acceleration.compile: received True, but torch.compile needs a C++ compiler and none of "
            f"{', '.join(COMPILERS)} is installed; install one or leave it out"
        )


def keep_freed_memory() -> None:
    """Lets the process keep memory that it has freed, for good; does nothing where the C library is not glibc.

    It would go back to the system whenever the end of the heap is free, as after each pass of a network, and be asked
    for anew by the next, with a page fault for each 4 KiB.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    # large blocks from the heap first: told about its end alone, glibc would no longer raise their limit by itself
    if any(mallopt(M_MMAP_THRESHOLD, size) for size in LARGEST_BLOCKS):
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def placed(network: Classifier, settings: AccelerationSettings, device: str) -> Classifier:
    """The network on the device, its convolution weights in the order of the settings."""
    return network.to(device).to(
        memory_format=torch.channels_last if settings.channels_last else torch.contiguous_format
    )


def forward_of(network: nn.Module, settings: AccelerationSettings) -> Callable[[Tensor], Tensor]:
    """What a step calls: the network, or its compiled forward pass; neither of them a module to be registered."""
    if not settings.compile:
        return network.__call__
    torch.compiler.reset()  # what an earlier phase compiled counts towards torch's limit of variants
    return torch.compile(network.forward)


def warm_up(
    network: nn.Module,
    forward_pass: Callable[[Tensor], Tensor],
    settings: Settings,
    training: Stream,
    validation: Stream,
) -> float:
    """Takes a training and a validation step of each batch size, so that the epochs have nothing left to compile.

    Afterwards the network is as before: no weight is stepped, and batch-norm statistics and random numbers are put
    back. Where nothing is compiled, a GPU still loads its kernels and chooses among them at their first use.

    Args:
        network: On its device, frozen or thawed as the phase will have it.
        forward_pass: What its steps call.
        settings: `precision`, `num_devices` and `acceleration.compile`.
        training: The phase's batches.
        validation: The same of the validation images.

    Returns:
        Seconds that it took; 0 on a CPU where nothing is compiled, and on one of several devices, and nothing done.
    """
    device = next(network.parameters()).device
    if settings.num_devices != 1 or (device.type == "cpu" and not settings.acceleration.compile):
        return 0.0
    start = time.perf_counter()
    dtype = getattr(torch, settings.precision)
    autocast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    statistics = {name: value.clone() for name, value in network.named_buffers()}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for batch in training.batch_of_each_size():
            images, labels = (torch.from_numpy(part).to(device) for part in batch)
            with autocast:
                loss = functional.cross_entropy(forward_pass(images), labels)
            loss.backward()
    with inference_mode_of(network), torch.inference_mode(), autocast:
        for batch in validation.batch_of_each_size():
            forward_pass(torch.from_numpy(batch[0]).to(device))
    network.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, value in network.named_buffers():
            value.copy_(statistics[name])
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def is_out_of_memory(error: Exception) -> bool:
    """Whether the GPU's memory was too small."""
    return isinstance(error, torch.OutOfMemoryError)
