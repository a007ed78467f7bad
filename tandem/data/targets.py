"""Targets of training: labels or soft targets, and the weight of each image in the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tandem.errors import UserError, some_of
from tandem.protocol.settings import LossSettings, MixingSettings, Settings


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The form of a stream's targets."""

    num_classes: int
    """Number of classes."""
    soft: bool = False
    """Serve the shares of all classes, float32 of shape (n, classes), instead of labels."""
    smoothing: float = 0.0
    """Part of each soft target that is spread evenly over all classes: Szegedy et al. 2016, arXiv 1512.00567,
    section 7; as in torch and Keras."""
    class_weights: np.ndarray | None = None
    """Weight of each class in the loss, float64 of shape (classes,). Served as a weight per image: the mean of the
    weights of its classes, in the shares of its label before smoothing."""

    def of(
        self, labels: np.ndarray, partners: np.ndarray | None = None, shares: np.ndarray | None = None
    ) -> tuple[np.ndarray, ...]:
        """The targets of images, and their weights if classes have weights.

        Args:
            labels: Of the images, int64 of shape (n,).
            partners: Labels of the images that they are mixed with, of the same shape; None without mixing.
            shares: The images' own shares in their labels, of the same shape.

        Returns:
            Labels, or soft targets as above; and float32 weights of shape (n,), if classes have weights.
        """
        partners, shares = (labels, np.ones(len(labels))) if partners is None or shares is None else (partners, shares)
        targets = self._soft(labels, partners, shares) if self.soft else labels
        if self.class_weights is None:
            return (targets,)
        weights = shares * self.class_weights[labels] + (1 - shares) * self.class_weights[partners]
        return targets, weights.astype(np.float32)

    def _soft(self, labels: np.ndarray, partners: np.ndarray, shares: np.ndarray) -> np.ndarray:
        each = np.arange(len(labels))
        targets = np.full((len(labels), self.num_classes), self.smoothing / self.num_classes)
        targets[each, labels] += (1 - self.smoothing) * shares
        targets[each, partners] += (1 - self.smoothing) * (1 - shares)
        return targets.astype(np.float32)


def serves_soft_targets(settings: Settings) -> bool:
    """True if labels are smoothed or mixed, so that the loss takes soft targets, in validation as well."""
    return settings.loss.label_smoothing > 0 or settings.mixing != MixingSettings()


def weights_of_classes(settings: LossSettings, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray | None:
    """The weight of each class in the loss, float64 of shape (classes,); None if they have none.

    Args:
        settings: `class_weights`.
        labels: Of the training images, int64 of shape (n,).
        classes: Names of the classes, each of which has a training image.

    Raises:
        UserError: A weight is given for a class that there is not.
    """
    given = settings.class_weights
    if given == "none":
        return None
    if given == "balanced":
        return len(labels) / (len(classes) * np.bincount(labels, minlength=len(classes)))
    if unknown := [name for name in given if name not in classes]:
        raise UserError(
            f"loss.class_weights: received a weight for {some_of(unknown, 3)}, allowed: classes of the data, "
            f"{some_of(classes, 6)}"
        )
    return np.array([given.get(name, 1.0) for name in classes])
