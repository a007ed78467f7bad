"""Lightning's training loop for Tandem: its Trainer's options, sums per epoch, and less overhead per step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.profilers import PassThroughProfiler
from torch import Tensor

from tandem import interrupts
from tandem.on_torch.acceleration import uses_gpu
from tandem.on_torch.distributed import device_options, sum_over_processes
from tandem.on_torch.loss import classes_of
from tandem.protocol.accumulation import Passes
from tandem.protocol.regimes import Phase
from tandem.protocol.settings import Settings


def trainer_options(settings: Settings, phase: Phase) -> dict[str, Any]:
    """Arguments of Lightning's Trainer: the run's devices; no logger, checkpoints or summary, since Tandem records."""
    return {
        "accelerator": "gpu" if uses_gpu(settings) else "cpu",
        **device_options(settings, phase),
        "gradient_clip_val": settings.optimizer.clip_norm,
        "gradient_clip_algorithm": "norm",
        "accumulate_grad_batches": settings.accumulate,
        "profiler": NoProfiler(),
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,  # the loader has one that both frameworks share
        "num_sanity_val_steps": 0,
    }


@contextlib.contextmanager
def keyboard_interrupts() -> Iterator[None]:
    """Raises KeyboardInterrupt for a signal within a with block; Lightning makes SystemExit of it."""
    try:
        with interrupts.asking():
            yield
    except SystemExit as error:
        # Interrupted, if KeepCheckpoints has raised it
        raise error.__context__ if isinstance(error.__context__, KeyboardInterrupt) else KeyboardInterrupt from None


class EpochSums:
    """Sums of loss and correct answers of an epoch's training and validation batches, kept on the device.

    Lightning's self.log in each step would cost more than the rest of its loop.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Any, Any, int]] = {}  # loss, correct answers, images
        self._num_finite: Any = 0

    def add(self, part: str, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Adds a batch.

        Args:
            part: train or val.
            loss: Mean over the batch, of shape ().
            logits: Of shape (batch, classes).
            targets: Labels of shape (batch,), or soft targets of shape (batch, classes), whose answer is the class
                with the largest share.
        """
        correct = (logits.argmax(dim=1) == classes_of(targets)).sum()
        loss_sum, num_correct, num_images = self._sums.get(part, (0, 0, 0))
        loss_sum = loss_sum + loss.detach() * len(targets)
        self._sums[part] = loss_sum, num_correct + correct, num_images + len(targets)
        if part == "train":  # a sum that is not finite stays so
            self._num_finite = self._num_finite + torch.isfinite(loss_sum)

    def state_dict(self) -> dict[str, tuple[Any, Any, int]]:
        """The sums so far, to continue an epoch with."""
        return dict(self._sums)

    @property
    def num_finite(self) -> int:
        """Training batches of the epoch before the first one whose loss was not finite."""
        return int(self._num_finite)

    def begin_at(self, batch: int) -> None:
        """Begins an epoch at a batch, counted from 0, before which all losses were finite."""
        self._num_finite = batch

    def train_loss(self) -> float:
        """Mean over this process's training batches of the epoch so far."""
        loss_sum, _, num_images = self._sums["train"]
        return float(loss_sum) / num_images

    def load_state_dict(self, sums: dict[str, tuple[Any, Any, int]], device: torch.device) -> None:
        self._sums = {
            part: (loss.to(device), correct.to(device), count) for part, (loss, correct, count) in sums.items()
        }

    def means(self) -> dict[str, float]:
        """Mean loss and accuracy of both parts over all devices, named as in callback_metrics; resets the sums."""
        means: dict[str, float] = {}
        for part in ("train", "val"):
            loss_sum, num_correct, num_images = self._sums.pop(part)
            sums = torch.stack([loss_sum, num_correct, torch.full_like(loss_sum, num_images)])
            loss, correct, images = sum_over_processes(sums).tolist()
            means |= {f"{part}/loss": loss / images, f"{part}/accuracy": correct / images}
        return means


class LeanLightningModule(lightning.LightningModule):
    """A LightningModule with a cheap way of noting the current hook, and schedules that count steps that were taken.

    Lightning sets the hook's name on it 44 times per step, and torch's __setattr__ searches parameters, buffers and
    modules each time.
    """

    passes: Passes | None = None
    """Those of an epoch; None for a step per pass."""

    _loss_scale: float | None = None

    def backward(self, loss: Tensor, *arguments: Any, **keywords: Any) -> None:
        """Adds a pass's gradient, weighted by its images. Lightning weights all passes of a step alike.

        Args:
            loss: Mean over the pass divided by the number of passes per step, of shape ().
            arguments: To be passed on to torch.
            keywords: To be passed on to torch.
        """
        if self.passes is not None and self.passes.per_step > 1:
            loss = loss * self.passes.factor(self.trainer.fit_loop.batch_idx)
        super().backward(loss, *arguments, **keywords)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Steps a schedule, unless loss scaling has skipped the training step (float16). Keras counts in the same way.

        Args:
            scheduler: torch's.
            metric: The monitored loss for a schedule by losses, otherwise None.
        """
        if metric is None and self._step_was_skipped():
            return
        super().lr_scheduler_step(scheduler, metric)

    def _step_was_skipped(self) -> bool:
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is None:
            return False
        # GradScaler lowers its scale after a step with gradients that are not finite, and only then
        before = self._loss_scale if self._loss_scale is not None else scaler._init_scale
        self._loss_scale = scaler.get_scale()
        return self._loss_scale < before

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)


class NoProfiler(PassThroughProfiler):
    """Profiles nothing, like Lightning's default, but without a generator for each of the 36 hooks of a step."""

    _nothing: AbstractContextManager[Any] = nullcontext()

    def profile(self, action_name: str) -> Any:
        return self._nothing
