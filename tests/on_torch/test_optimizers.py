from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tandem.on_torch.networks import Classifier, Pixels
from tandem.protocol.regimes import Phase
from tandem.protocol.settings import OptimizerSettings
from tests.oracles import adam, sgd
from tests.small_runs import small_settings
from train_torch import build_optimizer

RATE = 0.01
START = np.array([[1.0, -2.0, 0.5], [3.0, 0.25, -1.0]], np.float32)


def gradients(scale: float = 1.0) -> list[np.ndarray]:
    return list((np.random.default_rng(0).normal(size=(3, 2, 3)) * scale).astype(np.float32))


def weight_after_three_steps(gradients: list[np.ndarray], **constants: Any) -> np.ndarray:
    """What the optimizer makes of START, seen as a weight of a backbone that is trained."""
    dense = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        dense.weight.copy_(torch.from_numpy(START))
    phase = Phase(number=1, trainable="all", learning_rate=RATE, max_epochs=1)
    settings = small_settings(optimizer=OptimizerSettings(**constants))
    optimizer = build_optimizer(settings, phase, Classifier(Pixels(8, "unit"), dense, nn.Identity()))
    for gradient in gradients:
        dense.weight.grad = torch.from_numpy(gradient)
        optimizer.step()
    return dense.weight.detach().numpy()


@pytest.mark.parametrize("constants", [{}, {"beta_1": 0.5, "beta_2": 0.75}])
def test_adam_takes_the_paper_s_steps(constants: dict[str, float]) -> None:
    expected = adam(START, gradients(), rate=RATE, **{"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8, **constants})
    assert weight_after_three_steps(gradients(), name="adam", **constants) == pytest.approx(expected, abs=1e-6)


def test_adam_adds_epsilon_after_the_correction_of_bias() -> None:
    # gradients as small as epsilon, where its place shows
    constants = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-3}
    expected = adam(START, gradients(1e-3), rate=RATE, **constants)
    assert weight_after_three_steps(gradients(1e-3), name="adam", **constants) == pytest.approx(expected, abs=1e-6)
    other = adam(START, gradients(1e-3), rate=RATE, **constants, epsilon_hat=True)
    assert np.abs(other - expected).max() > 1e-3


def test_adamw_decays_weights_apart_from_the_gradient() -> None:
    expected = adam(START, gradients(), rate=RATE, beta_1=0.9, beta_2=0.999, epsilon=1e-8, weight_decay=0.25)
    received = weight_after_three_steps(gradients(), name="adamw", weight_decay=0.25)
    assert received == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.75, False), (0.75, True)])
def test_sgd_takes_the_paper_s_steps(momentum: float, nesterov: bool) -> None:
    expected = sgd(START, gradients(), rate=RATE, momentum=momentum, nesterov=nesterov)
    received = weight_after_three_steps(gradients(), name="sgd", momentum=momentum, nesterov=nesterov)
    assert received == pytest.approx(expected, abs=1e-6)
