"""The frozen phase without the backbone: its features, computed once, and the head that is trained on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import timm
import torch
import torchvision
from torch import Tensor, nn

from tandem.data.features import PhaseFeatures, find_phase_features
from tandem.data.prepare import PreparedData
from tandem.data.stream import Stream
from tandem.evaluation.batching import computed_as_fits, in_batches
from tandem.on_torch.acceleration import is_out_of_memory
from tandem.on_torch.networks import Classifier
from tandem.protocol.regimes import Phase
from tandem.protocol.settings import Settings
from tandem.tracking.system import describe_hardware

CPU_BATCH_SIZE, GPU_BATCH_SIZE = 32, 512  # larger ones are no faster on a CPU; on a GPU halved until they fit

CHUNK_BYTES = 64_000_000  # of features that a loader takes from the cache at a time


class HeadOnFeatures(nn.Module):
    """The head as it stands in the classifier: float32 features of shape (n, features) to logits (n, classes)."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features)


def find_features(
    network: Classifier, phase: Phase, settings: Settings, data: PreparedData, weights_hash: str
) -> PhaseFeatures:
    """The features that a phase trains its head on, computed first where no run has done so before.

    Args:
        network: On the device that is to compute; its backbone is frozen as the phase has it.
        phase: One that trains more than the head has none.
        settings: All of the run.
        data: The images.
        weights_hash: Of the backbone.
    """
    device = next(network.backbone.parameters()).device.type
    made_with = {
        "framework": f"torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}",
        "device": device,
        "hardware": describe_hardware(),
        "weights": weights_hash,
    }
    dtype = getattr(torch, settings.precision)
    return find_phase_features(
        phase, settings, data, made_with, lambda images_of: backbone_pass(network, images_of, dtype)
    )


def backbone_pass(
    network: Classifier, images_of: Callable[[np.ndarray], np.ndarray], dtype: torch.dtype
) -> Callable[[np.ndarray], Iterator[np.ndarray]]:
    """What computes the backbone's features of images, in inference mode and in batches as large as fit.

    Args:
        network: On the device that is to compute; its backbone is in inference mode.
        images_of: uint8 images of shape (n, height, width, 3) in the rows of a store.
        dtype: Of the arithmetic, that of the phase.

    Returns:
        From rows, int64 of shape (n,), to float32 features of shape (batch, features), as the head is given them.
    """
    device = next(network.backbone.parameters()).device

    def compute_batch(rows: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(images_of(rows)).to(device)
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return network.backbone(network.pixels(images)).float().cpu().numpy()

    def compute(rows: np.ndarray) -> Iterator[np.ndarray]:
        assert not network.backbone.training
        batches = in_batches(rows, CPU_BATCH_SIZE if device.type == "cpu" else GPU_BATCH_SIZE)
        return computed_as_fits(compute_batch, batches, is_out_of_memory=is_out_of_memory)

    return compute


class FeatureLoader:
    """Batches of float32 features (b, features) and int64 labels (b,), on the device; each pass is the next epoch.

    Many batches are taken from the cache and brought to the device at once, for the head's step on one takes less time
    than that would.
    """

    def __init__(self, stream: Stream, *, device: str) -> None:
        self.stream = stream
        self.device = device
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.stream)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        start, end = 0, 1
        while start < len(self):
            features, labels = self.stream.batches(epoch, start, end)
            parts = (
                torch.from_numpy(part).to(self.device).split(self.stream.batch_size) for part in (features, labels)
            )
            yield from zip(*parts, strict=True)
            batch_bytes = features.nbytes // (end - start)
            start, end = end, min(end + max(CHUNK_BYTES // batch_bytes, 1), len(self))
