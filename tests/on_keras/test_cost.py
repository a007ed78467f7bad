from __future__ import annotations

import pytest

from tandem.on_keras.cost import count_macs
from tandem.on_keras.networks import build_classifier
from tests.small_runs import NUM_CLASSES, small_settings


# With 1,000 classes. Keras's ResNet50 has its strides on the first 1x1 convolutions: 3.86e9; torchvision's has 4.09e9.
@pytest.mark.parametrize(("backbone", "macs"), [("mobilenet_v2", 300.8e6), ("resnet50", 3.858e9)])
def test_multiply_accumulates_are_as_published(backbone: str, macs: float) -> None:
    network = build_classifier(small_settings(backbone=backbone, image_size=224), 1000)
    assert count_macs(network) == pytest.approx(macs, rel=1e-3)


# Chollet 2017 and Zoph et al. 2018 (table 3: 564 million): networks of separable convolutions.
@pytest.mark.parametrize(
    ("backbone", "image_size", "macs"),
    [
        ("keras:Xception", 299, 8.36e9),
        pytest.param("keras:NASNetMobile", 224, 564e6, marks=pytest.mark.long),
    ],
)
def test_separable_convolutions_are_counted(backbone: str, image_size: int, macs: float) -> None:
    network = build_classifier(small_settings(backbone=backbone, image_size=image_size), 1000)
    assert count_macs(network) == pytest.approx(macs, rel=1e-3)


def test_counting_does_not_depend_on_the_size_of_stored_images() -> None:
    small, large = (build_classifier(small_settings(), NUM_CLASSES) for size in (8, 32))
    assert count_macs(small) == count_macs(large)
