from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import normalize

from tandem.on_torch.networks import Pixels
from tandem.protocol.backbones import IMAGENET_MEAN, IMAGENET_STD, Scaling
from tests.oracles import PIXEL, SCALED_PIXEL, enlarge


def noise(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)


def converted(images: np.ndarray, size: int, scaling: Scaling) -> np.ndarray:
    """The backbone's input as (n, height, width, channels)."""
    return Pixels(size, scaling)(torch.from_numpy(images)).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("scaling", SCALED_PIXEL)
def test_known_pixel_is_scaled_as_computed_by_hand(scaling: Scaling) -> None:
    images = np.full((2, 4, 4, 3), PIXEL, np.uint8)
    scaled = converted(images, 4, scaling)
    assert scaled.dtype == np.float32
    assert scaled == pytest.approx(np.broadcast_to(SCALED_PIXEL[scaling], images.shape), abs=1e-6, rel=1e-6)


def test_scaling_agrees_with_the_library_s_own() -> None:
    images = torch.from_numpy(noise(8)).permute(0, 3, 1, 2) / 255
    expected = normalize(images, list(IMAGENET_MEAN), list(IMAGENET_STD)).permute(0, 2, 3, 1).numpy()
    assert converted(noise(8), 8, "torch") == pytest.approx(expected, abs=1e-6)


def test_network_gets_channels_first() -> None:
    assert Pixels(16, "unit")(torch.from_numpy(noise(8))).shape == (3, 3, 16, 16)


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
