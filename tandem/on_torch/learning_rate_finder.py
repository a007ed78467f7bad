"""Training steps of a learning-rate range test in torch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional

from tandem.on_torch.acceleration import autocast
from tandem.on_torch.networks import Classifier
from tandem.protocol.learning_rate_finder import LearningRateFinder
from tandem.protocol.settings import Settings


def take_steps(
    finder: LearningRateFinder,
    network: Classifier,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[tuple[np.ndarray, np.ndarray]],
    settings: Settings,
) -> None:
    """Trains the network with a rising learning rate until the loss explodes; its weights are useless afterwards.

    Args:
        finder: Receives the losses.
        network: On its device and in training mode, frozen or thawed for the phase.
        optimizer: The phase's; the rates of its groups keep their ratios.
        batches: Endless; uint8 images of shape (b, height, width, 3) and int64 labels of shape (b,).
        settings: `precision`, `optimizer.clip_norm`.
    """
    device = network.device
    shares = [group["lr"] / optimizer.param_groups[0]["lr"] for group in optimizer.param_groups]
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
    for rate, (images, labels) in finder.steps(batches):
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            group["lr"] = rate * share
        with autocast(settings, device):
            logits = network(torch.from_numpy(images).to(device))
            loss = functional.cross_entropy(logits, torch.from_numpy(labels).to(device))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        if settings.optimizer.clip_norm is not None:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(network.parameters(), settings.optimizer.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        finder.add(loss.item())
