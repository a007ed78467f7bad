"""The trained network as an MLflow model."""

from __future__ import annotations

import copy
from pathlib import Path

import mlflow.pyfunc
import mlflow.pytorch
import numpy as np
import torch
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
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

    MLflow runs the model on the CPU on any machine. docs/gpu.md has the lines that move it to a GPU.

    Args:
        classifier: The trained network; it stays on its device.
        folder: Must not exist yet.
        image_shape: (height, width, 3) of the images that it takes.
        num_classes: Number of probabilities.
    """
    # exported in inference mode, since a program exported in training mode keeps its dropout forever
    network = Probabilities(copy_on_cpu(classifier)).eval().requires_grad_(False)
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
    # MLflow takes a GPU wherever torch finds one, and then refuses a program whose weights are on the CPU
    saved = Model.load(folder)
    saved.flavors[mlflow.pyfunc.FLAVOR_NAME][mlflow.pyfunc.MODEL_CONFIG] = {"device": "cpu"}
    saved.save(folder / MLMODEL_FILE_NAME)


def copy_on_cpu(classifier: Classifier) -> Classifier:
    """A copy of the network on the CPU, made without a second copy of its weights on a GPU.

    Its weights are contiguous: torch warns when it saves those in the layout channels_last.
    """
    copies = {id(buffer): _contiguous_on_cpu(buffer) for buffer in classifier.buffers()}
    for weight in classifier.parameters():
        copies[id(weight)] = nn.Parameter(_contiguous_on_cpu(weight), requires_grad=weight.requires_grad)
    return copy.deepcopy(classifier, copies)


def _contiguous_on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
