"""A phase's training and validation batches as Keras's fit takes them."""

from __future__ import annotations

from typing import Any

from tandem.data.features import NO_FEATURES, PhaseFeatures
from tandem.data.phase_streams import training_stream, validation_stream
from tandem.data.prepare import PreparedData
from tandem.on_keras.features import FeatureLoader, validation_batches
from tandem.on_keras.feed import StreamLoader
from tandem.protocol.regimes import Phase
from tandem.protocol.settings import Settings


def open_streams(
    settings: Settings, data: PreparedData, phase: Phase, features: PhaseFeatures = NO_FEATURES
) -> tuple[StreamLoader, Any]:
    """Training batches, shuffled and augmented from the seed and the phase's number, and validation batches.

    Batches of images; or of their features, if the phase has these.
    """
    training = training_stream(settings, data, phase, features=features.training)
    validation = validation_stream(settings, data, phase, features=features.validation)
    if features.training:
        return FeatureLoader(training), validation_batches(validation)
    return StreamLoader(training), StreamLoader(validation)
