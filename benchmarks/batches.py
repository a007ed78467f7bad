"""Images a second that the stream makes at 224 pixels, without and with each kind of augmentation.

    python -m benchmarks.batches

decodes nothing: 600 made images stand in a memory-mapped file as a store has them. Batches of 64 are made one after the
other, as fast as this process can; the fastest of some epochs counts. `a core` divides by the seconds that processors
worked, which other processes on the machine change less. docs/performance.md has numbers seen.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tandem.data.console import num_cores
from tandem.data.stream import Stream
from tandem.protocol.settings import AugmentationSettings

NUM_IMAGES = 600
SIZE, CROP_STORE_SIZE = 224, 256
BATCH_SIZE = 64

AUGMENTATIONS = {
    "none": AugmentationSettings(),
    "flip, padded crop": AugmentationSettings(horizontal_flip=True, crop_padding=8),
    "random resized crop": AugmentationSettings(random_resized_crop=[0.08, 1.0]),
    "brightness": AugmentationSettings(brightness=0.4),
    "brightness, contrast, saturation": AugmentationSettings(brightness=0.4, contrast=0.4, saturation=0.4),
    "hue": AugmentationSettings(hue=0.1),
    "random resized crop, flip, brightness, contrast, saturation": AugmentationSettings(
        random_resized_crop=[0.08, 1.0], horizontal_flip=True, brightness=0.4, contrast=0.4, saturation=0.4
    ),
    "all": AugmentationSettings(
        random_resized_crop=[0.08, 1.0],
        horizontal_flip=True,
        crop_padding=8,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.1,
    ),
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measures how many augmented images a second the stream makes.")
    parser.add_argument("--epochs", type=int, default=5, help="of which the fastest counts (default: %(default)s)")
    arguments = parser.parse_args(argv)
    print(f"{num_cores()} cores, {SIZE} x {SIZE} pixels, batches of {BATCH_SIZE}")
    print(f"{'images/s':>10} {'a core':>10}  augmentation")
    with tempfile.TemporaryDirectory(prefix="tandem-benchmark-") as folder:
        stores = {size: made_store(Path(folder), size) for size in (SIZE, CROP_STORE_SIZE)}
        for name, augmentation in AUGMENTATIONS.items():
            size = SIZE if augmentation.random_resized_crop is None else CROP_STORE_SIZE
            per_second, per_core = measure(stores[size], augmentation, arguments.epochs)
            print(f"{per_second:10,.0f} {per_core:10,.0f}  {name}")


def made_store(folder: Path, size: int) -> np.memmap:
    """Smooth coloured images, uint8 of shape (NUM_IMAGES, size, size, 3), on file."""
    path = folder / f"{size}.npy"
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(NUM_IMAGES, size, size, 3))
    random = np.random.default_rng(0)
    for image in images:
        few = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        image[:] = np.asarray(few.resize((size, size), Image.Resampling.BICUBIC))
    images.flush()
    return np.load(path, mmap_mode="r")


def measure(images: np.memmap, augmentation: AugmentationSettings, num_epochs: int) -> tuple[float, float]:
    """Images a second by the clock and by the time that processors worked, each in its fastest epoch."""
    rows = np.arange(NUM_IMAGES)
    stream = Stream(
        images,
        rows,
        rows,
        batch_size=BATCH_SIZE,
        seed=(0,),
        shuffle=True,
        augmentation=augmentation,
        size=(SIZE, SIZE),
    )
    seconds, cpu_seconds = [], []
    for epoch in range(1, num_epochs + 1):  # not 0, whose batches are hashed
        start, cpu_start = time.perf_counter(), time.process_time()
        for _ in stream.epoch(epoch):
            pass
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    return NUM_IMAGES / min(seconds), NUM_IMAGES / min(cpu_seconds)


if __name__ == "__main__":
    main()
