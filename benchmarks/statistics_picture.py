"""Draws the picture of docs/statistics.md: verdicts on made pairs of rows, and intervals by number of seeds.

    python -m benchmarks.statistics_picture

writes docs/images/statistics.svg in a minute. All intervals and verdicts are the product's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.calibration import Outcome, World
from tandem.evaluation.intervals import difference_interval
from tandem.evaluation.margin import MARGIN
from tandem.evaluation.scored_rows import ScoredRows
from tandem.evaluation.significance import PairedTest, paired_tests

ROOT = Path(__file__).resolve().parents[1]

# Test images, and how many of them only the first or only the second of two runs gets right.
PAIRS = ((5000, 260, 110), (5000, 150, 260), (20_000, 300, 310), (20_000, 420, 310), (1000, 42, 38), (1000, 50, 33))
NUM_SEEDS = (1, 2, 3, 5, 10)
SEEDS = World(images=(50,) * 10, recall=0.9, deviation=0.01)
TEST_SETS = 100

WIDTH, HEIGHT, LEFT, RIGHT, ROW = 760, 430, 245, 725, 28
COLORS = {"better": "#0072b2", "worse": "#d55e00", "equivalent": "#009e73", "undecided": "#777777"}


def tested(images: int, only_first: int, only_second: int) -> PairedTest:
    """The test of two runs that both get nine tenths of the other images right."""
    world = World(images=(images // 2,) * 2, recall=0.9)
    both = int(0.9 * (images - only_first - only_second))
    patterns = np.repeat([[1, 0], [0, 1], [1, 1], [0, 0]], [only_first, only_second, both, images], axis=0)[:images]
    rows = []
    for right in patterns.T.astype(bool):
        predicted = np.where(right, world.truth, 1 - world.truth)
        outcome = Outcome(predicted=predicted, right=right, confidence=np.full(images, 0.9))
        rows.append([world.predictions(outcome)])
    return paired_tests(ScoredRows(rows), "accuracy")[0]


def mean_width(num_seeds: int) -> float:
    """Mean width of the interval of a difference of two equal rows."""
    random = np.random.default_rng(num_seeds)
    widths = []
    for _ in range(TEST_SETS):
        rows, _ = SEEDS.rows(random, (0.0, 0.0), (num_seeds, num_seeds))
        interval = difference_interval(rows, "accuracy", 0, 1)
        assert interval.low is not None and interval.high is not None
        widths.append(interval.high - interval.low)
    return float(np.mean(widths))


def text(x: float, y: float, words: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{words}</text>'


def verdict_panel(tests: Sequence[PairedTest], images: Sequence[int]) -> list[str]:
    def place(difference: float) -> float:
        return LEFT + (difference + 0.05) / 0.1 * (RIGHT - LEFT)

    top, bottom = 50, 50 + ROW * len(tests) + 8
    parts = [
        text(20, 24, "Verdicts: the first row's accuracy minus the second's", 'font-weight="bold"'),
        f'<rect x="{place(-MARGIN):.1f}" y="{top - 12}" width="{place(MARGIN) - place(-MARGIN):.1f}" '
        f'height="{bottom - top + 12}" fill="#009e73" fill-opacity="0.13"/>',
        f'<line x1="{place(0):.1f}" x2="{place(0):.1f}" y1="{top - 12}" y2="{bottom}" stroke="#333"/>',
        text(place(0), bottom + 15, "within the margin", 'text-anchor="middle" fill="#00765a"'),
    ]
    for tick in (-0.04, -0.02, 0.02, 0.04):
        parts.append(text(place(tick), bottom + 15, f"{tick:+.2f}", 'text-anchor="middle"'))
    for number, (test, size) in enumerate(zip(tests, images, strict=True)):
        y, color = top + ROW * number + 6, COLORS[test.verdict]
        low, high = test.difference.low, test.difference.high
        assert low is not None and high is not None
        parts += [
            text(20, y + 4, test.verdict, f'fill="{color}" font-weight="bold"'),
            text(110, y + 4, f"{size:,} images"),
            f'<line x1="{place(low):.1f}" x2="{place(high):.1f}" y1="{y}" y2="{y}" stroke="{color}" stroke-width="3"/>',
            f'<circle cx="{place(test.difference.estimate):.1f}" cy="{y}" r="5" fill="{color}"/>',
        ]
    return parts


def seeds_panel(widths: Sequence[float], top: int) -> list[str]:
    images, spread = len(SEEDS.truth), SEEDS.deviation
    parts = [
        text(
            20,
            top,
            f"Width of a difference's 95 % interval by seeds per row ({images} images; runs spread by {spread:g})",
            'font-weight="bold"',
        )
    ]
    for number, (num_seeds, width) in enumerate(zip(NUM_SEEDS, widths, strict=True)):
        y = top + 14 + 22 * number
        about = "two networks" if num_seeds == 1 else "two methods"
        parts += [
            text(20, y + 13, f"{num_seeds} seed{'' if num_seeds == 1 else 's'}"),
            text(110, y + 13, f"about {about}"),
            f'<rect x="{LEFT}" y="{y}" width="{width / max(widths) * (RIGHT - LEFT - 60):.1f}" height="16" '
            f'fill="{"#777777" if num_seeds == 1 else "#0072b2"}"/>',
            text(LEFT + width / max(widths) * (RIGHT - LEFT - 60) + 6, y + 13, f"{width:.3f}"),
        ]
    return parts


def main() -> None:
    tests = [tested(*pair) for pair in PAIRS]
    parts = verdict_panel(tests, [images for images, _, _ in PAIRS])
    parts += seeds_panel([mean_width(number) for number in NUM_SEEDS], top=290)
    lines = "\n".join(parts)
    (ROOT / "docs" / "images" / "statistics.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="13">\n<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{lines}\n</svg>\n',
        encoding="utf-8",
    )
    for test in tests:
        print(test.verdict, test.difference, f"p {test.p_value:.4f}")


if __name__ == "__main__":
    main()
