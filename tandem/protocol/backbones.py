"""The catalogue of backbones: each named once, with what builds it in either framework.

A backbone is everything before the last dense layer, pooling included: uint8 pixels go through `scaling` into it, one
vector of `num_features` numbers an image comes out. Frameworks are named `torch` and `keras`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from tandem.errors import UserError

Scaling = Literal["torch", "tf", "caffe", "unit"]

# ImageNet's channel means and standard deviations of RGB pixels in 0..1, as in torchvision.transforms' documentation.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Channel means of RGB pixels in 0..255, as in keras.applications.imagenet_utils (mode "caffe").
CAFFE_MEAN = (123.68, 116.779, 103.939)


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """One entry of the catalogue."""

    name: str
    torchvision: str
    """Name of the builder in torchvision.models."""
    torchvision_weights: str
    """Name of the ImageNet weights in torchvision, and of the file that it downloads."""
    keras_application: str
    """Name of the builder in keras.applications."""
    image_size: int
    """Height and width in pixels that the published weights were trained at."""
    min_image_size: int
    """Height and width in pixels below which one of the frameworks refuses to build it."""
    scaling: dict[str, Scaling]
    """What each framework's published weights expect of pixels."""
    num_features: int
    trainable_parameters: dict[str, int]
    """Of the backbone alone, in each framework."""
    differences: tuple[str, ...]
    """How the two frameworks' networks of this name differ."""


_BATCH_NORM_AND_PADDING = (
    "stride-2 convolutions pad both sides in torchvision, right and bottom only in Keras",
    "batch-norm epsilon is 1e-5 in torchvision, {epsilon} in Keras",
)

CATALOGUE = {
    entry.name: entry
    for entry in (
        Backbone(
            name="mobilenet_v2",
            torchvision="mobilenet_v2",
            torchvision_weights="IMAGENET1K_V1",
            keras_application="MobileNetV2",
            image_size=224,
            min_image_size=32,
            scaling={"torch": "torch", "keras": "tf"},
            num_features=1280,
            trainable_parameters={"torch": 2_223_872, "keras": 2_223_872},
            differences=(
                _BATCH_NORM_AND_PADDING[0],
                _BATCH_NORM_AND_PADDING[1].format(epsilon="1e-3"),
                "published weights were trained apart, with other pixel scalings",
            ),
        ),
        Backbone(
            name="resnet50",
            torchvision="resnet50",
            torchvision_weights="IMAGENET1K_V1",
            keras_application="ResNet50",
            image_size=224,
            min_image_size=32,
            scaling={"torch": "torch", "keras": "caffe"},
            num_features=2048,
            trainable_parameters={"torch": 23_508_032, "keras": 23_534_592},
            differences=(
                "a block's stride is on its 3x3 convolution in torchvision, on its first 1x1 in Keras",
                "Keras's convolutions have biases (26,560 parameters more)",
                _BATCH_NORM_AND_PADDING[1].format(epsilon="1.001e-5"),
                "published weights were trained apart, with other pixel scalings",
            ),
        ),
        Backbone(
            name="densenet121",
            torchvision="densenet121",
            torchvision_weights="IMAGENET1K_V1",
            keras_application="DenseNet121",
            image_size=224,
            min_image_size=32,
            scaling={"torch": "torch", "keras": "torch"},
            num_features=1024,
            trainable_parameters={"torch": 6_953_856, "keras": 6_953_856},
            differences=(_BATCH_NORM_AND_PADDING[1].format(epsilon="1.001e-5"),),
        ),
    )
}


def find_backbone(name: str, framework: str) -> Backbone:
    """The catalogue's entry of that name; raises UserError where there is none."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    close = difflib.get_close_matches(name, CATALOGUE, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise UserError(f"backbone: received {name!r}, allowed in {framework}: {', '.join(CATALOGUE)}{hint}")


def scaling_of(backbone: Backbone, framework: str, setting: str) -> Scaling:
    """The pixel scaling that a run uses: the setting, or with `auto` what the backbone's published weights expect."""
    return backbone.scaling[framework] if setting == "auto" else setting  # type: ignore[return-value]


def scale_and_offset(scaling: Scaling) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Factor and summand for each of red, green and blue, applied to pixels of 0..255.

    `torch` gives zero mean and unit deviation over ImageNet, `tf` -1..1, `unit` 0..1, `caffe` subtracts the means (the
    network then sees blue, green, red). Source: keras.applications.imagenet_utils.preprocess_input.
    """
    if scaling == "torch":
        red, green, blue = (
            (1 / (255 * std), -mean / std) for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)
        )
        return (red[0], green[0], blue[0]), (red[1], green[1], blue[1])
    if scaling == "tf":
        return (1 / 127.5,) * 3, (-1.0,) * 3
    if scaling == "unit":
        return (1 / 255,) * 3, (0.0,) * 3
    return (1.0,) * 3, (-CAFFE_MEAN[0], -CAFFE_MEAN[1], -CAFFE_MEAN[2])
