"""The weights that a run starts from."""

from __future__ import annotations

from pathlib import Path

from tandem.data.console import say
from tandem.data.prepare import PreparedData
from tandem.errors import UserError
from tandem.experiment.framework import Framework, Network
from tandem.protocol.settings import Settings
from tandem.recording.run import record_weights, without_imagenet
from tandem.tracking.reader import find_weights
from tandem.tracking.run import Run


def first_network(framework: Framework, settings: Settings, data: PreparedData, run: Run) -> Network:
    """The network with its first weights; a tag of the run names their origin.

    If ImageNet's weights cannot be downloaded and the settings allow it, the weights are random.

    Raises:
        UserError: The weights cannot be found, downloaded or read.
    """
    weights_file = locate_weights(settings, framework.package.BACKBONE_FILE)
    record_weights(run, settings, weights_file)
    try:
        network = framework.build_network(settings, data, weights_file)
    except UserError as error:
        settings = without_imagenet(run, settings, error)
        if settings.backbone_batch_norm == "frozen":
            say(
                "backbone_batch_norm frozen keeps the initial statistics of random weights: only a rehearsal",
                quiet=False,
            )
        network = framework.build_network(settings, data, None)
    if settings.backbone_batch_norm == "frozen" and not framework.package.has_batch_norm(network.backbone):
        say(f"backbone_batch_norm frozen has no effect: {settings.backbone} has no batch norm", quiet=False)
    return network


def locate_weights(settings: Settings, backbone_file: str) -> Path | None:
    """The file of the first weights; None if they are random or the framework downloads them.

    Args:
        settings: `weights` and `tracking.uri`.
        backbone_file: Name of the file that runs of this framework keep.

    Raises:
        UserError: The run that `weights` names, or its file, cannot be found.
    """
    if settings.weights in ("random", "imagenet"):
        return None
    if settings.weights.startswith("runs:/"):
        return find_weights(settings.tracking.uri, settings.weights, backbone_file)
    return Path(settings.weights).expanduser()
