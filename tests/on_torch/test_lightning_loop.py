from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as lightning
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tandem.on_torch.lightning_loop import LeanLightningModule, NoProfiler

BATCHES = DataLoader(torch.tensor([[1.0], [2.0], [3.0], [0.5]]), batch_size=2)  # type: ignore[arg-type]


class Regression(LeanLightningModule):
    def __init__(self, *, logs_at_start: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)
        self.scale = nn.Parameter(torch.ones(()))
        self.logs_at_start = logs_at_start

    def on_fit_start(self) -> None:
        if self.logs_at_start:
            self.log("start", 0.0)

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        loss = (self.scale * self.layer(batch) - 2 * batch).square().mean()
        self.log("loss", loss, on_epoch=True, on_step=False)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(**options: Any) -> lightning.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    return lightning.Trainer(max_epochs=2, accelerator="cpu", enable_progress_bar=False, **quiet, **options)


@pytest.mark.filterwarnings("ignore")
def test_training_and_logging_equal_lightning_s_own() -> None:
    class Plain(Regression):
        __setattr__ = lightning.LightningModule.__setattr__

    found = []
    for module, options in ((Plain(), {}), (Regression(), {"profiler": NoProfiler()})):
        nn.init.ones_(module.layer.weight)
        fit = trainer(**options)
        fit.fit(module, BATCHES)
        found.append((fit.callback_metrics["loss"].item(), [value.item() for value in module.parameters()]))
    assert found[0] == found[1]
    assert len(found[0][1]) == 2


@pytest.mark.filterwarnings("ignore")
def test_lightning_still_knows_its_current_hook() -> None:
    with pytest.raises(MisconfigurationException, match="on_fit_start"):
        trainer(profiler=NoProfiler()).fit(Regression(logs_at_start=True), BATCHES)


def test_step_that_loss_scaling_skips_counts_in_no_schedule() -> None:
    module = Regression()
    optimizer = torch.optim.SGD(module.parameters(), 1.0)
    by_step = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
    module._trainer = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler))  # type: ignore[assignment]
    rates = []
    for factor in (1.0, math.inf, 1.0, math.inf, math.inf, 1.0, 1.0, 1.0, 1.0):
        optimizer.zero_grad()
        scaler.scale(module.layer(torch.ones(1, 1)).sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        module.lr_scheduler_step(by_step, None)
        rates.append(optimizer.param_groups[0]["lr"])
    # the steps taken: 1, 2, ... at a growing and falling scale; a skipped one leaves the rate
    assert rates == pytest.approx([1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3, 1 / 4, 1 / 5, 1 / 6, 1 / 7])


def test_schedules_count_every_step_without_loss_scaling() -> None:
    module = Regression()
    optimizer = torch.optim.SGD(module.parameters(), 1.0)
    by_step = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    module._trainer = SimpleNamespace(precision_plugin=SimpleNamespace())  # type: ignore[assignment]
    for _ in range(3):
        optimizer.step()
        module.lr_scheduler_step(by_step, None)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1 / 4)
