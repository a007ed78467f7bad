"""Networks as ONNX files: one graph from uint8 images to probabilities, with the description in the file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tandem.errors import UserError, one_line
from tandem.serving.image_model import Description, ImageModel

INPUT, OUTPUT = "images", "probabilities"

DESCRIPTION_KEY = "tandem"
"""Key of the description in the file's metadata."""


def open_onnx(path: Path, *, threads: int | None = None) -> ImageModel:
    """Opens an exported network; ONNX Runtime computes, on a GPU if its package for GPUs is installed.

    Args:
        path: A file that `python -m tandem.export` wrote.
        threads: Number of threads; None for ONNX Runtime's choice.

    Raises:
        UserError: ONNX Runtime is not installed, or the file is no such network.
    """
    try:
        import onnxruntime  # not imported with this module: other networks do not need it
    except ImportError:
        raise UserError(f"{path} needs ONNX Runtime: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; a machine without a GPU is worth a warning to it
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=onnxruntime.get_available_providers()
        )
        description = session.get_modelmeta().custom_metadata_map.get(DESCRIPTION_KEY)
    except Exception as error:  # ONNX Runtime has an exception of its own for each kind of damage
        raise UserError(f"{path} cannot be opened by ONNX Runtime: {one_line(error)}") from error
    if description is None:
        raise UserError(f"{path} has no description of its classes: allowed are files of python -m tandem.export")

    def network(images: np.ndarray) -> np.ndarray:
        return np.asarray(session.run([OUTPUT], {INPUT: images})[0])

    return ImageModel(Description.from_dict(json.loads(description)), network)
