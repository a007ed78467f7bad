"""The stream's augmentation against torchvision's, which has the same definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as transforms

from tandem.data.augmentation import NUM_GENERATORS, draw_changes, jitter, resized_crop
from tandem.protocol.settings import AugmentationSettings

ADJUSTMENTS = {
    "brightness": transforms.adjust_brightness,
    "contrast": transforms.adjust_contrast,
    "saturation": transforms.adjust_saturation,
}


def photograph(height: int = 60, width: int = 80, low: int = 0, high: int = 255) -> np.ndarray:
    """Smooth colours with some noise, uint8 of shape (height, width, 3)."""
    random = np.random.default_rng(0)
    few = Image.fromarray(random.integers(low, high, (5, 6, 3), dtype=np.uint8))
    smooth = np.asarray(few.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(smooth + random.integers(-5, 6, smooth.shape), low, high).astype(np.uint8)


def jittered(pixels: np.ndarray, **factors: float) -> np.ndarray:
    return jitter(pixels, **{"brightness": 1, "contrast": 1, "saturation": 1, "hue": 0, **factors})


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).double() / 255


def as_pixels(image: torch.Tensor) -> np.ndarray:
    return (image * 255).round().permute(1, 2, 0).numpy()


def distance(found: np.ndarray, expected: object) -> int:
    return int(np.abs(found.astype(int) - np.asarray(expected).astype(int)).max())


def test_box_is_resized_as_in_torchvision() -> None:
    pixels = photograph()
    for top, left, height, width in ((0, 0, 60, 80), (10, 20, 30, 25), (59, 79, 1, 1), (7, 3, 50, 61)):
        expected = transforms.resized_crop(Image.fromarray(pixels), top, left, height, width, [48, 40])
        found = resized_crop(pixels[top : top + height, left : left + width], 48, 40)
        assert np.array_equal(found, np.asarray(expected))


@pytest.mark.parametrize("size", [(256, 256), (32, 32), (100, 180)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.5, 1.0)])
def test_boxes_are_distributed_as_in_torchvision(size: tuple[int, int], scale: tuple[float, float]) -> None:
    torch.manual_seed(0)
    image = torch.empty(3, *size)
    theirs = np.array([RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(3000)])
    seeds = np.random.SeedSequence(0).spawn(NUM_GENERATORS)
    ours = draw_changes(seeds, 3000, size, AugmentationSettings(random_resized_crop=list(scale))).boxes
    assert ours is not None
    for measure in (
        lambda boxes: boxes[:, 2] * boxes[:, 3],  # area
        lambda boxes: boxes[:, 3] / boxes[:, 2],  # ratio
        lambda boxes: boxes[:, 0] / np.maximum(size[0] - boxes[:, 2], 1),  # place from top to bottom
        lambda boxes: boxes[:, 1] / np.maximum(size[1] - boxes[:, 3], 1),  # place from left to right
    ):
        assert stats.ks_2samp(measure(ours), measure(theirs)).pvalue > 1e-3


@pytest.mark.parametrize("name", list(ADJUSTMENTS))
@pytest.mark.parametrize("factor", [0.0, 0.3, 0.77, 1.0, 1.4, 2.0])
def test_each_factor_agrees_with_torchvision_s_within_one_grey_level(name: str, factor: float) -> None:
    # Pillow truncates decimals, and the stream rounds them
    pixels = photograph()
    expected = ADJUSTMENTS[name](Image.fromarray(pixels), factor)
    assert distance(jittered(pixels, **{name: factor}), expected) <= 1
    assert distance(jittered(pixels, **{name: factor}), jittered(pixels)) > 10 or factor == 1


def test_all_three_factors_agree_with_torchvision_s_for_tensors_without_clipping() -> None:
    # for images, where it truncates decimals after each factor, the result can be five levels darker
    pixels = photograph(low=90, high=150)
    for factors in np.random.default_rng(1).uniform(0.6, 1.4, (20, 3)):
        expected = as_tensor(pixels)
        for adjust, factor in zip(ADJUSTMENTS.values(), factors, strict=True):
            expected = adjust(expected, factor)
        assert expected.min() > 0 and expected.max() < 1
        assert distance(jitter(pixels, *factors, 0), as_pixels(expected)) <= 1


@pytest.mark.parametrize("turn", [-0.5, -0.13, 0.05, 0.31, 0.5])
def test_hue_agrees_with_torchvision_s_for_tensors(turn: float) -> None:
    pixels = photograph()
    expected = transforms.adjust_hue(as_tensor(pixels), turn)
    assert distance(jittered(pixels, hue=turn), as_pixels(expected)) <= 1


@pytest.mark.parametrize("turn", [-0.5, -0.13, 0.05, 0.31, 0.5])
def test_hue_agrees_with_torchvision_s_for_images_up_to_their_256_hues(turn: float) -> None:
    pixels = photograph()
    expected = np.asarray(transforms.adjust_hue(Image.fromarray(pixels), turn)).astype(int)
    difference = np.abs(jittered(pixels, hue=turn).astype(int) - expected)
    assert difference.max() <= 14 and difference.mean() < 1.5
