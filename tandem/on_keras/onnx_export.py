"""Converts a logged network to ONNX or a SavedModel, by TensorFlow, whichever backend trained it."""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

MOST_NUMBERS_OF_A_CONSTANT = 100_000
"""Weights with more numbers than this are not part of the graph while it is converted."""


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
    # tf2onnx copies all constants again and again, 14 GB for AlexNet's 240 MB. So large weights are inputs of the graph
    # while it is converted, and become constants of the file afterwards.
    large = [variable for variable in model.variables if math.prod(variable.shape) > MOST_NUMBERS_OF_A_CONSTANT]
    names = [f"weight_{number}" for number in range(len(large))]
    specs = [tf.TensorSpec(each.shape, each.dtype, name=name) for name, each in zip(names, large, strict=True)]

    def probabilities(images: Any, *weights: Any) -> Any:
        with keras.StatelessScope(list(zip(large, weights, strict=True))):
            return model(images, training=False)

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        function = tf.function(probabilities).get_concrete_function(images, *specs)
        received, returned = [f"{name}:0" for name in (input_name, *names)], function.outputs[0].name
        frozen = tf_loader.from_function(function, received, [returned])
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(frozen, name="")
            converted = tfonnx.process_tf_graph(
                graph,
                opset=opset,
                input_names=received,
                output_names=[returned],
                tensors_to_rename=dict(zip(received, (input_name, *names), strict=True)) | {returned: output_name},
            )
            converted = optimizer.optimize_graph(converted, catch_errors=False)
    exported = converted.make_model("Tandem")
    _make_constants(exported.graph, dict(zip(names, large, strict=True)))
    onnx.save_model(exported, str(path))


def _make_constants(graph: Any, weights: Mapping[str, keras.Variable]) -> None:
    """Turns inputs of a graph of ONNX into constants, and transposes those that it transposes."""
    from onnx import numpy_helper

    for name, variable in weights.items():
        readers = [node for node in graph.node if name in node.input]
        value = keras.ops.convert_to_numpy(variable)
        if len(readers) == 1 and readers[0].op_type == "Transpose":
            (node,) = readers
            (order,) = (attribute.ints for attribute in node.attribute)
            name, value = node.output[0], value.transpose(order)
            graph.node.remove(node)
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    inputs = [each for each in graph.input if each.name not in weights]
    del graph.input[:]
    graph.input.extend(inputs)


def write_saved_model(network: Path, folder: Path) -> None:
    """Writes a network as TensorFlow's SavedModel, whose function `serve` takes a batch of uint8 images."""
    with contextlib.redirect_stdout(io.StringIO()):
        load_network(network).export(folder, format="tf_saved_model", verbose=False)
