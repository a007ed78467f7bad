"""Converts a logged network to ONNX or a SavedModel, by TensorFlow, whichever backend trained it."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
from collections.abc import Callable
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
    from tf2onnx import tf_loader, tf_utils, tfonnx

    model = load_network(network)
    images = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8, name=input_name)
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    # The steps of tf2onnx.convert.from_function for large models. Its usual ones keep a copy of all weights per
    # optimization, more than 12 GB for AlexNet's 240 MB, and its way to write large models fails with NumPy 2.
    with contextlib.redirect_stdout(io.StringIO()):
        function = tf.function(lambda images: model(images, training=False)).get_concrete_function(images)
        received, returned = images.name + ":0", function.outputs[0].name
        frozen = tf_loader.from_function(function, [received], [returned], large_model=True)
        weights = tf_utils.compress_graph_def(frozen)  # takes them out of the graph
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(frozen, name="")
            converted = tfonnx.process_tf_graph(
                graph,
                opset=opset,
                input_names=[received],
                output_names=[returned],
                tensors_to_rename={received: input_name, returned: output_name},
                const_node_values=weights,
            )
            converted = _optimize(converted)
    onnx.save_model(converted.make_model("Tandem"), str(path))


def _optimize(graph: Any) -> Any:
    """Removes transpositions and repetitions from a graph of tf2onnx, without keeping a copy of it per optimization."""
    from tf2onnx import optimizer

    def after_collection(make: Callable[[], Any]) -> Callable[[], Any]:
        def collect_and_make() -> Any:
            gc.collect()  # graphs refer to themselves, and each optimization leaves one with all weights behind
            return make()

        return collect_and_make

    optimizers = {name: after_collection(make) for name, make in optimizer._get_optimizers().items()}
    return optimizer.optimize_graph(graph, catch_errors=False, optimizers=optimizers)


def write_saved_model(network: Path, folder: Path) -> None:
    """Writes a network as TensorFlow's SavedModel, whose function `serve` takes a batch of uint8 images."""
    with contextlib.redirect_stdout(io.StringIO()):
        load_network(network).export(folder, format="tf_saved_model", verbose=False)
