"""What differs between Keras's backends and Keras itself has no name for."""

from __future__ import annotations

import importlib

import keras

from tandem.errors import UserError


def backend_version() -> str:
    return importlib.import_module(keras.backend.backend()).__version__


def has_gpu() -> bool:
    """Whether the backend finds a GPU."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    if backend == "jax":
        import jax

        return any(device.platform == "gpu" for device in jax.devices())
    import torch

    return torch.cuda.is_available()


def limit_threads(threads: int) -> None:
    """Limits the CPU threads of the backend's arithmetic; call it before any.

    Raises:
        UserError: The backend has no such limit.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    elif backend == "torch":
        import torch

        torch.set_num_threads(threads)
    else:
        raise UserError(
            f"threads: received {threads}, but the {backend} backend takes as many as the process may use; "
            "leave it out, and limit the process itself (taskset)"
        )
