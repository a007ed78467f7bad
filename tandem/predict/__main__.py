"""Predicts the classes of images with the network of a run.

    python -m tandem.predict runs:/RUN_ID photographs --output predictions.csv --html predictions.html

Several runs are an ensemble: the mean of their probabilities. The program needs only the run's framework, and for an
exported .onnx file only ONNX Runtime.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tandem.errors import UserError, run_program

PROGRAM = "python -m tandem.predict"

MODEL_PREFIXES = ("runs:/", "models:/")

MODEL_FILE = "MLmodel"


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} (MODEL ... | --best EXPERIMENT) IMAGES ...",
        description="Predicts the classes of images with the network of a run, or with several as\nan ensemble.",
        epilog="examples:\n"
        f"  {PROGRAM} --best flowers my/photographs --html predictions.html\n"
        f"  {PROGRAM} models:/flowers@recommended photograph.jpg",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "items",
        nargs="+",
        metavar="MODEL_OR_IMAGES",
        help="models: runs:/RUN_ID, models:/NAME@ALIAS, models:/NAME/VERSION, or .onnx files of "
        "python -m tandem.export; several are an ensemble. Everything else: image files, and folders, whose "
        "subfolders are read, too",
    )
    parser.add_argument(
        "--best", metavar="EXPERIMENT", help="the network that compare.py recommends for this experiment, as the model"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("predictions.csv"),
        help="CSV file with one row per image (default: %(default)s)",
    )
    parser.add_argument(
        "--top",
        type=int,
        default=3,
        metavar="K",
        help="classes per image, the most probable first (default: %(default)s)",
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page of the images by class, the least certain first"
    )
    parser.add_argument(
        "--tracking.uri",
        dest="tracking_uri",
        metavar="URI",
        help="MLflow tracking URI (default: MLFLOW_TRACKING_URI, or else the sqlite file mlflow.db in this folder)",
    )
    # The name in version 0.3.0 and earlier.
    parser.add_argument("--tracking_uri", dest="tracking_uri", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.top < 1:
        raise UserError(f"--top: received {arguments.top}; allowed: 1 and more")
    return arguments


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    names, given = split_items(arguments.items)
    if bool(names) == (arguments.best is not None):
        raise UserError(
            "give either models (runs:/RUN_ID, models:/NAME@ALIAS or an .onnx file) or --best EXPERIMENT. "
            f"Received: {', '.join([*names, *filter(None, [arguments.best])]) or 'neither'}"
        )
    if not given:
        raise UserError(f"give image files or folders to predict. Received only {', '.join(names) or '--best'}")
    # imported after parsing, since they take seconds, and --help should not wait for them
    from tandem.data.console import say
    from tandem.files import csv_cell, write_text
    from tandem.predict.files import list_files
    from tandem.predict.prediction import predict_files
    from tandem.serving.opening import open_models

    files = list_files(given)
    if arguments.best is not None:
        names = [_recommended(arguments.best, arguments.tracking_uri)]
    models = open_models(names, arguments.tracking_uri)
    title = "; ".join(
        f"{name}: {model.description.backbone}, {model.description.regime}, {model.description.framework}"
        for name, model in zip(names, models, strict=True)
    )
    say(title, quiet=False)
    predictions = predict_files(models, files)
    table = predictions.table(arguments.top)
    write_text(arguments.output, table.map(csv_cell).to_csv(index=False, lineterminator="\n"))
    if predictions.problems:
        lines = "\n  ".join(predictions.problems)
        say(f"{len(predictions.problems):,} files cannot be read and are left out:\n  {lines}", quiet=False)
    if arguments.html is not None:
        from tandem.predict.gallery import write_gallery  # imports plotly

        write_gallery(arguments.html, predictions, title)
        print(f"Page: {arguments.html}")
    counts = table["class"].value_counts()
    shown = ", ".join(f"{name} {number:,}" for name, number in counts.head(10).items())
    print(f"{len(table):,} images: {shown}{', ...' if len(counts) > 10 else ''}")
    print(f"Predictions: {arguments.output}")


def split_items(items: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits the arguments into models, each once, and images."""
    models = [item for item in items if _is_model(item)]
    return list(dict.fromkeys(models)), [item for item in items if not _is_model(item)]


def _is_model(item: str) -> bool:
    return item.startswith(MODEL_PREFIXES) or item.lower().endswith(".onnx") or (Path(item) / MODEL_FILE).is_file()


def _recommended(experiment: str, tracking_uri: str | None) -> str:
    from tandem.comparison.comparison import compare_runs
    from tandem.comparison.predictions import read_predictions
    from tandem.comparison.recommended import recommended_run
    from tandem.tracking.reader import read_runs

    runs = read_runs(tracking_uri, experiment)
    with tempfile.TemporaryDirectory(prefix="tandem-predict-") as folder:
        comparison = compare_runs(runs, lambda rows: read_predictions(rows, Path(folder)))
    _, run = recommended_run(comparison, experiment)
    return f"runs:/{run.run_id}"


if __name__ == "__main__":
    run_program(PROGRAM, main)
