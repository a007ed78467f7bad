"""Grad-CAM's inputs from a torch network: its last feature map and the gradients there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tandem.on_torch.networks import Classifier, inference_mode_of


def features_and_gradients(
    classifier: Classifier, images: np.ndarray, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The feature map that is pooled last, in inference mode, and one logit's gradients with respect to it per image.

    A backbone that pools no map, such as a vision transformer, gives its features as a map of one place.

    Args:
        classifier: The trained network; it is unchanged afterwards.
        images: uint8 of shape (n, height, width, 3).
        classes: int64 of shape (n,), the output of each image whose gradients are computed.

    Returns:
        Features and gradients, float32 of shape (n, rows, columns, channels).
    """
    device = classifier.device
    with inference_mode_of(classifier), torch.no_grad():
        pixels = classifier.pixels(torch.from_numpy(images).to(device))
        with _Pooling() as counting:
            classifier.backbone(pixels)
        with _Pooling(record_from=counting.calls) as pooling:
            features = classifier.backbone(pixels)
            if pooling.features is None:
                torch.set_grad_enabled(True)
                pooling.features = features = features.detach().requires_grad_()
            logits = classifier.head(features).float()
            score = logits.gather(1, torch.from_numpy(classes).to(device).unsqueeze(1)).sum()
    (gradients,) = torch.autograd.grad(score, pooling.features)
    return _as_numpy(pooling.features), _as_numpy(gradients)


class _Pooling(TorchFunctionMode):
    """Counts adaptive average poolings; keeps the input of one of them and records operations from there on.

    A hook on a module would not do: torchvision's ResNet pools by a module, its MobileNetV2 and DenseNet by a function,
    the latter after a ReLU that is a function too. Its EfficientNet also pools within its blocks, so the number of the
    last pooling has to be known before. The backbone before that pooling is not recorded, which saves the memory of its
    activations.
    """

    def __init__(self, record_from: int | None = None) -> None:
        super().__init__()
        self.record_from = record_from
        self.calls = 0
        self.features: Tensor | None = None

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function is functional.adaptive_avg_pool2d:
            self.calls += 1
            if self.calls == self.record_from:
                torch.set_grad_enabled(True)  # until the end of the no_grad() around it
                self.features = args[0].detach().requires_grad_()
                args = (self.features, *args[1:])
        return function(*args, **(kwargs or {}))


def _as_numpy(values: Tensor) -> np.ndarray:
    if values.ndim == 2:
        values = values[:, :, None, None]
    return values.detach().permute(0, 2, 3, 1).float().cpu().numpy()
