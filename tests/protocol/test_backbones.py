from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tandem.errors import UserError
from tandem.protocol.backbones import CATALOGUE, find_backbone, scale_and_offset, scaling_of

PIXEL = np.array([255.0, 127.5, 0.0])  # red, green, blue


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        # (1 - .485) / .229, (.5 - .456) / .224, (0 - .406) / .225
        ("torch", [2.2489083, 0.1964286, -1.8044444]),
        ("tf", [1.0, 0.0, -1.0]),
        ("unit", [1.0, 0.5, 0.0]),
        # 255 - 123.68, 127.5 - 116.779, 0 - 103.939
        ("caffe", [131.32, 10.721, -103.939]),
    ],
)
def test_scaling_gives_what_is_computed_by_hand(scaling: Any, expected: list[float]) -> None:
    scale, offset = scale_and_offset(scaling)
    assert len(scale) == len(offset) == 3
    np.testing.assert_allclose(PIXEL * scale + offset, expected, atol=1e-6)


def test_mean_pixel_of_imagenet_becomes_zero() -> None:
    scale, offset = scale_and_offset("torch")
    np.testing.assert_allclose(np.array([0.485, 0.456, 0.406]) * 255 * scale + offset, 0, atol=1e-12)
    scale, offset = scale_and_offset("caffe")
    np.testing.assert_allclose(np.array([123.68, 116.779, 103.939]) * scale + offset, 0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "torch", "keras"),
    [("mobilenet_v2", "torch", "tf"), ("resnet50", "torch", "caffe"), ("densenet121", "torch", "torch")],
)
def test_auto_scaling_is_that_of_the_published_weights(name: str, torch: str, keras: str) -> None:
    backbone = find_backbone(name, "torch")
    assert scaling_of(backbone, "torch", "auto") == torch
    assert scaling_of(backbone, "keras", "auto") == keras


@pytest.mark.parametrize("framework", ["torch", "keras"])
@pytest.mark.parametrize("scaling", ["torch", "tf", "caffe", "unit"])
def test_scaling_that_is_set_is_the_same_in_both_frameworks(scaling: str, framework: str) -> None:
    for backbone in CATALOGUE.values():
        assert scaling_of(backbone, framework, scaling) == scaling


def test_catalogue_is_keyed_by_name() -> None:
    for name, backbone in CATALOGUE.items():
        assert find_backbone(name, "keras") is backbone and backbone.name == name
        assert set(backbone.scaling) == set(backbone.trainable_parameters) == {"torch", "keras"}
        assert backbone.min_image_size <= backbone.image_size


@pytest.mark.parametrize(
    ("name", "num_classes_parameters", "published"),
    # published whole networks of 1000 classes have a dense layer of features x 1000 + 1000 more
    [("mobilenet_v2", 1280 * 1000 + 1000, 3_504_872), ("densenet121", 1024 * 1000 + 1000, 7_978_856)],
)
def test_parameters_are_those_published(name: str, num_classes_parameters: int, published: int) -> None:
    backbone = find_backbone(name, "torch")
    assert backbone.num_features * 1000 + 1000 == num_classes_parameters
    assert set(backbone.trainable_parameters.values()) == {published - num_classes_parameters}


def test_resnet50_has_more_parameters_in_keras_for_its_biases() -> None:
    parameters = find_backbone("resnet50", "keras").trainable_parameters
    assert parameters["torch"] == 25_557_032 - (2048 * 1000 + 1000)
    assert parameters["keras"] - parameters["torch"] == 26_560


def test_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"^backbone: received 'mobilenetv2', allowed in keras: .*mean mobilenet_v2"):
        find_backbone("mobilenetv2", "keras")
