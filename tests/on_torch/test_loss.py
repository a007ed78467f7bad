from __future__ import annotations

import numpy as np
import pytest
import torch

from tandem.on_torch.lightning_loop import EpochSums
from tandem.on_torch.loss import mean_loss
from tests.oracles import SOFT_BATCH, accuracy, cross_entropy, soft_cross_entropy

LOGITS, TARGETS, WEIGHTS = SOFT_BATCH


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_of_soft_targets_and_its_gradient(weighted: bool) -> None:
    logits = torch.from_numpy(LOGITS).requires_grad_()
    weights = (torch.from_numpy(WEIGHTS),) if weighted else ()
    loss = mean_loss(logits, torch.from_numpy(TARGETS), *weights)
    loss.backward()
    expected, gradient = soft_cross_entropy(LOGITS, TARGETS, WEIGHTS if weighted else np.ones(len(LOGITS)))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), gradient, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_of_labels(weighted: bool) -> None:
    labels = TARGETS.argmax(axis=1)
    weights = (torch.from_numpy(WEIGHTS),) if weighted else ()
    loss = mean_loss(torch.from_numpy(LOGITS), torch.from_numpy(labels), *weights)
    one_hot = np.eye(LOGITS.shape[1])[labels]
    expected = soft_cross_entropy(LOGITS, one_hot, WEIGHTS)[0] if weighted else cross_entropy(LOGITS, labels)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_accuracy_counts_the_class_with_the_largest_share() -> None:
    labels, sums = TARGETS.argmax(axis=1), EpochSums()
    for part, targets in (("train", TARGETS), ("val", labels)):
        sums.add(part, torch.tensor(1.0), torch.from_numpy(LOGITS), torch.from_numpy(targets))
    means = sums.means()
    assert means["train/accuracy"] == means["val/accuracy"] == pytest.approx(accuracy(LOGITS, labels))
    assert 0 < means["train/accuracy"] < 1
