"""Training steps of a learning-rate range test in torch."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tandem.data.stream import Batch
from tandem.on_torch.acceleration import autocast
from tandem.on_torch.loss import mean_loss
from tandem.on_torch.networks import Classifier
from tandem.protocol.learning_rate_finder import LearningRateFinder
from tandem.protocol.settings import Settings


def take_steps(
    finder: LearningRateFinder,
    network: Classifier,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    settings: Settings,
) -> None:
    """Trains the network with a rising learning rate until the loss explodes; its weights are useless afterwards.

    Args:
        finder: Receives the losses.
        network: On its device and in training mode, frozen or thawed for the phase.
        optimizer: The phase's; the rates of its groups keep their ratios.
        batches: Endless; uint8 images of shape (b, height, width, 3) and their targets.
        settings: `precision`, `optimizer.clip_norm`.
    """
    device = network.device
    shares = [group["lr"] / optimizer.param_groups[0]["lr"] for group in optimizer.param_groups]
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
    for rate, batch in finder.steps(batches):
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            group["lr"] = rate * share
        images, *targets = (torch.from_numpy(part).to(device) for part in batch)
        with autocast(settings, device):
            loss = mean_loss(network(images), *targets)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        if settings.optimizer.clip_norm is not None:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(network.parameters(), settings.optimizer.clip_norm)
        scaler.step(optimizer)
        scaler.update()
        finder.add(loss.item())
