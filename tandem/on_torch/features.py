"""A frozen phase without its backbone: features computed once per image, and the head trained on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from tandem.data.features import PhaseFeatures, find_phase_features
from tandem.data.prepare import PreparedData
from tandem.data.stream import Batch, Stream
from tandem.evaluation.batching import computed_as_fits, in_batches
from tandem.on_torch.acceleration import autocast, is_out_of_memory
from tandem.on_torch.feed import Tensors
from tandem.on_torch.networks import Classifier
from tandem.on_torch.versions import versions
from tandem.protocol.regimes import Phase
from tandem.protocol.settings import Settings
from tandem.tracking.system import describe_hardware

CPU_BATCH_SIZE, GPU_BATCH_SIZE = 32, 512  # larger ones are no faster on a CPU; halved on a GPU until they fit

CHUNK_BYTES = 64_000_000  # of features that a loader takes from the cache at a time


class HeadOnFeatures(nn.Module):
    """The classifier's own head as a network: float32 features of shape (n, features) to logits (n, classes)."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features)


def find_features(
    network: Classifier, phase: Phase, settings: Settings, data: PreparedData, weights_hash: str
) -> PhaseFeatures:
    """The features that a phase trains its head on, computed first if no earlier run has done so.

    Args:
        network: On the device that computes, its backbone frozen for the phase.
        phase: A phase that trains the backbone has no features.
        settings: The run's.
        data: The images.
        weights_hash: Hash of the backbone's weights.
    """
    made_with = {
        "framework": ", ".join(f"{name} {versions()[name]}" for name in ("torch", "torchvision", "timm")),
        "device": network.device.type,
        "hardware": describe_hardware(),
        "weights": weights_hash,
    }
    return find_phase_features(
        phase, settings, data, made_with, lambda images_of: backbone_pass(network, images_of, settings)
    )


def backbone_pass(
    network: Classifier, images_of: Callable[[np.ndarray], np.ndarray], settings: Settings
) -> Callable[[np.ndarray], Iterator[np.ndarray]]:
    """A function that computes the backbone's features in inference mode, in batches as large as fit into memory.

    Args:
        network: On the device that computes, its backbone in inference mode.
        images_of: Rows of a store, int64 of shape (n,), to uint8 images of shape (n, height, width, 3).
        settings: `precision`, the phase's.

    Returns:
        Rows, int64 of shape (n,), to float32 features of shape (batch, features), batch by batch.
    """

    def compute_batch(rows: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(images_of(rows)).to(network.device)
        with torch.inference_mode(), autocast(settings, network.device):
            return network.backbone(network.pixels(images)).float().cpu().numpy()

    def compute(rows: np.ndarray) -> Iterator[np.ndarray]:
        assert not network.backbone.training
        batches = in_batches(rows, CPU_BATCH_SIZE if network.device.type == "cpu" else GPU_BATCH_SIZE)
        return computed_as_fits(compute_batch, batches, is_out_of_memory=is_out_of_memory)

    return compute


class FeatureLoader:
    """Batches of float32 features (b, features) and their targets on the device; each pass is the next epoch.

    It takes many batches from the cache to the device at once: the head's step on one takes less time than that.
    """

    def __init__(self, stream: Stream, *, device: torch.device) -> None:
        self.stream = stream
        self.device = device
        self.epoch = 0

    begins_within_epochs = False

    def begin_at(self, epoch: int, batch: int) -> None:
        """Makes the next pass that of an epoch, counted from 0."""
        assert batch == 0
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.stream)

    def batch_of_each_size(self) -> list[Batch]:
        """One batch of each size."""
        return self.stream.batch_of_each_size()

    def __iter__(self) -> Iterator[Tensors]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        start, end = 0, 1
        while start < len(self):
            joined = self.stream.batches(epoch, start, end)
            parts = (torch.from_numpy(part).to(self.device).split(self.stream.batch_size) for part in joined)
            yield from zip(*parts, strict=True)
            batch_bytes = joined[0].nbytes // (end - start)
            start, end = end, min(end + max(CHUNK_BYTES // batch_bytes, 1), len(self))
