"""A folder of small images of many sizes and kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "owl")


def write_photographs(folder: Path, *, per_class: int = 6) -> Path:
    """Noise with a tone per class: RGB, grey, transparent, rotated by EXIF, as PNG and JPEG, wide and tall."""
    random = np.random.default_rng(4)
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            height, width = (int(side) for side in random.integers(9, 60, 2))
            noise = random.integers(0, 256, (height, width, 4)) * 0.6
            noise[..., number] += 100
            pixels = noise.astype(np.uint8)
            kind = index % 4
            path = folder / name / f"{index}.{'jpg' if kind == 3 else 'png'}"
            if kind == 3:
                exif = Image.Exif()
                exif[0x0112] = 6  # to be turned by a quarter
                Image.fromarray(pixels[..., :3]).save(path, exif=exif)
            else:
                Image.fromarray((pixels[..., :3], pixels[..., 0], pixels)[kind]).save(path)
    return folder
