"""The trained network as an MLflow model."""

from __future__ import annotations

import copy
from pathlib import Path

import mlflow.pytorch
import numpy as np
import torch
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from torch import Tensor, nn

from tandem.on_torch.networks import Classifier


class Probabilities(nn.Module):
    """uint8 images of shape (n, height, width, 3) to float32 probabilities of shape (n, classes)."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        return torch.softmax(self.classifier(images), dim=1)


def save_model(classifier: Classifier, folder: Path, *, image_shape: tuple[int, ...], num_classes: int) -> None:
    """Writes an MLflow model folder that includes the preprocessing, in torch's own exported format (no pickle).

    Args:
        classifier: The trained network; a copy of it is moved to the CPU.
        folder: Must not exist yet.
        image_shape: (height, width, 3) of the images that it takes.
        num_classes: Number of probabilities.
    """
    # exported in inference mode, since a program exported in training mode keeps its dropout forever
    network = Probabilities(copy.deepcopy(classifier).cpu()).eval().requires_grad_(False)
    mlflow.pytorch.save_model(
        network,
        folder,
        signature=ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, *image_shape))]),
            outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, num_classes))]),
        ),
        # two images: with one, the exporter would take the batch size for a constant
        input_example=np.zeros((2, *image_shape), np.uint8),
        pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", f"numpy=={np.__version__}"],
    )
