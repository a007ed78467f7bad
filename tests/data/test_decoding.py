from __future__ import annotations

import struct
import zlib
from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from tandem.data.decoding import (
    BROKEN_TEXT,
    FULL_RANGE,
    NO_END_MARK,
    SEVERAL_FRAMES,
    PixelRange,
    decode,
    resize,
    to_rgb,
    white_level,
)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels_of(file: bytes) -> np.ndarray:
    return np.asarray(to_rgb(decode(file), PixelRange(whole=FULL_RANGE)))


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


def test_range_of_a_data_set_becomes_black_to_white() -> None:
    levels = np.array([[0, 8, 1000, 2048, 4094, 4095]], dtype=np.uint16)
    expected = np.stack([np.round(levels / 4095 * 255)] * 3, axis=-1)
    for dtype in (np.uint16, np.int32):
        file = saved(Image.fromarray(levels.astype(dtype)), "TIFF")
        assert np.array_equal(np.asarray(to_rgb(decode(file), PixelRange(whole=4095))), expected)
    floating = saved(Image.fromarray((levels / 4095).astype(np.float32)), "TIFF")
    assert np.array_equal(np.asarray(to_rgb(decode(floating), PixelRange(floating=1))), expected)


def test_range_of_an_image_becomes_black_to_white() -> None:
    levels = np.array([[-1000, 0, 500, 2000]], dtype=np.int32)
    pixels = np.asarray(to_rgb(decode(saved(Image.fromarray(levels), "TIFF")), PixelRange(per_image=True)))
    assert pixels[0, :, 0].tolist() == [0, 85, 128, 255]
    constant = saved(Image.fromarray(np.full((2, 2), 700, np.uint16)), "PNG")
    assert not np.asarray(to_rgb(decode(constant), PixelRange(per_image=True))).any()


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_colours_of_sixteen_bits_are_scaled_like_grey(kind: str) -> None:
    levels = np.random.default_rng(0).integers(0, 4096, (6, 8, 3)).astype(np.uint16)
    file = cv2.imencode(f".{kind}", levels[..., ::-1])[1].tobytes()
    decoded = decode(file)
    assert decoded.levels is not None and np.array_equal(decoded.levels, levels)
    assert np.array_equal(np.asarray(to_rgb(decoded, PixelRange(whole=4095))), np.round(levels / 4095 * 255))
    # the full range is that of Pillow, as it was before other ranges could be asked for
    with Image.open(BytesIO(file)) as image:
        assert np.array_equal(pixels_of(file), np.asarray(image))


def test_tiff_with_white_as_zero_is_turned_over() -> None:
    levels = np.arange(0, 64, dtype=np.uint16).reshape(8, 8) * 1040
    upright, inverted = (
        saved(Image.fromarray(levels), "TIFF"),
        saved(Image.fromarray(levels), "TIFF", tiffinfo={262: 0}),
    )
    pixel_range = PixelRange(whole=65535)
    expected = 255 - np.asarray(to_rgb(decode(upright), pixel_range))
    assert np.array_equal(np.asarray(to_rgb(decode(inverted), pixel_range)), expected)
    # Pillow turns files of 8 bits over itself
    grey = Image.fromarray((levels >> 8).astype(np.uint8))
    assert np.array_equal(np.asarray(to_rgb(decode(saved(grey, "TIFF", tiffinfo={262: 0}))))[..., 0], np.asarray(grey))


def test_transparency_of_sixteen_bits_is_not_scaled_with_the_colours() -> None:
    levels = np.zeros((1, 2, 4), np.uint16)
    levels[0, 0] = 4095, 0, 0, 65535
    levels[0, 1] = 0, 0, 4095, 0
    file = cv2.imencode(".png", levels)[1].tobytes()
    assert np.array_equal(np.asarray(to_rgb(decode(file), PixelRange(whole=4095))), [[[0, 0, 255], [255, 255, 255]]])


@pytest.mark.parametrize(
    ("largest", "white"), [(1, 1), (2, 255), (255, 255), (256, 1023), (4095, 4095), (4096, 16383), (65535, 65535)]
)
def test_white_is_the_largest_value_of_a_number_of_bits(largest: int, white: int) -> None:
    assert white_level(largest) == white


def test_missing_end_mark_leaves_the_pixels_unchanged() -> None:
    for options in ({}, {"progressive": True}, {"quality": 30, "subsampling": 2}):
        whole = saved(Image.fromarray(noise(50, 70, 3)), "JPEG", **options)
        for cut in (1, 2):
            decoded = decode(whole[:-cut])
            assert decoded.remarks == (NO_END_MARK,)
            assert np.array_equal(np.asarray(decoded.image), np.asarray(Image.open(BytesIO(whole))))


def test_jpeg_without_its_last_pixels_is_refused() -> None:
    whole = saved(Image.fromarray(noise(50, 70, 3)), "JPEG")
    for cut in range(4, 60):
        with pytest.raises(OSError, match="truncated"):
            decode(whole[:-cut])


def test_dropped_text_leaves_pixels_transparency_and_orientation_unchanged() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(noise(5, 7, 3)).convert("P")
    whole = saved(image, "PNG", exif=exif, transparency=image.getpixel((0, 0)))
    chunk = b"tEXtTitle\0photograph"
    broken = whole[:33] + struct.pack(">I", len(chunk) - 4) + chunk + b"\0\0\0\0" + whole[33:]
    assert decode(broken).remarks == (BROKEN_TEXT,)
    assert np.array_equal(pixels_of(broken), pixels_of(whole))


def test_large_images_are_refused_before_they_are_decoded() -> None:
    row = zlib.compress(bytes(50_001) * 20, 9)  # 20 of 20,000 rows: decoding would fail
    header = struct.pack(">IIBBBBB", 400_000, 20_000, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", row), (b"IEND", b""))
    file = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    with pytest.raises(ValueError, match=r"it has 8,000,000,000 pixels, and data\.max_pixels allows 178,956,970"):
        decode(file)


@pytest.mark.long
def test_image_of_182_megapixels_is_read_if_the_limit_allows_it() -> None:
    file = saved(Image.new("1", (14_000, 13_000)), "PNG")
    with pytest.raises(ValueError, match="182,000,000 pixels"):
        decode(file)
    assert decode(file, max_pixels=200_000_000).image.size == (14_000, 13_000)


def test_first_page_is_used_and_said() -> None:
    pages = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    for kind in ("TIFF", "GIF"):
        decoded = decode(saved(pages[0], kind, save_all=True, append_images=pages[1:]))
        assert decoded.remarks == (SEVERAL_FRAMES,)
        assert to_rgb(decoded).getpixel((0, 0)) == (255, 0, 0)
        assert decode(saved(pages[0], kind)).remarks == ()


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
