"""Size of a comparison's page, and time until a browser has drawn it: 300 classes, 12 runs with generated predictions.

    python benchmarks/comparison_page.py --page /tmp/page.html

Needs Chromium or Chrome, on the PATH or given by BROWSER_PATH. Two shared cores, Chromium 156, plotly 7.1: 8.1 MB
(4.8 of them plotly.js), written in 0.2 s; the main thread computes 1.3 s until the first figures are drawn, 2.0 s until
all eight are. Elapsed times were 1.7 to 2.7 s and 3.1 to 4.9 s with seven other processes on the two cores.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
from choreographer.browsers.chromium import Chromium
from playwright.sync_api import CDPSession, sync_playwright

from tandem.comparison import figures
from tandem.comparison.class_figures import confusion_over_runs, f1_over_runs
from tandem.comparison.configurations import FIRST_PHASE, Configuration
from tandem.comparison.critical_difference import critical_difference_diagram
from tandem.comparison.rows import Pair, PairedDifference, Row
from tandem.comparison.styles import run_styles
from tandem.evaluation.metrics import scores
from tandem.evaluation.predictions import Predictions, softmax
from tandem.rendering.page import Gallery, Page, Picture, Plot, Section, Text, write_page
from tandem.rendering.tables import Column, Estimate, Table, table_of
from tandem.tracking import vocabulary
from tandem.tracking.reader import RunRecord

REGIMES = ("scratch", "frozen", "two_stage", "finetune")


def made_page(num_classes: int, num_runs: int, images_per_class: int) -> Page:
    """Page with every kind of figure and table.

    Args:
        num_runs: up to 24: three backbones, four regimes, two frameworks.
        images_per_class: test images.
    """
    random = np.random.default_rng(0)
    configurations = [
        _configuration(backbone, regime, framework, train_seconds=50 * 1.5**number)
        for number, (backbone, regime, framework) in enumerate(
            itertools.product(("mobilenet_v2", "resnet50", "densenet121"), REGIMES, ("torch", "keras"))
        )
    ][:num_runs]
    styles = run_styles(configurations)
    names = [configuration.label for configuration in configurations]
    classes = tuple(f"{_SPECIES[index % len(_SPECIES)]} {index:03}" for index in range(num_classes))
    predictions = {
        name: _predictions(random, classes, images_per_class, skill=2.5 + number / 4)
        for number, name in enumerate(names)
    }
    histories = dict(zip(names, _histories(configurations), strict=True))
    rows = [_row(configuration, predictions[configuration.label]) for configuration in configurations]
    f1 = pd.DataFrame({row.label: row.f1_of_classes for row in rows}, index=list(classes))
    f1 = f1.loc[f1.mean(axis=1).sort_values(kind="stable").index]
    frameworks = [_pair(keras, torch) for keras, torch in zip(rows[1::2], rows[::2], strict=False)]
    thawing = [_pair(row, _after_first_phase(row)) for row in rows if row.configuration.regime == "two_stage"]
    confidence = np.linspace(0.2, 0.97, 15)
    reliability = {
        name: pd.DataFrame(
            {
                "confidence": confidence,
                "accuracy": np.clip(confidence - 0.01 * number + 0.02 * np.sin(9 * confidence), 0, 1),
                "images": np.linspace(10, 400, 15).astype(int),
            }
        )
        for number, name in enumerate(names)
    }
    ranks = {name: 1 + number * 0.9 for number, name in enumerate(names[:8])}
    return Page(
        title="Birds: 12 runs compared",
        lead=f"{num_classes * images_per_class:,} made test images of {num_classes} classes",
        sections=(
            Section(
                title="Summary",
                anchor="summary",
                blocks=(
                    Text(paragraphs=(f"The best is {names[-1]}.",)),
                    _summary(rows),
                    Plot(
                        figure=figures.accuracy_against_time(rows, styles),
                        caption="Accuracy and what it costs. Bars are 95 % intervals.",
                    ),
                ),
            ),
            Section(
                title="Training",
                anchor="training",
                blocks=(
                    Plot(
                        figure=figures.curves_over_runs(histories, styles),
                        caption="A click on a run in the legend hides it; a double click hides all others.",
                    ),
                    Plot(figure=figures.thawing_gains(thawing, styles), caption="Effect of thawing."),
                ),
            ),
            Section(
                title="Frameworks",
                anchor="frameworks",
                blocks=(
                    Plot(
                        figure=figures.accuracy_differences(frameworks, "accuracy, Keras minus PyTorch"),
                        caption="Differences with 95 % intervals.",
                    ),
                    Plot(
                        figure=critical_difference_diagram(
                            ranks, [names[:3], names[2:6], names[5:8]], critical_difference=2.1
                        ),
                        caption="Average ranks over data sets; bars join models that do not differ significantly.",
                    ),
                ),
            ),
            Section(
                title="Classes",
                anchor="classes",
                blocks=(
                    _per_class(f1),
                    Plot(figure=f1_over_runs(f1), caption="F1 of each class, hardest classes on top."),
                    Plot(figure=confusion_over_runs(predictions), caption="Choose the run in the menu."),
                ),
            ),
            Section(
                title="Calibration",
                anchor="calibration",
                blocks=(
                    Plot(figure=figures.reliability_over_runs(reliability, styles), caption="Reliability of each run."),
                ),
            ),
            Section(
                title="Images",
                anchor="images",
                blocks=(
                    Gallery(
                        title="Wrong in all runs",
                        pictures=tuple(
                            Picture(image=image, caption=f"{classes[index]}\npredicted as {classes[index + 1]}")
                            for index, image in enumerate(_photographs(random, 8))
                        ),
                    ),
                ),
            ),
        ),
    )


_SPECIES = (
    "Abbott's babbler",
    "black-throated sparrow",
    "emu",
    "Indian paradise flycatcher",
    "kiwi",
    "rufous kingfisher",
)


def _predictions(
    random: np.random.Generator, classes: tuple[str, ...], images_per_class: int, skill: float
) -> Predictions:
    truth = np.repeat(np.arange(len(classes)), images_per_class)
    logits = random.normal(size=(len(truth), len(classes)))
    logits[np.arange(len(truth)), truth] += skill
    keys = tuple(str(index) for index in range(len(truth)))
    return Predictions(keys=keys, hashes=keys, truth=truth, probabilities=softmax(logits), classes=classes)


def _configuration(backbone: str, regime: str, framework: str, *, train_seconds: float) -> Configuration:
    label = f"{backbone} {regime} {framework}"
    seconds = {vocabulary.TRAIN_SECONDS: train_seconds, FIRST_PHASE + vocabulary.TRAIN_SECONDS: train_seconds / 3}
    run = RunRecord(
        uri="made",
        run_id=label,
        name=label,
        status="FINISHED",
        start_time=0,
        params={},
        metrics=seconds,
        tags={},
        artifact_uri="made",
    )
    return Configuration(
        label=label, backbone=backbone, regime=regime, framework=framework, settings=(), costs=(), runs=(run,)
    )


def _row(configuration: Configuration, predictions: Predictions) -> Row:
    accuracy = scores(predictions)["accuracy"]
    interval = Estimate(value=accuracy, low=accuracy - 0.012, high=accuracy + 0.011)
    return Row(configuration=configuration, predictions=(predictions,), intervals={"accuracy": interval})


def _after_first_phase(row: Row) -> Row:
    after = row.intervals["accuracy"]
    before = Estimate(value=after.value - 0.05, low=after.low - 0.05, high=after.high - 0.05)
    return replace(row, after_first_phase=True, intervals={"accuracy": before})


def _pair(first: Row, second: Row) -> Pair:
    value = first.intervals["accuracy"].value - second.intervals["accuracy"].value
    difference = PairedDifference(
        value=Estimate(value=value, low=value - 0.015, high=value + 0.015),
        p_value=0.5,
        p_holm=0.5,
        significant=abs(value) > 0.015,
        verdict="undecided" if abs(value) <= 0.015 else "better" if value > 0 else "worse",
        of_networks=True,
    )
    return Pair(first=first, second=second, tested={"accuracy": difference})


def _histories(configurations: list[Configuration]) -> Iterator[pd.DataFrame]:
    for number, configuration in enumerate(configurations):
        epochs = np.arange(40)
        loss = 2 * np.exp(-epochs / (6 + number)) + 0.2
        phases = np.where(epochs < 15, 1, 2) if configuration.regime == "two_stage" else np.ones(40, int)
        loss = np.where(phases == 2, loss * 0.7, loss)
        yield pd.DataFrame(
            {
                "epoch": epochs,
                "phase": phases,
                "train/loss": loss,
                "val/loss": loss * 1.1 + 0.05,
                "train/accuracy": 1 - loss / 2.4,
                "val/accuracy": 0.97 - loss / 2.4,
            }
        )


def _summary(rows: list[Row]) -> Table:
    names = ("backbone", "regime", "framework")
    return table_of(
        sorted(rows, key=lambda row: -row.intervals["accuracy"].value),
        (
            *((Column(key=name, heading=name), attrgetter(f"configuration.{name}")) for name in names),
            (
                Column(key="accuracy", heading="accuracy", kind="score", better="higher"),
                lambda row: row.score("accuracy"),
            ),
            (
                Column(key="train_seconds", heading="training", kind="seconds", better="lower"),
                lambda row: row.mean(vocabulary.TRAIN_SECONDS),
            ),
        ),
        name="summary",
        title="Models, regimes, frameworks",
        notes=("Intervals are 95 %.",),
        tied=frozenset((number, "accuracy") for number in range(min(3, len(rows)))),
    )


def _per_class(f1: pd.DataFrame) -> Table:
    return Table(
        name="classes",
        title="F1 of each class",
        columns=(
            Column(key="class", heading="class"),
            *(Column(key=name, heading=name, kind="score", better="higher") for name in f1.columns),
        ),
        rows=tuple(
            (str(name), *(float(value) for value in row)) for name, row in zip(f1.index, f1.to_numpy(), strict=True)
        ),
    )


def _photographs(random: np.random.Generator, number: int) -> Iterator[np.ndarray]:
    ramp = np.linspace(0, 255, 224)
    for _ in range(number):
        color = random.uniform(0.3, 1, size=3)
        yield (np.add.outer(ramp, ramp)[..., None] / 2 * color).astype(np.uint8)


def _computed(session: CDPSession) -> float:
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")


def main() -> None:
    parser = argparse.ArgumentParser(description="Size and drawing time of the page of a comparison.")
    parser.add_argument("--page", type=Path, required=True, help="file for the page")
    arguments = parser.parse_args()

    page = made_page(num_classes=300, num_runs=12, images_per_class=20)
    start = time.perf_counter()
    write_page(arguments.page, page)
    seconds = time.perf_counter() - start
    print(f"written in {seconds:.1f} s: {arguments.page.stat().st_size / 1e6:.2f} MB")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=Chromium.find_browser(skip_local=False))
        print(f"Chromium {browser.version}")
        for attempt in range(3):
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            session = tab.context.new_cdp_session(tab)
            # Processor seconds of the page's thread, independent of other work on the machine.
            session.send("Performance.enable", {"timeDomain": "threadTicks"})
            start = time.perf_counter()
            tab.goto(arguments.page.resolve().as_uri())
            tab.wait_for_selector("[data-state=drawn]")
            first = f"{_computed(session):.2f} s of computing, {time.perf_counter() - start:.2f} s elapsed"
            # Every figure of the page, more than a reader sees at once.
            tab.set_viewport_size({"width": 1280, "height": 12_000})
            tab.locator(".plot > div:not([data-state=drawn])").first.wait_for(state="detached")
            every = f"{_computed(session):.2f} s, {time.perf_counter() - start:.2f} s"
            print(f"attempt {attempt}: first figures drawn after {first}; all of them after {every}")
            tab.close()
        browser.close()


if __name__ == "__main__":
    main()
