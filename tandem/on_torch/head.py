"""The head as torch modules."""

from __future__ import annotations

import torch
from torch import nn

from tandem.protocol.head import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, initial_kernels
from tandem.protocol.settings import Settings


def build_head(settings: Settings, num_features: int, num_classes: int) -> nn.Sequential:
    """Features of shape (n, num_features) to logits of shape (n, num_classes).

    Batch norm and dropout, if the settings have them, precede each dense layer; a ReLU stands between dense layers.

    Args:
        settings: `head`, `batch_norm_momentum`, `seed`.
        num_features: Length of the backbone's feature vector.
        num_classes: Number of outputs.
    """
    head = settings.head
    momentum = BATCH_NORM_MOMENTUM if settings.batch_norm_momentum is None else settings.batch_norm_momentum
    layers: list[nn.Module] = []
    for kernel in initial_kernels(head, num_features=num_features, num_classes=num_classes, seed=settings.seed):
        inputs, units = kernel.shape
        if layers:
            layers.append(nn.ReLU())
        if head.batch_norm:
            layers.append(nn.BatchNorm1d(inputs, eps=BATCH_NORM_EPSILON, momentum=1 - momentum))
        if head.dropout:
            layers.append(nn.Dropout(head.dropout))
        dense = nn.Linear(inputs, units)
        with torch.no_grad():
            dense.weight.copy_(torch.from_numpy(kernel.T))
            dense.bias.zero_()
        layers.append(dense)
    return nn.Sequential(*layers)
