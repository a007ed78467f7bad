"""The stream's augmentation against torchvision's, which has the same definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision.transforms import InterpolationMode, RandAugment, RandomErasing, RandomResizedCrop, TrivialAugmentWide
from torchvision.transforms import functional as transforms
from torchvision.transforms.autoaugment import _apply_op

from tandem.data.augmentation import NUM_GENERATORS, Changes, draw_changes, jitter, resized_crop, rotated
from tandem.data.policies import OPERATIONS, magnitudes
from tandem.data.views import further_views
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


def drawn(size: tuple[int, int], **settings: Any) -> Changes:
    seeds = np.random.SeedSequence(0).spawn(NUM_GENERATORS)
    return draw_changes(seeds, 3000, size, size, AugmentationSettings(**settings))


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
    ours = drawn(size, random_resized_crop=list(scale)).boxes
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


@pytest.mark.parametrize("degrees", [-180.0, -77.7, -15.0, 0.0, 0.3, 12.5, 90.0, 133.3])
@pytest.mark.parametrize("size", [(60, 80), (64, 64)])
def test_rotation_is_that_of_torchvision(degrees: float, size: tuple[int, int]) -> None:
    pixels = photograph(*size)
    expected = transforms.rotate(Image.fromarray(pixels), degrees, interpolation=InterpolationMode.BILINEAR)
    assert np.array_equal(rotated(pixels, degrees), np.asarray(expected))


@pytest.mark.parametrize("size", [(224, 224), (32, 32), (100, 180)])
def test_erased_boxes_are_distributed_as_in_torchvision(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    image = torch.empty(3, *size)
    theirs = np.array([RandomErasing.get_params(image, (0.02, 0.33), (0.3, 3.3), [0.0])[:4] for _ in range(3000)])
    erased = drawn(size, random_erasing=1.0).erased
    assert erased is not None
    ours, theirs = erased[erased.any(axis=1)], theirs[theirs[:, 2] < size[0]]
    # the defaults of RandomErasing itself
    assert (RandomErasing().scale, RandomErasing().ratio) == ((0.02, 0.33), (0.3, 3.3))
    assert abs(len(ours) - len(theirs)) <= 3
    for measure in (
        lambda boxes: boxes[:, 2] * boxes[:, 3],  # area
        lambda boxes: boxes[:, 2] / boxes[:, 3],  # ratio
        lambda boxes: boxes[:, 0] / (size[0] - boxes[:, 2]),  # place from top to bottom
        lambda boxes: boxes[:, 1] / (size[1] - boxes[:, 3]),  # place from left to right
    ):
        assert stats.ks_2samp(measure(ours), measure(theirs)).pvalue > 1e-3


def as_in_torchvision(name: str) -> str:
    """Torchvision's name of an operation: `ShearX` for `shear_x`."""
    return "AutoContrast" if name == "autocontrast" else "".join(word.capitalize() for word in name.split("_"))


def space_of(policy: str, size: tuple[int, int]) -> dict[str, tuple[torch.Tensor, bool]]:
    """Torchvision's magnitudes of each operation, and True for those that may be negated."""
    if policy == "rand_augment":
        return RandAugment()._augmentation_space(31, size)
    return TrivialAugmentWide()._augmentation_space(31)


@pytest.mark.parametrize("policy", ["rand_augment", "trivial_augment"])
@pytest.mark.parametrize("size", [(224, 224), (60, 80)])
def test_magnitudes_are_those_of_torchvision(policy: str, size: tuple[int, int]) -> None:
    theirs = space_of(policy, size)
    assert [as_in_torchvision(name) for name in OPERATIONS] == list(theirs)
    for ours, (values, _) in zip(magnitudes(policy, size), theirs.values(), strict=True):
        assert np.allclose(ours, values.double().numpy(), rtol=1e-6, atol=1e-6)
    rand_augment = RandAugment()
    assert (rand_augment.num_ops, rand_augment.magnitude, rand_augment.num_magnitude_bins) == (2, 9, 31)
    assert (AugmentationSettings().num_operations, AugmentationSettings().magnitude) == (2, 9)


@pytest.mark.parametrize("policy", ["rand_augment", "trivial_augment"])
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_operations_of_policies_are_those_of_torchvision(policy: str, name: str) -> None:
    # with equal magnitudes; torchvision's, in float32, are up to 1e-6 smaller, which may shift by a pixel less
    pixels = photograph(low=20, high=230)
    image, differs = Image.fromarray(pixels), False
    for magnitude in magnitudes(policy, (60, 80))[list(OPERATIONS).index(name)].tolist():
        for signed in (magnitude, -magnitude) if name not in ("posterize", "solarize") else (magnitude,):
            expected = _apply_op(image, as_in_torchvision(name), signed, InterpolationMode.NEAREST, None)
            found = np.asarray(OPERATIONS[name](image, signed))
            assert np.array_equal(found, np.asarray(expected))
            differs |= not np.array_equal(found, pixels)
    assert differs == (name != "identity")


def test_operations_with_a_sign_are_those_of_torchvision() -> None:
    for policy in ("rand_augment", "trivial_augment"):
        operations = drawn((60, 80), policy=policy).operations
        assert operations is not None
        negated = {list(OPERATIONS)[number] for number in operations.numbers[operations.magnitudes < 0].tolist()}
        assert {as_in_torchvision(name) for name in negated} == {
            name for name, (_, signed) in space_of(policy, (60, 80)).items() if signed
        }


@pytest.mark.parametrize("size", [(224, 224), (64, 32)])
def test_crops_of_test_images_are_those_of_torchvision(size: tuple[int, int]) -> None:
    pixels = photograph(*size)
    crops = transforms.ten_crop(Image.fromarray(pixels), [size[0] * 7 // 8, size[1] * 7 // 8])
    theirs = {crop.resize(size[::-1], Image.Resampling.BILINEAR).tobytes() for crop in crops}
    _, *ours = (view(pixels).tobytes() for view in further_views("flip_and_crops"))
    assert set(ours) == theirs and len(theirs) == 10
