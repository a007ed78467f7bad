"""What differs between Keras's backends and Keras itself has no name for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import keras

from tandem.errors import UserError


def backend_module() -> ModuleType:
    """The package that computes: tensorflow, jax or torch, which Keras has imported already."""
    return importlib.import_module(keras.backend.backend())


def backend_version() -> str:
    return backend_module().__version__


def has_gpu() -> bool:
    """Whether the backend finds a GPU."""
    backend, module = keras.backend.backend(), backend_module()
    if backend == "tensorflow":
        return bool(module.config.list_physical_devices("GPU"))
    if backend == "jax":
        return any(device.platform == "gpu" for device in module.devices())
    return module.cuda.is_available()


def limit_threads(threads: int) -> None:
    """Limits the CPU threads of the backend's arithmetic; call it before any.

    Raises:
        UserError: The backend has no such limit.
    """
    backend, module = keras.backend.backend(), backend_module()
    if backend == "tensorflow":
        module.config.threading.set_intra_op_parallelism_threads(threads)
        module.config.threading.set_inter_op_parallelism_threads(threads)
    elif backend == "torch":
        module.set_num_threads(threads)
    else:
        raise UserError(
            f"threads: received {threads}, but the {backend} backend takes as many as the process may use; "
            "leave it out, and limit the process itself (taskset)"
        )


def peak_gpu_memory_megabytes() -> float:
    """The most that the backend has held on the GPU since the process began; 0 without one."""
    if not has_gpu():
        return 0.0
    backend, module = keras.backend.backend(), backend_module()
    if backend == "tensorflow":
        return module.config.experimental.get_memory_info("GPU:0")["peak"] / 1e6
    if backend == "jax":
        return module.devices()[0].memory_stats()["peak_bytes_in_use"] / 1e6
    return module.cuda.max_memory_allocated() / 1e6


def gradients_of(function: Callable[[Any], Any], value: Any) -> Any:
    """The gradients of a function that gives one number, with respect to the tensor that it is given."""
    backend, module = keras.backend.backend(), backend_module()
    if backend == "tensorflow":
        with module.GradientTape() as tape:
            tape.watch(value)
            result = function(value)
        return tape.gradient(result, value)
    if backend == "jax":
        return module.grad(function)(value)
    value = value.detach().requires_grad_()
    with module.enable_grad():
        result = function(value)
    return module.autograd.grad(result, value)[0]
