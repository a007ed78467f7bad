from __future__ import annotations

import pytest

from tests.published.judged import FAILS, HOLDS, OPEN, claim, entry, published


@pytest.mark.parametrize(
    ("parameters", "verdict"),
    [(5e6, HOLDS), (4e6, HOLDS), (6e6, HOLDS), (3.9e6, FAILS), (6.1e6, FAILS), (None, OPEN)],
)
def test_quarter_of_the_parameters_is_within_a_twentieth(parameters: float | None, verdict: str) -> None:
    entries = [
        entry("efficientnet_v2_b0", "frozen", parameters=parameters),
        entry("resnet50_v2", "frozen", parameters=20e6),
        entry("mobilenet_v2", "frozen", parameters=1e6),
    ]
    judge = claim("mobilenet_vs_efficientnetv2", "EfficientNetV2 has a quarter")
    assert judge(published("mobilenet_vs_efficientnetv2", *entries)).verdict == verdict


@pytest.mark.parametrize(("other", "verdict"), [(0.8, HOLDS), (0.95, FAILS), (None, OPEN)])
def test_accuracy_is_compared_with_frozen_networks(other: float | None, verdict: str) -> None:
    entries = [
        entry("efficientnet_v2_b0", "frozen", accuracy=0.9),
        entry("efficientnet_v2_b0", "finetune", accuracy=0.99),
        entry("resnet50_v2", "frozen", accuracy=other),
    ]
    judge = claim("mobilenet_vs_efficientnetv2", "EfficientNetV2 is more accurate than ResNet50V2")
    assert judge(published("mobilenet_vs_efficientnetv2", *entries)).verdict == verdict
