from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from tandem.on_keras.optimizers import Blocks, Table, build_optimizer, build_schedule
from tandem.protocol.regimes import Phase
from tandem.protocol.schedule import learning_rates
from tandem.protocol.settings import OptimizerSettings, ScheduleSettings
from tests.oracles import adam, sgd

RATE = 0.01
PHASE = Phase(number=1, trainable="all", learning_rate=RATE, max_epochs=4)
START = np.array([[1.0, -2.0, 0.5], [3.0, 0.25, -1.0]], np.float32)


def gradients(scale: float = 1.0) -> list[np.ndarray]:
    return list((np.random.default_rng(0).normal(size=(3, 2, 3)) * scale).astype(np.float32))


def dense_layer() -> keras.layers.Dense:
    dense = keras.layers.Dense(3, use_bias=False)
    dense.build((None, 2))
    dense.set_weights([START])
    return dense


def value_of(dense: keras.layers.Dense) -> np.ndarray:
    return keras.ops.convert_to_numpy(dense.kernel)


def weights_after_three_steps(gradients: list[np.ndarray], num_blocks: int = 0, **constants: Any) -> list[np.ndarray]:
    """START after three steps of the optimizer, as a weight of each block, from input to output, and of the head."""
    dense_layers = [dense_layer() for _ in range(num_blocks + 1)]
    blocks: Blocks = [[dense] for dense in dense_layers[:-1]]
    optimizer = build_optimizer(OptimizerSettings(**constants), RATE, blocks)
    for gradient in gradients:
        optimizer.apply(
            [keras.ops.convert_to_tensor(gradient)] * len(dense_layers), [dense.kernel for dense in dense_layers]
        )
    return [value_of(dense) for dense in dense_layers]


@pytest.mark.parametrize("constants", [{}, {"beta_1": 0.5, "beta_2": 0.75}])
def test_adam_takes_the_steps_of_the_paper(constants: dict[str, float]) -> None:
    expected = adam(START, gradients(), rate=RATE, **{"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8, **constants})
    (received,) = weights_after_three_steps(gradients(), name="adam", **constants)
    assert received == pytest.approx(expected, abs=1e-6)


def test_adam_adds_epsilon_before_the_correction_of_bias() -> None:
    # gradients as small as epsilon, for which its place matters; torch adds it afterwards
    constants = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-3}
    expected = adam(START, gradients(1e-3), rate=RATE, **constants, epsilon_hat=True)
    (received,) = weights_after_three_steps(gradients(1e-3), name="adam", **constants)
    assert received == pytest.approx(expected, abs=1e-6)
    other = adam(START, gradients(1e-3), rate=RATE, **constants)
    assert np.abs(other - expected).max() > 1e-3


def test_adamw_decays_weights_separately_from_the_gradient() -> None:
    expected = adam(START, gradients(), rate=RATE, beta_1=0.9, beta_2=0.999, epsilon=1e-8, weight_decay=0.25)
    (received,) = weights_after_three_steps(gradients(), name="adamw", weight_decay=0.25)
    assert received == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("weight_decay", [0.0, 0.25])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.75, False), (0.75, True)])
def test_sgd_takes_the_steps_of_the_papers(momentum: float, nesterov: bool, weight_decay: float) -> None:
    constants = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    expected = sgd(START, gradients(), rate=RATE, **constants)  # type: ignore[arg-type]
    (received,) = weights_after_three_steps(gradients(), name="sgd", **constants)
    assert received == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_momentum_does_not_depend_on_rates_of_earlier_steps(layer_decay: float, nesterov: bool) -> None:
    rates = [0.1, 0.01, 0.05]
    block, head = dense_layer(), dense_layer()
    settings = OptimizerSettings(
        name="sgd", momentum=0.75, nesterov=nesterov, weight_decay=0.25, layer_decay=layer_decay
    )
    optimizer = build_optimizer(settings, Table(np.array(rates)), [[block]])
    for gradient in gradients():
        optimizer.apply([keras.ops.convert_to_tensor(gradient)] * 2, [block.kernel, head.kernel])
    for dense, factor in ((head, 1.0), (block, layer_decay)):
        own = [rate * factor for rate in rates]
        expected = sgd(START, gradients(), rate=own, momentum=0.75, nesterov=nesterov, weight_decay=0.25)
        assert value_of(dense) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("weight_decay", [0.0, 0.25])
def test_each_block_learns_and_decays_at_its_own_rate(weight_decay: float) -> None:
    # three blocks, with 1/8, 1/4 and 1/2 of the head's rate
    rates = [RATE / 8, RATE / 4, RATE / 2, RATE]
    received = weights_after_three_steps(
        gradients(), 3, name="sgd", momentum=0.75, weight_decay=weight_decay, layer_decay=0.5
    )
    for weight, rate in zip(received, rates, strict=True):
        expected = sgd(START, gradients(), rate=rate, momentum=0.75, nesterov=False, weight_decay=weight_decay)
        assert weight == pytest.approx(expected, abs=1e-6)
    received = weights_after_three_steps(gradients(), 3, name="adamw", weight_decay=weight_decay, layer_decay=0.5)
    for weight, rate in zip(received, rates, strict=True):
        expected = adam(
            START, gradients(), rate=rate, beta_1=0.9, beta_2=0.999, epsilon=1e-8, weight_decay=weight_decay
        )
        assert weight == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "schedule",
    [
        ScheduleSettings(name="cosine", warmup_epochs=1, min_learning_rate=1e-3),
        ScheduleSettings(name="none", warmup_epochs=2),
        ScheduleSettings(name="step", warmup_epochs=2, step_epochs=1, factor=0.3),
        ScheduleSettings(name="one_cycle"),
    ],
    ids=["cosine", "warm-up alone", "step", "one cycle"],
)
def test_steps_use_the_rates_of_the_table(schedule: ScheduleSettings) -> None:
    block, head = dense_layer(), dense_layer()
    learning_rate, callbacks = build_schedule(schedule, PHASE, steps_per_epoch=3)
    assert callbacks == []
    settings = OptimizerSettings(name="sgd", momentum=0.0, layer_decay=0.5)
    optimizer = build_optimizer(settings, learning_rate, [[block]])
    table = learning_rates(schedule, PHASE, 3)
    assert len(table) == 12 and len(set(table)) > 5
    head_steps, block_steps = [], []
    for _ in table:
        before = value_of(head), value_of(block)
        optimizer.apply([keras.ops.ones((2, 3))] * 2, [block.kernel, head.kernel])
        head_steps.append((before[0] - value_of(head)).mean())
        block_steps.append((before[1] - value_of(block)).mean())
    assert head_steps == pytest.approx(table, abs=1e-6)
    assert block_steps == pytest.approx(table / 2, abs=1e-6)


def test_constant_rate_needs_no_schedule() -> None:
    assert build_schedule(ScheduleSettings(), PHASE, steps_per_epoch=3) == (RATE, [])


def test_gradients_are_clipped_after_the_loss_scale_is_removed() -> None:
    head, gradient = dense_layer(), gradients()[0]
    settings = OptimizerSettings(name="sgd", momentum=0.0, clip_norm=0.5)
    optimizer = keras.optimizers.LossScaleOptimizer(build_optimizer(settings, RATE, []), initial_scale=8.0)
    optimizer.apply([keras.ops.convert_to_tensor(gradient * 8)], [head.kernel])
    norm = np.sqrt((gradient**2).sum())
    assert norm > 0.5
    assert value_of(head) == pytest.approx(START - RATE * gradient * 0.5 / norm, abs=1e-6)
