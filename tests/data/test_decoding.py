from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps

from tandem.data.decoding import open_image, resize, to_rgb


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels_of(file: bytes) -> np.ndarray:
    return np.asarray(to_rgb(open_image(file)))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_grey_becomes_three_equal_channels() -> None:
    grey = noise(5, 7)
    assert np.array_equal(pixels_of(saved(Image.fromarray(grey), "PNG")), np.stack([grey] * 3, axis=-1))


def test_sixteen_bit_grey_is_scaled_to_eight_bits() -> None:
    levels = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    expected = np.round(levels / 65535 * 255)
    for kind in ("PNG", "TIFF", "PPM"):
        pixels = pixels_of(saved(Image.fromarray(levels), kind))
        assert np.array_equal(pixels, np.stack([expected] * 3, axis=-1)), kind


def test_pixels_without_a_fixed_range_are_refused() -> None:
    with pytest.raises(ValueError, match="floating-point"):
        pixels_of(saved(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"))
    with pytest.raises(ValueError, match="65535"):
        pixels_of(saved(Image.fromarray(np.full((2, 2), 70000, np.int32)), "TIFF"))


def test_transparency_is_composited_over_white() -> None:
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [100, 0, 200, 51]]], dtype=np.uint8)
    # 51 of 255 is a fifth of the colour and four fifths of white
    expected = np.array([[[10, 20, 30], [255, 255, 255], [224, 204, 244]]])
    assert np.array_equal(pixels_of(saved(Image.fromarray(rgba), "PNG")), expected)
    grey_alpha = np.array([[[10, 255], [10, 0]]], dtype=np.uint8)
    assert np.array_equal(pixels_of(saved(Image.fromarray(grey_alpha, "LA"), "PNG")), [[[10, 10, 10], [255, 255, 255]]])


def test_palette_with_a_transparent_colour_is_composited_over_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 90])
    image.putpixel((1, 0), 1)
    assert np.array_equal(pixels_of(saved(image, "PNG")), [[[200, 0, 0], [0, 0, 90]]])
    assert np.array_equal(pixels_of(saved(image, "PNG", transparency=1)), [[[200, 0, 0], [255, 255, 255]]])


def test_cmyk_is_converted() -> None:
    cyan, red = (255, 0, 0, 0), (0, 255, 255, 0)
    image = Image.new("CMYK", (32, 16), cyan)
    image.paste(red, (16, 0, 32, 16))
    pixels = pixels_of(saved(image, "JPEG", quality=95)).astype(int)
    assert np.abs(pixels[4, 4] - (0, 255, 255)).max() < 10
    assert np.abs(pixels[4, 28] - (255, 0, 0)).max() < 10


def test_first_frame_of_an_animation_is_used() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    pixels = pixels_of(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert np.array_equal(pixels[0, 0], (255, 0, 0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = saved(Image.fromarray(noise(5, 7, 3)), "PNG", exif=exif)
    with Image.open(BytesIO(file)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(pixels_of(file), expected)
    assert pixels_of(file).shape[:2] == ((5, 7) if orientation < 5 else (7, 5))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_data_does_not_make_a_bad_image() -> None:
    pixels = noise(8, 8, 3)
    file = saved(Image.fromarray(pixels), "PNG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff garbage")
    assert np.array_equal(pixels_of(file), pixels)


def test_truncated_jpeg_is_refused_although_verify_passes_it() -> None:
    file = saved(Image.fromarray(noise(64, 64, 3)), "JPEG")[:-200]
    Image.open(BytesIO(file)).verify()
    with pytest.raises(OSError, match="truncated"):
        pixels_of(file)


def test_squash_resizes_the_whole_image_with_antialiasing() -> None:
    stripes = np.zeros((64, 128, 3), np.uint8)
    stripes[:, ::2] = 200
    small = np.asarray(resize(Image.fromarray(stripes), 16, 16, "squash")).astype(int)
    # without antialiasing, every eighth column would be taken: all 0 or all 200
    assert small.shape == (16, 16, 3)
    assert np.abs(small - 100).max() <= 13


def test_crop_is_the_centre_of_the_image_with_its_shorter_side_resized() -> None:
    wide = Image.fromarray(noise(20, 60, 3))
    expected = wide.resize((30, 10), Image.Resampling.BILINEAR).crop((10, 0, 20, 10))
    assert np.array_equal(np.asarray(resize(wide, 10, 10, "crop")), np.asarray(expected))
    tall = Image.fromarray(noise(60, 20, 3))
    expected = tall.resize((10, 30), Image.Resampling.BILINEAR).crop((0, 10, 10, 20))
    assert np.array_equal(np.asarray(resize(tall, 10, 10, "crop")), np.asarray(expected))


def test_crop_takes_images_of_any_proportions() -> None:
    for width in range(1, 400, 13):
        for height in (1, 7, 160, 333):
            assert resize(Image.new("RGB", (width, height)), 224, 224, "crop").size == (224, 224)
