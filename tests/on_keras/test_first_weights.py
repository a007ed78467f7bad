"""The weights that a run starts from, and what it does where there are none."""

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
from train_keras import KERAS


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def build(data: PreparedData, **changes: Any) -> tuple[Classifier, dict[str, str]]:
    """The network and the run's tags."""
    run = RecordingRun()
    keras.utils.set_random_seed(0)
    return first_network(KERAS, small_settings(image_size=128, **changes), data, run), run.tags  # type: ignore[arg-type]


def test_random_weights_stand_in_where_they_are_allowed_to(
    no_network: None, data: PreparedData, capsys: pytest.CaptureFixture[str]
) -> None:
    network, tags = build(data, weights="imagenet", allow_random_weights=True)
    assert tags == {"tandem.weights_origin": "random (imagenet could not be downloaded)"}
    said = capsys.readouterr().err
    assert said.count("weights: imagenet could not be downloaded") == 1
    assert said.rstrip("\n").endswith("going on with random weights, as allow_random_weights says")
    # the very network of a run that asks for random weights
    random, random_tags = build(data, weights="random")
    assert random_tags == {"tandem.weights_origin": "random"}
    for one, other in zip(network.get_weights(), random.get_weights(), strict=True):
        assert np.array_equal(one, other)


def test_run_ends_where_random_weights_are_not_allowed(no_network: None, data: PreparedData) -> None:
    with pytest.raises(WeightsNotDownloaded, match=r"^weights: imagenet could not be downloaded"):
        build(data, weights="imagenet", allow_random_weights=False)


def test_a_network_off_the_shelf_may_be_random_too(no_network: None, data: PreparedData) -> None:
    network, tags = build(data, weights="imagenet", regime="off_the_shelf", allow_random_weights=True)
    assert tags == {"tandem.weights_origin": "random (imagenet could not be downloaded)"}
    assert network.head.output_shape == (None, 1000)


def test_other_mistakes_are_not_passed_over(data: PreparedData, tmp_path: Path) -> None:
    file = tmp_path / "broken.weights.h5"
    file.write_text("no weights at all")
    with pytest.raises(UserError, match=r"weights: .* cannot be read"):
        build(data, weights=str(file), allow_random_weights=True)
