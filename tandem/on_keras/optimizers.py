"""Optimizers and learning-rate schedules in Keras."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras.callbacks import Callback, ReduceLROnPlateau
from keras.optimizers.schedules import LearningRateSchedule

from tandem.protocol.accumulation import Passes
from tandem.protocol.regimes import Phase
from tandem.protocol.schedule import block_factors, is_tabulated, learning_rates
from tandem.protocol.settings import OptimizerSettings, ScheduleSettings

Blocks = list[list[keras.layers.Layer]]
"""Layers of each of a backbone's blocks, from input to output."""


def build_optimizer(
    settings: OptimizerSettings,
    learning_rate: float | LearningRateSchedule,
    blocks: Blocks,
    passes: Passes | None = None,
) -> keras.optimizers.Optimizer:
    """The optimizer of a phase, with all constants from the settings.

    Weight decay is decoupled (Loshchilov and Hutter 2019): each step begins with w -= rate * decay * w, for every
    trained weight.

    Args:
        settings: `layer_decay` gives each block of the backbone its own factor of the learning rate.
        learning_rate: The head's.
        blocks: The backbone's, from input to output.
        passes: Those of an epoch; None for a step per pass.
    """
    optimizer: type[keras.optimizers.Optimizer]
    if settings.name == "sgd":
        optimizer = MomentumSGD
        constants: dict[str, Any] = {"momentum": settings.momentum, "nesterov": settings.nesterov}
    else:
        optimizer = keras.optimizers.Adam  # AdamW is Adam with a weight decay
        constants = {"beta_1": settings.beta_1, "beta_2": settings.beta_2, "epsilon": settings.epsilon}
    constants["global_clipnorm"] = settings.clip_norm
    if passes is not None and passes.per_step > 1:
        optimizer = _accumulating(optimizer, passes)
    if settings.layer_decay == 1:
        return optimizer(learning_rate, weight_decay=settings.weight_decay or None, **constants)
    factors = {
        id(variable): factor
        for block, factor in zip(blocks, block_factors(settings.layer_decay, len(blocks)), strict=True)
        for layer in block
        for variable in layer.weights
    }
    return _with_factors(optimizer, factors, settings.weight_decay)(learning_rate, **constants)


class MomentumSGD(keras.optimizers.SGD):
    """SGD whose velocity contains gradients only, like torch's: v = momentum * v + g, then w -= rate * v.

    Goyal et al. 2017, equation 9. In Keras's own SGD the velocity contains the rates of earlier steps (equation 10):
    after a change of the rate it continues with the old one for some steps.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        gradient = keras.ops.cast(gradient, variable.dtype)
        step = gradient
        if self.momentum:
            velocity = self.momentums[self._get_variable_index(variable)]
            self.assign(velocity, velocity * self.momentum + gradient)
            step = gradient + velocity * self.momentum if self.nesterov else velocity
        self.assign_sub(variable, keras.ops.cast(learning_rate, variable.dtype) * step)


def _with_factors(
    optimizer: type[keras.optimizers.Optimizer], factors: Mapping[int, float], weight_decay: float
) -> type[keras.optimizers.Optimizer]:
    """A subclass of the optimizer with one learning rate per variable; Keras has one for all.

    Args:
        optimizer: The class to extend.
        factors: Factor of a variable's rate by the variable's id; 1 for others.
        weight_decay: As in the settings, applied at the variable's own rate; Keras applies it at the common one.
    """

    class WithFactors(optimizer):  # type: ignore[misc, valid-type]
        def build(self, variables: list[keras.Variable]) -> None:
            super().build(variables)
            self.factors = [factors.get(id(variable), 1.0) for variable in variables]

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            rate = learning_rate * self.factors[self._get_variable_index(variable)]
            if weight_decay:
                self.assign_sub(variable, variable * (rate * weight_decay))
            super().update_step(gradient, variable, rate)

    return WithFactors


def _accumulating(optimizer: type[keras.optimizers.Optimizer], passes: Passes) -> type[keras.optimizers.Optimizer]:
    """A subclass of the optimizer that takes a step per several passes, and one at the end of each epoch.

    Keras's own accumulation takes a step after every `per_step` passes, and carries on over the end of an epoch. Here
    its counter skips, before the last step of an epoch, the passes that this step lacks.

    Args:
        optimizer: The class to extend.
        passes: Those of an epoch.
    """
    num_places = passes.num_steps * passes.per_step  # of the counter, per epoch
    lacking = num_places - passes.num_passes
    before_last = num_places - passes.per_step
    factors = np.ones(num_places, np.float32)
    factors[before_last + lacking :] = [passes.factor(index) for index in range(before_last, passes.num_passes)]
    skips = np.zeros(num_places, np.int32)
    skips[before_last - 1] = lacking  # the place before the last step; with one step per epoch, the end of the epoch

    class Accumulating(optimizer):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, gradient_accumulation_steps=passes.per_step, **keywords)

        def build(self, variables: list[keras.Variable]) -> None:
            super().build(variables)
            if passes.num_steps == 1:
                self._iterations.assign(lacking)

        def apply(self, grads: list[Any], trainable_variables: list[keras.Variable] | None = None) -> None:
            place = self._iterations % num_places
            factor, skip = keras.ops.take(factors, place), keras.ops.take(skips, place)
            super().apply([gradient * factor for gradient in grads], trainable_variables)
            self._iterations.assign_add(keras.ops.cast(skip, self._iterations.dtype))

        def _get_current_learning_rate(self) -> Any:
            # Keras looks a schedule's rate up by the number of passes
            rate = self._learning_rate
            return rate(self.iterations) if isinstance(rate, LearningRateSchedule) else rate

    return Accumulating


class Table(LearningRateSchedule):
    """A learning-rate schedule that lists the rate of each step.

    Example: keras.optimizers.SGD(Table(np.array([0.1, 0.05, 0.025])))
    """

    def __init__(self, rates: np.ndarray) -> None:
        self.rates = rates.astype(np.float32)

    def __call__(self, step: Any) -> Any:
        return keras.ops.take(self.rates, keras.ops.minimum(keras.ops.cast(step, "int32"), len(self.rates) - 1))


def build_schedule(
    settings: ScheduleSettings, phase: Phase, steps_per_epoch: int
) -> tuple[float | LearningRateSchedule, list[Callback]]:
    """The optimizer's learning rate, and the callbacks that change it.

    Args:
        settings: The schedule and its constants.
        phase: Its learning rate and epoch limit.
        steps_per_epoch: Training batches per epoch.
    """
    if is_tabulated(settings):
        return Table(learning_rates(settings, phase, steps_per_epoch)), []
    if settings.name == "none":
        return phase.learning_rate, []
    reduce = ReduceLROnPlateau(
        monitor="val_loss",
        mode="min",
        factor=settings.factor,
        patience=settings.patience,
        min_delta=settings.min_delta,
        min_lr=settings.min_learning_rate,
    )
    return phase.learning_rate, [reduce]
