"""Exponential moving average of the weights in Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras.callbacks import Callback

from tandem.on_keras.backbones import batch_norms_of, has_fixed_statistics
from tandem.on_keras.weights import assign, values_of


class Averages:
    """The averages of a model's weights, updated after each optimizer step.

    They are variables of the optimizer, so a checkpoint has them. Keras's own use_ema averages no statistics of batch
    norm, and updates after each pass of an accumulated step and after steps that loss scaling skips.
    """

    def __init__(self, model: keras.Model, rates: np.ndarray) -> None:
        """
        Args:
            model: Compiled for the phase.
            rates: Of averaging_rates.
        """
        self.optimizer = model.optimizer
        self.optimizer.build(model.trainable_variables)
        norms = [norm for norm in batch_norms_of(model) if not has_fixed_statistics(norm)]
        statistics = [variable for norm in norms for variable in norm.non_trainable_variables]
        self.variables: list[keras.Variable] = [*model.trainable_variables, *statistics]
        self.averages: list[keras.Variable] = [
            self.optimizer.add_variable_from_reference(variable, name="average") for variable in self.variables
        ]
        self._rates = rates.astype(np.float32)

    def update(self, steps_before: Any) -> None:
        """Moves the averages towards the weights, if the optimizer has taken a step.

        Args:
            steps_before: Steps that it had taken before this pass.
        """
        rate = keras.ops.take(self._rates, keras.ops.minimum(steps_before, len(self._rates) - 1))
        rate = keras.ops.where(self.optimizer.iterations > steps_before, rate, 0.0)
        for average, variable in zip(self.averages, self.variables, strict=True):
            average.assign(average + rate * (variable - average))


class WithAverages(keras.Model):
    """A model that can average its weights while it is trained."""

    averages: Averages | None = None

    def train_step(self, *arguments: Any) -> Any:
        """Keras's own step; then the averages are updated.

        Args:
            arguments: The batch; on JAX, which changes no variables in a step, the state and the batch.
        """
        averages = self.averages
        if averages is None:
            return super().train_step(*arguments)
        if keras.backend.backend() != "jax":
            steps_before = keras.ops.copy(averages.optimizer.iterations)
            logs = super().train_step(*arguments)
            averages.update(steps_before)
            return logs
        _, _, optimizer_before, _ = arguments[0]
        with keras.StatelessScope(list(zip(averages.optimizer.variables, optimizer_before, strict=True))):
            steps_before = keras.ops.convert_to_tensor(averages.optimizer.iterations)
        logs, state = super().train_step(*arguments)
        names = (self.trainable_variables, self.non_trainable_variables, averages.optimizer.variables)
        values = [pair for part, new in zip(names, state, strict=False) for pair in zip(part, new, strict=True)]
        with keras.StatelessScope(values) as scope:
            averages.update(steps_before)
            optimizer_variables = [scope.get_current_value(each) for each in averages.optimizer.variables]
        return logs, (*state[:2], optimizer_variables, state[3])


class UseAverages(Callback):
    """Puts the averages in place of the weights from an epoch's validation to the beginning of the next epoch.

    So validation, early stopping and the network at the end of the phase have them. It goes before KeepCheckpoints.
    """

    def __init__(self, averages: Averages) -> None:
        super().__init__()
        self._averages = averages
        self._weights: list[np.ndarray] = []

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        # copies: JAX gives the memory of a step's variables away, which no two of them may share
        self._weights = values_of(self._averages.variables)
        assign(self._averages.variables, values_of(self._averages.averages))

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self._weights:
            assign(self._averages.variables, self._weights)
            self._weights = []


def average_weights(model: WithAverages, rates: np.ndarray | None) -> list[Callback]:
    """Makes a compiled model average its weights in a phase.

    Args:
        model: Its averages of an earlier phase are removed.
        rates: Of averaging_rates; None for no averages.

    Returns:
        The callbacks for fit, which go before KeepCheckpoints.
    """
    model.averages = None if rates is None else Averages(model, rates)
    return [] if model.averages is None else [UseAverages(model.averages)]
