"""Versions of the packages that compute on the torch side."""

from __future__ import annotations

import pytorch_lightning as lightning
import timm
import torch
import torchvision


def backend() -> str:
    """The package that computes."""
    return "torch"


def versions() -> dict[str, str]:
    """Versions of the packages that a run's numbers depend on, by their names."""
    return {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "pytorch_lightning": lightning.__version__,
    }
