"""Images per second from disk to batch: Tandem's stream against tf.data and torch's DataLoader, which decode.

    python -m benchmarks.stream

The images are JPEG files of 224 x 224 and of 500 x 375 pixels, crops of the two photographs that scikit-learn has; all
become shuffled uint8 batches of 224 x 224, randomly mirrored and moved by up to 8 pixels. The stream reads its store,
which is built before; the others decode with one worker per core. Each pipeline has a process of its own, and they take
turns of an epoch or a second per round. docs/performance.md has results.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from sklearn.datasets import load_sample_images

from tandem.data.console import num_cores
from tandem.data.prepare import prepare
from tandem.data.stream import Augmentation, Stream
from tandem.protocol.settings import AugmentationSettings, DataSettings

SIZE = 224
BATCH_SIZE = 64
PADDING = 8
PHOTOGRAPHS = {"224 x 224": (224, 224), "500 x 375": (500, 375)}
JPEG_QUALITY = 90
LEAST_SECONDS = 1.0  # per turn, since processor time is counted in hundredths of a second

OnePass = Callable[[], Iterable[object]]
Rates = tuple[list[float], list[float]]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measures Tandem's stream against pipelines that decode.")
    parser.add_argument("--images", type=int, default=512, help="photographs (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="turns per pipeline (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=num_cores(), help="threads or workers (default: all cores)")
    parser.add_argument(
        "--serve", choices=PIPELINES, help=argparse.SUPPRESS
    )  # used for the processes that this program starts
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.serve:
        serve(PIPELINES[arguments.serve](arguments.folder, arguments.threads))
        return
    print(f"{platform.processor() or platform.machine()}, {num_cores()} cores, {arguments.threads} threads or workers")
    print(f"{arguments.images} photographs, batches of {BATCH_SIZE}, medians of {arguments.rounds} turns (least, most)")
    print(
        f"{'JPEG':>10} {'pipeline':>12} {'images/s':>10} {'':>18} {'per core':>10} {'stream is':>10} {'per core':>10}"
    )
    with tempfile.TemporaryDirectory(prefix="tandem-benchmark-") as folder:
        for name, size in PHOTOGRAPHS.items():
            photographs = Path(folder) / name.replace(" ", "")
            write_photographs(photographs, size, arguments.images)
            open_stream(photographs, arguments.threads)  # which builds the store
            report(name, measure(photographs, arguments.images, arguments.rounds, arguments.threads))


def write_photographs(folder: Path, size: tuple[int, int], count: int) -> None:
    """Writes JPEG files in two class folders: crops of two photographs, all different."""
    random = np.random.default_rng(0)
    for class_index, pixels in enumerate(load_sample_images().images):
        photograph = Image.fromarray(pixels)
        (folder / str(class_index)).mkdir(parents=True)
        for index in range(count // 2):
            width = int(random.integers(400, photograph.width))
            height = width * size[1] // size[0]
            height = min(height, photograph.height)
            left = int(random.integers(0, photograph.width - width + 1))
            top = int(random.integers(0, photograph.height - height + 1))
            part = photograph.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
            part.save(folder / str(class_index) / f"{index:05}.jpg", quality=JPEG_QUALITY)


def measure(folder: Path, num_images: int, num_rounds: int, threads: int) -> dict[str, Rates]:
    """Images per second of elapsed and of processor time, by pipeline, one number per round."""
    command = [sys.executable, "-m", "benchmarks.stream", "--folder", str(folder), "--threads", str(threads)]
    servers = {
        name: subprocess.Popen(
            [*command, "--serve", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=Path(__file__).resolve().parents[1],
        )
        for name in PIPELINES
    }
    rates: dict[str, Rates] = {name: ([], []) for name in PIPELINES}
    try:
        for number in range(1 + num_rounds):
            for name, server in servers.items():
                assert server.stdin is not None and server.stdout is not None
                before = worked(server.pid)
                server.stdin.write("next\n")
                server.stdin.flush()
                answer = server.stdout.readline()
                if not answer:
                    sys.exit(f"{name}: its process has ended; python -m benchmarks.stream --serve {name} says why")
                num_passes, seconds = answer.split()
                num_served = num_images * int(num_passes)
                if number:  # the first turn warms up
                    rates[name][0].append(num_served / float(seconds))
                    rates[name][1].append(num_served / (worked(server.pid) - before))
    finally:
        for server in servers.values():
            server.kill()
            server.wait()
    return rates


def worked(pid: int) -> float:
    """Processor seconds of a process and its workers."""
    process = psutil.Process(pid)
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def report(photographs: str, rates: dict[str, Rates]) -> None:
    own = [statistics.median(values) for values in rates["tandem"]]
    for name, (clock, worked_for) in rates.items():
        by_clock, by_core = statistics.median(clock), statistics.median(worked_for)
        ratios = f"{own[0] / by_clock:9.1f}x {own[1] / by_core:9.1f}x" if name != "tandem" else ""
        spread = f"({min(clock):,.0f}, {max(clock):,.0f})"
        print(f"{photographs:>10} {name:>12} {by_clock:10,.0f} {spread:>18} {by_core:10,.0f} {ratios}", flush=True)


def serve(one_pass: OnePass) -> None:
    """Runs epochs for LEAST_SECONDS per line of input, and answers with their number and the seconds."""
    for _ in sys.stdin:
        num_passes, start = 0, time.perf_counter()
        while time.perf_counter() - start < LEAST_SECONDS:
            for _ in one_pass():
                pass
            num_passes += 1
        print(num_passes, time.perf_counter() - start, flush=True)


# ----------------------------------------------------------------------------------------------------------- pipelines


def tandem_pipeline(folder: Path, threads: int) -> OnePass:
    stream = open_stream(folder, threads)
    epochs = iter(range(1_000_000))
    return lambda: stream.epoch(next(epochs))


def open_stream(folder: Path, threads: int) -> Stream:
    settings = DataSettings(source=str(folder), cache_folder=str(folder.with_name("cache")), image_size=SIZE)
    data = prepare(settings, quiet=True)
    return Stream(
        data.images,
        data.labels,
        np.arange(len(data.images)),
        batch_size=BATCH_SIZE,
        seed=(0,),
        shuffle=True,
        augmentation=Augmentation(
            settings=AugmentationSettings(horizontal_flip=True, crop_padding=PADDING), threads=threads
        ),
    )


def torch_pipeline(folder: Path, threads: int) -> OnePass:
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    steps = [v2.Resize((SIZE, SIZE)), v2.RandomHorizontalFlip(), v2.RandomCrop(SIZE, padding=PADDING), v2.PILToTensor()]
    images = ImageFolder(str(folder), v2.Compose(steps))
    loader = DataLoader(images, BATCH_SIZE, shuffle=True, num_workers=threads, persistent_workers=True)
    return lambda: loader


def tensorflow_pipeline(folder: Path, threads: int) -> OnePass:
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(threads)
    files = sorted(str(file) for file in folder.glob("*/*.jpg"))
    labels = [int(Path(file).parent.name) for file in files]

    def read(file: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.io.decode_jpeg(tf.io.read_file(file), channels=3)
        image = tf.cast(tf.image.resize(image, (SIZE, SIZE)), tf.uint8)
        image = tf.image.random_flip_left_right(image)
        image = tf.image.pad_to_bounding_box(image, PADDING, PADDING, SIZE + 2 * PADDING, SIZE + 2 * PADDING)
        return tf.image.random_crop(image, (SIZE, SIZE, 3)), label

    pipeline = tf.data.Dataset.from_tensor_slices((files, labels)).shuffle(len(files))
    pipeline = pipeline.map(read, num_parallel_calls=threads, deterministic=False)
    return lambda: pipeline.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)


PIPELINES = {"tandem": tandem_pipeline, "tf.data": tensorflow_pipeline, "DataLoader": torch_pipeline}


if __name__ == "__main__":
    main()
