"""Throughput on one GPU: `make bench-gpu`, or parts of it. Writes one page (Markdown) and one JSON file.

    python -m benchmarks.gpu                                  # all; gpu.md and gpu.json
    python -m benchmarks.gpu --only torch --backbone resnet50
    python -m benchmarks.gpu --timm_script FOLDER/benchmark.py
    python -m benchmarks.gpu --pretend                        # on the CPU, small: finds faults of the benchmark itself

Parts: `torch` and `keras` train thawed backbones at 224 pixels in float32 (with TF32) and bfloat16, compiled or not,
each in turns with the bare framework (benchmarks/throughput.py); keras on each of its backends that is installed.
`stream` trains MobileNetV2 on the stream with augmentation, and measures the share of time in which the GPU is busy.
`timm` is timm's own benchmark.py on synthetic data, a file of its repository. Parts that fail are on the page as well.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.batches import AUGMENTATIONS
from tandem.data.console import num_cores
from tandem.protocol.environment import prepare_environment
from tandem.protocol.gpus import driver_version, gpu_handles, gpu_names
from tandem.protocol.settings import DataSettings, Settings

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("torch", "keras", "stream", "timm")
BACKBONES = {"resnet50": "resnet50", "mobilenet_v2": "mobilenetv2_100", "efficientnet_v2_b0": "tf_efficientnetv2_b0"}
"""Names in Tandem and in timm."""
VARIANTS = ("float32, defaults", "float32, compiled", "bfloat16, defaults", "bfloat16, compiled")
BACKENDS = ("tensorflow", "jax", "torch")
STREAM_SECONDS = 10.0
SAMPLE_SECONDS = 0.1


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measures throughput on one GPU.")
    parser.add_argument("--only", choices=PARTS, action="append", help="part; may be repeated (default: all)")
    parser.add_argument("--backbone", choices=BACKBONES, action="append", help="may be repeated (default: all)")
    parser.add_argument("--batch_size", type=int, default=128, help="(default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="compared pairs of epochs (default: %(default)s)")
    parser.add_argument("--timm_script", type=Path, help="benchmark.py of timm's repository")
    parser.add_argument("--pretend", action="store_true", help="run on the CPU with small sizes")
    parser.add_argument("--output", type=Path, default=Path("gpu"), help="of the page and the JSON, without ending")
    parser.add_argument("--stream", choices=AUGMENTATIONS, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.pretend:
        os.environ |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
        arguments.batch_size, arguments.epochs = 8, 2
    if arguments.stream:
        print(json.dumps(measure_stream(arguments.stream, arguments)))
        return
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "batch_size": arguments.batch_size,
        "size": size(arguments),
    }
    for part in arguments.only or PARTS:
        report[part] = {}
        for name, (words, variables) in commands(part, arguments).items():
            report[part][name] = run(words, {"PYTHONPATH": str(ROOT), **variables})
            write(report, arguments.output)
    write(report, arguments.output)
    print(page(report))


def write(report: dict[str, Any], output: Path) -> None:
    """Writes the page and the JSON file with what has been measured so far."""
    for ending, text in ((".json", json.dumps(report, indent=1) + "\n"), (".md", page(report))):
        partial = output.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(output.with_suffix(ending))


def size(arguments: argparse.Namespace) -> int:
    """Pixels of the images."""
    return 32 if arguments.pretend else 224


def describe_machine() -> dict[str, Any]:
    """The cards, the driver, the cores, and versions of the packages that are installed."""
    packages = ("torch", "torchvision", "pytorch-lightning", "timm", "keras", "tensorflow", "jax")
    found = {name: version(name) for name in packages if importlib.util.find_spec(name.replace("-", "_"))}
    gpus = gpu_names()
    return {"gpus": gpus, "driver": driver_version(), "cores": num_cores(), "cpu": platform.processor(), **found}


Command = tuple[list[str], dict[str, str]]


def commands(part: str, arguments: argparse.Namespace) -> dict[str, Command]:
    """Words after `python`, and environment variables, of each measurement of a part, by its name on the page."""
    backbones = arguments.backbone or (["mobilenet_v2"] if arguments.pretend else list(BACKBONES))
    variants = VARIANTS[:1] if arguments.pretend else VARIANTS
    common = ["--size", str(size(arguments)), "--batch_size", str(arguments.batch_size)]
    if part == "stream":
        words = ["-m", "benchmarks.gpu", "--batch_size", str(arguments.batch_size), *["--pretend"] * arguments.pretend]
        names = list(AUGMENTATIONS)[:2] if arguments.pretend else list(AUGMENTATIONS)
        return {name: ([*words, "--stream", name], {}) for name in names}
    if part == "timm":
        if arguments.timm_script is None:
            return {}
        # its own size of images depends on the network, and it takes smaller batches without a word if one does not fit
        words = [str(arguments.timm_script.resolve()), "--bench", "train", "--opt", "adam", "--no-retry"]
        words += ["-b", str(arguments.batch_size), "--img-size", str(size(arguments))]
        if arguments.pretend:
            words += ["--device", "cpu", "--num-warm-iter", "1", "--num-bench-iter", "5"]
        lower = ["--amp", "--amp-dtype", "bfloat16", "--channels-last"]  # the layouts that train_torch.py has on a GPU
        return {
            f"{backbone}, {name}": ([*words, "--model", BACKBONES[backbone], *more], {})
            for backbone in backbones
            for name, more in (("float32", []), ("bfloat16", lower))
        }
    backends = [name for name in BACKENDS if importlib.util.find_spec(name)] if part == "keras" else [""]
    words = ["-m", "benchmarks.throughput", "--framework", part, "--epochs", str(arguments.epochs), "--json", *common]
    return {
        ", ".join(filter(None, (backbone, backend, variant))): (
            [*words, "--backbone", backbone, "--variant", variant],
            {"KERAS_BACKEND": backend or "tensorflow"},
        )
        for backbone in backbones
        for backend in backends
        for variant in variants
    }


def run(words: list[str], variables: dict[str, str]) -> dict[str, Any]:
    """Numbers that a program prints as JSON, and its seconds; or the last line of its error."""
    print(" ".join(words), flush=True)
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words], env={**os.environ, **variables}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    seconds = round(time.perf_counter() - start, 1)
    starts = [match.start() for match in re.finditer(r"^\{", done.stdout, re.MULTILINE)]
    if done.returncode or not starts:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no output"]
        return {"error": lines[-1], "seconds": seconds}
    numbers, _ = json.JSONDecoder().raw_decode(done.stdout, starts[-1])
    return {**numbers, "seconds": seconds}


def measure_stream(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Images per second from a store to training steps on the GPU, and the percentage of time that the GPU is busy."""
    settings = Settings(
        weights="random",
        precision="float32" if arguments.pretend else "bfloat16",
        batch_size=arguments.batch_size,
        data=DataSettings(image_size=size(arguments)),
        device="cpu" if arguments.pretend else "gpu",
    )
    prepare_environment(settings)
    import torch
    from torch.nn import functional

    from tandem.data.stream import Augmentation, Stream
    from tandem.on_torch import autocast, build_classifier, set_flags, to_device
    from tandem.on_torch.feed import StreamLoader

    set_flags(settings.acceleration)
    network = to_device(build_classifier(settings, 10), settings).train()
    optimizer = torch.optim.SGD(network.parameters(), 1e-3)
    pixels = size(arguments)
    stored = 8 * pixels // 7 if AUGMENTATIONS[name].random_resized_crop else pixels
    num_images = arguments.batch_size * (2 if arguments.pretend else 16)
    with tempfile.TemporaryDirectory() as folder:
        images = np.lib.format.open_memmap(f"{folder}/images.npy", "w+", np.uint8, (num_images, stored, stored, 3))
        images[:] = np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8)
        rows = np.arange(num_images)
        augmentation = Augmentation(settings=AUGMENTATIONS[name], size=(pixels, pixels))
        stream = Stream(
            images, rows % 10, rows, batch_size=arguments.batch_size, seed=(0,), shuffle=True, augmentation=augmentation
        )
        loader = StreamLoader(stream, pin_memory=not arguments.pretend)

        def train_epoch() -> None:
            for inputs, labels in loader:
                with autocast(settings, network.device):
                    loss = functional.cross_entropy(network(inputs), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            loss.item()

        for _ in range(2):  # first uses, and the epoch whose batches are hashed
            train_epoch()
        epochs, start = 0, time.perf_counter()
        with busy_percent() as busy:
            while time.perf_counter() - start < (1 if arguments.pretend else STREAM_SECONDS):
                train_epoch()
                epochs += 1
        seconds = time.perf_counter() - start
    return {"images_per_second": epochs * num_images / seconds, "busy_percent": statistics.fmean(busy or [0.0])}


@contextmanager
def busy_percent() -> Iterator[list[float]]:
    """Samples of the first visible GPU's use during a with block, in percent; none without a GPU."""
    import pynvml

    samples: list[float] = []
    stopping, gpus = threading.Event(), gpu_handles()

    def sample() -> None:
        while gpus and not stopping.wait(SAMPLE_SECONDS):
            try:
                samples.append(float(pynvml.nvmlDeviceGetUtilizationRates(gpus[0]).gpu))
            except pynvml.NVMLError:  # not available under MIG
                return

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        stopping.set()
        thread.join()


HEADINGS = {
    "torch": "train_torch.py against a bare loop over images on the device, images per second",
    "keras": "train_keras.py against a bare fit, images per second",
    "stream": "MobileNetV2 in bfloat16 on the stream, by augmentation",
    "timm": "timm's own script on synthetic data",
}


def page(report: dict[str, Any]) -> str:
    """The report as Markdown, one table per part."""
    machine = ", ".join(
        f"{name} {value}" for name, value in report["machine"].items() if name not in ("gpus", "driver")
    )
    gpus = ", ".join(report["machine"]["gpus"]) or "no GPU"
    lines = [
        "# Throughput on a GPU",
        "",
        f"{gpus}, driver {report['machine']['driver']}; {machine}. {report['size']} pixels, batches of "
        f"{report['batch_size']}.",
    ]
    for part in PARTS:
        rows = report.get(part)
        if not rows:
            continue
        columns = list(dict.fromkeys(key for row in rows.values() for key in row))
        lines += ["", f"## {HEADINGS[part]}", "", f"| | {' | '.join(columns)} |", f"|---|{'--:|' * len(columns)}"]
        for name, row in rows.items():
            lines.append(f"| {name} | {' | '.join(_cell(row.get(column)) for column in columns)} |")
    return "\n".join([*lines, ""])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}" if value < 10 else f"{value:,.1f}"
    return "" if value is None else str(value).replace("|", "/")


if __name__ == "__main__":
    main()
