"""Measures a phase: the weights before and after it, its seconds and its memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from tandem.data.features import PhaseFeatures
from tandem.data.stream import Stream
from tandem.experiment.framework import FrameworkPackage, Network
from tandem.recording.run import PhaseOutcome


class PhaseMeter:
    """Hashes the weights before and after a phase, to prove what stayed frozen, and times its training.

    meter = PhaseMeter(on_torch, network, frozen_blocks)
    with meter.training():
        trainer.fit(...)
    return meter.outcome(...)
    """

    def __init__(self, package: FrameworkPackage, network: Network, frozen: Sequence[Sequence[Any]]) -> None:
        """
        Args:
            package: Hashes and counts weights.
            network: As the phase begins with it.
            frozen: The blocks of the backbone that the phase freezes.
        """
        self._package = package
        self._network = network
        self._frozen = list(chain.from_iterable(frozen))
        self._frozen_before = package.hash_weights(*self._frozen)
        self.backbone_before = package.hash_weights(network.backbone)
        self._seconds = 0.0
        self._peak_gpu_memory_megabytes = 0.0

    @contextlib.contextmanager
    def training(self, seconds_before: float = 0.0) -> Iterator[None]:
        """Measures the with block, which trains and validates all epochs.

        Args:
            seconds_before: Time that this took before an interruption.
        """
        self._package.reset_peak_gpu_memory()
        start = time.perf_counter()
        yield
        self._seconds = seconds_before + time.perf_counter() - start
        self._peak_gpu_memory_megabytes = self._package.peak_gpu_memory_megabytes()

    def outcome(
        self,
        *,
        epochs: int,
        best_epoch: int,
        compile_seconds: float,
        features: PhaseFeatures,
        stream: Stream,
        ended_by_time_limit: bool = False,
    ) -> PhaseOutcome:
        """The outcome of the phase.

        Args:
            epochs: Number of epochs trained.
            best_epoch: The one with the lowest validation loss, from 0.
            compile_seconds: Seconds spent on tracing and compiling the phase's steps.
            features: The cached features that it was trained on.
            stream: Its training batches.
            ended_by_time_limit: True if `max_minutes` ended it.
        """
        parameters, trainable_parameters = self._package.count_parameters(self._network)
        return PhaseOutcome(
            epochs=epochs,
            best_epoch=best_epoch,
            train_seconds=features.seconds + self._seconds,
            compile_seconds=features.compile_seconds + compile_seconds,
            parameters=parameters,
            trainable_parameters=trainable_parameters,
            backbone_before=self.backbone_before,
            backbone_after=self._package.hash_weights(self._network.backbone),
            frozen_before=self._frozen_before,
            frozen_after=self._package.hash_weights(*self._frozen),
            first_epoch_hash=stream.first_epoch_hash,
            feature_seconds=features.seconds,
            cached_feature_seconds=features.cached_seconds,
            peak_gpu_memory_megabytes=self._peak_gpu_memory_megabytes,
            ended_by_time_limit=ended_by_time_limit,
        )
