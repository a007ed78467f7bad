"""The loss of a training step in torch."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def mean_loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy, the mean over the batch of each image's loss times its weight, of shape ().

    As Keras's, it is not divided by the sum of the weights, so an image has the same weight in every batch.

    Args:
        logits: float32 of shape (batch, classes).
        targets: Labels, int64 of shape (batch,), or soft targets, float32 of shape (batch, classes).
        weights: float32 of shape (batch,); all 1 when None.
    """
    if weights is None:
        return functional.cross_entropy(logits, targets)
    return (functional.cross_entropy(logits, targets, reduction="none") * weights).mean()


def classes_of(targets: Tensor) -> Tensor:
    """The class of each image, int64 of shape (batch,): its label, or the one with the largest share.

    Args:
        targets: As of mean_loss.
    """
    return targets if targets.ndim == 1 else targets.argmax(dim=1)
