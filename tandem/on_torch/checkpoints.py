"""Callback that writes a phase's checkpoints, and continues an interrupted phase from one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from tandem import interrupts
from tandem.errors import TrainingDiverged
from tandem.on_torch.average import UseAverages
from tandem.on_torch.distributed import of_all_processes, of_first_process, rank
from tandem.on_torch.early_stopping import EarlyStoppingWithBestWeights
from tandem.on_torch.log_epochs import LogEpochs
from tandem.on_torch.random_numbers import random_state, restore_random_state
from tandem.tracking.checkpoints import PhaseCheckpoints

BATCHES_BETWEEN_LOOKS = 50  # at the loss, for which the program waits for the device


class KeepCheckpoints(Callback):
    """Writes a checkpoint at the start of each epoch and, where one is due, between two steps.

    It goes before LogEpochs and the early stopping, whose state it restores. A continued phase is equal to the last bit
    to one without an interruption, wherever two of these are equal.

    Lightning's ModelCheckpoint does not save the step of a plateau schedule after its epoch, nor random numbers, and
    its loop cannot begin within an epoch without repeating hooks.

    It ends a training whose loss is not finite any more, and puts the weights of the last checkpoint in place.

    Of several processes the first one writes, with the random numbers and sums of all, and all continue from its state.
    """

    def __init__(
        self,
        checkpoints: PhaseCheckpoints,
        loader: Any,
        log_epochs: LogEpochs,
        early_stopping: EarlyStoppingWithBestWeights,
        averages: Sequence[UseAverages],
    ) -> None:
        """
        Args:
            checkpoints: The phase's.
            loader: Its training batches; a loader of features is continued at whole epochs only.
            log_epochs: Its curves' callback.
            early_stopping: Its early stopping.
            averages: The callbacks that average its weights.
        """
        self.checkpoints = checkpoints
        self.loader = loader
        self.log_epochs = log_epochs
        self.early_stopping = early_stopping
        self.averages = averages

    def setup(self, trainer: lightning.Trainer, module: Any, stage: str) -> None:
        self.checkpoints.continue_from(of_first_process(self.checkpoints.state))
        if self.checkpoints.state is not None:
            self.loader.stream.restore_digests(self.checkpoints.state["digests"])
            self.loader.begin_at(self.checkpoints.epoch, self.checkpoints.batch)
            begin_at(trainer, self.checkpoints.epoch, self.checkpoints.batch)

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        interrupts.install()  # Lightning has set handlers of its own
        self.checkpoints.begin()

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: Any) -> None:
        module.sums.begin_at(0)
        if self.checkpoints.state is not None:
            self._restore(trainer, module)
        elif trainer.current_epoch > 0:
            self._save(trainer, module, batch=0)
        interrupts.check()

    def on_train_batch_end(self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
        if index + 1 == len(self.loader):
            return  # the epoch ends first
        if (index + 1) % trainer.accumulate_grad_batches:
            return  # the step needs more passes
        looks = (index + 1) % BATCHES_BETWEEN_LOOKS == 0
        is_due = self.loader.begins_within_epochs and self.checkpoints.is_due()
        if trainer.world_size > 1:  # all have to do the same, and agreeing on it takes time
            is_due = looks and trainer.strategy.reduce_boolean_decision(is_due, all=False)
        elif is_due or looks:  # several processes end at the end of the epoch
            self._look_at_loss(trainer, module)
        if is_due:
            self._save(trainer, module, batch=index + 1)
        interrupts.check()

    def on_exception(self, trainer: lightning.Trainer, module: Any, exception: BaseException) -> None:
        if isinstance(exception, TrainingDiverged) and (good := self.checkpoints.last_good_network()) is not None:
            module.network.load_state_dict(as_tensors(good))

    def _look_at_loss(self, trainer: lightning.Trainer, module: Any) -> None:
        if not math.isfinite(loss := module.sums.train_loss()):
            raise self.log_epochs.curves.diverged(
                num_finite=module.sums.num_finite // trainer.accumulate_grad_batches,
                loss=loss,
                learning_rate=self.log_epochs.learning_rate,
            )

    def _save(self, trainer: lightning.Trainer, module: Any, batch: int) -> None:
        own = {"random": random_state(), "sums": as_arrays(module.sums.state_dict())}
        processes = of_all_processes(own)
        if not self.checkpoints.is_kept or not all(_are_finite(each["sums"]) for each in processes):
            return
        state = {
            "network": module.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
            "schedules": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
            "precision": trainer.precision_plugin.state_dict(),
            "early_stopping": self.early_stopping.state_dict(),
            "averages": [callback.state_dict() for callback in self.averages],
            "sums": processes[0]["sums"],
            "log_epochs": self.log_epochs.state_dict() if batch else {},
            "backend_random": processes[0]["random"],
            "others": processes[1:],
            "digests": self.loader.stream.digests(None if trainer.current_epoch else batch),
        }
        self.checkpoints.save(trainer.current_epoch, batch, as_arrays(state))

    def _restore(self, trainer: lightning.Trainer, module: Any) -> None:
        found, self.checkpoints.state = self.checkpoints.state, None
        assert found is not None
        state = as_tensors(found)
        own = {"random": found["backend_random"], "sums": state["sums"]}
        if (number := rank()) > 0:
            own = {"random": found["others"][number - 1]["random"], "sums": state["others"][number - 1]["sums"]}
        restore_random_state(own["random"])
        module.network.load_state_dict(state["network"])
        for optimizer, of_optimizer in zip(trainer.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(of_optimizer)
            _lay_out_like_weights(optimizer)
        for config, of_schedule in zip(trainer.lr_scheduler_configs, state["schedules"], strict=True):
            config.scheduler.load_state_dict(of_schedule)
        trainer.precision_plugin.load_state_dict(state["precision"])
        self.early_stopping.load_state_dict(state["early_stopping"])
        for callback, of_averages in zip(self.averages, state.get("averages", []), strict=True):  # not in older ones
            callback.load_state_dict(of_averages)
        module.sums.load_state_dict(own["sums"], trainer.strategy.root_device)
        module.sums.begin_at(self.checkpoints.batch)
        self.log_epochs.load_state_dict(state["log_epochs"])


def _lay_out_like_weights(optimizer: torch.optim.Optimizer) -> None:
    # torch's fused kernels step through the memory of weights and moments alike, so both need the same memory format
    for weight, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                moments[name] = torch.empty_like(weight).copy_(value)


def _are_finite(sums: Mapping[str, tuple[Any, Any, int]]) -> bool:
    return all(np.isfinite(loss).all() for loss, _, _ in sums.values())


def begin_at(trainer: lightning.Trainer, epoch: int, batch: int) -> None:
    """Makes the trainer's fit begin at a batch of an epoch, both counted from 0."""
    loop = trainer.fit_loop
    for count in (loop.epoch_progress.total, loop.epoch_progress.current):
        count.ready = count.started = count.processed = count.completed = epoch  # type: ignore[attr-defined]
    if batch:
        # as Lightning saves them after the step of a batch
        for count in (loop.epoch_loop.batch_progress.total, loop.epoch_loop.batch_progress.current):
            count.ready = count.started = count.processed = batch  # type: ignore[attr-defined]
            count.completed = batch - 1
        loop.epoch_loop.restarting = True


def as_arrays(tree: Any) -> Any:
    """The tree with numpy arrays in place of tensors."""
    if isinstance(tree, Tensor):
        return tree.detach().cpu().numpy()
    if isinstance(tree, dict):
        return {key: as_arrays(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(map(as_arrays, tree))
    return tree


def as_tensors(tree: Any) -> Any:
    """The tree with tensors in place of numpy arrays."""
    if isinstance(tree, np.ndarray):
        return torch.from_numpy(tree.copy())
    if isinstance(tree, dict):
        return {key: as_tensors(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(map(as_tensors, tree))
    return tree
