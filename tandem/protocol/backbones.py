"""The catalogue of backbones: the name of each, and its builder in either framework.

A backbone is everything before the last dense layer, including the pooling. Its input are uint8 pixels, scaled by
`scaling`; its output is one vector of `num_features` numbers per image. The two layers of 4096 units of VGG and AlexNet
belong to the backbone, with their ReLU and dropout. Frameworks are named `torch` and `keras`.

Names outside the catalogue contain their library, like `timm:convnext_tiny`. Their properties are known only after the
network is built.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tandem.errors import UserError
from tandem.protocol.yaml_text import shown

ScalingName = Literal["torch", "tf", "caffe", "unit", "none"]


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """Scaling of RGB pixels in 0..1 by their channels' means and standard deviations."""

    mean: tuple[float, float, float]
    """Subtracted from the pixels, per channel."""
    std: tuple[float, float, float]
    """The pixels are then divided by these, per channel."""


Scaling = ScalingName | Normalization

# ImageNet's channel means and standard deviations of RGB pixels in 0..1, as in torchvision.transforms' documentation.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Channel means of RGB pixels in 0..255, as in keras.applications.imagenet_utils (mode "caffe").
CAFFE_MEAN = (123.68, 116.779, 103.939)

IMAGENET_CLASSES = 1000

LIBRARIES = {"torch": ("torchvision", "timm"), "keras": ("keras",)}
"""Libraries that may precede the colon in a name outside the catalogue, by framework."""


@dataclass(frozen=True, kw_only=True)
class Build:
    """Builder of a backbone in one framework."""

    package: Literal["torchvision", "timm", "keras", "tandem"]
    """`keras` is Keras Applications, `tandem` a network of tandem/on_keras."""
    builder: str
    """The network's name in that library."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the builder besides size and weights."""
    weights: str | None = None
    """The library's name of the ImageNet weights; None for its default ones."""
    scaling: ScalingName | None = None
    """Scaling of pixels that these weights expect; None if the library has to be asked."""
    trained_by: str | None = None
    """Trainer of the published weights, followed in brackets by the library, if it was another one.

    Sources: metadata and file names of torchvision's weights, timm's model cards, licences and pull requests of Keras
    Applications.
    """
    published_parameters: int | None = None
    """Number of trainable parameters of the whole network with its head of 1000 classes."""
    blocks: tuple[str, ...] = ("",)
    """One regular expression per block, from input to output, that matches the beginnings of the names of the block's
    modules (torch) or layers (Keras)."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """An entry of the catalogue, or a name outside of it, whose optional properties are not known."""

    name: str
    """Name in the settings."""
    builds: Mapping[str, Build]
    """Builder of each framework that has the backbone."""
    image_size: int | None = None
    """Height and width, in pixels, for which the network was published."""
    min_image_size: int = 1
    """Smallest height and width, in pixels, that both frameworks can build it for."""
    num_features: int | None = None
    """Length of the output vector."""
    differences: tuple[str, ...] = ()
    """Differences between the two frameworks' networks, one clause each."""


_PADDING = "stride-2 convolutions pad both sides in torchvision, right and bottom only in Keras"
_EPSILON = "batch-norm epsilon is 1e-5 in {library}, {epsilon} in Keras"
_MOMENTUM = "batch-norm momentum is {momentum} in Keras, 0.9 in {library}, where batch_norm_momentum is null"
_OWN_IN_KERAS = (
    "Keras lacks it: Tandem's own has torchvision's layers, with their epsilons, and takes its published weights over",
    "random weights are drawn from torchvision's distributions in PyTorch, from Glorot's uniform one in Keras",
)
_VGG_DIFFERENCES = ("Keras Applications lacks the pooling to 7 x 7 and the dropout, which are added as in torchvision",)


def _resnet(depth: int, *, torch_parameters: int, keras_parameters: int) -> Backbone:
    return Backbone(
        name=f"resnet{depth}",
        builds={
            "torch": Build(
                package="torchvision",
                builder=f"resnet{depth}",
                weights="IMAGENET1K_V1",
                scaling="torch",
                trained_by="torchvision",
                published_parameters=torch_parameters,
                blocks=("conv1$|bn1$", *(rf"layer{stage}\." for stage in range(1, 5))),
            ),
            "keras": Build(
                package="keras",
                builder=f"ResNet{depth}",
                scaling="caffe",
                trained_by="He et al. (Caffe)",
                published_parameters=keras_parameters,
                blocks=tuple(f"conv{stage}_" for stage in range(1, 6)),
            ),
        },
        image_size=224,
        min_image_size=32,
        num_features=2048,
        differences=(
            "a block's stride is on its 3x3 convolution in torchvision, on its first 1x1 in Keras",
            f"Keras's convolutions have biases ({keras_parameters - torch_parameters:,} parameters more)",
            _EPSILON.format(library="torchvision", epsilon="1.001e-5"),
            _MOMENTUM.format(library="torchvision", momentum="0.99"),
        ),
    )


def _vgg(depth: int, *, parameters: int, convolutions: tuple[str, ...]) -> Backbone:
    return Backbone(
        name=f"vgg{depth}",
        builds={
            "torch": Build(
                package="torchvision",
                builder=f"vgg{depth}",
                weights="IMAGENET1K_V1",
                scaling="torch",
                trained_by="torchvision",
                published_parameters=parameters,
                blocks=(*(rf"features\.({numbers})$" for numbers in convolutions), r"classifier\."),
            ),
            "keras": Build(
                package="keras",
                builder=f"VGG{depth}",
                scaling="caffe",
                trained_by="Oxford's VGG group (Caffe)",
                published_parameters=parameters,
                blocks=(*(f"block{number}_" for number in range(1, 6)), "fc"),
            ),
        },
        image_size=224,
        min_image_size=32,
        num_features=4096,
        differences=_VGG_DIFFERENCES,
    )


def _densenet(
    depth: int, *, parameters: int, num_features: int, keras: Literal["keras", "tandem"], differences: tuple[str, ...]
) -> Backbone:
    return Backbone(
        name=f"densenet{depth}",
        builds={
            "torch": Build(
                package="torchvision",
                builder=f"densenet{depth}",
                weights="IMAGENET1K_V1",
                scaling="torch",
                trained_by="the authors (LuaTorch)",
                published_parameters=parameters,
                blocks=(
                    r"features\.(conv0|norm0)$",
                    *(rf"features\.(denseblock{stage}|transition{stage})\." for stage in range(1, 4)),
                    r"features\.(denseblock4\.|norm5$)",
                ),
            ),
            "keras": Build(
                package=keras,
                builder="DenseNet121" if keras == "keras" else "densenet161",
                scaling="torch",
                trained_by="the authors (LuaTorch)",
                published_parameters=parameters,
                blocks=("conv1_", *(f"conv{stage}_|pool{stage}_" for stage in range(2, 5)), "conv5_|bn$"),
            ),
        },
        image_size=224,
        min_image_size=32,
        num_features=num_features,
        differences=differences,
    )


def _with_origins(entry: Backbone) -> Backbone:
    """The entry, with a difference added if its two networks' weights come from different trainings."""
    torch, keras = entry.builds["torch"], entry.builds["keras"]
    if torch.trained_by == keras.trained_by:
        return entry
    apart = (
        f"published weights were trained separately, by {torch.trained_by} for PyTorch, {keras.trained_by} for Keras"
    )
    scalings = ", with different pixel scalings" if torch.scaling != keras.scaling else ""
    return replace(entry, differences=(*entry.differences, apart + scalings))


CATALOGUE = {
    entry.name: _with_origins(entry)
    for entry in (
        Backbone(
            name="alexnet",
            builds={
                "torch": Build(
                    package="torchvision",
                    builder="alexnet",
                    weights="IMAGENET1K_V1",
                    scaling="torch",
                    trained_by="torchvision",
                    published_parameters=61_100_840,
                    blocks=(
                        *(rf"features\.{n}$" for n in (0, 3, 6, 8, 10)),
                        r"classifier\.[01]$",
                        r"classifier\.[34]$",
                    ),
                ),
                "keras": Build(
                    package="tandem",
                    builder="alexnet",
                    scaling="torch",
                    trained_by="torchvision",
                    published_parameters=61_100_840,
                    blocks=(*(f"conv{number}" for number in range(1, 6)), "fc1", "fc2"),
                ),
            },
            image_size=224,
            min_image_size=63,
            num_features=4096,
            differences=_OWN_IN_KERAS,
        ),
        _vgg(16, parameters=138_357_544, convolutions=("0|2", "5|7", "10|12|14", "17|19|21", "24|26|28")),
        _vgg(19, parameters=143_667_240, convolutions=("0|2", "5|7", "10|12|14|16", "19|21|23|25", "28|30|32|34")),
        _resnet(50, torch_parameters=25_557_032, keras_parameters=25_583_592),
        _resnet(101, torch_parameters=44_549_160, keras_parameters=44_601_832),
        _resnet(152, torch_parameters=60_192_808, keras_parameters=60_268_520),
        Backbone(
            name="resnet50_v2",
            builds={
                "torch": Build(
                    package="timm",
                    builder="resnetv2_50",
                    weights="a1h_in1k",
                    scaling="tf",
                    trained_by="timm's author",
                    published_parameters=25_549_352,
                    blocks=(r"stem\.", *(rf"stages\.{stage}\." for stage in range(3)), r"stages\.3\.|norm"),
                ),
                "keras": Build(
                    package="keras",
                    builder="ResNet50V2",
                    scaling="tf",
                    trained_by="an unnamed author",
                    published_parameters=25_568_360,
                    blocks=(*(f"conv{stage}_" for stage in range(1, 5)), "conv5_|post_"),
                ),
            },
            image_size=224,
            min_image_size=32,
            num_features=2048,
            differences=(
                "a stage's stride is in its first block in timm, in its last in Keras",
                "some of Keras's convolutions have biases (19,008 parameters more)",
                "the first pooling pads with zeros in Keras, with minus infinity in timm; values there may be negative",
                _EPSILON.format(library="timm", epsilon="1.001e-5"),
                _MOMENTUM.format(library="timm", momentum="0.99"),
            ),
        ),
        _densenet(
            121,
            parameters=7_978_856,
            num_features=1024,
            keras="keras",
            differences=(
                _EPSILON.format(library="torchvision", epsilon="1.001e-5"),
                _MOMENTUM.format(library="torchvision", momentum="0.99"),
            ),
        ),
        _densenet(161, parameters=28_681_000, num_features=2208, keras="tandem", differences=_OWN_IN_KERAS),
        Backbone(
            name="mobilenet_v2",
            builds={
                "torch": Build(
                    package="torchvision",
                    builder="mobilenet_v2",
                    weights="IMAGENET1K_V1",
                    scaling="torch",
                    trained_by="torchvision",
                    published_parameters=3_504_872,
                    blocks=tuple(rf"features\.{number}\." for number in range(19)),
                ),
                "keras": Build(
                    package="keras",
                    builder="MobileNetV2",
                    scaling="tf",
                    trained_by="Google (TF-Slim)",
                    published_parameters=3_504_872,
                    blocks=(
                        "Conv1|bn_Conv1",
                        "expanded_conv_",
                        *(f"block_{number}_" for number in range(1, 17)),
                        "Conv_1",
                    ),
                ),
            },
            image_size=224,
            min_image_size=32,
            num_features=1280,
            differences=(
                _PADDING,
                _EPSILON.format(library="torchvision", epsilon="1e-3"),
                _MOMENTUM.format(library="torchvision", momentum="0.999"),
            ),
        ),
        Backbone(
            name="efficientnet_b0",
            builds={
                "torch": Build(
                    package="torchvision",
                    builder="efficientnet_b0",
                    weights="IMAGENET1K_V1",
                    scaling="torch",
                    trained_by="timm's author",
                    published_parameters=5_288_548,
                    blocks=tuple(rf"features\.{number}\." for number in range(9)),
                ),
                "keras": Build(
                    package="keras",
                    builder="EfficientNetB0",
                    scaling="torch",
                    trained_by="Google (TensorFlow)",
                    published_parameters=5_288_548,
                    blocks=("stem_", *(f"block{stage}[a-z]_" for stage in range(1, 8)), "top_"),
                ),
            },
            image_size=224,
            min_image_size=32,
            num_features=1280,
            differences=(
                _PADDING,
                _EPSILON.format(library="torchvision", epsilon="1e-3"),
                _MOMENTUM.format(library="torchvision", momentum="0.99"),
                "Keras's own pixel scaling, which differs for random weights, is removed from the network",
            ),
        ),
        Backbone(
            name="efficientnet_v2_b0",
            builds={
                "torch": Build(
                    package="timm",
                    builder="tf_efficientnetv2_b0",
                    # Keras's rate of dropped paths; timm drops none by default
                    options={"drop_path_rate": 0.2},
                    weights="in1k",
                    scaling="torch",
                    trained_by="Google (TensorFlow)",
                    published_parameters=7_139_704,
                    blocks=("conv_stem|bn1", *(rf"blocks\.{stage}\." for stage in range(6)), "conv_head|bn2"),
                ),
                "keras": Build(
                    package="keras",
                    builder="EfficientNetV2B0",
                    options={"include_preprocessing": False},
                    scaling="torch",
                    trained_by="Google (TensorFlow)",
                    published_parameters=7_139_704,
                    blocks=("stem_", *(f"block{stage}[a-z]_" for stage in range(1, 7)), "top_"),
                ),
            },
            image_size=224,
            min_image_size=32,
            num_features=1280,
            differences=("published weights are different files of the same training by Google",),
        ),
    )
}


def find_backbone(name: str, framework: str) -> Backbone:
    """The catalogue's entry of that name, or a new entry for `library:name`.

    Raises:
        UserError: The name is unknown, or the library belongs to the other framework.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    library, colon, builder = name.partition(":")
    others = " or ".join(f"{prefix}:NAME" for prefix in LIBRARIES[framework])
    allowed = f"allowed in {framework}: {', '.join(CATALOGUE)}, or {others}"
    if colon and builder and library in LIBRARIES[framework]:
        return Backbone(name=name, builds={framework: Build(package=library, builder=builder)})  # type: ignore[arg-type]
    for other, libraries in LIBRARIES.items():
        if colon and library in libraries and other != framework:
            raise UserError(f"backbone: {name!r} exists in {other} only; {allowed}")
    raise UserError(f"backbone: received {shown(name)}, {allowed}{_hint(name, framework)}")


MOST_OF_A_FAMILY = 3  # names that are suggested for resnet


def _hint(name: str, framework: str) -> str:
    """The name that was probably meant, of the catalogue or a library."""
    by_letters = {_letters(entry): entry for entry in CATALOGUE}
    for library in LIBRARIES[framework]:
        for known in _names_in(library):
            by_letters.setdefault(_letters(known), f"{library}:{known}")
    wanted = _letters(name.rpartition(":")[2])
    of_family = [entry for entry in CATALOGUE if wanted.isalpha() and _letters(entry).startswith(wanted)]
    close = [by_letters[match] for match in difflib.get_close_matches(wanted[:100], by_letters, n=1)]
    meant = of_family[:MOST_OF_A_FAMILY] or close
    return f"; did you mean {' or '.join(meant)}?" if meant else ""


# How the libraries' sources declare a network. Importing the libraries would take seconds.
_DECLARATIONS = {
    "torchvision": ("models", r"@register_model[^\n]*\n(?:(?!def )[^\n]*\n)*?def (\w+)\("),
    "timm": ("models", r"@register_model[^\n]*\n(?:(?!def )[^\n]*\n)*?def (\w+)\("),
    "keras": ("src/applications", r"\"keras\.applications\.([A-Z]\w+)\""),
}


def _names_in(library: str) -> list[str]:
    spec = importlib.util.find_spec(library)
    if spec is None or spec.origin is None:
        return []
    folder, pattern = _DECLARATIONS[library]
    files = sorted((Path(spec.origin).parent / folder).glob("*.py"))
    return [name for file in files for name in re.findall(pattern, file.read_text(encoding="utf-8"))]


def unknown_builder(backbone: Backbone, builder: str, library: str, known: list[str]) -> UserError:
    """The error about a name that a library lacks, with similar names that it has."""
    by_letters = {_letters(name): name for name in known}
    close = [by_letters[match] for match in difflib.get_close_matches(_letters(builder), by_letters, n=3)]
    hint = f"did you mean {' or '.join(close)}?" if close else f"its {len(known)} names are in its documentation"
    return UserError(f"backbone: received {backbone.name!r}, but {library} has no image classifier {builder!r}; {hint}")


def _letters(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def num_blocks(backbone: Backbone) -> int:
    """Number of blocks, the same in both frameworks; 1 for names outside the catalogue."""
    counts = {len(build.blocks) for build in backbone.builds.values()}
    assert len(counts) == 1, f"{backbone.name} has different numbers of blocks in the two frameworks"
    return counts.pop()


def scaling_of(built: Scaling, setting: str) -> Scaling:
    """The pixel scaling of a run: the setting, or with `auto` the one that the backbone's published weights expect.

    Raises:
        UserError: The backbone's weights expect `none` because it scales pixels itself, so they would be scaled twice.
    """
    if built == "none" and setting not in ("auto", "none"):
        raise UserError(f"pixel_scaling: received {setting!r}, but this backbone scales pixels itself; allowed: auto")
    return built if setting == "auto" else setting  # type: ignore[return-value]


def scale_and_offset(scaling: Scaling) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Factors and summands of red, green and blue, for pixels of 0..255.

    `torch` results in mean 0 and standard deviation 1 over ImageNet, `tf` in -1..1, `unit` in 0..1, `none` in 0..255;
    `caffe` subtracts the means (the network then sees blue, green, red). Source:
    keras.applications.imagenet_utils.preprocess_input.
    """
    if scaling == "torch":
        scaling = Normalization(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    if isinstance(scaling, Normalization):
        red, green, blue = ((1 / (255 * std), -mean / std) for mean, std in zip(scaling.mean, scaling.std, strict=True))
        return (red[0], green[0], blue[0]), (red[1], green[1], blue[1])
    if scaling == "tf":
        return (1 / 127.5,) * 3, (-1.0,) * 3
    if scaling == "unit":
        return (1 / 255,) * 3, (0.0,) * 3
    if scaling == "none":
        return (1.0,) * 3, (0.0,) * 3
    return (1.0,) * 3, (-CAFFE_MEAN[0], -CAFFE_MEAN[1], -CAFFE_MEAN[2])
