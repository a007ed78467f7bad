"""Recognises that a batch was too large for a device, by the words of the libraries that compute."""

from __future__ import annotations

import psutil

from tandem.errors import UserError
from tandem.protocol.gpus import gpu_memory_bytes
from tandem.protocol.settings import Settings

_MESSAGES = (
    # torch: CUDA's allocator, and the CPU's in its earlier and its present form
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    # TensorFlow; JAX, and XLA within TensorFlow
    "OOM when allocating",
    "RESOURCE_EXHAUSTED",
    # the CUDA driver, in any framework
    "CUDA_ERROR_OUT_OF_MEMORY",
    # cuBLAS and cuDNN, which allocate workspaces of their own; cuDNN's last three also mean "no algorithm fits"
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_SUPPORTED",
    "Unable to find a valid cuDNN algorithm",
    "unable to find an engine",
    "No algorithm worked",
    # kernels of torch that count elements with 32 bits, at 2^31 and more of them
    "canUse32BitIndexMath",
    "32-bit index math",
    "INT_MAX",
    "integer out of range",
)


def says_out_of_memory(error: BaseException) -> bool:
    """True if an exception's message is one of those for a batch that is too large for a CPU or a GPU.

    The caller checks the exception's type: any text may hold these words.
    """
    message = str(error)
    return any(words in message for words in _MESSAGES)


def does_not_fit(settings: Settings, *, gpu: bool) -> UserError:
    """The error of a run whose training step, or a single image, needs more memory than there is.

    Args:
        settings: Of the run.
        gpu: True if it computes on a GPU.
    """
    gigabytes = (gpu_memory_bytes() if gpu else psutil.virtual_memory().total) or 0
    memory = f"the {'GPU' if gpu else 'main'} memory{f' of {gigabytes / 1e9:.1f} GB' if gigabytes else ''}"
    smaller = f"a smaller batch_size, such as {settings.batch_size // 2}" if settings.batch_size >= 4 else ""
    ways = [smaller, f"a smaller data.image_size (now {settings.data.image_size})"]
    if settings.precision == "float32":
        ways.insert(1, "--precision bfloat16")
    return UserError(
        f"batch_size: received {settings.batch_size}, but {settings.backbone} with such batches does not fit into "
        f"{memory}; allowed: what fits, with {', '.join(way for way in ways if way)} or a smaller backbone"
    )
