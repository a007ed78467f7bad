from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from tandem.data.policies import OPERATIONS, Operations, draw_operations, magnitudes
from tandem.protocol.settings import AugmentationSettings

UNSIGNED = {"identity", "posterize", "solarize", "autocontrast", "equalize"}


def drawn(num_images: int = 5000, size: tuple[int, int] = (32, 48), seed: int = 0, **settings: Any) -> Operations:
    return draw_operations(np.random.SeedSequence(seed), num_images, size, AugmentationSettings(**settings))


def names_of(operations: Operations) -> np.ndarray:
    return np.array(list(OPERATIONS))[operations.numbers]


def table(policy: str, size: tuple[int, int] = (32, 48)) -> dict[str, np.ndarray]:
    return dict(zip(OPERATIONS, magnitudes(policy, size), strict=True))


def image_of(pixels: Any) -> Image.Image:
    return Image.fromarray(np.asarray(pixels, np.uint8))


def noise(height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def applied(name: str, pixels: np.ndarray, magnitude: float) -> np.ndarray:
    return np.asarray(OPERATIONS[name](image_of(pixels), magnitude))


# ------------------------------------------------------------------------------------------------------------- numbers


def test_operations_are_those_of_the_paper() -> None:
    # RandAugment's list of 14, which TrivialAugment shares
    assert list(OPERATIONS) == [
        *("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast"),
        *("sharpness", "posterize", "solarize", "autocontrast", "equalize"),
    ]


def test_strongest_magnitudes_are_those_of_the_papers() -> None:
    strongest = {name: float(values[30]) for name, values in table("rand_augment", size=(331, 662)).items()}
    assert strongest == pytest.approx(
        {
            **{"identity": 0, "autocontrast": 0, "equalize": 0},
            **{"shear_x": 0.3, "shear_y": 0.3, "translate_x": 300, "translate_y": 150, "rotate": 30},
            **{"brightness": 0.9, "color": 0.9, "contrast": 0.9, "sharpness": 0.9, "posterize": 4, "solarize": 0},
        }
    )
    strongest = {name: float(values[30]) for name, values in table("trivial_augment").items()}
    assert strongest == pytest.approx(
        {
            **{"identity": 0, "autocontrast": 0, "equalize": 0},
            **{"shear_x": 0.99, "shear_y": 0.99, "translate_x": 32, "translate_y": 32, "rotate": 135},
            **{"brightness": 0.99, "color": 0.99, "contrast": 0.99, "sharpness": 0.99, "posterize": 2, "solarize": 0},
        }
    )


@pytest.mark.parametrize("policy", ["rand_augment", "trivial_augment"])
def test_weakest_magnitudes_change_nothing_but_white_in_solarize(policy: str) -> None:
    pixels = np.clip(noise(), 0, 254)
    for name, values in table(policy).items():
        if name not in ("autocontrast", "equalize"):
            assert np.array_equal(applied(name, pixels, values[0]), pixels)


def test_all_operations_are_equally_frequent_in_each_position() -> None:
    operations = drawn(policy="rand_augment", num_operations=3)
    assert operations.numbers.shape == operations.magnitudes.shape == (5000, 3)
    expected = 5000 / 14
    for position in range(3):
        counts = np.bincount(operations.numbers[:, position], minlength=14)
        assert len(counts) == 14 and np.abs(counts - expected).max() < 4 * np.sqrt(expected)
    same = (operations.numbers[:, 0] == operations.numbers[:, 1]).mean()
    assert same == pytest.approx(1 / 14, abs=0.015)  # operations are drawn with replacement


@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_rand_augment_has_one_magnitude(magnitude: int) -> None:
    operations = drawn(policy="rand_augment", magnitude=magnitude)
    expected = {name: values[magnitude] for name, values in table("rand_augment").items()}
    for name in OPERATIONS:
        found = operations.magnitudes[names_of(operations) == name]
        assert set(np.abs(found)) == {abs(expected[name])}


def test_trivial_augment_draws_one_operation_and_all_magnitudes() -> None:
    operations = drawn(20_000, policy="trivial_augment")
    assert operations.numbers.shape == (20_000, 1)
    expected = table("trivial_augment")
    for name in OPERATIONS:
        found = np.abs(operations.magnitudes[names_of(operations) == name])
        values, counts = np.unique(found, return_counts=True)
        assert np.array_equal(values, np.unique(expected[name]))
        if len(values) == 31:
            assert np.abs(counts - counts.mean()).max() < 4.5 * np.sqrt(counts.mean())


@pytest.mark.parametrize("policy", ["rand_augment", "trivial_augment"])
def test_half_of_the_signed_magnitudes_are_negative(policy: str) -> None:
    operations = drawn(20_000, policy=policy, magnitude=9)
    for name in OPERATIONS:
        found = operations.magnitudes[names_of(operations) == name]
        negative = (found[found != 0] < 0).mean() if found.any() else 0
        assert negative == (0 if name in UNSIGNED else pytest.approx(0.5, abs=0.06))


# -------------------------------------------------------------------------------------------------------------- pixels


def test_positive_shifts_go_right_and_down_by_whole_pixels() -> None:
    pixels = noise()
    right, down = np.zeros_like(pixels), np.zeros_like(pixels)
    right[:, 2:], down[3:] = pixels[:, :-2], pixels[:-3]
    assert np.array_equal(applied("translate_x", pixels, 2.9), right)
    assert np.array_equal(applied("translate_y", pixels, 3.0), down)
    assert np.array_equal(applied("translate_x", pixels, -1.7)[:, :-1], pixels[:, 1:])
    assert not applied("translate_y", pixels, 32.0).any()


def test_shears_keep_the_first_row_or_column() -> None:
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[:, 10] = 255
    columns = applied("shear_x", pixels, 0.5)[..., 0].argmax(axis=1)
    assert columns[0] == 10 and columns[19] == 0  # a column 10 of row 19 would move to 0.5 * 19.5 further left
    assert (np.diff(columns) <= 0).all()
    rows = applied("shear_y", np.swapaxes(pixels, 0, 1), 0.5)[..., 0].argmax(axis=0)
    assert np.array_equal(rows, columns)


def test_rotation_is_counterclockwise() -> None:
    pixels = noise(8, 8)
    assert np.array_equal(applied("rotate", pixels, 90.0), np.rot90(pixels))


def test_levels_are_changed_as_by_hand() -> None:
    pixels = np.array([[[0, 100, 200], [30, 60, 255]]])
    assert applied("brightness", pixels, -0.5).tolist() == [[[0, 50, 100], [15, 30, 127]]]
    assert applied("posterize", pixels, 2.0).tolist() == [[[0, 64, 192], [0, 0, 192]]]
    assert applied("solarize", pixels, 200.0).tolist() == [[[0, 100, 55], [30, 60, 0]]]
    # each channel is stretched to 0..255, and its fractions are cut off
    assert applied("autocontrast", pixels, 0.0).tolist() == [[[0, 255, 0], [255, 0, 254]]]


def test_operations_follow_each_other() -> None:
    names = list(OPERATIONS)
    operations = Operations(
        numbers=np.array([[0, 0], [names.index("translate_x"), names.index("solarize")]]),
        magnitudes=np.array([[0.0, 0.0], [2.0, 0.0]]),
    )
    pixels = noise()
    assert np.array_equal(np.asarray(operations.apply(image_of(pixels), 0)), pixels)
    expected = np.full_like(pixels, 255)  # the black edge of the shift is inverted
    expected[:, 2:] = 255 - pixels[:, :-2]
    assert np.array_equal(np.asarray(operations.apply(image_of(pixels), 1)), expected)


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_operations_leave_the_given_image_unchanged(name: str) -> None:
    image = image_of(noise(9, 9))
    before = np.asarray(image).copy()
    OPERATIONS[name](image, magnitudes("trivial_augment", (9, 9))[list(OPERATIONS).index(name), 15])
    assert np.array_equal(np.asarray(image), before)
