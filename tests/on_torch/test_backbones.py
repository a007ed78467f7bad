from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from tandem.errors import UserError
from tandem.on_torch.backbones import BuiltBackbone, blocks_of, build_backbone
from tandem.on_torch.cost import count_macs
from tandem.on_torch.gradcam import features_and_gradients
from tandem.on_torch.networks import Classifier, build_classifier, build_off_the_shelf
from tandem.on_torch.serving import save_model
from tandem.on_torch.weights import count_parameters, hash_weights, save_weights
from tandem.protocol.backbones import CATALOGUE, Backbone, Normalization, find_backbone, num_blocks
from tandem.protocol.parser import read_settings
from tandem.protocol.regimes import Phase, phases_of
from tests.small_runs import NUM_CLASSES, assert_same_outputs, small_settings, tell_images_apart
from train_torch import freeze_or_thaw, main

# From the model cards of timm's networks; torchvision's numbers are in the metadata of its weights.
TIMM_PARAMETERS = {"resnet50_v2": 25_549_352, "efficientnet_v2_b0": 7_139_704}
# Hashing hundreds of megabytes takes seconds, and so does a backward pass through a hundred layers.
SOME_LONG = [
    pytest.param(name, marks=pytest.mark.long) if name in ("vgg16", "vgg19", "resnet101", "resnet152") else name
    for name in CATALOGUE
]
# Side lengths of the last feature map at min_image_size.
LAST_MAP = {"alexnet": (1, 256), "efficientnet_b0": (1, 1280), "resnet50_v2": (1, 2048)}


def build(name: str, image_size: int) -> BuiltBackbone:
    torch.manual_seed(0)
    return build_backbone(find_backbone(name, "torch"), image_size, pretrained=False)


def classifier(name: str, image_size: int) -> Classifier:
    torch.manual_seed(0)
    return build_classifier(small_settings(backbone=name, image_size=image_size), NUM_CLASSES)


def some_images(size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=CATALOGUE)
def own_size(request: pytest.FixtureRequest) -> tuple[Backbone, BuiltBackbone]:
    """Each backbone of the catalogue at its published size."""
    entry = CATALOGUE[request.param]
    assert entry.image_size is not None
    return entry, build(entry.name, entry.image_size)


# ------------------------------------------------------------------------------------------------------ the catalogue


def test_parameters_are_as_published(own_size: tuple[Backbone, BuiltBackbone]) -> None:
    entry, built = own_size
    if entry.name in TIMM_PARAMETERS:
        published = TIMM_PARAMETERS[entry.name]
    else:
        weights = torchvision.models.get_model_weights(entry.builds["torch"].builder)
        published = weights["IMAGENET1K_V1"].meta["num_params"]
    assert entry.builds["torch"].published_parameters == published
    assert built.imagenet_head is not None
    backbone, head = count_parameters(built.network), count_parameters(built.imagenet_head)
    assert backbone[0] + head[0] == published
    assert head[0] == (entry.num_features + 1) * 1000 and backbone[1] == backbone[0]


def test_image_becomes_one_vector_of_features(own_size: tuple[Backbone, BuiltBackbone]) -> None:
    entry, built = own_size
    with torch.inference_mode():
        features = built.network.eval()(torch.zeros(1, 3, entry.image_size, entry.image_size))
    assert features.shape == (1, entry.num_features) == (1, built.num_features)


def test_each_parameter_is_in_one_block(own_size: tuple[Backbone, BuiltBackbone]) -> None:
    entry, built = own_size
    blocks = blocks_of(built.network, entry)
    assert len(blocks) == num_blocks(entry) >= 5
    found = [id(p) for block in blocks for module in block for p in module.parameters(recurse=False)]
    assert sorted(found) == sorted(id(p) for p in built.network.parameters())
    dropouts = {id(module) for module in built.network.modules() if isinstance(module, nn.Dropout) and module.p}
    assert dropouts <= {id(module) for block in blocks for module in block}


def test_blocks_go_from_input_to_output(own_size: tuple[Backbone, BuiltBackbone]) -> None:
    entry, built = own_size
    number = {
        id(module): position for position, block in enumerate(blocks_of(built.network, entry)) for module in block
    }
    order: list[int] = []
    layers = [module for module in built.network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(lambda module, *_: order.append(number[id(module)])) for layer in layers]
    with torch.inference_mode():
        built.network.eval()(torch.zeros(1, 3, entry.min_image_size, entry.min_image_size))
    for handle in handles:
        handle.remove()
    assert order == sorted(order) and set(order) == set(range(num_blocks(entry)))


@pytest.mark.parametrize("name", SOME_LONG)
def test_frozen_phase_trains_only_the_head(name: str) -> None:
    network = classifier(name, CATALOGUE[name].min_image_size)
    phase = phases_of(small_settings(regime="frozen"))[0]
    backbone, head = hash_weights(network.backbone), hash_weights(network.head)
    train_step(network, phase, name)
    assert hash_weights(network.backbone) == backbone
    assert hash_weights(network.head) != head


def train_step(network: Classifier, phase: Phase, name: str) -> None:
    network.train()
    freeze_or_thaw(network, phase, blocks_of(network.backbone, find_backbone(name, "torch")))
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, 0.1)
    loss = nn.functional.cross_entropy(network(torch.from_numpy(some_images())), torch.tensor([0, 1, 2, 3]))
    loss.backward()
    optimizer.step()


@pytest.mark.parametrize("name", ["resnet50_v2", "efficientnet_b0"])
def test_only_the_last_blocks_change_while_the_others_are_frozen(name: str) -> None:
    network = classifier(name, 64).train()
    blocks = blocks_of(network.backbone, CATALOGUE[name])
    for module in [module for block in blocks[:-2] for module in block]:
        module.requires_grad_(False).eval()

    def states() -> list[str]:
        return [hash_weights(nn.ModuleList(block)) for block in blocks]

    before = states()
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1)
    nn.functional.cross_entropy(network(torch.from_numpy(some_images())), torch.tensor([0, 1, 2, 3])).backward()
    optimizer.step()
    changed = [first != second for first, second in zip(before, states(), strict=True)]
    assert changed == [False] * (len(blocks) - 2) + [True, True]


@pytest.mark.parametrize("name", LAST_MAP)
def test_grad_cam_explains_the_last_map(name: str) -> None:
    size = CATALOGUE[name].min_image_size
    network = classifier(name, size)
    features, gradients = features_and_gradients(network, some_images(), np.array([0, 1, 2, 3]))
    side, channels = LAST_MAP[name]
    assert features.shape == gradients.shape == (4, side, side, channels)
    assert np.abs(gradients).max() > 0


# Giga multiply-accumulates, as published with torchvision's weights (_ops in their metadata).
@pytest.mark.parametrize(
    ("name", "giga_macs"), [("alexnet", 0.714), ("densenet161", 7.728), ("efficientnet_b0", 0.386)]
)
def test_multiply_accumulates_are_as_published(name: str, giga_macs: float) -> None:
    network = build_off_the_shelf(small_settings(backbone=name, image_size=224))
    assert count_macs(network) / 1e9 == pytest.approx(giga_macs, rel=5e-3)


@pytest.mark.long
@pytest.mark.parametrize("name", CATALOGUE)
def test_model_can_be_saved_for_serving(name: str, tmp_path: Path) -> None:
    network = classifier(name, 64)
    save_model(network, tmp_path / "model", image_shape=(8, 8, 3), num_classes=NUM_CLASSES)
    assert (tmp_path / "model" / "MLmodel").is_file()


# ------------------------------------------------------------------------------------------------------ off the shelf


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("alexnet", torchvision.models.alexnet),
        ("mobilenet_v2", torchvision.models.mobilenet_v2),
        ("resnet50_v2", lambda: timm.create_model("resnetv2_50")),
    ],
)
def test_network_with_its_own_head_agrees_with_its_library_s(
    name: str, make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    torch.manual_seed(1)
    pixels = np.random.default_rng(1).normal(size=(16, 3, 64, 64)).astype(np.float32)
    whole = tell_images_apart(make(), pixels)
    file = tmp_path / "whole.pth"
    torch.save(whole.state_dict(), file)
    network = build_off_the_shelf(small_settings(backbone=name, image_size=64), file).eval()
    assert isinstance(network.head, nn.Linear) and network.head.out_features == 1000
    images = torch.from_numpy(some_images())
    with torch.inference_mode():
        expected, received = whole(network.pixels(images)), network(images)
    assert expected.shape == (4, 1000)
    assert_same_outputs(received, expected, atol=1e-4)


def test_weights_without_the_head_are_refused_in_one_line(tmp_path: Path) -> None:
    save_weights(classifier("mobilenet_v2", 32), tmp_path)
    with pytest.raises(
        UserError,
        match=r"lacks the head that is needed: 2 of .* classifier\.1\.bias; give the file of this backbone$",
    ):
        build_off_the_shelf(small_settings(), tmp_path / "backbone.safetensors")


def test_network_whose_head_is_not_imagenet_s_is_refused() -> None:
    with pytest.raises(UserError, match=r"^backbone: 'timm:vit_tiny_patch16_224.augreg_in21k' comes without"):
        build_off_the_shelf(small_settings(backbone="timm:vit_tiny_patch16_224.augreg_in21k", image_size=224))


# -------------------------------------------------------------------------------------------- names of the libraries


@pytest.mark.parametrize(
    ("name", "mean", "features"),
    [
        ("timm:mobilenetv3_small_100", 0.485, 1024),
        ("timm:resnetv2_50.a1h_in1k", 0.5, 2048),
        ("torchvision:regnet_y_400mf", 0.485, 440),
        ("torchvision:mobilenet_v3_small", 0.485, 1024),
        ("torchvision:googlenet", 0.5, 1024),
    ],
)
def test_any_name_of_the_libraries_trains(name: str, mean: float, features: int) -> None:
    built = build(name, 64)
    assert isinstance(built.scaling, Normalization) and built.scaling.mean[0] == mean
    assert built.num_features == features
    network = classifier(name, 64)
    before = hash_weights(network.backbone)
    train_step(network, phases_of(small_settings(regime="scratch"))[0], name)
    assert hash_weights(network.backbone) != before
    assert blocks_of(network.backbone, find_backbone(name, "torch")) == [[network.backbone]]


def test_backbone_without_a_feature_map_has_a_map_of_one_place() -> None:
    network = classifier("timm:vit_tiny_patch16_224", 224)
    features, gradients = features_and_gradients(network, some_images(), np.array([0, 1, 2, 3]))
    assert features.shape == gradients.shape == (4, 1, 1, 192)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "timm:convnxt_tiny",
            "backbone: received 'timm:convnxt_tiny', but timm has no .* did you mean .*convnext_tiny",
        ),
        ("torchvision:resnet5", "backbone: received .* torchvision has no image classifier 'resnet5'; .*resnet50"),
        ("torchvision:fasterrcnn_resnet50_fpn", "backbone: received .* torchvision has no image classifier"),
        ("timm:resnet18.nonsense", r"backbone: timm cannot build .* \(Invalid pretrained tag"),
        ("torchvision:squeezenet1_0", "backbone: .* does not end in a dense layer"),
        ("torchvision:inception_v3", "data.image_size: received 64, but torchvision:inception_v3 does not take images"),
        ("timm:vit_tiny_patch16_224", r"data.image_size: received 64, .* \(Input height \(64\) doesn't match"),
    ],
)
def test_name_or_size_that_the_library_refuses_is_one_line(name: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}") as caught:
        build(name, 64)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["torchvision:nope", "timm:nope", "timm:resnet18.nonsense"])
def test_unknown_name_is_reported_before_data_is_read(name: str) -> None:
    words = ["--regime", "scratch", "--device", "cpu", "--data.source", "lacking"]
    with pytest.raises(UserError, match=f"^backbone: .*{name}"):
        main(read_settings("torch", [*words, "--backbone", name]))
    with pytest.raises(UserError, match=r"^data\.source: received 'lacking'"):
        main(read_settings("torch", [*words, "--backbone", "timm:resnet18.a1_in1k"]))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_inception_networks_do_not_scale_pixels_themselves(name: str) -> None:
    entry = find_backbone(f"torchvision:{name}", "torch")
    built = build_backbone(entry, 96, pretrained=False)
    network = torchvision.models.get_model(name, init_weights=False, transform_input=True)
    pixels = torch.rand(2, 3, 4, 4)
    of_others = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].transforms()
    normalized = torchvision.transforms.functional.normalize(pixels, of_others.mean, of_others.std)
    assert isinstance(built.scaling, Normalization)
    torch.testing.assert_close(
        torchvision.transforms.functional.normalize(pixels, list(built.scaling.mean), list(built.scaling.std)),
        network._transform_input(normalized),
    )
    assert built.network.transform_input is False


def test_published_weights_do_not_make_inception_scale_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = torchvision.models.get_model("inception_v3", init_weights=False)
    monkeypatch.setattr(torchvision.models.Inception_V3_Weights, "get_state_dict", lambda *_, **__: whole.state_dict())
    built = build_backbone(find_backbone("torchvision:inception_v3", "torch"), 96, pretrained=True)
    assert built.network.transform_input is False


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["resnet50_v2", "timm:convnext_tiny"])
def test_silent_hub_is_one_line_within_seconds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nonexistent")
    start = time.monotonic()
    with pytest.raises(UserError, match=r"^weights: imagenet could not be downloaded") as caught:
        build_backbone(find_backbone(name, "torch"), 64, pretrained=True)
    assert time.monotonic() - start < 10
    assert "\n" not in str(caught.value)
