"""What Keras's backends take of the hardware: number formats, compiled steps."""

from __future__ import annotations

import time

import keras

from tandem.data.stream import Batch, Stream
from tandem.on_keras.backends import backend_module, has_gpu
from tandem.on_keras.networks import Classifier
from tandem.protocol.settings import AccelerationSettings

TRACED_IMAGES = 2
"""Images of a batch that is only there to be traced: the graph is the same for any number; batch norm needs two."""


def set_flags(settings: AccelerationSettings) -> None:
    """Sets the backend's switches for GPUs, which mean nothing to a CPU."""
    backend, module = keras.backend.backend(), backend_module()
    if backend == "tensorflow":
        module.config.experimental.enable_tensor_float_32_execution(settings.tf32)
    elif backend == "jax":
        # its own default would be TF32 too; "high" is TF32 on a GPU, "highest" is float32 anywhere
        module.config.update("jax_default_matmul_precision", "high" if settings.tf32 else "highest")
    else:
        module.backends.cuda.matmul.allow_tf32 = settings.tf32
        module.backends.cudnn.allow_tf32 = settings.tf32
        module.backends.cudnn.benchmark = settings.cudnn_autotune


def jit_compile(settings: AccelerationSettings, *, gpu: bool) -> bool | str:
    """What compile() takes: as the settings say, or where it pays."""
    if settings.compile is not None:
        return settings.compile
    # XLA slows TensorFlow down on a CPU; the other backends decide for themselves
    return "auto" if gpu or keras.backend.backend() != "tensorflow" else False


def warm_up(network: Classifier, training: Stream, validation: Stream) -> float:
    """Takes a training and a validation step of each batch size, so that the epochs have nothing left to compile.

    Afterwards the network and its optimizer are as before, states of its own random generators included (Keras on torch
    draws dropout from torch's).

    Args:
        network: Compiled for the phase, its optimizer new.
        training: The phase's batches.
        validation: The same of the validation images.

    Returns:
        Seconds that it took; 0 where each step is run as it is written, and nothing done.
    """
    if network.run_eagerly or not (network.jit_compile or has_gpu() or keras.backend.backend() != "torch"):
        return 0.0
    start = time.perf_counter()
    optimizer = network.optimizer
    optimizer.build(network.trainable_variables)
    weights = [(variable, variable.numpy()) for variable in network.variables]
    # a new optimizer's moments are zeros, and as large as the weights; len(), for an empty shape is true in TensorFlow
    numbers = [(variable, variable.numpy()) for variable in optimizer.variables if not len(variable.shape)]
    samples = [_Batches(stream, whole=network.jit_compile or has_gpu()) for stream in (training, validation)]
    network.fit(samples[0], validation_data=samples[1], shuffle=False, verbose=0)
    for variable, value in [*weights, *numbers]:
        variable.assign(value)
    for variable in optimizer.variables:
        if len(variable.shape):
            variable.assign(keras.ops.zeros(variable.shape, variable.dtype))
    return time.perf_counter() - start


class _Batches(keras.utils.PyDataset):
    """A batch of each size, or a few images where the size does not matter; the same to fit as the loader itself."""

    def __init__(self, stream: Stream, *, whole: bool) -> None:
        super().__init__()
        batches = stream.batch_of_each_size()
        images, labels = batches[0]
        self.batches = batches if whole else [(images[:TRACED_IMAGES], labels[:TRACED_IMAGES])]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        return self.batches[index]


def is_out_of_memory(error: Exception) -> bool:
    """Whether the GPU's memory was too small."""
    backend, module = keras.backend.backend(), backend_module()
    if backend == "tensorflow":
        return isinstance(error, module.errors.ResourceExhaustedError)
    if backend == "jax":
        return isinstance(error, module.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    return isinstance(error, module.OutOfMemoryError)
