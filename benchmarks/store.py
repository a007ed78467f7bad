"""Images per second into a new store, compared with Pillow; then the search for near duplicates.

    python -m benchmarks.store

The images are JPEG files in three sizes, crops of the two photographs that scikit-learn has. `Pillow` reads, decodes
and resizes them to 224 x 224 with one thread per core and keeps nothing. `first time` is everything that a first run
does with a folder: list, check, hash, decode, resize, store. `store` builds another store of files that were checked
before. These take turns, and ratios are those of medians. docs/performance.md has results.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from PIL import Image

from benchmarks.stream import write_photographs
from tandem.data.console import num_cores
from tandem.data.prepare import PreparedData, prepare
from tandem.data_report.statistics import near_duplicates
from tandem.protocol.settings import DataSettings

SIZE = 224
# width, height, and the number of photographs as a share of --images
PHOTOGRAPHS = {"224 x 224": ((224, 224), 1.0), "500 x 375": ((500, 375), 0.5), "2000 x 1500": ((2000, 1500), 0.05)}


@dataclass(frozen=True, kw_only=True)
class Step:
    """Measured step."""

    do: Callable[[], object]
    forget: list[Path] = field(default_factory=list)
    """Folders to remove before the step, outside the measured time."""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measures the speed of building stores.")
    parser.add_argument(
        "--images", type=int, default=2000, help="number of the smallest photographs (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    arguments = parser.parse_args(argv)
    print(f"{platform.processor() or platform.machine()}, {num_cores()} cores; medians of {arguments.rounds} (range)")
    print(f"{'JPEG':>12} {'images':>7} {'':>15} {'images/s':>10} {'':>18} {'to Pillow':>10} {'per core':>10} {'':>10}")
    with tempfile.TemporaryDirectory(prefix="tandem-benchmark-") as folder:
        for name, (size, share) in PHOTOGRAPHS.items():
            photographs, cache = Path(folder) / name.replace(" ", ""), Path(folder) / "cache"
            count = int(arguments.images * share)
            write_photographs(photographs, size, count)
            files = sorted(photographs.glob("*/*.jpg"))
            prepared = partial(open_data, photographs, cache)
            steps = {
                "Pillow": Step(do=partial(with_pillow, files)),
                "first time": Step(do=prepared, forget=[cache / "stores", cache / "scans"]),
                "store": Step(do=prepared, forget=[cache / "stores"]),
                "near duplicates": Step(do=partial(find_near_duplicates, photographs, cache)),
            }
            report(name, count, measure(steps, count, arguments.rounds))
            shutil.rmtree(photographs)
            shutil.rmtree(cache)


def with_pillow(files: list[Path]) -> None:
    """Decodes and resizes with one thread per core."""

    def decode(file: Path) -> None:
        with Image.open(file) as image:
            image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)

    with ThreadPoolExecutor(num_cores()) as executor:
        for _ in executor.map(decode, files):
            pass


def open_data(photographs: Path, cache: Path) -> PreparedData:
    return prepare(DataSettings(source=str(photographs), cache_folder=str(cache), image_size=SIZE), quiet=True)


def find_near_duplicates(photographs: Path, cache: Path) -> None:
    near_duplicates(open_data(photographs, cache), quiet=True)


def measure(steps: dict[str, Step], num_images: int, num_rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Images per second of elapsed and of processor time, by step and round."""
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for number in range(1 + num_rounds):
        for name, step in steps.items():
            for folder in step.forget:
                shutil.rmtree(folder, ignore_errors=True)
            start, cpu_start = time.perf_counter(), time.process_time()
            step.do()
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
            if number:  # the first round fills the file cache
                rates[name].append((num_images / seconds, num_images / cpu_seconds))
    return rates


def report(photographs: str, count: int, rates: dict[str, list[tuple[float, float]]]) -> None:
    pillow = [statistics.median(values) for values in zip(*rates["Pillow"], strict=True)]
    for name, values in rates.items():
        clock, core = zip(*values, strict=True)
        by_clock, by_core = statistics.median(clock), statistics.median(core)
        spread = f"({min(clock):,.0f}, {max(clock):,.0f})"
        print(
            f"{photographs:>12} {count:7,} {name:>15} {by_clock:10,.0f} {spread:>18} {by_clock / pillow[0]:10.2f} "
            f"{by_core:10,.0f} {by_core / pillow[1]:10.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
