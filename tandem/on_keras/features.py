"""A frozen phase without its backbone: features computed once per image, and the head trained on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from tandem.data.features import PhaseFeatures, find_phase_features
from tandem.data.prepare import PreparedData
from tandem.data.stream import Batch, Stream
from tandem.evaluation.batching import computed_as_fits, in_batches
from tandem.on_keras.acceleration import is_out_of_memory, jit_compile
from tandem.on_keras.average import WithAverages
from tandem.on_keras.backends import backend_module, uses_gpu, versions
from tandem.on_keras.feed import StreamLoader
from tandem.on_keras.networks import Classifier
from tandem.protocol.regimes import Phase
from tandem.protocol.settings import Settings
from tandem.tracking.system import describe_hardware

CPU_BATCH_SIZE, GPU_BATCH_SIZE = 32, 512  # larger ones are no faster on a CPU; halved on a GPU until they fit

VALIDATION_BYTES = 64_000_000  # of features that are held in memory at most


class HeadOnFeatures(WithAverages, keras.Sequential):
    """A head as a model of float32 features of shape (n, features)."""


def head_on_features(network: Classifier) -> HeadOnFeatures:
    """The network's own head as a model of float32 features of shape (n, features), to be compiled and trained.

    A model around the head: what the head itself was compiled with would be saved with the network.
    """
    return HeadOnFeatures([keras.Input(network.head.input_shape[1:]), network.head])


class FeatureLoader(StreamLoader):
    """Batches of float32 features (b, features) and their targets, epoch after epoch without an end.

    fit has to be told the steps per epoch. It then keeps one iterator; otherwise it makes two new ones per epoch, which
    takes TensorFlow longer than the head's steps.
    """

    begins_within_epochs = False
    _first_epoch = 0

    @property
    def num_batches(self) -> None:
        return None

    def begin_at(self, epoch: int, batch: int) -> None:
        """Makes the only pass begin with an epoch, counted from 0."""
        assert batch == 0
        self._first_epoch = epoch

    def __getitem__(self, index: int) -> Batch:
        epoch, index = divmod(index, len(self))
        return self.stream.batch(self._first_epoch + epoch, index)


def validation_batches(stream: Stream) -> Any:
    """A stream's features for fit's `validation_data`.

    On TensorFlow a tf.data data set: a new iterator of it, one per epoch, costs a tenth of one that calls Python.
    """
    features = stream.batch(0, 0)[0]
    if keras.backend.backend() != "tensorflow" or features.nbytes * len(stream) > VALIDATION_BYTES:
        return StreamLoader(stream)
    joined = stream.batches(0, 0, len(stream))
    return backend_module().data.Dataset.from_tensor_slices(joined).batch(stream.batch_size)


def steps_per_execution(steps_per_epoch: int) -> int:
    """Training steps between two returns to Python: a whole epoch on TensorFlow, which has such a loop."""
    return steps_per_epoch if keras.backend.backend() == "tensorflow" else 1


def find_features(
    network: Classifier, phase: Phase, settings: Settings, data: PreparedData, weights_hash: str
) -> PhaseFeatures:
    """The features that a phase trains its head on, computed first if no earlier run has done so.

    Args:
        network: Its backbone is frozen for the phase.
        phase: A phase that trains the backbone has no features.
        settings: The run's.
        data: The images.
        weights_hash: Hash of the backbone's weights.
    """
    made_with = {
        "framework": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "device": "gpu" if uses_gpu(settings) else "cpu",
        "hardware": describe_hardware(),
        "weights": weights_hash,
    }
    batch_size = GPU_BATCH_SIZE if uses_gpu(settings) else CPU_BATCH_SIZE
    to_features = ToFeatures(network)  # one model for all views, since it is compiled at its first batch
    to_features.compile(jit_compile=jit_compile(settings))
    return find_phase_features(
        phase,
        settings,
        data,
        made_with,
        lambda images_of: backbone_pass(to_features, images_of, batch_size=batch_size),
    )


class ToFeatures(keras.Model):
    """uint8 images of shape (n, height, width, 3) to float32 features of shape (n, features), in inference mode."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network

    def call(self, images: Any) -> Any:
        features = self.network.backbone(self.network.pixels(images), training=False)
        return keras.ops.cast(features, "float32")


def backbone_pass(
    to_features: ToFeatures,
    images_of: Callable[[np.ndarray], np.ndarray],
    *,
    batch_size: int,
) -> Callable[[np.ndarray], Iterator[np.ndarray]]:
    """A function that computes the backbone's features in inference mode, in batches as large as fit into memory.

    Args:
        to_features: Compiled.
        images_of: Rows of a store, int64 of shape (n,), to uint8 images of shape (n, height, width, 3).
        batch_size: Of the first batch.

    Returns:
        Rows, int64 of shape (n,), to float32 features of shape (batch, features), batch by batch.
    """
    sizes: list[int] = []  # of the batches that it is compiled for

    def compute_batch(rows: np.ndarray) -> np.ndarray:
        # a smaller last batch is filled up, since another size would be compiled again
        size = max([len(rows), *sizes])
        images = images_of(rows)
        filled = np.concatenate([images, np.repeat(images[-1:], size - len(rows), axis=0)])
        try:
            features = to_features.predict_on_batch(filled)
        except Exception:
            sizes.clear()  # too large
            raise
        sizes[:] = [size]
        return features[: len(rows)]

    return lambda rows: computed_as_fits(compute_batch, in_batches(rows, batch_size), is_out_of_memory=is_out_of_memory)
