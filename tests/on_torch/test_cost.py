from __future__ import annotations

import pytest
import torch

from tandem.on_torch.cost import count_macs, peak_gpu_memory_megabytes, reset_peak_gpu_memory
from tandem.on_torch.networks import build_classifier
from tests.small_runs import NUM_CLASSES, small_settings


# As fvcore counts them for torchvision's networks with 1,000 classes.
@pytest.mark.parametrize(("backbone", "macs"), [("mobilenet_v2", 300.8e6), ("resnet50", 4.089e9)])
def test_multiply_accumulates_are_as_published(backbone: str, macs: float) -> None:
    network = build_classifier(small_settings(backbone=backbone, image_size=224), 1000)
    assert count_macs(network) == pytest.approx(macs, rel=1e-3)


# As published with torchvision's weights (_ops in their metadata), without the products of queries, keys and values,
# which are not dense layers: in each block 2 per channel and pair of tokens that attend to each other.
@pytest.mark.parametrize(
    ("backbone", "published", "products"),
    [
        ("torchvision:vit_b_16", 17.564e9, 12 * 2 * 197**2 * 768),
        ("timm:vit_base_patch16_224", 17.564e9, 12 * 2 * 197**2 * 768),
        # two blocks each of 56 x 56, 28 x 28 and 7 x 7 tokens, six of 14 x 14, in windows of 7 x 7
        (
            "torchvision:swin_t",
            4.491e9,
            2 * 49 * (2 * 56**2 * 96 + 2 * 28**2 * 192 + 6 * 14**2 * 384 + 2 * 7**2 * 768),
        ),
    ],
)
def test_projections_of_attention_are_counted(backbone: str, published: float, products: int) -> None:
    network = build_classifier(small_settings(backbone=backbone, image_size=224), 1000)
    assert count_macs(network) == pytest.approx(published - products, rel=1e-3)


def test_counting_does_not_depend_on_the_size_of_stored_images() -> None:
    network = build_classifier(small_settings(), NUM_CLASSES)
    assert count_macs(network) == count_macs(network)


def test_counting_does_not_change_the_network() -> None:
    network = build_classifier(small_settings(), NUM_CLASSES).train()
    network.backbone.eval()
    modes = [module.training for module in network.modules()]
    assert len(set(modes)) == 2
    first = count_macs(network)
    assert [module.training for module in network.modules()] == modes
    assert count_macs(network) == first


def test_peak_memory_is_measured_from_the_last_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    reset_peak_gpu_memory()  # does nothing without a GPU
    assert peak_gpu_memory_megabytes() == 0
    peak = 5_000_000

    def reset() -> None:
        nonlocal peak
        peak = 2_000_000

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: peak)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    assert peak_gpu_memory_megabytes() == 5
    reset_peak_gpu_memory()
    assert peak_gpu_memory_megabytes() == 2
