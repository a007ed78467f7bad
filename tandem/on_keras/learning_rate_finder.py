"""Training steps of a learning-rate range test in Keras."""

from __future__ import annotations

from collections.abc import Iterator

from tandem.data.stream import Batch
from tandem.on_keras.networks import Classifier
from tandem.protocol.learning_rate_finder import LearningRateFinder


def take_steps(finder: LearningRateFinder, network: Classifier, batches: Iterator[Batch]) -> None:
    """Trains the network with a rising learning rate until the loss explodes; its weights are useless afterwards.

    Args:
        finder: Receives the losses.
        network: Compiled for the phase, with a learning rate that can be set.
        batches: Endless; uint8 images of shape (b, height, width, 3) and their targets.
    """
    for rate, batch in finder.steps(batches):
        network.optimizer.learning_rate = rate
        network.reset_metrics()  # otherwise the loss is the mean over all steps so far
        finder.add(float(network.train_on_batch(*batch, return_dict=True)["loss"]))
