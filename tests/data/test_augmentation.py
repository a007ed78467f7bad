from __future__ import annotations

import colorsys
import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tandem.data.augmentation import (
    NUM_GENERATORS,
    Changes,
    change,
    draw_changes,
    erase,
    jitter,
    resized_crop,
    rotated,
)
from tandem.data.policies import OPERATIONS, Operations
from tandem.protocol.settings import AugmentationSettings

EVERYTHING: dict[str, Any] = {
    "horizontal_flip": True,
    "crop_padding": 3,
    "random_resized_crop": [0.08, 1.0],
    "brightness": 0.4,
    "contrast": 0.3,
    "saturation": 0.2,
    "hue": 0.1,
    "vertical_flip": True,
    "rotation": 30.0,
    "policy": "trivial_augment",
    "random_erasing": 0.5,
}

# of SeedSequence(0), images of 64 x 64 pixels and EVERYTHING
KNOWN_BOXES = [[5, 5, 49, 59], [1, 1, 63, 63], [21, 5, 32, 26]]
KNOWN_COLORS = [
    [1.270617, 0.750235, 1.047046, 0.040568],
    [0.796927, 0.992188, 1.060959, 0.089529],
    [0.872826, 0.871889, 0.802343, -0.027571],
]
KNOWN_UPSIDE_DOWN = [True, False, True]
KNOWN_ANGLES = [9.178355, -10.56248, -20.153423]
KNOWN_OPERATIONS = [[11], [5], [4]]  # solarize, rotate, translate_y
KNOWN_MAGNITUDES = [[144.5], [72.0], [22.4]]
KNOWN_ERASED = [[10, 17, 11, 20], [0, 0, 0, 0], [14, 0, 26, 38]]
KNOWN_NOISES = [16698518171625314144, 17963938977889896205, 14837383411107296731]


def drawn(num_images: int = 2000, size: tuple[int, int] = (64, 64), seed: int = 0, **settings: Any) -> Changes:
    seeds = np.random.SeedSequence(seed).spawn(NUM_GENERATORS)
    return draw_changes(seeds, num_images, size, size, AugmentationSettings(**settings))


def arrays_of(changes: Changes) -> dict[str, np.ndarray]:
    """All random numbers of the changes, by name."""
    values = {item.name: getattr(changes, item.name) for item in dataclasses.fields(changes)}
    operations = values.pop("operations")
    values |= {} if operations is None else {"numbers": operations.numbers, "magnitudes": operations.magnitudes}
    return {name: value for name, value in values.items() if value is not None}


def unchanged(**replaced: Any) -> Changes:
    """Changes that leave one image as it is, but for those given."""
    return dataclasses.replace(drawn(1), **replaced)


def changed(pixels: np.ndarray, changes: Changes, place: int = 0) -> np.ndarray:
    target = np.zeros_like(pixels)
    change(pixels, changes, place, target)
    return target


def boxes_of(**options: Any) -> np.ndarray:
    boxes = drawn(**options).boxes
    assert boxes is not None
    return boxes


def colors_of(**options: Any) -> np.ndarray:
    colors = drawn(**options).colors
    assert colors is not None
    return colors


def angles_of(**options: Any) -> np.ndarray:
    angles = drawn(**options).angles
    assert angles is not None
    return angles


def erased_of(**options: Any) -> np.ndarray:
    erased = drawn(**options).erased
    assert erased is not None
    return erased


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


# ------------------------------------------------------------------------------------------------------------- numbers


def test_changes_that_are_switched_off_are_not_drawn() -> None:
    nothing = drawn()
    assert set(arrays_of(nothing)) == {"flipped", "upside_down", "shifts"}
    assert not nothing.flipped.any() and not nothing.upside_down.any() and not nothing.shifts.any()
    for name, drawn_too in {
        "hue": {"colors"},
        "random_resized_crop": {"boxes"},
        "rotation": {"angles"},
        "policy": {"numbers", "magnitudes"},
        "random_erasing": {"erased", "noises"},
    }.items():
        alone = drawn(10, **{name: EVERYTHING[name]})
        assert set(arrays_of(alone)) - set(arrays_of(nothing)) == drawn_too
        assert not alone.only_move
    assert drawn(10, horizontal_flip=True, vertical_flip=True, crop_padding=2).only_move


@pytest.mark.parametrize("name", list(EVERYTHING))
def test_each_change_is_independent_of_the_others(name: str) -> None:
    alone, together = (arrays_of(drawn(100, **kinds)) for kinds in ({name: EVERYTHING[name]}, EVERYTHING))
    names = {
        "horizontal_flip": ["flipped"],
        "crop_padding": ["shifts"],
        "random_resized_crop": ["boxes"],
        "vertical_flip": ["upside_down"],
        "rotation": ["angles"],
        "policy": ["numbers", "magnitudes"],
        "random_erasing": ["erased", "noises"],
    }
    for each in names.get(name, []):
        assert np.array_equal(alone[each], together[each]) and alone[each].any()
    if name not in names:
        column = ["brightness", "contrast", "saturation", "hue"].index(name)
        assert np.array_equal(alone["colors"][:, column], together["colors"][:, column])
        unchanged = [1, 1, 1, 0]
        del unchanged[column]
        assert (np.delete(alone["colors"], column, axis=1) == unchanged).all()


def test_kinds_of_change_are_independent_of_each_other() -> None:
    changes = arrays_of(drawn(5000, **EVERYTHING))
    area = changes["boxes"][:, 2] * changes["boxes"][:, 3]
    columns = np.column_stack(
        [
            *(changes["flipped"], changes["shifts"], area, changes["boxes"][:, 2] / area, changes["colors"]),
            *(changes["upside_down"], changes["angles"], changes["numbers"], changes["magnitudes"]),
            *(changes["erased"].any(axis=1), changes["noises"] / 2**64),
        ]
    )
    correlations = np.corrcoef(columns, rowvar=False) - np.eye(columns.shape[1])
    correlations[3, 4] = correlations[4, 3] = 0  # a large box is tall, too
    operation, magnitude = 11, 12
    correlations[operation, magnitude] = correlations[magnitude, operation] = 0  # units differ
    assert np.abs(correlations).max() < 0.06  # four standard deviations of 1 / sqrt(5000)


def test_changes_of_an_image_depend_on_its_place_alone() -> None:
    few, many, others = (
        arrays_of(drawn(num_images, seed=seed, **EVERYTHING)) for num_images, seed in ((10, 0), (100, 0), (100, 1))
    )
    for name, values in many.items():
        assert np.array_equal(few[name], values[:10])
        assert not np.array_equal(others[name], values)


def test_changes_are_those_of_earlier_versions() -> None:
    changes = arrays_of(drawn(3, **EVERYTHING))
    assert changes["boxes"].tolist() == KNOWN_BOXES
    assert changes["colors"].round(6).tolist() == KNOWN_COLORS
    assert changes["upside_down"].tolist() == KNOWN_UPSIDE_DOWN
    assert changes["angles"].round(6).tolist() == KNOWN_ANGLES
    assert changes["numbers"].tolist() == KNOWN_OPERATIONS
    assert changes["magnitudes"].round(6).tolist() == KNOWN_MAGNITUDES
    assert changes["erased"].tolist() == KNOWN_ERASED
    assert changes["noises"].tolist() == KNOWN_NOISES


@pytest.mark.parametrize("size", [(64, 64), (256, 256), (48, 100)])
def test_boxes_stay_in_the_image_and_in_their_limits_of_area_and_ratio(size: tuple[int, int]) -> None:
    boxes = boxes_of(size=size, random_resized_crop=[0.1, 0.6])
    top, left, height, width = boxes.T
    assert (boxes >= 0).all() and (top + height <= size[0]).all() and (left + width <= size[1]).all()
    # sides are rounded to whole pixels, by half a pixel at most
    assert ((height + 0.5) * (width + 0.5) >= 0.1 * size[0] * size[1]).all()
    assert ((height - 0.5) * (width - 0.5) <= 0.6 * size[0] * size[1]).all()
    assert ((width + 0.5) / (height - 0.5) >= 3 / 4).all() and ((width - 0.5) / (height + 0.5) <= 4 / 3).all()
    share = height * width / (size[0] * size[1])
    assert share.min() < 0.12 and share.max() > 0.55
    assert (top == 0).any() and (top + height == size[0]).any()
    assert (left == 0).any() and (left + width == size[1]).any()


def test_areas_are_uniform_and_ratios_are_log_uniform() -> None:
    # up to half of the area every ratio fits, so that no draw is refused
    boxes = boxes_of(num_images=5000, size=(2000, 2000), random_resized_crop=[0.1, 0.5])
    _, _, height, width = boxes.T
    area, ratio = height * width / 2000**2, np.log(width / height) / np.log(4 / 3)
    for values, low, high in ((area, 0.1, 0.5), (ratio, -1.0, 1.0)):
        counts, _ = np.histogram(values, bins=10, range=(low, high))
        assert np.abs(counts - 500).max() < 4 * np.sqrt(450)


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((64, 64), [0, 0, 64, 64]),
        ((30, 120), [0, 40, 30, 40]),  # 4/3 as wide as high
        ((120, 30), [40, 0, 40, 30]),  # 3/4 as wide as high
        ((10, 100), [0, 43, 10, 13]),
    ],
)
def test_largest_centred_box_is_cut_if_no_try_fits(size: tuple[int, int], box: list[int]) -> None:
    boxes = boxes_of(size=size, random_resized_crop=[1.0, 1.0])
    share = (boxes == box).all(axis=1).mean()
    assert share == 1 if size[0] != size[1] else share > 0.5  # a square of full area may be drawn as 63 x 65, refused


def test_smallest_boxes_have_a_pixel() -> None:
    boxes = boxes_of(size=(8, 8), random_resized_crop=[1e-6, 1e-6])
    assert set(map(tuple, boxes[:, 2:].tolist())) == {(8, 8)}  # nothing rounds to a pixel: the whole image
    boxes = boxes_of(size=(8, 8), random_resized_crop=[0.01, 0.02])
    assert boxes[:, 2:].min() == 1 and boxes[:, 2:].max() == 1
    assert set(boxes[:, 0].tolist()) == set(boxes[:, 1].tolist()) == set(range(8))


def test_factors_are_uniform_between_their_limits() -> None:
    colors = colors_of(num_images=5000, brightness=0.4, contrast=0.3, saturation=1.0, hue=0.5)
    for values, center, strength in zip(colors.T, (1, 1, 1, 0), (0.4, 0.3, 1.0, 0.5), strict=True):
        counts, _ = np.histogram(values, bins=10, range=(center - strength, center + strength))
        assert counts.sum() == 5000
        assert np.abs(counts - 500).max() < 4 * np.sqrt(450)


def test_half_of_the_images_are_upside_down() -> None:
    for flipped in (drawn(vertical_flip=True).upside_down, drawn(horizontal_flip=True).flipped):
        assert abs(flipped.sum() - 1000) < 90  # four standard deviations of sqrt(2000) / 2


def test_angles_are_uniform_in_either_direction() -> None:
    counts, _ = np.histogram(angles_of(num_images=5000, rotation=20.0), bins=10, range=(-20, 20))
    assert counts.sum() == 5000
    assert np.abs(counts - 500).max() < 4 * np.sqrt(450)


@pytest.mark.parametrize("size", [(64, 64), (224, 224), (48, 100), (100, 48), (8, 8), (2000, 2000)])
def test_erased_boxes_stay_in_the_image_and_in_their_limits_of_area_and_ratio(size: tuple[int, int]) -> None:
    erased = erased_of(num_images=10_000, size=size, random_erasing=1.0)
    found = erased[erased.any(axis=1)]
    assert len(found) > 9900  # the others found no place in ten tries
    top, left, height, width = found.T
    assert (found >= 0).all() and (top + height <= size[0]).all() and (left + width <= size[1]).all()
    assert (height > 0).all() and (height < size[0]).all() and (width > 0).all() and (width < size[1]).all()
    # sides are rounded to whole pixels, by half a pixel at most
    assert ((height + 0.5) * (width + 0.5) >= 0.02 * size[0] * size[1]).all()
    assert ((height - 0.5) * (width - 0.5) <= 0.33 * size[0] * size[1]).all()
    assert ((height + 0.5) / (width - 0.5) >= 0.3).all() and ((height - 0.5) / (width + 0.5) <= 3.3).all()
    assert (top == 0).any() and (top + height == size[0]).any()
    assert (left == 0).any() and (left + width == size[1]).any()


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_random_erasing_has_its_probability(probability: float) -> None:
    num_erased = erased_of(random_erasing=probability).any(axis=1).sum()
    assert abs(num_erased - 2000 * probability) < 4 * np.sqrt(2000 * probability * (1 - probability))


def test_a_higher_probability_erases_more_images_and_leaves_the_others_unchanged() -> None:
    few, many = erased_of(random_erasing=0.2), erased_of(random_erasing=0.8)
    erased = few.any(axis=1)
    assert np.array_equal(few[erased], many[erased]) and many.any(axis=1).sum() > erased.sum()


# -------------------------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize("upside_down", [False, True])
@pytest.mark.parametrize("flipped", [False, True])
def test_images_are_mirrored_and_then_shifted(flipped: bool, upside_down: bool) -> None:
    pixels = noise(9, 7, 3)
    mirrored = pixels[:: -1 if upside_down else 1, :: -1 if flipped else 1]
    padded = np.pad(mirrored, ((3, 3), (3, 3), (0, 0)))
    for down, right in itertools.product((-3, 0, 2), (-2, 0, 3)):
        changes = unchanged(
            flipped=np.array([flipped]), upside_down=np.array([upside_down]), shifts=np.array([[down, right]])
        )
        expected = padded[3 - down : 12 - down, 3 - right : 10 - right]
        assert np.array_equal(changed(pixels, changes), expected)


def test_positive_angles_turn_counterclockwise() -> None:
    pixels = noise(12, 12, 3)
    for turns in range(4):
        assert np.array_equal(rotated(pixels, 90.0 * turns), np.rot90(pixels, turns))
    right_half = np.zeros((21, 21, 3), np.uint8)
    right_half[9:12, 15:18] = 255  # right of the centre
    rows, columns = np.nonzero(changed(right_half, unchanged(angles=np.array([30.0])))[..., 0] > 128)
    # 6 pixels from the centre (10, 10), 30 degrees upwards
    assert rows.mean() == pytest.approx(10 - 6 * 0.5, abs=0.3)
    assert columns.mean() == pytest.approx(10 + 6 * np.cos(np.pi / 6), abs=0.3)


def test_corners_of_a_rotated_image_are_black_in_every_colour_change() -> None:
    white = np.full((32, 32, 3), 255, np.uint8)
    dark = np.array([[1.0, 0.5, 1.0, 0.0]])  # a contrast that would turn black into grey
    inverted = Operations(numbers=np.array([[list(OPERATIONS).index("solarize")]]), magnitudes=np.array([[256.0]]))
    for changes in (unchanged(colors=dark), unchanged(operations=inverted)):
        result = changed(white, dataclasses.replace(changes, angles=np.array([45.0])))
        assert (result[[0, 0, -1, -1], [0, -1, 0, -1]] == 0).all() and (result[10:22, 10:22] > 120).all()


def test_erased_box_is_noise_and_the_rest_is_unchanged() -> None:
    pixels = np.full((40, 30, 3), 9, np.uint8)
    changes = drawn(200, (40, 30), random_erasing=0.7)
    assert changes.erased is not None
    contents = []
    for place, (top, left, height, width) in enumerate(changes.erased.tolist()):
        result = changed(pixels, changes, place)
        box = result[top : top + height, left : left + width]
        contents.append(box.copy())
        box[:] = 9
        assert np.array_equal(result, pixels)
    values = np.concatenate([content.ravel() for content in contents])
    counts = np.bincount(values, minlength=256)
    assert np.abs(counts - len(values) / 256).max() < 5 * np.sqrt(len(values) / 256)
    neighbours = (
        np.concatenate([content[:, :-1].reshape(-1, 3) for content in contents]),
        np.concatenate([content[:, 1:].reshape(-1, 3) for content in contents]),
    )
    assert abs(np.corrcoef(neighbours[0].ravel(), neighbours[1].ravel())[0, 1]) < 0.02
    first, second = np.zeros((2, 5, 5, 3), np.uint8)
    erase(first, 1)
    erase(second, 2)
    assert not np.array_equal(first, second)


def test_changes_follow_each_other_in_the_order_of_the_module_s_docstring() -> None:
    pixels = noise(40, 36, 3)
    changes = drawn(30, (40, 36), **{**EVERYTHING, "random_erasing": 1.0})
    values = arrays_of(changes)
    assert changes.operations is not None
    for place in range(30):
        top, left, height, width = values["boxes"][place].tolist()
        image = resized_crop(pixels[top : top + height, left : left + width], 40, 36)
        image = jitter(image, *values["colors"][place].tolist())
        image = np.asarray(changes.operations.apply(Image.fromarray(image), place))
        image = rotated(image, values["angles"][place])
        image = image[:: -1 if values["upside_down"][place] else 1, :: -1 if values["flipped"][place] else 1]
        down, right = values["shifts"][place].tolist()
        image = np.pad(image, ((3, 3), (3, 3), (0, 0)))[3 - down : 43 - down, 3 - right : 39 - right].copy()
        top, left, height, width = values["erased"][place].tolist()
        erase(image[top : top + height, left : left + width], int(values["noises"][place]))
        assert np.array_equal(changed(pixels, changes, place), image)


def test_box_is_resized_with_antialiasing() -> None:
    pixels = noise(20, 30, 3)
    for height, width in ((9, 12), (40, 25)):
        expected = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
        assert np.array_equal(resized_crop(pixels, height, width), np.asarray(expected))
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert np.abs(resized_crop(stripes, 16, 16).astype(int) - 100).max() <= 13


def test_pixels_outside_of_the_box_have_no_influence() -> None:
    changes = drawn(20, (32, 32), random_resized_crop=[0.1, 0.5])
    assert changes.boxes is not None
    inside = np.zeros((32, 32, 3), np.uint8)
    for place, (top, left, height, width) in enumerate(changes.boxes.tolist()):
        outside = np.full((32, 32, 3), 255, np.uint8)
        outside[top : top + height, left : left + width] = 7
        target = np.zeros((24, 24, 3), np.uint8)
        change(outside, changes, place, target)
        assert (target == 7).all()
        change(inside, changes, place, target)
        assert (target == 0).all()


def test_colours_change_before_black_borders_are_added() -> None:
    changes = unchanged(
        flipped=np.array([True]),
        shifts=np.array([[1, -2]]),
        colors=np.array([[1.0, 0.0, 1.0, 0.0]]),  # without contrast: the grey of the mean luma
    )
    target = np.zeros((4, 6, 3), np.uint8)
    change(np.full((4, 6, 3), 90, np.uint8), changes, 0, target)
    expected = np.full((4, 6, 3), 90)
    expected[0] = expected[:, 4:] = 0
    assert np.array_equal(target, expected)


def test_neutral_factors_leave_pixels_unchanged() -> None:
    pixels = noise(16, 16, 3)
    assert np.array_equal(jitter(pixels, 1, 1, 1, 0), pixels)
    # a full rotation
    assert np.array_equal(jitter(pixels, 1, 1, 1, 1e-12), pixels)


def test_brightness_multiplies() -> None:
    pixels = np.array([[[0, 10, 100], [101, 200, 255]]], np.uint8)
    assert jitter(pixels, 1.5, 1, 1, 0).tolist() == [[[0, 15, 150], [152, 255, 255]]]  # 151.5 is rounded up
    assert jitter(pixels, 0.0, 1, 1, 0).tolist() == [[[0, 0, 0], [0, 0, 0]]]


def test_contrast_mixes_with_the_mean_luma() -> None:
    pixels = np.array([[[100, 0, 0], [0, 100, 0], [0, 0, 100], [40, 40, 40]]], np.uint8)
    # luma: 29.9, 58.7, 11.4, 40, in whole levels 30, 59, 11, 40 with a mean of 35
    assert jitter(pixels, 1, 0.0, 1, 0).tolist() == [[[35, 35, 35]] * 4]
    assert jitter(pixels, 1, 2.0, 1, 0).tolist() == [[[165, 0, 0], [0, 165, 0], [0, 0, 165], [45, 45, 45]]]
    assert jitter(pixels, 1, 0.2, 1, 0).tolist() == [[[48, 28, 28], [28, 48, 28], [28, 28, 48], [36, 36, 36]]]


def test_saturation_mixes_with_each_pixel_s_luma() -> None:
    pixels = np.array([[[100, 0, 0], [0, 100, 0], [10, 20, 200], [40, 40, 40]]], np.uint8)
    # luma: 29.9, 58.7, 2.99 + 11.74 + 22.8 = 37.53, 40
    assert jitter(pixels, 1, 1, 0.0, 0).tolist() == [[[30, 30, 30], [59, 59, 59], [38, 38, 38], [40, 40, 40]]]
    # half way: 64.95 and 14.95; 29.35 and 79.35; 23.765, 28.765 and 118.765
    expected = [[[65, 15, 15], [29, 79, 29], [24, 29, 119], [40, 40, 40]]]
    assert jitter(pixels, 1, 1, 0.5, 0).tolist() == expected


def test_brightness_contrast_and_saturation_follow_each_other() -> None:
    red, green, blue = 120.0, 60.0, 30.0
    pixels = np.array([[[red, green, blue], [80, 80, 80]]]).astype(np.uint8)
    # luma 35.88 + 35.22 + 3.42 = 74.52, in whole levels 75; with 80, a mean of 77.5
    bright = np.array([red, green, blue]) * 1.2
    contrasted = 0.5 * bright + 0.5 * 1.2 * 77.5
    luma = 0.299 * contrasted[0] + 0.587 * contrasted[1] + 0.114 * contrasted[2]
    saturated = 0.4 * contrasted + 0.6 * luma
    assert jitter(pixels, 1.2, 0.5, 0.4, 0)[0, 0].tolist() == np.round(saturated).tolist()


def test_intermediate_values_are_not_clipped() -> None:
    pixels = np.array([[[200, 0, 0]]], np.uint8)
    # twice as bright is a red of 400, whose luma is 119.6; clipped to 255 it would be 76
    assert jitter(pixels, 2.0, 1, 0.0, 0).tolist() == [[[120, 120, 120]]]


@pytest.mark.parametrize(("turn", "expected"), [(1 / 3, [0, 200, 50]), (-1 / 3, [50, 0, 200]), (0.5, [0, 150, 200])])
def test_hue_turns_from_red_over_green_to_blue(turn: float, expected: list[int]) -> None:
    assert jitter(np.array([[[200, 50, 0]]], np.uint8), 1, 1, 1, turn)[0, 0].tolist() == expected


def test_hue_is_that_of_the_standard_library() -> None:
    pixels = noise(12, 12, 3)
    pixels[0, :4] = [[0, 0, 0], [255, 255, 255], [9, 9, 9], [255, 0, 0]]
    pixels[1, :3] = [[80, 80, 20], [80, 20, 80], [20, 80, 80]]  # two largest values
    for turn in (-0.5, -0.21, 0.1, 0.37, 0.5):
        expected = np.empty((12, 12, 3))
        for row, column in np.ndindex(12, 12):
            hue, saturation, value = colorsys.rgb_to_hsv(*(pixels[row, column] / 255).tolist())
            expected[row, column] = np.array(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)) * 255
        assert np.abs(jitter(pixels, 1, 1, 1, turn) - expected).max() <= 0.501


def test_hue_comes_last() -> None:
    pixels = noise(8, 8, 3)
    in_turn = jitter(jitter(pixels, 1.2, 0.8, 1.3, 0), 1, 1, 1, 0.2)
    assert np.array_equal(jitter(pixels, 1.2, 0.8, 1.3, 0.2), in_turn)
