"""Weights of a run: saved for later runs, and hashed to prove what changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from tandem.files import whole_path
from tandem.on_torch.networks import Classifier

BACKBONE_FILE = "backbone.safetensors"
HEAD_FILE = "head.safetensors"


def save_weights(classifier: Classifier, folder: Path) -> None:
    """Writes backbone.safetensors and head.safetensors; the first can be the `weights` of later runs."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, name in ((classifier.backbone, BACKBONE_FILE), (classifier.head, HEAD_FILE)):
        arrays = {key: value.detach().cpu().contiguous() for key, value in part.state_dict().items()}
        with whole_path(folder / name) as partial:
            save_file(arrays, partial)


def copy_weights(classifier: Classifier) -> dict[str, np.ndarray]:
    """All weights and statistics, by their names, on the CPU."""
    return {name: value.detach().cpu().numpy().copy() for name, value in classifier.state_dict().items()}


def restore_weights(classifier: Classifier, weights: Mapping[str, np.ndarray]) -> None:
    """Sets the network to copy_weights of the same network, and to inference mode, as a phase leaves it."""
    classifier.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    classifier.eval()


def hash_weights(*modules: nn.Module) -> str:
    """SHA-256, in hex, of all parameters and buffers of the modules, batch-norm statistics included."""
    digest = hashlib.sha256()
    for module in modules:
        for name, value in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Number of parameters, all and trainable; batch-norm statistics do not count."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    return sum(count for count, _ in counts), sum(count for count, trainable in counts if trainable)
