"""Shows how often intervals, tests and verdicts are right, on test sets with a known truth (made_test_sets.py).

    python benchmarks/calibration.py --processes 2 --results calibration.jsonl

prints the tables of docs/statistics.md. It takes about an hour on two shared cores. Finished lines are kept in the file
of results, and a second start goes on with the others.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from scipy import special

from benchmarks.made_test_sets import World
from tandem.evaluation.intervals import Interval, chosen_interval, difference_interval, score_interval
from tandem.evaluation.margin import MARGIN
from tandem.evaluation.power import PairPower
from tandem.evaluation.scored_rows import AGREEMENTS, RANKINGS, ScoredFolds
from tandem.evaluation.significance import paired_tests, tied_groups
from tandem.evaluation.transfer import compare_with_scratch

RARELY = 0.05  # intervals in fewer test sets than this share count as none
COMPARED = ("accuracy", "precision_macro", "recall_macro", "f1_macro", "log_loss")


@dataclass
class Promise:
    """Counts of something that was promised to happen, or not to happen."""

    happened: int = 0
    asked: int = 0
    widths: list[float] = field(default_factory=list)
    deviations: list[float] = field(default_factory=list)
    """Of the estimates from the truth."""

    def add(self, happened: bool) -> None:
        self.happened += bool(happened)
        self.asked += 1

    def add_interval(self, interval: Interval, truth: float) -> None:
        """Counts an interval that holds the truth; one without limits is not counted."""
        self.deviations.append(interval.estimate - truth)
        if interval.low is not None and interval.high is not None:
            self.add(interval.low - 1e-12 <= truth <= interval.high + 1e-12)
            self.widths.append(interval.high - interval.low)

    def summary(self) -> dict[str, float | None]:
        share = self.happened / self.asked if self.asked else None
        ratio = None
        if self.widths:
            ratio = float(np.mean(self.widths) / (2 * special.ndtri(0.975) * max(np.std(self.deviations), 1e-12)))
        return {
            "share": share,
            "error": None if share is None else float(np.sqrt(max(share * (1 - share), 1 / self.asked) / self.asked)),
            "asked": self.asked,
            "sets": len(self.deviations),
            "width": ratio,
        }


def intervals(
    random: np.random.Generator, world: World, sets: int, *, runs: int, scores: Sequence[str], gap: float = 0.0
) -> dict[str, Promise]:
    """Intervals of scores of one row, and of its difference to another."""
    found: dict[str, Promise] = {}
    rankings = bool(set(RANKINGS) & set(scores))
    of_probabilities = {"log_loss", "rms_calibration_error", *RANKINGS} & set(scores)
    of_many = world.truth_of_many_images(gap, rankings=rankings) if of_probabilities else None
    for _ in range(sets):
        rows, truths = world.rows(random, (0.0, gap), (runs, runs))
        for score in scores:
            true = [
                of_many[place][score] if of_many and score in of_many[place] else truths[place][score]
                for place in (0, 1)
            ]
            found.setdefault(score, Promise()).add_interval(score_interval(rows, score, 0), true[0])
            if score in COMPARED:
                interval = difference_interval(rows, score, 0, 1)
                found.setdefault(f"{score} difference", Promise()).add_interval(interval, true[0] - true[1])
                if interval.low is not None and interval.high is not None:
                    excluded = not interval.low <= 0 <= interval.high
                    found.setdefault(f"{score} difference from 0", Promise()).add(excluded)
    return found


def families(
    random: np.random.Generator,
    world: World,
    sets: int,
    *,
    gaps: Sequence[float],
    runs: Sequence[int],
    deviations: Sequence[float] | None,
) -> dict[str, Promise]:
    """Statements about several rows together."""
    names = (
        "any false difference",
        "any false equivalence",
        "pairs found different",
        "pairs found equivalent",
        "best row",
        "best row, chosen",
    )
    found = {name: Promise() for name in names}
    for _ in range(sets):
        rows, truths = world.rows(random, gaps, runs, deviations)
        accuracies = [truth["accuracy"] for truth in truths]
        tests = paired_tests(rows, "accuracy")
        true = [round(accuracies[test.first] - accuracies[test.second], 9) for test in tests]
        found["any false difference"].add(
            any(
                test.significant and np.sign(test.difference.estimate) != np.sign(difference)
                for test, difference in zip(tests, true, strict=True)
            )
        )
        found["any false equivalence"].add(
            any(test.equivalent and abs(difference) >= MARGIN for test, difference in zip(tests, true, strict=True))
        )
        for test, difference in zip(tests, true, strict=True):
            if difference:
                found["pairs found different"].add(test.significant)
            if abs(difference) < MARGIN:
                found["pairs found equivalent"].add(test.equivalent)
        groups = tied_groups(rows, tests)
        best = groups.ranking[0]
        found["best row"].add_interval(score_interval(rows, "accuracy", best), accuracies[best])
        chosen = chosen_interval(rows, "accuracy", best, len(groups.tied_with_best))
        if chosen is not None:
            found["best row, chosen"].add_interval(chosen, accuracies[best])
    return found


def power(random: np.random.Generator, world: World, sets: int, *, runs: int, num_tests: int) -> dict[str, Promise]:
    """Differences that are said to be found in four of five test sets, tested on another test set."""
    found = {"found as said": Promise()}
    for _ in range(sets):
        rows, _ = world.rows(random, (0.0, 0.0), (runs, runs))
        detectable = PairPower(rows, 0, 1, num_tests).detectable()
        if detectable is None or detectable > world.recall - 0.05:
            continue
        others, _ = world.rows(random, (0.0, detectable), (runs, runs))
        (test,) = paired_tests(others, "accuracy")
        found["found as said"].add(test.p_value is not None and test.p_value * num_tests < 0.05)
    return found


def classes(random: np.random.Generator, world: World, sets: int, *, runs: int, gap: float = 0.0) -> dict[str, Promise]:
    """Differences of classes between two rows."""
    found = {"any false flag of a class": Promise(), "recall of a class": Promise(), "F1 of a class": Promise()}
    for _ in range(sets):
        outcomes, truths = world.outcomes(random, (0.0, gap), (runs, runs))
        first, second = ([world.predictions(outcome) for outcome in row] for row in outcomes)
        transfer = compare_with_scratch(first, second)
        if not gap:
            found["any false flag of a class"].add(any(one.worse or one.better for one in transfer.classes))
        for one in transfer.classes[:20]:
            index = int(one.name.split()[1])
            found["recall of a class"].add_interval(
                one.recall, truths[0][f"recall of class {index}"] - truths[1][f"recall of class {index}"]
            )
            found["F1 of a class"].add_interval(
                one.f1, truths[0][f"f1 of class {index}"] - truths[1][f"f1 of class {index}"]
            )
    return found


def folds(random: np.random.Generator, world: World, sets: int, *, runs: int) -> dict[str, Promise]:
    """Means over five folds whose networks differ by their training images."""
    found = {"accuracy": Promise(), "accuracy difference": Promise()}
    for _ in range(sets):
        scored, accuracies = [], []
        for gap in (-0.02, -0.01, 0.0, 0.01, 0.02):
            rows, truths = world.rows(random, (gap, 2 * gap), (runs, runs))
            scored.append(rows)
            accuracies.append([truth["accuracy"] for truth in truths])
        first, second = np.mean(accuracies, axis=0)
        together = ScoredFolds(tuple(scored))
        found["accuracy"].add_interval(score_interval(together, "accuracy", 0), first)
        found["accuracy difference"].add_interval(difference_interval(together, "accuracy", 0, 1), first - second)
    return found


SCORES = ("accuracy", "recall_macro", "precision_macro", "f1_macro", "f1_min", "log_loss", "rms_calibration_error")
AGREEMENT = ("balanced_accuracy", *AGREEMENTS)
OF_CLASSES = ("accuracy", "recall_macro", "precision_macro", "f1_macro", "f1_min")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One simulation; those of one case and section share a line of a table."""

    section: str
    case: str
    simulate: Callable[..., dict[str, Promise]]
    world: World
    sets: int
    arguments: dict[str, object]

    @property
    def key(self) -> str:
        """Names the experiment in the file of results."""
        world = replace(self.world, images=(sum(self.world.images), self.world.num_classes))
        return f"{self.section} | {self.case} | {world} | {self.sets} | {self.arguments}"

    def run(self) -> list[dict[str, object]]:
        """Summaries of its promises."""
        random = np.random.default_rng(list(self.key.encode()))
        found = self.simulate(random, self.world, self.sets, **self.arguments)
        line = {"key": self.key, "section": self.section, "case": self.case}
        return [{**line, "name": name, **promise.summary()} for name, promise in found.items()]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a section's table: the worst of a case's experiments."""

    name: str
    heading: str
    worst: Callable[..., float] = min
    value: str = "share"


def _interval_columns(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name=name, heading=name.replace("_", " ")) for name in names)


SECTIONS: dict[str, tuple[str, tuple[Column, ...]]] = {
    "scores": ("Single runs: share of 95 % intervals that hold the true score", _interval_columns(*SCORES)),
    "agreement": (
        "Single runs, further scores: share of 95 % intervals that hold the true score, and the largest width in 3.92 "
        "standard deviations",
        tuple(
            column
            for name in (*AGREEMENT, *RANKINGS)
            for column in (*_interval_columns(name), Column(name=name, heading="width", worst=max, value="width"))
        ),
    ),
    "differences": (
        "Single runs: share of 95 % intervals that hold the true difference of two rows",
        _interval_columns(*(f"{name} difference" for name in COMPARED)),
    ),
    "seeds": (
        "Several seeds: share of 95 % intervals that hold the truth, and their width in 3.92 standard deviations; the "
        "worst of three correlations of difficulty (0, 0.6, 0.9)",
        (
            *(
                column
                for name in ("accuracy", "accuracy difference", "f1_macro", "f1_macro difference")
                for column in (
                    Column(name=name, heading=name.replace("_", " ")),
                    Column(name=name, heading="width", worst=max, value="width"),
                )
            ),
        ),
    ),
    "rows": (
        "Several rows: share of experiments with any false statement, and of intervals that hold the best row's "
        "accuracy",
        (
            Column(name="any false difference", heading="any false difference", worst=max),
            Column(name="any false equivalence", heading="any false equivalence", worst=max),
            Column(name="pairs found different", heading="pairs found different"),
            Column(name="pairs found equivalent", heading="pairs found equivalent"),
            Column(name="best row, chosen", heading="best row"),
            Column(name="best row", heading="not allowing for the choice"),
        ),
    ),
    "power": (
        "Power: what is said to be found in 0.80 of test sets is found in",
        (Column(name="found as said", heading="found"),),
    ),
    "folds": (
        "Five folds: share of 95 % intervals that hold the mean accuracy of networks trained on these folds",
        (
            Column(name="accuracy", heading="accuracy"),
            Column(name="accuracy", heading="width", worst=max, value="width"),
            Column(name="accuracy difference", heading="accuracy difference"),
            Column(name="accuracy difference", heading="width", worst=max, value="width"),
        ),
    ),
    "more": (
        "More seeds: a difference of 0.04 in accuracy on 500 images, without deviation between seeds, is found in",
        (
            Column(name="accuracy difference from 0", heading="found"),
            Column(name="accuracy difference", heading="interval holds it"),
            Column(name="accuracy difference", heading="width", worst=max, value="width"),
        ),
    ),
    "classes": (
        "Classes of two equal rows: share of experiments with any flag, and of intervals that hold the true difference",
        (
            Column(name="any false flag of a class", heading="any false flag", worst=max),
            Column(name="recall of a class", heading="recall"),
            Column(name="F1 of a class", heading="F1"),
        ),
    ),
}


def experiments() -> Iterator[Experiment]:
    """All simulations, section by section."""
    shapes = {
        "300 x 5": (World(images=(5,) * 300, recall=0.7, recall_spread=0.15), 300),
        "200 x 5": (World(images=(5,) * 200, recall=0.7, recall_spread=0.15), 400),
        "100 x 5": (World(images=(5,) * 100, recall=0.7, recall_spread=0.15), 600),
        "1000 x 5": (World(images=(5,) * 1000, recall=0.7, recall_spread=0.15), 200),
        "100 x 20": (World(images=(20,) * 100, recall=0.7, recall_spread=0.15), 400),
        "10 x 50": (World(images=(50,) * 10, recall=0.8, recall_spread=0.1), 1000),
        "10 x 50, overconfident": (World(images=(50,) * 10, recall=0.8, recall_spread=0.1, overconfidence=2.0), 1000),
        "10 x 200": (World(images=(200,) * 10, recall=0.9, recall_spread=0.05), 600),
        "190 : 10": (World(images=(190, 10), recall=0.85, recall_spread=0.1), 1000),
        "98 : 2": (World(images=(98, 2), recall=0.9, recall_spread=0.05), 1000),
        "10 x 10 at 0.99": (World(images=(10,) * 10, recall=0.99), 1000),
        "2 x 50 at 0.99": (World(images=(50, 50), recall=0.99), 1000),
        "2 x 50 at 0.97": (World(images=(50, 50), recall=0.97), 1000),
    }
    for name, (world, sets) in shapes.items():
        for section, gap in (("scores", 0.0), ("differences", 0.01), ("differences", 0.0)):
            scores = SCORES if world.num_classes < 100 else OF_CLASSES
            case = f"{name}, {gap:g} apart" if section == "differences" else name
            yield _intervals(section, case, world, sets, 1, scores if section == "scores" else COMPARED, gap)
    for name, (world, sets) in shapes.items():
        # Half a million images of more classes do not fit into memory.
        scores = (*AGREEMENT, *RANKINGS) if world.num_classes <= 100 else AGREEMENT
        yield _intervals("agreement", name, world, min(sets, 600), 1, scores, 0.0)
    for images in (500, 2000):
        for runs in (1, 2, 3, 5, 10):
            for deviation in (0.0, 0.005, 0.02):
                for correlation in (0.0, 0.6, 0.9):
                    world = World(images=(images // 10,) * 10, recall=0.9, correlation=correlation, deviation=deviation)
                    case = f"{images:,} images, {_seeds(runs)}, deviation {deviation:g}"
                    yield _intervals("seeds", case, world, 600, runs, ("accuracy", "f1_macro"), 0.0)
    for images in (500, 2000):
        for runs in ((1,) * 8, (2,) * 8, (3,) * 8, (5,) * 8, (2, 3, 5, 10) * 2):
            for deviation in (0.0, 0.02) if max(runs) > 1 else (0.0,):
                words = _seeds(runs[0]) if len(set(runs)) == 1 else "2 to 10 seeds"
                case = f"8 equal rows, {images:,} images, {words}, deviation {deviation:g}"
                yield _rows(case, images, deviation, (0.0,) * 8, runs, 300)
    for images in (500, 2000):
        for runs in (2, 3, 5):
            case = f"8 equal rows, {images:,} images, {_seeds(runs)}, deviation 0.02 in 4 rows and 0 in 4"
            yield _rows(case, images, 0.0, (0.0,) * 8, (runs,) * 8, 300, (0.0, 0.02) * 4)
    yield _rows("8 rows 0 to 0.1 apart, 500 images, 1 seed", 500, 0.0, tuple(np.linspace(0, 0.1, 8)), (1,) * 8, 300)
    for images, runs in ((5000, 1), (20_000, 1), (20_000, 5)):
        case = f"4 and 4 rows {MARGIN:g} apart, {images:,} images, {_seeds(runs)}"
        yield _rows(case, images, 0.0, (0.0, MARGIN) * 4, (runs,) * 8, 150)
    for images, runs, deviation, num_tests in (
        *((images, 1, 0.0, 1) for images in (100, 500, 2000, 5000)),
        *((500, runs, deviation, 1) for runs in (2, 3, 5, 10) for deviation in (0.0, 0.02)),
        (500, 1, 0.0, 28),
        (2000, 5, 0.005, 28),
    ):
        case = f"{images:,} images, {_seeds(runs)}, deviation {deviation:g}, one of {num_tests} pairs"
        world = World(images=(images // 10,) * 10, recall=0.9, deviation=deviation)
        arguments: dict[str, object] = {"runs": runs, "num_tests": num_tests}
        yield Experiment(section="power", case=case, simulate=power, world=world, sets=600, arguments=arguments)
    for runs, deviation in ((1, 0.0), (2, 0.0), (3, 0.0), (1, 0.02), (3, 0.02)):
        case = f"100 images per fold, {_seeds(runs)}, deviation {deviation:g}"
        world = World(images=(10,) * 10, recall=0.9, deviation=deviation)
        yield Experiment(section="folds", case=case, simulate=folds, world=world, sets=600, arguments={"runs": runs})
    for runs in (1, 2, 3, 5, 10):
        world = World(images=(50,) * 10, recall=0.9)
        yield _intervals("more", _seeds(runs), world, 1000, runs, ("accuracy",), 0.04)
    for number, images, runs, deviation in (
        *((10, images, 1, 0.0) for images in (20, 50, 400)),
        (100, 5, 1, 0.0),
        (10, 400, 3, 0.0),
        (10, 400, 3, 0.02),
        (10, 50, 5, 0.02),
    ):
        world = World(images=(images,) * number, recall=0.8, deviation=deviation)
        case = f"{number} x {images}, {_seeds(runs)}, deviation {deviation:g}"
        arguments = {"runs": runs}
        yield Experiment(section="classes", case=case, simulate=classes, world=world, sets=400, arguments=arguments)


def _seeds(number: int) -> str:
    return "1 seed" if number == 1 else f"{number} seeds"


def _intervals(
    section: str, case: str, world: World, sets: int, runs: int, scores: Sequence[str], gap: float
) -> Experiment:
    arguments: dict[str, object] = {"runs": runs, "scores": tuple(scores), "gap": gap}
    return Experiment(section=section, case=case, simulate=intervals, world=world, sets=sets, arguments=arguments)


def _rows(
    case: str,
    images: int,
    deviation: float,
    gaps: Sequence[float],
    runs: Sequence[int],
    sets: int,
    deviations: Sequence[float] | None = None,
) -> Experiment:
    world = World(images=(images // 10,) * 10, recall=0.9, deviation=deviation)
    arguments: dict[str, object] = {"gaps": tuple(gaps), "runs": tuple(runs), "deviations": deviations}
    return Experiment(section="rows", case=case, simulate=families, world=world, sets=sets, arguments=arguments)


def tables(results: Sequence[dict]) -> Iterator[str]:
    """The results as lines of Markdown."""
    for section, (title, columns) in SECTIONS.items():
        own = [result for result in results if result["section"] == section]
        if not own:
            continue
        yield f"\n{title}\n"
        yield "| test sets | " + " | ".join(column.heading for column in columns) + " |"
        yield "|---" * (len(columns) + 1) + "|"
        for case in dict.fromkeys(result["case"] for result in own):
            cells = []
            for column in columns:
                of_case = [one for one in own if one["case"] == case and one["name"] == column.name]
                known = [one for one in of_case if one["asked"] > RARELY * one["sets"]]
                if not known:
                    cells.append("none" if of_case else "")
                    continue
                worst = column.worst(known, key=lambda one: one[column.value])
                error = f" ± {worst['error']:.3f}" if column.value == "share" else ""
                cells.append(f"{worst[column.value]:.3f}{error}" if error else f"{worst[column.value]:.2f}")
            yield f"| {case} | " + " | ".join(cells) + " |"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--results", type=Path, default=Path("calibration.jsonl"), help="file that keeps finished lines"
    )
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    arguments = parser.parse_args(argv)
    lines = arguments.results.read_text(encoding="utf-8").splitlines() if arguments.results.exists() else []
    results = {(one["key"], one["name"]): one for one in map(json.loads, lines)}
    wanted = [one for one in experiments() if one.section in arguments.sections]
    done = {key for key, _ in results}
    missing = [one for one in wanted if one.key not in done]
    with ProcessPoolExecutor(arguments.processes) as pool, arguments.results.open("a", encoding="utf-8") as file:
        futures = [pool.submit(one.run) for one in missing]
        for number, future in enumerate(as_completed(futures), start=1):
            for result in future.result():
                results[result["key"], result["name"]] = result
                print(json.dumps(result), file=file, flush=True)
            print(f"{number} of {len(missing)}: {result['section']}, {result['case']}", file=sys.stderr, flush=True)
    places = {one.key: place for place, one in enumerate(wanted)}
    ordered = sorted((one for one in results.values() if one["key"] in places), key=lambda one: places[one["key"]])
    print("\n".join(tables(ordered)))


if __name__ == "__main__":
    main()
