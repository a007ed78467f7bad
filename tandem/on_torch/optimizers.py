"""Optimizers and learning-rate schedules in torch."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import SGDW
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from tandem.protocol.regimes import Phase
from tandem.protocol.schedule import block_factors, is_tabulated, learning_rates
from tandem.protocol.settings import OptimizerSettings, ScheduleSettings

Blocks = list[list[nn.Module]]
"""Modules of each of a backbone's blocks, from input to output."""


def build_optimizer(
    settings: OptimizerSettings, learning_rate: float, head: nn.Module, blocks: Blocks, *, fused: bool = False
) -> torch.optim.Optimizer:
    """The optimizer of a phase, with all constants from the settings; its first parameter group is the head's.

    Weight decay is decoupled (Loshchilov and Hutter 2019): each step begins with w -= rate * decay * w, for every
    trained weight. torch.optim.SGD's is not: it adds decay * w to the gradient, and so to the momentum.

    Args:
        settings: `layer_decay` gives each block of the backbone its own factor of the learning rate.
        learning_rate: The head's.
        head: Trained as a whole.
        blocks: The backbone's, from input to output; parameters without gradients are left out.
        fused: Use torch's optimizers that step all weights in one kernel; SGD with weight decay has none.
    """
    parameters = {1.0: list(head.parameters())}  # by factor: blocks with the same factor share a group
    for block, factor in zip(blocks, block_factors(settings.layer_decay, len(blocks)), strict=True):
        trainable = [weight for module in block for weight in module.parameters() if weight.requires_grad]
        parameters.setdefault(factor, []).extend(trainable)
    groups = [{"params": weights, "lr": learning_rate * factor} for factor, weights in parameters.items() if weights]
    if settings.name == "sgd":
        momentum: dict[str, Any] = {"momentum": settings.momentum, "nesterov": settings.nesterov}
        if fused and not settings.weight_decay:
            return torch.optim.SGD(groups, learning_rate, fused=True, **momentum)
        return SGDW(groups, learning_rate, weight_decay=settings.weight_decay, **momentum)
    constants: dict[str, Any] = {"betas": (settings.beta_1, settings.beta_2), "eps": settings.epsilon, "fused": fused}
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, learning_rate, weight_decay=settings.weight_decay, **constants)
    return torch.optim.Adam(groups, learning_rate, **constants)


def build_schedule(
    settings: ScheduleSettings, phase: Phase, optimizer: torch.optim.Optimizer, steps_per_epoch: int
) -> dict[str, Any]:
    """The learning-rate schedule of a phase, for the result of configure_optimizers; empty if the rate is constant.

    Args:
        settings: The schedule and its constants.
        phase: Its learning rate and epoch limit.
        optimizer: From build_optimizer; the rates of all groups change by the same factor.
        steps_per_epoch: Training batches per epoch.
    """
    if is_tabulated(settings):
        factors = learning_rates(settings, phase, steps_per_epoch) / phase.learning_rate
        # the scheduler asks for one rate after the last step
        by_step = LambdaLR(optimizer, lambda step: factors[min(step, len(factors) - 1)])
        return {"lr_scheduler": {"scheduler": by_step, "interval": "step"}}
    if settings.name == "none":
        return {}
    by_loss = ReduceLROnPlateau(
        optimizer,
        factor=settings.factor,
        patience=settings.patience - 1,  # torch waits for one epoch longer than its patience, Keras does not
        threshold=settings.min_delta,
        threshold_mode="abs",
        min_lr=[settings.min_learning_rate * group["lr"] / phase.learning_rate for group in optimizer.param_groups],
        eps=0,
    )
    return {"lr_scheduler": {"scheduler": by_loss, "monitor": "val/loss"}}
