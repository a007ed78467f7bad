"""Functions of Keras's backends that Keras itself has no common name for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import keras
import numpy as np

from tandem.errors import UserError
from tandem.protocol.settings import Settings

_TRIALS_PER_PROCESS = {"tensorflow": 10}  # TensorFlow keeps 100 to 200 MB of each trial


def backend() -> str:
    """The package that computes: tensorflow, jax or torch."""
    return keras.backend.backend()


def backend_module() -> ModuleType:
    """The backend's package, which Keras has imported already."""
    return importlib.import_module(backend())


def versions() -> dict[str, str]:
    """Versions of the packages that a run's numbers depend on, by their names."""
    return {"keras": keras.__version__, backend(): backend_module().__version__}


def trials_per_process() -> int | None:
    """Number of a sweep's trials after which its process starts again to free memory; None for no limit."""
    return _TRIALS_PER_PROCESS.get(backend())


def has_gpu() -> bool:
    """True if the backend finds a GPU."""
    module = backend_module()
    if backend() == "tensorflow":
        return bool(module.config.list_physical_devices("GPU"))
    if backend() == "jax":
        return any(device.platform == "gpu" for device in module.devices())
    return module.cuda.is_available()


def uses_gpu(settings: Settings) -> bool:
    """True if the run computes on a GPU."""
    return settings.device != "cpu" and has_gpu()


def limit_threads(threads: int) -> None:
    """Limits the CPU threads of the backend's arithmetic; call it before any computation.

    Raises:
        UserError: The backend has no such limit.
    """
    module = backend_module()
    if backend() == "tensorflow":
        module.config.threading.set_intra_op_parallelism_threads(threads)
        module.config.threading.set_inter_op_parallelism_threads(threads)
    elif backend() == "torch":
        module.set_num_threads(threads)
    else:
        raise UserError(
            f"threads: received {threads}, but the {backend()} backend uses as many as the process may; leave it out, "
            "and limit the process itself (taskset)"
        )


def reset_peak_gpu_memory() -> None:
    """Starts the measurement of peak_gpu_memory_megabytes, except on JAX, which has no such function."""
    if not has_gpu():
        return
    if backend() == "tensorflow":
        backend_module().config.experimental.reset_memory_stats("GPU:0")
    elif backend() == "torch":
        backend_module().cuda.reset_peak_memory_stats()


def peak_gpu_memory_megabytes() -> float:
    """Peak memory that the backend has held on the GPU since the last reset, in 10^6 bytes; 0 if it is unknown.

    On JAX since the process began.
    """
    if not has_gpu():
        return 0.0
    module = backend_module()
    if backend() == "tensorflow":
        return module.config.experimental.get_memory_info("GPU:0")["peak"] / 1e6
    if backend() == "jax":
        # None with some of its allocators
        return (module.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0) / 1e6
    return module.cuda.max_memory_allocated() / 1e6


def random_state() -> list[np.ndarray]:
    """State of the backend's own random numbers, on the CPU and each GPU; empty where Keras keeps it in variables."""
    if backend() != "torch":
        return []
    module = backend_module()
    on_gpus = module.cuda.get_rng_state_all() if module.cuda.is_available() else []
    return [state.numpy() for state in (module.get_rng_state(), *on_gpus)]


def restore_random_state(states: list[np.ndarray]) -> None:
    """Sets the backend's random numbers to an earlier random_state."""
    if not states:
        return
    module = backend_module()
    on_cpu, *on_gpus = (module.from_numpy(state.copy()) for state in states)
    module.set_rng_state(on_cpu)
    if len(on_gpus) == module.cuda.device_count() > 0:
        module.cuda.set_rng_state_all(on_gpus)


def gradients_of(function: Callable[[Any], Any], value: Any) -> Any:
    """Gradients of a function, whose result is one number, with respect to its argument, a tensor."""
    module = backend_module()
    if backend() == "tensorflow":
        with module.GradientTape() as tape:
            tape.watch(value)
            result = function(value)
        return tape.gradient(result, value)
    if backend() == "jax":
        return module.grad(function)(value)
    value = value.detach().requires_grad_()
    with module.enable_grad():
        result = function(value)
    return module.autograd.grad(result, value)[0]
