"""The trained network as an MLflow model."""

from __future__ import annotations

from pathlib import Path

import keras
import mlflow.keras
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from tandem.on_keras.backends import versions
from tandem.on_keras.networks import Classifier


def build_probabilities(classifier: Classifier, image_shape: tuple[int, ...]) -> keras.Model:
    """A functional model from uint8 images of shape (n, height, width, 3) to float32 probabilities (n, classes)."""
    images = keras.Input(image_shape, dtype="uint8", name="images")
    features = classifier.backbone(classifier.pixels(images), training=False)
    probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(classifier.head(features))
    return keras.Model(images, probabilities, name="classifier")


def save_model(classifier: Classifier, folder: Path, *, image_shape: tuple[int, ...], num_classes: int) -> None:
    """Writes an MLflow model folder that includes the preprocessing, in Keras's own format; any backend loads it.

    Args:
        classifier: The trained network.
        folder: Must not exist yet.
        image_shape: (height, width, 3) of the images that it takes.
        num_classes: Number of probabilities.
    """
    # without an input example, on which MLflow's Keras flavour fails
    mlflow.keras.save_model(
        build_probabilities(classifier, image_shape),
        str(folder),
        signature=ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, *image_shape))]),
            outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, num_classes))]),
        ),
        pip_requirements=[
            f"keras=={keras.__version__}",
            f"{keras.backend.backend()}=={versions()[keras.backend.backend()].split('+')[0]}",
            f"numpy=={np.__version__}",
        ],
    )
