"""Saves a trained network."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tandem.data.prepare import PreparedData
from tandem.errors import is_full_disk
from tandem.experiment.framework import Framework, Network
from tandem.protocol.backbones import Scaling
from tandem.protocol.settings import Settings
from tandem.recording.architecture import record_architecture
from tandem.serving.image_model import Description
from tandem.serving.logged_model import save_image_model
from tandem.tracking.run import Run


def save_network(framework: Framework, network: Network, settings: Settings, data: PreparedData, run: Run) -> None:
    """Logs the layers, the weights, which later runs can start from, and a model that takes images as they come.

    If the disk of the run is full, the weights are written to another one before the error ends the run.
    """
    try:
        _save(framework, network, settings, data, run)
    except Exception as error:
        if is_full_disk(error):
            error.add_note(_rescue_weights(framework, network, run))
        raise


def _save(framework: Framework, network: Network, settings: Settings, data: PreparedData, run: Run) -> None:
    record_architecture(run, framework.package.layers_of(network, data.images.shape[1:]))
    weights, bare, folder = (run.folder / name for name in ("weights", "network", "model"))
    if settings.tracking.log_weights and not run.is_logged(weights):
        shutil.rmtree(weights, ignore_errors=True)  # a killed process may have left a part
        framework.package.save_weights(network, weights)
        run.log_artifact(weights, remove=True)
    if settings.tracking.log_model and not run.is_logged(folder):
        for part in (bare, folder):
            shutil.rmtree(part, ignore_errors=True)
        description = describe(framework, network, settings, data, run)
        framework.package.save_model(
            network, bare, image_shape=description.image_shape, num_classes=len(description.classes)
        )
        save_image_model(bare, description, folder)
        run.log_model(folder, remove=True)


def _rescue_weights(framework: Framework, network: Network, run: Run) -> str:
    """Writes the trained weights to the first other place that has room, and says where they are."""
    for place in (Path(tempfile.gettempdir()), Path.home(), Path.cwd()):
        rescued = place / f"{run.folder.name}-weights"
        try:
            framework.package.save_weights(network, rescued)
        except Exception:  # the next place may have room; the full disk is the error that ends the run
            shutil.rmtree(rescued, ignore_errors=True)
        else:
            backbone = rescued / framework.package.BACKBONE_FILE
            return f"the trained weights are in {rescued}; later runs start from them with --weights {backbone}"
    return "the trained weights could not be written anywhere"


def describe(framework: Framework, network: Network, settings: Settings, data: PreparedData, run: Run) -> Description:
    """The description of a run's network."""
    _, height, width, _ = data.images.shape
    return Description(
        classes=data.classes,
        height=height,
        width=width,
        resize=settings.data.resize,
        pixel_range=data.pixel_range,
        max_pixels=settings.data.max_pixels,
        batch_size=settings.batch_size,
        framework=framework.name,
        backbone=settings.backbone,
        regime=settings.regime,
        image_size=settings.data.image_size,
        scaling=_in_words(network.pixels.scaling),
        data=data.name,
        split_hash=data.split.hash,
        run_id=run.id,
    )


def _in_words(scaling: Scaling) -> str:
    return scaling if isinstance(scaling, str) else f"mean {list(scaling.mean)}, std {list(scaling.std)}"
