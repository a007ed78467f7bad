"""The ImageNet head of a pretrained network, mapped to other classes without training."""

from __future__ import annotations

import math
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
        # Of shape (classes, most outputs of a class), and True where a class has fewer. Kept on the device, since
        # indexing by Python's numbers would copy them there in each call.
        width = max(len(members) for members in outputs)
        filled = [[*members, *members[:1] * (width - len(members))] for members in map(list, outputs)]
        missing = [[place >= len(members) for place in range(width)] for members in outputs]
        self.members = nn.Buffer(torch.tensor(filled), persistent=False)
        self.missing = nn.Buffer(torch.tensor(missing), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        logits = self.head(features)
        return logits[:, self.members].masked_fill(self.missing, -math.inf).logsumexp(dim=2)


def map_head(classifier: Classifier, outputs: Sequence[Sequence[int]]) -> Classifier:
    """The same network with one output per class, in inference mode.

    Args:
        classifier: With its ImageNet head of 1000 outputs.
        outputs: ImageNet outputs of each class, 0..999.
    """
    head = MappedHead(classifier.head, outputs).to(classifier.device)
    return Classifier(classifier.pixels, classifier.backbone, head).eval()
