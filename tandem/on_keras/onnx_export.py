"""Converts a logged network to ONNX or a SavedModel, by TensorFlow, whichever backend trained it."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path
from typing import Any

import keras


def load_network(network: Path) -> keras.Model:
    """Loads a logged network.

    Args:
        network: Folder of its MLflow model, as save_model wrote it.
    """
    (file,) = network.rglob("*.keras")
    return keras.models.load_model(file, compile=False)


def write_onnx(network: Path, path: Path, *, input_name: str, output_name: str, opset: int) -> None:
    """Writes a network as an ONNX file with a free batch size.

    Args:
        network: Folder of its MLflow model, as save_model wrote it.
        path: The new file.
        input_name: Name of the uint8 images of shape (n, height, width, 3).
        output_name: Name of the float32 probabilities of shape (n, classes).
        opset: Version of ONNX's operators.
    """
    import onnx
    import tensorflow as tf
    import tf2onnx

    model = load_network(network)
    shape = (None, *model.input_shape[1:])
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        converted, _ = tf2onnx.convert.from_function(
            tf.function(lambda images: model(images, training=False)),
            input_signature=[tf.TensorSpec(shape, tf.uint8, name=input_name)],
            opset=opset,
        )
    _rename_output(converted.graph, output_name)
    onnx.save_model(converted, str(path))


def _rename_output(graph: Any, name: str) -> None:
    (output,) = graph.output
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [name if each == output.name else each for each in names]
    output.name = name


def write_saved_model(network: Path, folder: Path) -> None:
    """Writes a network as TensorFlow's SavedModel, whose function `serve` takes a batch of uint8 images."""
    with contextlib.redirect_stdout(io.StringIO()):
        load_network(network).export(folder, format="tf_saved_model", verbose=False)
