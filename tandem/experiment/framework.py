"""The interface between a training script, its framework's package and the frame of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tandem.data.prepare import PreparedData
from tandem.data.stream import Batch
from tandem.evaluation.architecture import Layer
from tandem.protocol.backbones import Backbone
from tandem.protocol.learning_rate_finder import LearningRateFinder
from tandem.protocol.parser import Framework as FrameworkName
from tandem.protocol.regimes import Phase
from tandem.protocol.settings import Settings
from tandem.recording.run import PhaseOutcome
from tandem.tracking.curves import Curves
from tandem.tracking.run import Run

Network = Any
"""A Classifier of either framework: uint8 images of shape (n, height, width, 3) to logits of shape (n, classes)."""

Batches = Iterator[Batch]
"""uint8 images of shape (b, height, width, 3) and their targets."""


class FrameworkPackage(Protocol):
    """The names that tandem.on_torch and tandem.on_keras have in common."""

    BACKBONE_FILE: str
    """File of save_weights that can be the `weights` of later runs."""
    PAD_BATCHES: bool
    """True if a batch of another size is compiled again, so that smaller batches are filled up."""

    def backend(self) -> str: ...
    def versions(self) -> dict[str, str]: ...
    def uses_gpu(self, settings: Settings, /) -> bool: ...
    def is_out_of_memory(self, error: BaseException, /) -> bool: ...
    def reset_peak_gpu_memory(self) -> None: ...
    def peak_gpu_memory_megabytes(self) -> float: ...
    def check_builder(self, entry: Backbone, /) -> None: ...
    def map_head(self, network: Network, outputs: Sequence[Sequence[int]], /) -> Network: ...
    def random_state(self) -> list[np.ndarray]: ...
    def restore_random_state(self, states: list[np.ndarray], /) -> None: ...
    def copy_weights(self, network: Network, /) -> Any: ...
    def restore_weights(self, network: Network, weights: Any, /) -> None: ...
    def hash_weights(self, *modules: Any) -> str: ...
    def count_parameters(self, network: Network, /) -> tuple[int, int]: ...
    def has_batch_norm(self, backbone: Any, /) -> bool: ...
    def count_macs(self, network: Network, /) -> int: ...
    def layers_of(self, network: Network, image_shape: tuple[int, ...], /) -> list[Layer]: ...
    def features_and_gradients(
        self, network: Network, images: np.ndarray, classes: np.ndarray, /
    ) -> tuple[np.ndarray, np.ndarray]: ...
    def save_weights(self, network: Network, folder: Path, /) -> None: ...
    def save_model(
        self, network: Network, folder: Path, /, *, image_shape: tuple[int, ...], num_classes: int
    ) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Framework:
    """A framework in the frame of a run: its package, and the functions of its training script."""

    name: FrameworkName
    package: FrameworkPackage
    """tandem.on_torch or tandem.on_keras."""
    set_up: Callable[[Settings], None]
    """Sets seeds, threads, flags and precision, as in a new process."""
    build_network: Callable[[Settings, PreparedData, Path | None], Network]
    """The network on its device, from the settings, the data and the file of its first weights."""
    train_phase: Callable[[Network, Phase, Settings, PreparedData, Curves], PhaseOutcome]
    """Trains one phase, and leaves the network with the weights for the next one."""
    predict_batch: Callable[[Network, Settings, np.ndarray], np.ndarray]
    """uint8 images of shape (n, height, width, 3) to logits of shape (n, classes), in inference mode."""
    train_and_evaluate: Callable[[Settings, PreparedData, Run], None]
    """A whole run."""
    raise_learning_rate: Callable[[Network, Phase, Settings, Batches, LearningRateFinder], None]
    """Takes the steps of a learning-rate range test of a phase."""
    when_prepared: Callable[[Settings, PreparedData], None] | None = None
    """Called when the data is prepared, before a run is created; raises UserError if the settings do not fit it."""
    before_trial: Callable[[], None] | None = None
    """Called before each trial of a sweep, to remove what the framework keeps of the last one."""
    trials_per_process: int | None = None
    """Number of trials after which a sweep's process starts again, to free memory; None for no limit."""
