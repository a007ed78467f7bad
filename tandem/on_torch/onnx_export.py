"""Converts a logged network to ONNX."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import torch


def write_onnx(network: Path, path: Path, *, input_name: str, output_name: str, opset: int) -> None:
    """Writes a network as an ONNX file with a free batch size.

    Args:
        network: Folder of its MLflow model, as save_model wrote it.
        path: The new file.
        input_name: Name of the uint8 images of shape (n, height, width, 3).
        output_name: Name of the float32 probabilities of shape (n, classes).
        opset: Version of ONNX's operators.
    """
    (file,) = network.rglob("*.pt2")
    program = torch.export.load(file)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    # the converter prints its steps, and warns about its own code
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            program,
            f=path,
            dynamo=True,
            input_names=[input_name],
            output_names=[output_name],
            opset_version=opset,
            external_data=False,
            verbose=False,
        )
