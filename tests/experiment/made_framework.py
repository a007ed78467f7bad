"""A framework of a few lines of numpy, for the frame of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tandem.data.features import NO_FEATURES
from tandem.data.phase_streams import training_stream
from tandem.data.prepare import PreparedData
from tandem.errors import UserError
from tandem.evaluation.architecture import Layer
from tandem.experiment import Framework, PhaseMeter
from tandem.protocol.backbones import Backbone
from tandem.protocol.learning_rate_finder import LearningRateFinder
from tandem.protocol.regimes import Phase
from tandem.protocol.settings import Settings
from tandem.recording.run import PhaseOutcome
from tandem.tracking.curves import Curves
from tandem.tracking.run import Run


@dataclass
class LinearNetwork:
    """Logits that are sums of pixels, times a head."""

    backbone: np.ndarray
    """Of shape (pixels, features)."""
    head: np.ndarray
    """Of shape (features, outputs)."""
    pixels: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(scaling="unit"))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1) / 255 @ self.backbone @ self.head


class MadePackage:
    """The names of a framework's package, with a network's weights as numpy arrays."""

    BACKBONE_FILE = "backbone.npy"
    PAD_BATCHES = True

    def __init__(self) -> None:
        self.largest_batch = 1000
        """Images that fit into memory."""
        self.peaks = [1000.0, 7.0, 9.0, 8.0]
        """Peak memory, in megabytes, at the beginning and after each reset."""

    def backend(self) -> str:
        return "numpy"

    def versions(self) -> dict[str, str]:
        return {"numpy": np.__version__}

    def uses_gpu(self, settings: Settings) -> bool:
        return settings.device == "gpu"

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, MemoryError)

    def reset_peak_gpu_memory(self) -> None:
        self.peaks = self.peaks[1:] or self.peaks

    def peak_gpu_memory_megabytes(self) -> float:
        return self.peaks[0]

    def check_builder(self, entry: Backbone) -> None:
        if entry.name == "vgg16":
            raise UserError("backbone: numpy has no vgg16")

    def map_head(self, network: LinearNetwork, outputs: Sequence[Sequence[int]]) -> LinearNetwork:
        return LinearNetwork(network.backbone, network.head[:, [members[0] for members in outputs]])

    def random_state(self) -> list[np.ndarray]:
        return []

    def restore_random_state(self, states: list[np.ndarray]) -> None:
        assert states == []

    def copy_weights(self, network: LinearNetwork) -> dict[str, np.ndarray]:
        return {"backbone": network.backbone.copy(), "head": network.head.copy()}

    def restore_weights(self, network: LinearNetwork, weights: dict[str, np.ndarray]) -> None:
        network.backbone, network.head = weights["backbone"], weights["head"]

    def hash_weights(self, *modules: Any) -> str:
        return "+".join(str(float(np.sum(module))) for module in modules)

    def count_parameters(self, network: LinearNetwork) -> tuple[int, int]:
        return network.backbone.size + network.head.size, network.head.size

    def has_batch_norm(self, backbone: np.ndarray) -> bool:
        return False

    def count_macs(self, network: LinearNetwork) -> int:
        return network.backbone.size + network.head.size

    def layers_of(self, network: LinearNetwork, image_shape: tuple[int, ...]) -> list[Layer]:
        return [Layer(name="backbone", kind="Matrix", output_shape=(4,), parameters=network.backbone.size)]

    def features_and_gradients(
        self, network: LinearNetwork, images: np.ndarray, classes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        features = images.astype(np.float32)
        return features, np.ones_like(features)

    def save_weights(self, network: LinearNetwork, folder: Path) -> None:
        folder.mkdir()
        np.save(folder / self.BACKBONE_FILE, network.backbone)

    def save_model(
        self, network: LinearNetwork, folder: Path, *, image_shape: tuple[int, ...], num_classes: int
    ) -> None:
        folder.mkdir()
        (folder / "MLmodel").write_text(f"{image_shape} {num_classes}")
        (folder / "requirements.txt").write_text("mlflow==3\nnumpy==2\n")


@dataclass
class MadeScript:
    """A training script whose network never learns; it keeps what it was called with."""

    package: MadePackage = field(default_factory=MadePackage)
    calls: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    """Sizes of the predicted batches."""
    weights_files: list[Path | None] = field(default_factory=list)
    error: Exception | None = None
    """Raised by the first attempt to build a network."""
    num_outputs: int | None = None

    def framework(self, **changes: Any) -> Framework:
        functions: dict[str, Any] = {
            "set_up": lambda settings: self.calls.append(f"set up with seed {settings.seed}"),
            "build_network": self.build_network,
            "train_phase": self.train_phase,
            "predict_batch": self.predict_batch,
            "train_and_evaluate": self.train_and_evaluate,
            "raise_learning_rate": self.raise_learning_rate,
        }
        return Framework(name="torch", package=self.package, **{**functions, **changes})

    def build_network(self, settings: Settings, data: PreparedData, weights_file: Path | None) -> LinearNetwork:
        self.calls.append(f"build with {settings.weights} weights")
        self.weights_files.append(weights_file)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        random = np.random.default_rng(settings.seed)
        num_pixels = int(np.prod(data.images.shape[1:]))
        return LinearNetwork(
            random.normal(size=(num_pixels, 4)), random.normal(size=(4, self.num_outputs or len(data.classes)))
        )

    def train_phase(
        self, network: LinearNetwork, phase: Phase, settings: Settings, data: PreparedData, curves: Curves
    ) -> PhaseOutcome:
        self.calls.append(f"train {phase.words}")
        meter = PhaseMeter(self.package, network, frozen=[[network.backbone]])
        stream = training_stream(settings, data, phase)
        with meter.training():
            list(stream.epoch(0))
            numbers = {"train_loss": 1.0, "train_accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.5}
            curves.add(phase, learning_rate=phase.learning_rate, seconds=0.1, **numbers)
        return meter.outcome(epochs=1, best_epoch=0, compile_seconds=0.5, features=NO_FEATURES, stream=stream)

    def predict_batch(self, network: LinearNetwork, settings: Settings, images: np.ndarray) -> np.ndarray:
        self.batches.append(len(images))
        if len(images) > self.package.largest_batch:
            raise MemoryError
        return network(images)

    def train_and_evaluate(self, settings: Settings, data: PreparedData, run: Run) -> None:
        if settings.batch_size > self.package.largest_batch:
            raise MemoryError
        self.calls.append(f"run in {run.folder.parent.name}")

    def raise_learning_rate(
        self, network: LinearNetwork, phase: Phase, settings: Settings, batches: Any, finder: LearningRateFinder
    ) -> None:
        if settings.batch_size > self.package.largest_batch:
            raise MemoryError
        self.calls.append(f"raise the rate of {phase.words}")
        for _, (images, _) in finder.steps(batches):
            self.batches.append(len(images))
            finder.add(1.0 / (1 + len(finder.losses)))
