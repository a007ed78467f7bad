from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tandem.errors import UserError
from tandem.protocol.backbones import (
    CATALOGUE,
    Normalization,
    find_backbone,
    num_blocks,
    scale_and_offset,
    scaling_of,
    unknown_builder,
)

PIXEL = np.array([255.0, 127.5, 0.0])  # red, green, blue


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        # (1 - .485) / .229, (.5 - .456) / .224, (0 - .406) / .225
        ("torch", [2.2489083, 0.1964286, -1.8044444]),
        ("tf", [1.0, 0.0, -1.0]),
        ("unit", [1.0, 0.5, 0.0]),
        ("none", [255.0, 127.5, 0.0]),
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


def test_normalization_of_its_own_subtracts_the_means_and_divides_by_the_deviations() -> None:
    scale, offset = scale_and_offset(Normalization(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 0.2)))
    # (1 - .5) / .5, (.5 - .25) / .25, 0
    np.testing.assert_allclose(PIXEL * scale + offset, [1, 1, 0], atol=1e-12)


def test_auto_scaling_is_that_of_the_published_weights_and_any_other_that_of_the_setting() -> None:
    own = Normalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert scaling_of("caffe", "auto") == "caffe"
    assert scaling_of(own, "auto") == own
    assert scaling_of(own, "unit") == scaling_of("caffe", "unit") == "unit"


@pytest.mark.parametrize("setting", ["torch", "tf", "caffe", "unit"])
def test_backbone_that_scales_pixels_itself_allows_no_other_scaling(setting: str) -> None:
    assert scaling_of("none", "auto") == scaling_of("none", "none") == "none"
    with pytest.raises(UserError, match=rf"^pixel_scaling: received '{setting}', .*; allowed: auto$"):
        scaling_of("none", setting)


# ------------------------------------------------------------------------------------------------------ the catalogue

# The systems of the five source documents.
DOCUMENTS = {
    "birds": {"resnet50", "efficientnet_v2_b0"},
    "cifar100": {"efficientnet_b0", "resnet50", "alexnet"},
    "eight_datasets": {
        *("alexnet", "vgg16", "vgg19", "resnet50", "resnet101", "resnet152", "densenet121", "densenet161"),
    },
    "imagenette": {"resnet50", "efficientnet_b0"},
    "article": {"mobilenet_v2", "efficientnet_v2_b0", "resnet50_v2"},
}
# Trainable parameters with 1,000 classes: torchvision's documentation and timm's model cards, where Keras has the same.
SAME_IN_BOTH = {
    "alexnet": 61_100_840,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "densenet121": 7_978_856,
    "densenet161": 28_681_000,
    "mobilenet_v2": 3_504_872,
    "efficientnet_b0": 5_288_548,
    "efficientnet_v2_b0": 7_139_704,
}
BIASES_IN_KERAS = {"resnet50": 26_560, "resnet101": 52_672, "resnet152": 75_712, "resnet50_v2": 19_008}


def test_catalogue_holds_the_documents_backbones() -> None:
    assert set(CATALOGUE) == set.union(*DOCUMENTS.values())


@pytest.mark.parametrize("name", CATALOGUE)
def test_entry_is_complete_for_both_frameworks(name: str) -> None:
    entry = find_backbone(name, "keras")
    assert entry is CATALOGUE[name] is find_backbone(name, "torch") and entry.name == name
    assert set(entry.builds) == {"torch", "keras"}
    assert entry.image_size == 224 and 32 <= entry.min_image_size < 224
    assert entry.num_features and entry.differences
    for build in entry.builds.values():
        assert build.scaling is not None and build.trained_by
        for pattern in build.blocks:
            re.compile(pattern)


@pytest.mark.parametrize("name", CATALOGUE)
def test_parameters_are_those_published(name: str) -> None:
    entry = CATALOGUE[name]
    torch, keras = (entry.builds[framework].published_parameters for framework in ("torch", "keras"))
    assert torch is not None and keras is not None
    assert keras - torch == BIASES_IN_KERAS.get(name, 0)
    assert torch == SAME_IN_BOTH.get(name, torch)
    assert (name in SAME_IN_BOTH) != (name in BIASES_IN_KERAS)


def test_differences_name_the_trainers_of_the_published_weights() -> None:
    apart = [name for name, entry in CATALOGUE.items() if "trained separately" in entry.differences[-1]]
    together = {"alexnet", "densenet121", "densenet161", "efficientnet_v2_b0"}
    assert set(apart) == set(CATALOGUE) - together
    assert CATALOGUE["resnet50"].differences[-1] == (
        "published weights were trained separately, by torchvision for PyTorch, He et al. (Caffe) for Keras, "
        "with different pixel scalings"
    )
    # both take pixels in -1..1
    assert CATALOGUE["resnet50_v2"].differences[-1].endswith("an unnamed author for Keras")


@pytest.mark.parametrize(
    ("name", "blocks"), [("alexnet", 7), ("vgg19", 6), ("resnet152", 5), ("densenet161", 5), ("mobilenet_v2", 19)]
)
def test_both_frameworks_have_the_same_number_of_blocks(name: str, blocks: int) -> None:
    assert num_blocks(CATALOGUE[name]) == blocks
    assert len(CATALOGUE[name].builds["torch"].blocks) == len(CATALOGUE[name].builds["keras"].blocks)


# ---------------------------------------------------------------------------------------------------- names of others


@pytest.mark.parametrize(
    ("name", "framework", "library", "builder"),
    [
        ("timm:convnext_tiny.in12k", "torch", "timm", "convnext_tiny.in12k"),
        ("torchvision:regnet_y_400mf", "torch", "torchvision", "regnet_y_400mf"),
        ("keras:NASNetMobile", "keras", "keras", "NASNetMobile"),
    ],
)
def test_name_with_a_library_is_its_own_entry(name: str, framework: str, library: str, builder: str) -> None:
    entry = find_backbone(name, framework)
    build = entry.builds[framework]
    assert (entry.name, build.package, build.builder) == (name, library, builder)
    assert num_blocks(entry) == 1 and entry.min_image_size == 1
    assert build.scaling is None and entry.num_features is None


@pytest.mark.parametrize(
    ("name", "framework", "other"),
    [
        ("timm:convnext_tiny", "keras", "torch"),
        ("torchvision:vgg11", "keras", "torch"),
        ("keras:Xception", "torch", "keras"),
    ],
)
def test_name_of_the_other_framework_is_refused_in_one_line(name: str, framework: str, other: str) -> None:
    with pytest.raises(
        UserError, match=f"^backbone: '{name}' exists in {other} only; allowed in {framework}: alexnet, "
    ):
        find_backbone(name, framework)


@pytest.mark.parametrize("name", ["convnext_tiny", "kerashub:vit", "timm:", ":resnet50", "timm"])
def test_name_without_a_known_library_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"^backbone: received .*, or torchvision:NAME or timm:NAME") as caught:
        find_backbone(name, "torch")
    assert "\n" not in str(caught.value)


def test_message_for_an_unknown_name_suggests_a_similar_one() -> None:
    with pytest.raises(UserError, match=r"^backbone: received 'mobilenetv2', allowed in keras: .*mean mobilenet_v2"):
        find_backbone("mobilenetv2", "keras")


def test_message_for_an_unknown_builder_suggests_similar_ones() -> None:
    entry = find_backbone("keras:nasnet_mobil", "keras")
    error = unknown_builder(entry, "nasnet_mobil", "Keras Applications", ["NASNetMobile", "ResNet50", "Xception"])
    assert str(error).endswith("has no image classifier 'nasnet_mobil'; did you mean NASNetMobile?")
    error = unknown_builder(entry, "zzz", "Keras Applications", ["NASNetMobile"])
    assert str(error).endswith("its 1 names are in its documentation")
