"""One run on several devices: Keras's data parallel distribution on JAX, in one process.

JAX compiles one program over all devices, in which an array has one meaning wherever its parts are: the loss is the
mean over the whole batch, batch norm normalises with the whole batch, dropout draws one mask for it. The training is
that of one device, up to rounding.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from tandem.errors import UserError
from tandem.on_keras.backends import backend_module, uses_gpu
from tandem.protocol.processes import check_shares
from tandem.protocol.regimes import phases_of
from tandem.protocol.settings import Settings


class SharedBatches(keras.distribution.DataParallel):
    """Data parallelism in which each device has all weights and computes its part of each batch.

    Keras's own cuts every batch like the first one before sending it, and fails at a last batch that has no equal
    parts. Here each device gets the whole batch of bytes, and the network cuts it (share_out): JAX takes parts of any
    size.
    """

    def get_data_layout(self, data_shape: tuple[int, ...]) -> keras.distribution.TensorLayout:
        return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)


def join_devices(settings: Settings) -> Settings:
    """Makes Keras share each batch among the run's devices; call it before the network is built.

    Args:
        settings: `num_devices`, `batch_size`, `device`.

    Returns:
        The settings with `num_devices` as a number.

    Raises:
        UserError: There are too few GPUs, or the devices cannot share a batch equally.
    """
    num_devices = settings.num_devices
    if num_devices not in ("auto", 1) and settings.device == "cpu":
        backend_module().config.update("jax_num_cpu_devices", num_devices)  # JAX reads it when it looks for devices
    kind = "gpu" if uses_gpu(settings) else "cpu"
    if num_devices == "auto":
        num_devices = len(keras.distribution.list_devices(kind)) if kind == "gpu" and phases_of(settings) else 1
    check_shares(settings.batch_size, num_devices, settings.accumulate)
    if num_devices > 1:
        devices = keras.distribution.list_devices(kind)
        if num_devices > len(devices):
            raise UserError(
                f"num_devices: received {num_devices}, allowed: at most {len(devices)}, the GPUs that jax finds here, "
                "or auto"
            )
        keras.distribution.set_distribution(SharedBatches(devices=devices[:num_devices]))
    return dataclasses.replace(settings, num_devices=num_devices)


def share_out(batch: Any) -> Any:
    """The batch, cut along its first axis into one part per device; unchanged on a single device."""
    return _lay_out(batch, first_axis=getattr(keras.distribution.distribution(), "batch_dim_name", None))


def bring_together(batch: Any) -> Any:
    """The batch, whole on each device."""
    return _lay_out(batch, first_axis=None)


def _lay_out(batch: Any, *, first_axis: str | None) -> Any:
    distribution = keras.distribution.distribution()
    # outside of a compiled step JAX cuts into equal parts only, and cutting gains nothing
    if distribution is None or not isinstance(batch, backend_module().core.Tracer):
        return batch
    axes = [first_axis, *[None] * (len(batch.shape) - 1)]
    return keras.distribution.distribute_tensor(batch, keras.distribution.TensorLayout(axes, distribution.device_mesh))
