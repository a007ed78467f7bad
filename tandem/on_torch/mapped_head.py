"""The ImageNet head of a pretrained network, mapped to other classes without training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tandem.on_torch.networks import Classifier


class MappedHead(nn.Module):
    """Features of shape (n, features) to logits of shape (n, classes), computed from those of the ImageNet head.

    A class with several ImageNet outputs has the logarithm of the sum of their exponentials. Softmax over the classes
    is then softmax over all outputs, given that one of the classes is right.
    """

    def __init__(self, head: nn.Module, outputs: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.head = head
        self.outputs = [list(members) for members in outputs]

    def forward(self, features: Tensor) -> Tensor:
        logits = self.head(features)
        return torch.stack([logits[:, members].logsumexp(dim=1) for members in self.outputs], dim=1)


def map_head(classifier: Classifier, outputs: Sequence[Sequence[int]]) -> Classifier:
    """The same network with one output per class, in inference mode.

    Args:
        classifier: With its ImageNet head of 1000 outputs.
        outputs: ImageNet outputs of each class, 0..999.
    """
    return Classifier(classifier.pixels, classifier.backbone, MappedHead(classifier.head, outputs)).eval()
