"""Exports the network of a run to a file that needs neither Tandem nor MLflow.

    python -m tandem.export runs:/RUN_ID --format onnx --output model.onnx

The file holds one graph from uint8 images to probabilities, for any batch size. ONNX files are checked against the
run's recorded predictions, and the run gets their latency, which compare.py then shows for all backbones and both
frameworks on equal terms.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tandem.errors import UserError, run_program

PROGRAM = "python -m tandem.export"

OUTPUTS = {"onnx": "model.onnx", "torch_export": "model.pt2", "saved_model": "saved_model"}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Exports the network of a run: one graph from uint8 images to probabilities, for\nany batch size.",
        epilog="examples:\n"
        f"  {PROGRAM} runs:/RUN_ID --output flowers.onnx\n"
        f"  {PROGRAM} models:/flowers@recommended --format saved_model",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="runs:/RUN_ID, models:/NAME@ALIAS or models:/NAME/VERSION")
    parser.add_argument(
        "--format",
        choices=tuple(OUTPUTS),
        default="onnx",
        help="onnx: runs of both frameworks; torch_export: of PyTorch; saved_model: of Keras (default: %(default)s)",
    )
    parser.add_argument(
        "--output", type=Path, help=f"the new file, or folder (default: {', '.join(OUTPUTS.values())}, by format)"
    )
    parser.add_argument(
        "--unchecked",
        action="store_true",
        help="do not compare an ONNX file with the recorded predictions, for which the run's images have to be on this "
        "machine; it is still compared with the network on images of noise",
    )
    parser.add_argument(
        "--tracking.uri",
        dest="tracking_uri",
        metavar="URI",
        help="MLflow tracking URI (default: MLFLOW_TRACKING_URI, or else the sqlite file mlflow.db in this folder)",
    )
    # The name in version 0.3.0 and earlier.
    parser.add_argument("--tracking_uri", dest="tracking_uri", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    if arguments.unchecked and arguments.format != "onnx":
        raise UserError(
            f"--unchecked: received with --format {arguments.format}, allowed: with --format onnx, the only one whose "
            "predictions are compared; leave it out"
        )
    from tandem.export.exporting import export_model  # after parsing: --help should not wait for its imports

    export = export_model(
        arguments.model,
        arguments.format,
        arguments.output or Path(OUTPUTS[arguments.format]),
        arguments.tracking_uri,
        compare=not arguments.unchecked,
    )
    for line in export.lines:
        print(line)
    print(f"Exported: {export.path}")


if __name__ == "__main__":
    run_program(PROGRAM, main)
