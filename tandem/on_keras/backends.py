"""What differs between Keras's backends and Keras itself has no name for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

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


def gradients_of(function: Callable[[Any], Any], value: Any) -> Any:
    """The gradients of a function that gives one number, with respect to the tensor that it is given."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(value)
            result = function(value)
        return tape.gradient(result, value)
    if backend == "jax":
        import jax

        return jax.grad(function)(value)
    import torch

    value = value.detach().requires_grad_()
    with torch.enable_grad():
        result = function(value)
    return torch.autograd.grad(result, value)[0]
