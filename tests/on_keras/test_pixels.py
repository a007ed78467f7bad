from __future__ import annotations

import keras
import numpy as np
import pytest
from PIL import Image

from tandem.on_keras.networks import Pixels
from tandem.protocol.backbones import Scaling
from tests.oracles import PIXEL, SCALED_PIXEL, enlarge


def noise(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)


def converted(images: np.ndarray, size: int, scaling: Scaling) -> np.ndarray:
    """The backbone's input as (n, height, width, channels)."""
    return keras.ops.convert_to_numpy(Pixels(size, scaling)(keras.ops.convert_to_tensor(images)))


@pytest.mark.parametrize("scaling", SCALED_PIXEL)
def test_known_pixel_is_scaled_as_computed_by_hand(scaling: Scaling) -> None:
    images = np.full((2, 4, 4, 3), PIXEL, np.uint8)
    scaled = converted(images, 4, scaling)
    assert scaled.dtype == np.float32
    assert scaled == pytest.approx(np.broadcast_to(SCALED_PIXEL[scaling], images.shape), abs=1e-6, rel=1e-6)


@pytest.mark.parametrize(
    ("scaling", "application"), [("torch", "densenet"), ("tf", "mobilenet_v2"), ("caffe", "resnet50")]
)
def test_scaling_agrees_with_the_library_s_own(scaling: Scaling, application: str) -> None:
    preprocess_input = getattr(keras.applications, application).preprocess_input
    expected = preprocess_input(noise(8).astype(np.float32))
    assert converted(noise(8), 8, scaling) == pytest.approx(expected, abs=1e-5)


def test_network_gets_channels_last() -> None:
    assert Pixels(16, "unit")(keras.ops.convert_to_tensor(noise(8))).shape == (3, 16, 16, 3)


def test_enlarging_is_bilinear_with_half_pixel_centres() -> None:
    expected = np.stack([enlarge(image, 32) for image in noise(8)])
    assert converted(noise(8), 32, "caffe")[..., ::-1] + (123.68, 116.779, 103.939) == pytest.approx(expected, abs=1e-4)
    assert converted(noise(8), 32, "unit") * 255 == pytest.approx(expected, abs=1e-4)


def test_oracle_of_enlarging_agrees_with_pillow() -> None:
    channel = noise(8)[0, :, :, 0].astype(np.float32)
    enlarged = np.asarray(Image.fromarray(channel).resize((32, 32), Image.Resampling.BILINEAR))
    assert enlarge(channel[:, :, None], 32)[:, :, 0] == pytest.approx(enlarged, abs=1e-4)


def test_images_of_the_input_s_size_are_not_resized() -> None:
    plain = converted(noise(32), 32, "caffe")[..., ::-1]
    assert np.array_equal(plain, noise(32).astype(np.float32) - np.float32((123.68, 116.779, 103.939)))
