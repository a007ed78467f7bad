from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tandem.data.views import further_views, mirrored, num_views
from tandem.protocol.settings import Views


def noise(height: int = 64, width: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def crop_by_hand(image: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    box = Image.fromarray(image).crop((left, top, left + width, top + height))
    return np.asarray(box.resize((image.shape[1], image.shape[0]), Image.Resampling.BILINEAR))


@pytest.mark.parametrize(("kind", "count"), [("none", 1), ("flip", 2), ("flip_and_crops", 12)])
def test_number_of_views_counts_the_image_itself(kind: Views, count: int) -> None:
    assert num_views(kind) == count == 1 + len(further_views(kind))


def test_mirror_image_is_turned_from_left_to_right() -> None:
    assert np.array_equal(mirrored(noise()), noise()[:, ::-1])
    (view,) = further_views("flip")
    assert np.array_equal(view(noise()), noise()[:, ::-1])


def test_crops_are_the_corners_and_the_centre_and_their_mirror_images() -> None:
    # 7/8 of 64 x 32 pixels are 56 x 28
    image = noise()
    crops = [crop_by_hand(image, top, left, 56, 28) for top, left in ((0, 0), (0, 4), (8, 0), (8, 4), (4, 2))]
    expected = [image[:, ::-1], *crops, *(crop[:, ::-1] for crop in crops)]
    found = [view(image) for view in further_views("flip_and_crops")]
    assert len(found) == len(expected)
    for view, by_hand in zip(found, expected, strict=True):
        assert np.array_equal(view, by_hand)


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (50, 77), (224, 224)])
def test_views_have_the_size_of_the_image_and_leave_it_unchanged(size: tuple[int, int]) -> None:
    image = noise(*size)
    views = [view(image) for view in further_views("flip_and_crops")]
    assert all(view.shape == image.shape and view.dtype == np.uint8 for view in views)
    assert len({view.tobytes() for view in [image, *views]}) >= 10  # in 8 x 8, the centre is at a corner
    assert np.array_equal(image, noise(*size))
