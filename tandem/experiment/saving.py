"""Saves a trained network."""

from __future__ import annotations

import shutil

from tandem.data.prepare import PreparedData
from tandem.experiment.framework import Framework, Network
from tandem.protocol.settings import Settings
from tandem.recording.architecture import record_architecture
from tandem.tracking.run import Run


def save_network(framework: Framework, network: Network, settings: Settings, data: PreparedData, run: Run) -> None:
    """Logs the layers, the weights, which later runs can start from, and the network as a model that can be served."""
    record_architecture(run, framework.package.layers_of(network, data.images.shape[1:]))
    folder = run.folder / "weights"
    if settings.tracking.log_weights and not run.is_logged(folder):
        shutil.rmtree(folder, ignore_errors=True)  # a killed process may have left a part
        framework.package.save_weights(network, folder)
        run.log_artifact(folder, remove=True)
    folder = run.folder / "model"
    if settings.tracking.log_model and not run.is_logged(folder):
        shutil.rmtree(folder, ignore_errors=True)
        framework.package.save_model(network, folder, image_shape=data.images.shape[1:], num_classes=len(data.classes))
        run.log_model(folder, remove=True)
