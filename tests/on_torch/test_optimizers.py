from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from tandem.on_torch.optimizers import Blocks, build_optimizer, build_schedule
from tandem.protocol.regimes import Phase
from tandem.protocol.schedule import learning_rates
from tandem.protocol.settings import OptimizerSettings, ScheduleSettings
from tests.oracles import adam, sgd

RATE = 0.01
PHASE = Phase(number=1, trainable="all", learning_rate=RATE, max_epochs=4)
START = np.array([[1.0, -2.0, 0.5], [3.0, 0.25, -1.0]], np.float32)


def gradients(scale: float = 1.0) -> list[np.ndarray]:
    return list((np.random.default_rng(0).normal(size=(3, 2, 3)) * scale).astype(np.float32))


def dense_layer() -> nn.Linear:
    dense = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        dense.weight.copy_(torch.from_numpy(START))
    return dense


KERNELS = {"fused": False}


@pytest.fixture(params=[False, True], ids=["plain", "fused"], autouse=True)
def kernels(request: pytest.FixtureRequest) -> None:
    """Checks both kinds of torch's kernels against the same oracles."""
    KERNELS["fused"] = request.param


def weights_after_three_steps(gradients: list[np.ndarray], num_blocks: int = 0, **constants: Any) -> list[np.ndarray]:
    """START after three steps of the optimizer, as a weight of each block, from input to output, and of the head."""
    head = dense_layer()
    blocks: Blocks = [[dense_layer()] for _ in range(num_blocks)]
    dense_layers = [*(block[0] for block in blocks), head]
    optimizer = build_optimizer(OptimizerSettings(**constants), RATE, head, blocks, **KERNELS)
    for gradient in gradients:
        for dense in dense_layers:
            dense.weight.grad = torch.from_numpy(gradient)
        optimizer.step()
    return [dense.weight.detach().numpy() for dense in dense_layers]


@pytest.mark.parametrize("constants", [{}, {"beta_1": 0.5, "beta_2": 0.75}])
def test_adam_takes_the_steps_of_the_paper(constants: dict[str, float]) -> None:
    expected = adam(START, gradients(), rate=RATE, **{"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8, **constants})
    (received,) = weights_after_three_steps(gradients(), name="adam", **constants)
    assert received == pytest.approx(expected, abs=1e-6)


def test_adam_adds_epsilon_after_the_correction_of_bias() -> None:
    # gradients as small as epsilon, for which its place matters
    constants = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-3}
    expected = adam(START, gradients(1e-3), rate=RATE, **constants)
    (received,) = weights_after_three_steps(gradients(1e-3), name="adam", **constants)
    assert received == pytest.approx(expected, abs=1e-6)
    other = adam(START, gradients(1e-3), rate=RATE, **constants, epsilon_hat=True)
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


def test_sgd_keeps_weight_decay_out_of_the_momentum() -> None:
    # torch.optim.SGD does not
    dense = dense_layer()
    coupled = torch.optim.SGD(dense.parameters(), RATE, momentum=0.75, weight_decay=0.25)
    for gradient in gradients():
        dense.weight.grad = torch.from_numpy(gradient)
        coupled.step()
    (received,) = weights_after_three_steps(gradients(), name="sgd", momentum=0.75, weight_decay=0.25)
    assert np.abs(received - dense.weight.detach().numpy()).max() > 1e-3


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_does_not_depend_on_rates_of_earlier_steps(nesterov: bool) -> None:
    rates = [0.1, 0.01, 0.05]
    head = dense_layer()
    settings = OptimizerSettings(name="sgd", momentum=0.75, nesterov=nesterov, weight_decay=0.25)
    optimizer = build_optimizer(settings, RATE, head, [], **KERNELS)
    for gradient, rate in zip(gradients(), rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        head.weight.grad = torch.from_numpy(gradient)
        optimizer.step()
    expected = sgd(START, gradients(), rate=rates, momentum=0.75, nesterov=nesterov, weight_decay=0.25)
    assert head.weight.detach().numpy() == pytest.approx(expected, abs=1e-6)


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


def test_frozen_blocks_are_left_out_and_do_not_change_the_rates_of_others() -> None:
    head, blocks = dense_layer(), [[dense_layer()] for _ in range(3)]
    blocks[0][0].requires_grad_(False)
    optimizer = build_optimizer(OptimizerSettings(layer_decay=0.5), RATE, head, blocks, **KERNELS)  # type: ignore[arg-type]
    assert [group["lr"] for group in optimizer.param_groups] == [RATE, RATE / 4, RATE / 2]
    assert optimizer.param_groups[0]["params"] == [head.weight]
    assert all(blocks[0][0].weight is not weight for group in optimizer.param_groups for weight in group["params"])


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
    head, block = dense_layer(), dense_layer()
    settings = OptimizerSettings(name="sgd", momentum=0.0, layer_decay=0.5)
    optimizer = build_optimizer(settings, RATE, head, [[block]], **KERNELS)
    scheduler = build_schedule(schedule, PHASE, optimizer, steps_per_epoch=3)["lr_scheduler"]["scheduler"]
    table = learning_rates(schedule, PHASE, 3)
    assert len(table) == 12 and len(set(table)) > 5
    head_steps, block_steps = [], []
    for _ in table:
        before = head.weight.detach().clone(), block.weight.detach().clone()
        head.weight.grad, block.weight.grad = torch.ones(2, 3), torch.ones(2, 3)
        optimizer.step()
        scheduler.step()
        head_steps.append((before[0] - head.weight).mean().item())
        block_steps.append((before[1] - block.weight).mean().item())
    assert head_steps == pytest.approx(table, abs=1e-6)
    assert block_steps == pytest.approx(table / 2, abs=1e-6)


@pytest.mark.parametrize("num_steps", [3, 7, 10, 64])
def test_one_cycle_has_the_rates_of_torch(num_steps: int) -> None:
    phase = Phase(number=1, trainable="all", learning_rate=RATE, max_epochs=num_steps)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    published = OneCycleLR(optimizer, max_lr=RATE, total_steps=num_steps, cycle_momentum=False)
    expected = []
    for step in range(num_steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step + 1 < num_steps:
            published.step()
    assert learning_rates(ScheduleSettings(name="one_cycle"), phase, 1) == pytest.approx(expected, rel=1e-12)


def test_blocks_of_the_same_rate_share_a_group() -> None:
    head, blocks = dense_layer(), [[dense_layer()] for _ in range(3)]
    optimizer = build_optimizer(OptimizerSettings(), RATE, head, blocks, **KERNELS)  # type: ignore[arg-type]
    (group,) = optimizer.param_groups
    assert group["lr"] == RATE
    assert [id(weight) for weight in group["params"]] == [id(head.weight), *(id(block[0].weight) for block in blocks)]


def test_constant_rate_needs_no_schedule() -> None:
    optimizer = build_optimizer(OptimizerSettings(), RATE, dense_layer(), [], **KERNELS)
    assert build_schedule(ScheduleSettings(), PHASE, optimizer, steps_per_epoch=3) == {}


def test_plateau_reduces_all_rates_by_the_same_factor() -> None:
    optimizer = build_optimizer(OptimizerSettings(layer_decay=0.5), RATE, dense_layer(), [[dense_layer()]], **KERNELS)
    settings = ScheduleSettings(name="plateau", patience=1, factor=0.5, min_learning_rate=RATE / 3)
    scheduler = build_schedule(settings, PHASE, optimizer, steps_per_epoch=3)["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(4):
        rates.append([group["lr"] for group in optimizer.param_groups])
        scheduler.step(1.0)
    head = [RATE, RATE, RATE / 2, RATE / 3]
    assert rates == [[pytest.approx(rate), pytest.approx(rate / 2)] for rate in head]
