"""Hardware acceleration on Keras's backends: device, TF32, compiled steps and memory."""

from __future__ import annotations

import time

import keras

from tandem.data.stream import Batch, Stream
from tandem.errors import says_out_of_memory
from tandem.on_keras.backends import backend_module, has_gpu, uses_gpu
from tandem.on_keras.networks import Classifier
from tandem.protocol.devices import check_gpu
from tandem.protocol.settings import AccelerationSettings, Settings

PAD_BATCHES = True
"""Predicting a batch of another size is compiled again, so smaller batches are filled up."""

TRACED_IMAGES = 2
"""Images of a batch that is only traced: the graph is the same for any number; batch norm needs two."""


# -------------------------------------------------------------------------------------------------------------- device


def check_device(settings: Settings) -> None:
    """Raises UserError if `device` or `precision` needs a GPU and the backend finds none."""
    # not in other runs: JAX would choose its devices, before join_devices
    if settings.device == "gpu" or settings.precision == "float16":
        check_gpu(settings, has_gpu=has_gpu(), backend=keras.backend.backend())


def is_out_of_memory(error: BaseException) -> bool:
    """True if a CPU or a GPU had too little memory, cuDNN's and cuBLAS's errors included."""
    if isinstance(error, MemoryError):
        return True
    # JAX's and torch's exceptions are RuntimeErrors
    tensorflow = (backend_module().errors.OpError,) if keras.backend.backend() == "tensorflow" else ()
    return isinstance(error, (RuntimeError, *tensorflow)) and says_out_of_memory(error)


# --------------------------------------------------------------------------------------------------------------- flags


def set_flags(settings: AccelerationSettings) -> None:
    """Sets the global flags of the backend and of Keras, whatever the user's keras.json says."""
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    backend, module = keras.backend.backend(), backend_module()
    if backend == "tensorflow":
        module.config.experimental.enable_tensor_float_32_execution(settings.tf32)
        if settings.deterministic:
            module.config.experimental.enable_op_determinism()
    elif backend == "jax":
        # JAX's own default is TF32 too; "high" is TF32 on a GPU, "highest" is float32 on any device
        module.config.update("jax_default_matmul_precision", "high" if settings.tf32 else "highest")
    else:
        module.backends.cuda.matmul.allow_tf32 = settings.tf32
        module.backends.cudnn.allow_tf32 = settings.tf32
        module.backends.cudnn.benchmark = settings.cudnn_autotune and not settings.deterministic
        module.backends.cudnn.deterministic = settings.deterministic
        module.use_deterministic_algorithms(settings.deterministic, warn_only=True)


def jit_compile(settings: Settings) -> bool | str:
    """The argument jit_compile of compile(): as the settings say, by default only if XLA is faster."""
    if settings.acceleration.compile is not None:
        return settings.acceleration.compile
    # XLA makes TensorFlow slower on a CPU; the other backends decide for themselves
    return "auto" if uses_gpu(settings) or keras.backend.backend() != "tensorflow" else False


# ------------------------------------------------------------------------------------------------------------- warm-up


def warm_up(network: Classifier, training: Stream, validation: Stream) -> float:
    """Takes a training and a validation step with each batch size, so that the epochs compile nothing.

    The network and its optimizer are unchanged afterwards, including the states of its own random generators (Keras on
    torch draws dropout from torch's).

    Args:
        network: Compiled for the phase, its optimizer new.
        training: The phase's training batches.
        validation: The phase's validation batches.

    Returns:
        Seconds spent; 0, and no step is taken, if steps are not compiled.
    """
    if network.run_eagerly or not (network.jit_compile or has_gpu() or keras.backend.backend() != "torch"):
        return 0.0
    start = time.perf_counter()
    optimizer = network.optimizer
    optimizer.build(network.trainable_variables)
    weights = [(variable, variable.numpy()) for variable in network.variables]
    # a new optimizer's moments are zeros of the weights' shapes; len(), since an empty shape is true in TensorFlow
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
    """One batch of each size, or a few images if the size does not matter, in the same form as the loader's."""

    def __init__(self, stream: Stream, *, whole: bool) -> None:
        super().__init__()
        batches = stream.batch_of_each_size()
        self.batches = batches if whole else [tuple(part[:TRACED_IMAGES] for part in batches[0])]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        return self.batches[index]
