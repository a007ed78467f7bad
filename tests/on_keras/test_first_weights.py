"""The first weights of a run, and their replacement if they cannot be downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tandem.data.prepare import PreparedData
from tandem.errors import UserError, WeightsNotDownloaded
from tandem.experiment import first_network
from tandem.on_keras.networks import Classifier
from tests.small_runs import RecordingRun, small_settings
from train_keras import FRAMEWORK


def build(data: PreparedData, **changes: Any) -> tuple[Classifier, dict[str, str]]:
    """The network and the run's tags."""
    run = RecordingRun()
    keras.utils.set_random_seed(0)
    return first_network(FRAMEWORK, small_settings(image_size=128, **changes), data, run), run.tags  # type: ignore[arg-type]


@pytest.mark.usefixtures("no_network")
def test_random_weights_replace_imagenet_s_if_allowed(data: PreparedData, capsys: pytest.CaptureFixture[str]) -> None:
    network, tags = build(data, weights="imagenet", allow_random_weights=True)
    assert tags == {"tandem.weights_origin": "random (imagenet could not be downloaded)"}
    said = capsys.readouterr().err
    assert said.count("weights: imagenet could not be downloaded") == 1
    assert said.rstrip("\n").endswith("going on with random weights, as allow_random_weights says")
    # the same network as in a run with random weights
    random, random_tags = build(data, weights="random")
    assert random_tags == {"tandem.weights_origin": "random"}
    for one, other in zip(network.get_weights(), random.get_weights(), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.usefixtures("no_network")
def test_run_ends_if_random_weights_are_not_allowed(data: PreparedData) -> None:
    with pytest.raises(WeightsNotDownloaded, match=r"^weights: imagenet could not be downloaded"):
        build(data, weights="imagenet", allow_random_weights=False)


@pytest.mark.usefixtures("no_network")
def test_off_the_shelf_network_may_have_random_weights_too(data: PreparedData) -> None:
    network, tags = build(data, weights="imagenet", regime="off_the_shelf", allow_random_weights=True)
    assert tags == {"tandem.weights_origin": "random (imagenet could not be downloaded)"}
    assert network.head.output_shape == (None, 1000)


def test_other_errors_of_weights_are_not_ignored(data: PreparedData, tmp_path: Path) -> None:
    file = tmp_path / "broken.weights.h5"
    file.write_text("no weights at all")
    with pytest.raises(UserError, match=r"weights: .* cannot be read"):
        build(data, weights=str(file), allow_random_weights=True)
