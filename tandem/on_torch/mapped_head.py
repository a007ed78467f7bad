"""The ImageNet head of a pretrained network, turned to other classes without training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tandem.on_torch.networks import Classifier


class MappedHead(nn.Module):
    """Features of shape (n, features) to logits of shape (n, classes), made from those of the ImageNet head.

    A class of several outputs has the logarithm of the sum of their exponentials, so that softmax over the classes is
    softmax over all outputs, taken as given that one of the classes is right.
    """

    def __init__(self, head: nn.Module, outputs: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.head = head
        self.outputs = [list(members) for members in outputs]

    def forward(self, features: Tensor) -> Tensor:
        logits = self.head(features)
        return torch.stack([logits[:, members].logsumexp(dim=1) for members in self.outputs], dim=1)


def map_head(classifier: Classifier, outputs: Sequence[Sequence[int]]) -> Classifier:
    """The same network with an output for each class.

    Args:
        classifier: with its ImageNet head of 1000 outputs.
        outputs: of each class, 0..999.
    """
    return Classifier(classifier.pixels, classifier.backbone, MappedHead(classifier.head, outputs)).eval()
