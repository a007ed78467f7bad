"""Mixup and CutMix: each training image of a batch mixed with the one before it.

mixup (Zhang et al. 2018, arXiv 1710.09412) blends both images; CutMix (Yun et al. 2019, arXiv 1905.04899) pastes a box
of the other image. As in torchvision's MixUp and CutMix, a batch has one share, drawn from Beta(alpha, alpha), and one
box, and each image's partner is the one before it in the batch, the last one for the first. If both are on, one of them
is drawn per batch with equal chance, as timm's Mixup does by default.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.special import betaincinv

from tandem.data.random_numbers import uniform
from tandem.protocol.settings import MixingSettings

SPAWN_KEY = 1000
"""Of the generator's seed, far from those of order and augmentation, which are counted from 0."""

SHARES = 256
"""mixup's shares are multiples of 1/256: 8-bit pixels are then blended exactly, so they are the same on all machines
and agree with the labels."""


@dataclass(frozen=True, kw_only=True)
class Mixes:
    """The mix of each batch in one epoch."""

    shares: np.ndarray
    """Share of each image in its own label, the rest is its partner's: float64 of shape (batches,)."""
    boxes: np.ndarray
    """Top, left, bottom and right of the box that CutMix takes from the partner, in pixels: int64 of shape
    (batches, 4). Four zeros for mixup, which blends whole images."""


def draw_mixes(
    seed: np.random.SeedSequence, num_batches: int, size: tuple[int, int], settings: MixingSettings
) -> Mixes:
    """Draws the mixes of one epoch; with one method switched on, the other one's share and box stay what they are.

    Args:
        seed: Of the epoch.
        num_batches: Number of batches.
        size: Height and width of the images in pixels.
        settings: At least one method is on.
    """
    choices, for_mixup, for_cutmix, *for_centres = uniform(seed, (num_batches, 5)).T
    mixup_shares = np.rint(SHARES * _beta(settings.mixup_alpha, for_mixup)) / SHARES
    cutmix_shares, boxes = _cut(_beta(settings.cutmix_alpha, for_cutmix), np.stack(for_centres, axis=1), size)
    chance_of_mixup = 0.5 if settings.mixup_alpha and settings.cutmix_alpha else float(settings.mixup_alpha > 0)
    is_mixup = choices < chance_of_mixup
    return Mixes(
        shares=np.where(is_mixup, mixup_shares, cutmix_shares), boxes=np.where(is_mixup[:, np.newaxis], 0, boxes)
    )


def mix(image: np.ndarray, partner: np.ndarray, mixes: Mixes, batch: int, target: np.ndarray) -> None:
    """Mixes one image of a batch with another.

    Args:
        image: uint8 of shape (height, width, 3).
        partner: Of the same shape.
        mixes: Of the epoch.
        batch: Number of the batch in the epoch.
        target: The result is written here: contiguous uint8 of the same shape.
    """
    top, left, bottom, right = mixes.boxes[batch].tolist()
    share = float(mixes.shares[batch])
    if bottom > top and right > left:
        target[:] = image
        target[top:bottom, left:right] = partner[top:bottom, left:right]
    elif share == 1:
        target[:] = image
    else:
        cv2.addWeighted(image, share, partner, 1 - share, 0, target)


def _beta(alpha: float, numbers: np.ndarray) -> np.ndarray:
    """Beta(alpha, alpha) by the inverse of its distribution function; ones if alpha is 0."""
    return betaincinv(alpha, alpha, numbers) if alpha else np.ones_like(numbers)


def _cut(shares: np.ndarray, centres: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes as torchvision's CutMix cuts them off at the edges, and the shares of the pixels outside of them.

    Args:
        shares: Wanted shares of the pixels outside, of shape (n,).
        centres: Of the boxes, from 0 to below 1, of shape (n, 2).
        size: Height and width of the images in pixels.
    """
    lengths = np.array(size)
    middles = np.floor(centres * lengths)
    halves = np.floor(0.5 * np.sqrt(1 - shares)[:, np.newaxis] * lengths)
    starts = np.maximum(middles - halves, 0).astype(np.int64)
    ends = np.minimum(middles + halves, lengths).astype(np.int64)
    return 1 - (ends - starts).prod(axis=1) / lengths.prod(), np.concatenate([starts, ends], axis=1)
