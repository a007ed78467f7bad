"""The steps of a learning-rate range test in torch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional

from tandem.on_torch.networks import Classifier
from tandem.protocol.learning_rate_finder import LearningRateFinder


def take_steps(
    finder: LearningRateFinder,
    network: Classifier,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[tuple[np.ndarray, np.ndarray]],
    *,
    device: str,
    dtype: torch.dtype,
) -> None:
    """Trains the network with rising learning rates until the loss has exploded; it is good for nothing afterwards.

    Args:
        finder: takes the losses.
        network: in training, as a phase begins with it.
        optimizer: the phase's; the rates of its groups keep their proportions.
        batches: endless; uint8 images of shape (b, height, width, 3) and int64 labels of shape (b,).
        device: cpu or cuda.
        dtype: of the forward and backward pass.
    """
    network.to(device)
    shares = [group["lr"] / optimizer.param_groups[0]["lr"] for group in optimizer.param_groups]
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
    for rate, (images, labels) in finder.steps(batches):
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            group["lr"] = rate * share
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            logits = network(torch.from_numpy(images).to(device))
            loss = functional.cross_entropy(logits, torch.from_numpy(labels).to(device))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        finder.add(loss.item())
