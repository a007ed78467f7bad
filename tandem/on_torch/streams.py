"""A phase's training and validation batches as Lightning takes them."""

from __future__ import annotations

from tandem.data.features import NO_FEATURES, PhaseFeatures
from tandem.data.phase_streams import training_stream, validation_stream
from tandem.data.prepare import PreparedData
from tandem.on_torch.acceleration import device_of, uses_gpu
from tandem.on_torch.distributed import share_out
from tandem.on_torch.features import FeatureLoader
from tandem.on_torch.feed import StreamLoader
from tandem.protocol.regimes import Phase
from tandem.protocol.settings import Settings

Loader = StreamLoader | FeatureLoader


def open_streams(
    settings: Settings, data: PreparedData, phase: Phase, features: PhaseFeatures = NO_FEATURES
) -> tuple[Loader, Loader]:
    """Training batches, shuffled and augmented from the seed and the phase's number, and validation batches.

    Batches of images, this process's share of each; or of their features, if the phase has these.
    """
    training = training_stream(settings, data, phase, features=features.training)
    validation = validation_stream(settings, data, phase, features=features.validation)
    if features.training:
        device = device_of(settings)
        return FeatureLoader(training, device=device), FeatureLoader(validation, device=device)
    pin_memory = uses_gpu(settings)
    return share_out(training, pin_memory=pin_memory), share_out(validation, pin_memory=pin_memory)
