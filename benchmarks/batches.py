"""Images per second that the stream makes at 224 pixels, without and with each kind of augmentation and mixing.

    python -m benchmarks.batches

Nothing is decoded: a memory-mapped file holds 600 generated images in the form of a store. One process makes batches of
64 as fast as it can, with one thread per core; the table has medians over epochs, each kind of augmentation in turn,
and the fastest epoch. `per core` divides by processor time, which other processes on the machine affect less. `first
epoch` is an epoch whose batches are hashed. docs/performance.md has results.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tandem.data.console import num_cores
from tandem.data.stream import Augmentation, Stream
from tandem.data.targets import Targets
from tandem.protocol.settings import AugmentationSettings, MixingSettings

NUM_IMAGES = 600
SIZE, CROP_STORE_SIZE = 224, 256
BATCH_SIZE = 64
NUM_CLASSES = 100

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
    "flips in both directions": AugmentationSettings(horizontal_flip=True, vertical_flip=True),
    "rotation": AugmentationSettings(rotation=15),
    "rand_augment": AugmentationSettings(policy="rand_augment"),
    "trivial_augment": AugmentationSettings(policy="trivial_augment"),
    "random erasing": AugmentationSettings(random_erasing=0.5),
    "random resized crop, flip, trivial_augment, random erasing": AugmentationSettings(
        random_resized_crop=[0.08, 1.0], horizontal_flip=True, policy="trivial_augment", random_erasing=0.1
    ),
    "all but policies": AugmentationSettings(
        random_resized_crop=[0.08, 1.0],
        horizontal_flip=True,
        crop_padding=8,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.1,
        vertical_flip=True,
        rotation=15,
        random_erasing=0.5,
    ),
}

MIXINGS = {
    "mixup": MixingSettings(mixup_alpha=0.2),
    "CutMix": MixingSettings(cutmix_alpha=1.0),
    "mixup, CutMix": MixingSettings(mixup_alpha=0.2, cutmix_alpha=1.0),
}

KINDS = {
    **{name: (augmentation, MixingSettings()) for name, augmentation in AUGMENTATIONS.items()},
    **{name: (AugmentationSettings(), mixing) for name, mixing in MIXINGS.items()},
    **{
        f"{augmentation}, {mixing}": (AUGMENTATIONS[augmentation], MIXINGS[mixing])
        for augmentation in ("flip, padded crop", "random resized crop")
        for mixing in ("mixup", "CutMix")
    },
}
"""Augmentation and mixing by name."""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measures the augmented images per second that the stream makes.")
    parser.add_argument("--epochs", type=int, default=5, help="epochs per kind (default: %(default)s)")
    parser.add_argument(
        "--threads", type=int, default=num_cores(), help="threads for augmentation (default: all cores)"
    )
    arguments = parser.parse_args(argv)
    print(f"{platform.processor() or platform.machine()}, {num_cores()} cores, {arguments.threads} threads")
    print(f"{SIZE} x {SIZE} pixels, batches of {BATCH_SIZE}")
    print(f"{'images/s':>10} {'fastest':>10} {'per core':>10} {'first epoch':>12} {'per core':>10}  augmentation")
    with tempfile.TemporaryDirectory(prefix="tandem-benchmark-") as folder:
        stores = {size: made_store(Path(folder), size) for size in (SIZE, CROP_STORE_SIZE)}
        rates: dict[str, list[list[float]]] = {name: [] for name in KINDS}
        for _ in range(arguments.epochs):
            for name, (augmentation, mixing) in KINDS.items():
                size = SIZE if augmentation.random_resized_crop is None else CROP_STORE_SIZE
                rates[name].append(measure(stores[size], augmentation, mixing, arguments.threads))
    for name, values in rates.items():
        clock, core, first_clock, first_core = (statistics.median(column) for column in zip(*values, strict=True))
        fastest = max(value[0] for value in values)
        print(f"{clock:10,.0f} {fastest:10,.0f} {core:10,.0f} {first_clock:12,.0f} {first_core:10,.0f}  {name}")


def made_store(folder: Path, size: int) -> np.memmap:
    """Smooth coloured images in a file, uint8 of shape (NUM_IMAGES, size, size, 3)."""
    path = folder / f"{size}.npy"
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(NUM_IMAGES, size, size, 3))
    random = np.random.default_rng(0)
    for image in images:
        few = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        image[:] = np.asarray(few.resize((size, size), Image.Resampling.BICUBIC))
    images.flush()
    return np.load(path, mmap_mode="r")


def measure(images: np.memmap, augmentation: AugmentationSettings, mixing: MixingSettings, threads: int) -> list[float]:
    """Images per second of elapsed and of processor time, in a later epoch and in the first one."""
    rows = np.arange(NUM_IMAGES)
    stream = Stream(
        images,
        rows % NUM_CLASSES,
        rows,
        batch_size=BATCH_SIZE,
        seed=(0,),
        shuffle=True,
        augmentation=Augmentation(settings=augmentation, size=(SIZE, SIZE), threads=threads),
        mixing=mixing,
        targets=Targets(num_classes=NUM_CLASSES, soft=mixing != MixingSettings()),
    )
    rates = []
    for epoch in (1, 0):
        start, cpu_start = time.perf_counter(), time.process_time()
        for _ in stream.epoch(epoch):
            pass
        rates += [NUM_IMAGES / (time.perf_counter() - start), NUM_IMAGES / (time.process_time() - cpu_start)]
    return rates


if __name__ == "__main__":
    main()
