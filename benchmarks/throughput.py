"""Images per second of train_torch.py or train_keras.py with each acceleration, compared with the bare framework.

    python -m benchmarks.throughput
    python -m benchmarks.throughput --backbone resnet50 --size 224 --batch_size 256

Trains a thawed backbone with one setting changed at a time, each in a process of its own, in turns with the bare
framework under the same setting (see benchmarks/overhead.py). In torch the bare loop keeps its images on the device, so
the ratio also compares the stream with synthetic data. docs/performance.md has results.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
from typing import Any

from benchmarks.overhead import FRAMEWORKS, Case, measure_keras, measure_torch, quartiles
from tandem.data.console import num_cores
from tandem.protocol.environment import prepare_environment
from tandem.protocol.settings import AccelerationSettings

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "float32, nothing": (
        "float32",
        {"tf32": False, "channels_last": False, "fused_optimizer": False, "cudnn_autotune": False, "compile": False},
    ),
    "float32, defaults": ("float32", {}),
    "float32, channels_first": ("float32", {"channels_last": False}),
    "float32, channels_last": ("float32", {"channels_last": True}),
    "float32, compiled": ("float32", {"compile": True}),
    "bfloat16, nothing": (
        "bfloat16",
        {"channels_last": False, "fused_optimizer": False, "cudnn_autotune": False, "compile": False},
    ),
    "bfloat16, defaults": ("bfloat16", {}),
    "bfloat16, compiled": ("bfloat16", {"compile": True}),
}
"""Precision, and differences from the default acceleration."""

ON_CPU = ("float32, nothing", "float32, defaults")
"""Default variants on a CPU: bfloat16 is slow on most CPUs, and compilation takes minutes."""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measures images per second with each acceleration.")
    parser.add_argument("--framework", choices=FRAMEWORKS, default="torch", help="(default: %(default)s)")
    parser.add_argument(
        "--variant", choices=VARIANTS, action="append", help="variant; may be repeated (default: by device)"
    )
    parser.add_argument("--backbone", default="mobilenet_v2", help="thawed backbone (default: %(default)s)")
    parser.add_argument("--size", type=int, default=96, help="pixels (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="compared pairs (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: the framework's)")
    parser.add_argument("--json", action="store_true", help="print the numbers of a single variant as JSON")
    arguments = parser.parse_args(argv)
    if arguments.variant and len(arguments.variant) == 1:
        measure(arguments)
        return
    words = sys.argv[1:] if argv is None else argv
    print(f"{num_cores()} cores; {arguments.backbone}, {arguments.size} pixels, batches of {arguments.batch_size}")
    print(f"{'':22} {'images/s: script':>16} {'bare':>8} {'script / bare (quartiles)':>26}", flush=True)
    for variant in arguments.variant or (VARIANTS if has_gpu() else ON_CPU):
        rest = [word for word in words if word not in ("--variant", *VARIANTS)]
        subprocess.run([sys.executable, "-m", __spec__.name, "--variant", variant, *rest], check=True)


def has_gpu() -> bool:
    """True if NVIDIA's driver is installed; checked without importing a framework."""
    return os.path.exists("/proc/driver/nvidia/version")


def measure(arguments: argparse.Namespace) -> None:
    """Prints the line of one variant, or its numbers as JSON."""
    (variant,) = arguments.variant
    arguments.precision, changes = VARIANTS[variant]
    case = dataclasses.replace(
        Case.of("long", arguments), acceleration=AccelerationSettings(**changes), data_on_device=True
    )
    prepare_environment(case.settings(arguments.framework))
    bare, script = {"torch": measure_torch, "keras": measure_keras}[arguments.framework](case)
    images = case.batch_size * case.num_batches
    rates = [statistics.median(images / epoch.clock for epoch in epochs) for epochs in (script, bare)]
    ratios = [one.clock / other.clock for one, other in zip(bare, script, strict=True)]
    if arguments.json:
        numbers = {"script": rates[0], "bare": rates[1], "ratio": statistics.median(ratios)}
        print(json.dumps(numbers), flush=True)
        return
    ratio = f"{statistics.median(ratios):.3f} ({quartiles(ratios, '.3f')})"
    print(f"{variant:22} {rates[0]:16,.1f} {rates[1]:8,.1f} {ratio:>26}", flush=True)


if __name__ == "__main__":
    main()
