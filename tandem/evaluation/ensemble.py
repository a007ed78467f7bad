"""Ensembles: several networks that predict together, by the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tandem.evaluation.predictions import Predictions, align


def mean_probabilities(members: Sequence[np.ndarray]) -> np.ndarray:
    """Probabilities of an ensemble: the mean over its members, each with the same weight.

    Args:
        members: Probabilities of the same classes for the same images, float32 of shape (images, classes) each; at
            least one.

    Returns:
        float32 of shape (images, classes).
    """
    return np.asarray(np.mean(members, axis=0, dtype=np.float64), dtype=np.float32)


def ensemble(members: Sequence[Predictions]) -> Predictions:
    """Predictions of an ensemble from the saved predictions of its members.

    Args:
        members: Of the same images and classes, with the classes in the same order; at least one.

    Returns:
        The images are in the order of their hashes.

    Raises:
        UserError: The images or the classes differ.
    """
    aligned = align(members)
    return replace(aligned[0], probabilities=mean_probabilities([one.probabilities for one in aligned]))
