"""Recipes compared with the plain defaults, on a folder of images, in both frameworks.

    python -m benchmarks.recipes my/photographs --train_images_per_class 20 --seeds 0 1 2 -- --backbone resnet50

Trains each framework, recipe and seed as a cell of a grid, one after the other; a second start skips finished cells.
Then prints one row per framework and recipe, with 95 % intervals and the difference to the defaults of the framework,
and writes it as recipes.md to the folder of --output, with the grid file and the runs' database. Words after -- are
settings of all runs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import typing
from pathlib import Path
from typing import Any

import yaml

from tandem.comparison.analysis import Analysis
from tandem.comparison.comparison import compare_runs
from tandem.comparison.predictions import read_predictions
from tandem.comparison.rows import PairedDifference, Row
from tandem.errors import run_program
from tandem.files import write_text
from tandem.protocol.frameworks import Framework
from tandem.protocol.settings import Recipe
from tandem.rendering.tables import Column, Field, Table, render_markdown, table_of
from tandem.rendering.terminal import print_table
from tandem.tracking import vocabulary
from tandem.tracking.reader import read_runs

EXPERIMENT = "recipes"
DEFAULTS = "defaults"
FRAMEWORKS = typing.get_args(Framework)
RECIPES = (None, *typing.get_args(Recipe))


def parse_arguments(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The benchmark's own options, and the settings after --."""
    words = sys.argv[1:] if argv is None else argv
    own, settings = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recipes", description="Compares recipes with the plain defaults."
    )
    parser.add_argument("source", help="folder of images, or any other value of data.source")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run per seed (default: 0 1 2)")
    parser.add_argument(
        "--train_images_per_class", type=int, default=20, help="most training images per class (default: %(default)s)"
    )
    for framework in FRAMEWORKS:
        parser.add_argument(f"--{framework}_weights", default="imagenet", help="initial weights (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("recipes"), help="folder for everything (default: %(default)s)"
    )
    return parser.parse_args(own), settings


def main(argv: list[str] | None = None) -> None:
    arguments, settings = parse_arguments(argv)
    folder = arguments.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    file, uri = folder / "grid.yaml", f"sqlite:///{folder / 'mlflow.db'}"
    write_text(file, yaml.safe_dump(grid_of(arguments), sort_keys=False))
    command = [sys.executable, "-m", "tandem.grid", str(file), "--tracking.uri", uri, "--", *settings]
    subprocess.run([*command, "--tracking.folder", str(folder / "runs")], check=True)
    with tempfile.TemporaryDirectory() as predictions:
        runs = read_runs(uri, EXPERIMENT)
        comparison = compare_runs(runs, lambda chosen: read_predictions(chosen, Path(predictions)))
    (group,) = comparison.groups
    table = recipes_table(group.analysis, group.group.title)
    print_table(table)
    write_text(folder / "recipes.md", render_markdown(table))
    print(f"Written to {folder / 'recipes.md'}; all tables: compare.py --experiment {EXPERIMENT} --tracking.uri {uri}")


def grid_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The content of the grid file."""
    vary = {"seed": arguments.seeds, "recipe": list(RECIPES)}
    return {
        "experiment": EXPERIMENT,
        "settings": {"data": {"source": arguments.source, "train_images_per_class": arguments.train_images_per_class}},
        "cells": [
            {
                "frameworks": [framework],
                "vary": vary,
                "settings": {"weights": getattr(arguments, f"{framework}_weights")},
            }
            for framework in FRAMEWORKS
        ],
    }


def recipes_table(analysis: Analysis, title: str) -> Table:
    """One row per framework and recipe, with its difference to the defaults of the framework."""
    defaults = {row.configuration.framework: row for row in analysis.rows if recipe_of(row) == DEFAULTS}

    def gain(row: Row) -> PairedDifference | None:
        reference = defaults.get(row.configuration.framework)
        return None if reference is None or reference is row else analysis.difference(row, reference)

    def difference(row: Row) -> Any:
        found = gain(row)
        return None if found is None else found.value

    def verdict(row: Row) -> str | None:
        found = gain(row)
        return None if found is None else found.verdict

    fields: tuple[Field[Row], ...] = (
        (Column(key="recipe", heading="recipe"), recipe_of),
        (Column(key="framework", heading="framework"), lambda row: row.configuration.framework),
        *(
            (Column(key=name, heading=heading, kind="score", better=better), lambda row, name=name: row.score(name))
            for name, heading, better in (
                ("accuracy", "accuracy", "higher"),
                ("f1_macro", "macro F1", "higher"),
                ("roc_auc_macro", "macro ROC-AUC", "higher"),
                ("log_loss", "log loss", "lower"),
            )
        ),
        (Column(key="difference", heading="accuracy minus the defaults'", kind="difference"), difference),
        (Column(key="verdict", heading="verdict"), verdict),
        (
            Column(key="train_seconds", heading="training", kind="seconds", better="lower"),
            lambda row: row.mean(vocabulary.TRAIN_SECONDS),
        ),
        (Column(key="runs", heading="runs", kind="number"), lambda row: len(row.configuration.runs)),
    )
    order = [DEFAULTS, *RECIPES[1:]]
    rows = sorted(analysis.rows, key=lambda row: (order.index(recipe_of(row)), row.configuration.framework != "torch"))
    notes = (
        f"In brackets: 95 % intervals over the {analysis.num_images:,} test images, and over seeds where there are "
        f"several. Verdicts are corrected over all {len(analysis.pairs)} pairs of rows.",
    )
    return table_of(rows, fields, name="recipes", title=f"Recipes: {title}", notes=notes)


def recipe_of(row: Row) -> str:
    """Name of the recipe of a row."""
    recipe = row.configuration.runs[0].params.get("recipe", "null")
    return DEFAULTS if recipe == "null" else recipe


if __name__ == "__main__":
    run_program("benchmarks.recipes", main)
