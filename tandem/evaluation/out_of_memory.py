"""The error of a run that needs more memory than there is."""

from __future__ import annotations

import psutil

from tandem.errors import OutOfMemory
from tandem.protocol.gpus import gpu_memory_bytes
from tandem.protocol.settings import Settings


def does_not_fit(settings: Settings, *, gpu: bool) -> OutOfMemory:
    """The error of a run whose training step, or a single image, needs more memory than there is.

    Args:
        settings: Of the run.
        gpu: True if it computes on a GPU.
    """
    gigabytes = (gpu_memory_bytes() if gpu else psutil.virtual_memory().total) or 0
    memory = f"the {'GPU' if gpu else 'main'} memory{f' of {gigabytes / 1e9:.1f} GB' if gigabytes else ''}"
    accumulate, size = 2 * settings.accumulate, settings.batch_size
    parts = f"--accumulate {accumulate} (the same steps in half the memory)"
    smaller = f"a smaller batch_size, such as {size // 2}" if size >= 4 else ""
    ways = [
        parts if size % accumulate == 0 and size // accumulate >= 2 else "",
        smaller,
        f"a smaller data.image_size (now {settings.data.image_size})",
    ]
    if settings.precision == "float32":
        ways.insert(2, "--precision bfloat16")
    return OutOfMemory(
        f"batch_size: received {settings.batch_size}, but {settings.backbone} with such batches does not fit into "
        f"{memory}; allowed: what fits, with {', '.join(way for way in ways if way)} or a smaller backbone"
    )
