"""Converts a logged network to ONNX or a SavedModel, by TensorFlow, whichever backend trained it."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path

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
    from tf2onnx import optimizer, tf_loader, tfonnx

    model = load_network(network)
    images = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8, name=input_name)
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    # The steps of tf2onnx.convert.from_function, which copies the graph before each of its many optimizations: it needs
    # 15 GB for AlexNet's 240 MB of weights.
    with contextlib.redirect_stdout(io.StringIO()):
        function = tf.function(lambda images: model(images, training=False)).get_concrete_function(images)
        received, returned = images.name + ":0", function.outputs[0].name
        frozen = tf_loader.from_function(function, [received], [returned])
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(frozen, name="")
            converted = tfonnx.process_tf_graph(
                graph,
                opset=opset,
                input_names=[received],
                output_names=[returned],
                tensors_to_rename={received: input_name, returned: output_name},
            )
            converted = optimizer.optimize_graph(converted, catch_errors=False)
    onnx.save_model(converted.make_model("Tandem"), str(path))


def write_saved_model(network: Path, folder: Path) -> None:
    """Writes a network as TensorFlow's SavedModel, whose function `serve` takes a batch of uint8 images."""
    with contextlib.redirect_stdout(io.StringIO()):
        load_network(network).export(folder, format="tf_saved_model", verbose=False)
