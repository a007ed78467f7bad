"""Exponential moving average of the weights in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


class UseAverages(Callback):
    """Averages the weights after each optimizer step, and puts the averages in place of the weights for validation.

    They stay in place from an epoch's validation to the beginning of the next epoch, so early stopping and the network
    at the end of the phase have them. It goes before KeepCheckpoints, which saves the averages as well.

    Lightning's EMAWeightAveraging puts the weights back before early stopping keeps the best ones, copies the whole
    module, and averages steps that loss scaling has skipped.
    """

    def __init__(self, rates: np.ndarray) -> None:
        """
        Args:
            rates: Of averaging_rates.
        """
        self.num_steps = 0
        self.averages: list[Tensor] = []
        self._rates = rates
        self._variables: list[Tensor] = []
        self._weights: list[Tensor] = []

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        network = module.network
        norms = [each for each in network.modules() if isinstance(each, _BatchNorm) and each.training]
        statistics = [value for norm in norms for value in norm.buffers() if value.is_floating_point()]
        trained = [parameter.detach() for parameter in network.parameters() if parameter.requires_grad]
        self._variables = [*trained, *statistics]
        self.averages = [torch.zeros_like(variable) for variable in self._variables]
        # not on_train_batch_end: loss scaling skips steps
        trainer.optimizers[0].register_step_post_hook(lambda *arguments: self._update())

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: Any) -> None:
        if self._weights:
            torch._foreach_copy_(self._variables, self._weights)
            self._weights = []

    def on_validation_start(self, trainer: lightning.Trainer, module: Any) -> None:
        self._weights = [variable.clone() for variable in self._variables]
        torch._foreach_copy_(self._variables, self.averages)

    def state_dict(self) -> dict[str, Any]:
        return {"num_steps": self.num_steps, "averages": self.averages}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from a state; called after on_train_start."""
        self.num_steps = state_dict["num_steps"]
        for average, value in zip(self.averages, state_dict["averages"], strict=True):
            average.copy_(value)

    @torch.no_grad()
    def _update(self) -> None:
        rate = float(self._rates[min(self.num_steps, len(self._rates) - 1)])
        torch._foreach_add_(self.averages, torch._foreach_sub(self._variables, self.averages), alpha=rate)
        self.num_steps += 1


def average_weights(rates: np.ndarray | None) -> list[UseAverages]:
    """The callbacks that average the weights of a phase; they go before KeepCheckpoints.

    Args:
        rates: Of averaging_rates; None for no averages.
    """
    return [] if rates is None else [UseAverages(rates)]
