"""Saves a trained network."""

from __future__ import annotations

from tandem.data.prepare import PreparedData
from tandem.experiment.framework import Framework, Network
from tandem.protocol.settings import Settings
from tandem.recording.architecture import record_architecture
from tandem.tracking.run import Run


def save_network(framework: Framework, network: Network, settings: Settings, data: PreparedData, run: Run) -> None:
    """Logs the layers, the weights, which later runs can start from, and the network as a model that can be served."""
    record_architecture(run, framework.package.layers_of(network, data.images.shape[1:]))
    if settings.tracking.log_weights:
        framework.package.save_weights(network, run.folder / "weights")
        run.log_artifact(run.folder / "weights", remove=True)
    if settings.tracking.log_model:
        folder = run.folder / "model"
        framework.package.save_model(network, folder, image_shape=data.images.shape[1:], num_classes=len(data.classes))
        run.log_model(folder, remove=True)
