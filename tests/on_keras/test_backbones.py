from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from tandem.errors import UserError, WeightsNotDownloaded
from tandem.on_keras.backbones import (
    BuiltBackbone,
    blocks_of,
    build_backbone,
    build_with_imagenet_head,
    load_weights,
    set_trainable,
)
from tandem.on_keras.cost import count_macs
from tandem.on_keras.gradcam import features_and_gradients
from tandem.on_keras.networks import Classifier, Pixels, build_classifier, build_off_the_shelf
from tandem.on_keras.serving import build_probabilities
from tandem.on_keras.weights import count_parameters, hash_weights, save_weights
from tandem.protocol.backbones import CATALOGUE, Backbone, find_backbone, num_blocks
from tandem.protocol.parser import read_settings
from tandem.protocol.regimes import phases_of
from tests.small_runs import (
    IMAGE_SHAPE,
    NUM_CLASSES,
    assert_same_outputs,
    random_images,
    small_settings,
    tell_images_apart,
)
from train_keras import freeze_or_thaw, main

ROOT = Path(__file__).resolve().parents[2]
# Weights of the whole network, including batch-norm statistics and 7 numbers of EfficientNet's normalization: "Total
# params" in the summaries of Keras Applications; torchvision's count for networks that it lacks.
PUBLISHED_WEIGHTS = {
    "alexnet": 61_100_840,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "resnet50": 25_636_712,
    "resnet101": 44_707_176,
    "resnet152": 60_419_944,
    "resnet50_v2": 25_613_800,
    "densenet121": 8_062_504,
    "densenet161": 28_681_000,
    "mobilenet_v2": 3_538_984,
    "efficientnet_b0": 5_330_571 - 7,
    "efficientnet_v2_b0": 7_200_312,
}
SOME_LONG = [name if name == "alexnet" else pytest.param(name, marks=pytest.mark.long) for name in CATALOGUE]


def classifier(name: str, image_size: int) -> Classifier:
    keras.utils.set_random_seed(0)
    return build_classifier(small_settings(backbone=name, image_size=image_size), NUM_CLASSES)


def some_images(size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, size, size, 3), dtype=np.uint8)


def size_of(weights: list[keras.Variable]) -> int:
    return sum(int(np.prod(weight.shape)) for weight in weights)


@pytest.fixture(scope="module", params=CATALOGUE)
def own_size(request: pytest.FixtureRequest) -> tuple[Backbone, BuiltBackbone]:
    """Each backbone of the catalogue at its published size."""
    entry = CATALOGUE[request.param]
    assert entry.image_size is not None
    return entry, build_backbone(entry, entry.image_size, pretrained=False)


# ------------------------------------------------------------------------------------------------------ the catalogue


def test_parameters_are_as_published(own_size: tuple[Backbone, BuiltBackbone]) -> None:
    entry, built = own_size
    head = (built.num_features + 1) * 1000
    statistics = sum(
        size_of([layer.moving_mean, layer.moving_variance])
        for layer in built.network.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    )
    counted = size_of(built.network.weights) + head
    # torchvision does not count statistics
    assert counted - (statistics if entry.name == "densenet161" else 0) == PUBLISHED_WEIGHTS[entry.name]
    assert counted - statistics == entry.builds["keras"].published_parameters
    assert size_of(built.network.trainable_weights) + head == entry.builds["keras"].published_parameters


def test_differences_name_the_momentum_of_batch_norm(own_size: tuple[Backbone, BuiltBackbone]) -> None:
    entry, built = own_size
    layers = [layer for layer in built.network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = {layer.momentum for layer in layers} - {0.9}  # torch's
    expected = [f"batch-norm momentum is {momentum} in Keras" for momentum in momenta]
    assert [sentence.split(",")[0] for sentence in entry.differences if "momentum is" in sentence] == expected


def test_image_becomes_one_vector_of_features(own_size: tuple[Backbone, BuiltBackbone]) -> None:
    entry, built = own_size
    assert built.network.input.shape == (None, entry.image_size, entry.image_size, 3)
    assert built.network.output.shape == (None, entry.num_features) == (None, built.num_features)


def test_each_weight_is_in_one_block(own_size: tuple[Backbone, BuiltBackbone]) -> None:
    entry, built = own_size
    blocks = blocks_of(built.network, entry)
    assert len(blocks) == num_blocks(entry) >= 5
    found = [weight.path for block in blocks for layer in block for weight in layer.weights]
    assert sorted(found) == sorted(weight.path for weight in built.network.weights)
    dropouts = {layer.name for layer in built.network.layers if isinstance(layer, keras.layers.Dropout)}
    assert dropouts <= {layer.name for block in blocks for layer in block}


def test_blocks_go_from_input_to_output(own_size: tuple[Backbone, BuiltBackbone]) -> None:
    entry, built = own_size
    number = {layer.name: position for position, block in enumerate(blocks_of(built.network, entry)) for layer in block}
    order = [number[layer.name] for layer in built.network.layers if layer.weights]
    assert order == sorted(order) and set(order) == set(range(num_blocks(entry)))


@pytest.mark.parametrize("name", SOME_LONG)
def test_frozen_phase_trains_only_the_head(name: str) -> None:
    network = classifier(name, CATALOGUE[name].min_image_size)
    backbone, head = hash_weights(network.backbone), hash_weights(network.head)
    blocks = blocks_of(network.backbone, CATALOGUE[name])
    freeze_or_thaw(network, phases_of(small_settings(regime="frozen"))[0], blocks)
    train_step(network)
    assert hash_weights(network.backbone) == backbone
    assert hash_weights(network.head) != head


def train_step(network: Classifier) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.SGD(0.1), loss, jit_compile=False)
    network.train_on_batch(some_images(), np.arange(4))


def test_frozen_dropout_is_off_until_it_is_thawed() -> None:
    dropout, dense = keras.layers.Dropout(0.5), keras.layers.Dense(2)
    values = np.ones((4, 50), np.float32)
    dense(values)
    for trainable in (False, True, False, False, True):
        set_trainable([dropout, dense], trainable)
        assert bool(dense.trainable_weights) == trainable
        unchanged = np.array_equal(keras.ops.convert_to_numpy(dropout(values, training=True)), values)
        assert unchanged != trainable


@pytest.mark.long
def test_only_the_last_blocks_change_while_the_others_are_frozen() -> None:
    network = classifier("efficientnet_b0", 32)
    blocks = blocks_of(network.backbone, CATALOGUE["efficientnet_b0"])
    rates = [layer.rate for block in blocks for layer in block if isinstance(layer, keras.layers.Dropout)]
    assert rates and min(rates) > 0
    for block in blocks[:-2]:
        set_trainable(block, False)
    assert {layer.rate for layer in blocks[3] if isinstance(layer, keras.layers.Dropout)} == {0.0}
    before = [[weight.numpy() for layer in block for weight in layer.weights] for block in blocks]
    train_step(network)
    after = [[weight.numpy() for layer in block for weight in layer.weights] for block in blocks]
    changed = [
        any(not np.array_equal(*pair) for pair in zip(*both, strict=True)) for both in zip(before, after, strict=True)
    ]
    assert changed == [False] * (len(blocks) - 2) + [True, True]
    for block in blocks:
        set_trainable(block, True)
    assert rates == [layer.rate for block in blocks for layer in block if isinstance(layer, keras.layers.Dropout)]
    assert len(network.backbone.trainable_weights) == sum(len(layer.trainable_weights) for b in blocks for layer in b)


@pytest.mark.parametrize(("name", "channels"), [("alexnet", 256)])
def test_grad_cam_explains_the_map_before_the_dense_layers(name: str, channels: int) -> None:
    network = classifier(name, 96)
    features, gradients = features_and_gradients(network, some_images(), np.array([0, 1, 2, 3]))
    assert features.shape == gradients.shape == (4, 2, 2, channels)
    assert np.abs(gradients).max() > 0
    again, _ = features_and_gradients(network, some_images(), np.array([0, 1, 2, 3]))
    np.testing.assert_array_equal(features, again)


# Giga multiply-accumulates, as published with torchvision's weights (_ops in their metadata).
@pytest.mark.parametrize(
    ("name", "giga_macs"),
    [("alexnet", 0.714), pytest.param("densenet161", 7.728, marks=pytest.mark.long)],
)
def test_multiply_accumulates_are_those_of_torchvision(name: str, giga_macs: float) -> None:
    network = build_off_the_shelf(small_settings(backbone=name, image_size=224))
    assert count_macs(network) / 1e9 == pytest.approx(giga_macs, rel=5e-3)


@pytest.mark.long
@pytest.mark.parametrize("name", CATALOGUE)
def test_weights_and_model_can_be_saved_and_loaded(name: str, tmp_path: Path) -> None:
    size = max(64, CATALOGUE[name].min_image_size)
    network = tell_images_apart(classifier(name, size))
    save_weights(network, tmp_path)
    other = build_backbone(CATALOGUE[name], size, pretrained=False).network
    load_weights(other, tmp_path / "backbone.weights.h5")
    assert hash_weights(other) == hash_weights(network.backbone)
    model = build_probabilities(network, IMAGE_SHAPE)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same_outputs(loaded.predict_on_batch(some_images()), model.predict_on_batch(some_images()), atol=0.0)


# ---------------------------------------------------------------------------- networks changed from Keras Applications


ENDINGS = [".h5", pytest.param(".weights.h5", marks=pytest.mark.long)]


@pytest.mark.parametrize("ending", ENDINGS)
def test_efficientnet_without_its_scaling_agrees_with_the_published_one(ending: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(2)
    published = keras.applications.EfficientNetB0(
        weights=None, include_top=False, pooling="avg", input_shape=(32, 32, 3)
    )
    std = np.array([0.229, 0.224, 0.225])
    # with ImageNet's weights the variance in the file is std, and another layer divides by sqrt(std) again
    (normalization,) = (layer for layer in published.layers if isinstance(layer, keras.layers.Normalization))
    normalization.set_weights([np.array([0.485, 0.456, 0.406]), std**2, np.array(0)])
    normalization.finalize_state()
    tell_images_apart(published, random_images(16, shape=(32, 32, 3)).astype(np.float32))
    file = tmp_path / f"published{ending}"
    published.save_weights(file) if ending == ".weights.h5" else published.save(file)
    built = build_backbone(CATALOGUE["efficientnet_b0"], 32, pretrained=False)
    load_weights(built.network, file)
    images = some_images(32)
    expected = published.predict_on_batch(images.astype(np.float32))
    received = built.network.predict_on_batch(keras.ops.convert_to_numpy(Pixels(32, built.scaling)(images)))
    assert_same_outputs(received, expected, atol=1e-3)


@pytest.mark.long
@pytest.mark.parametrize(("name", "builder"), [("vgg16", "VGG16"), ("vgg19", "VGG19")])
def test_vgg_at_its_own_size_agrees_with_the_published_one(name: str, builder: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(2)
    published = getattr(keras.applications, builder)(weights=None, classifier_activation=None)
    tell_images_apart(published, np.random.default_rng(1).normal(size=(4, 224, 224, 3)).astype(np.float32))
    published.save_weights(tmp_path / "whole.weights.h5")
    built, head = build_with_imagenet_head(
        CATALOGUE[name], 224, pretrained=False, weights_file=tmp_path / "whole.weights.h5"
    )
    pixels = np.random.default_rng(0).normal(size=(2, 224, 224, 3)).astype(np.float32)
    received = head(built.network(pixels, training=False))
    assert_same_outputs(received, published(pixels, training=False), atol=1e-3)


# ------------------------------------------------------------------------------------------------------ off the shelf


@pytest.mark.parametrize("ending", ENDINGS)
def test_network_with_its_own_head_agrees_with_keras_s(ending: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(2)
    whole = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3), classifier_activation=None)
    tell_images_apart(whole, np.random.default_rng(1).normal(size=(16, 64, 64, 3)).astype(np.float32))
    file = tmp_path / f"whole{ending}"
    whole.save_weights(file) if ending == ".weights.h5" else whole.save(file)
    network = build_off_the_shelf(small_settings(image_size=64), file)
    expected = keras.ops.convert_to_numpy(whole(network.pixels(some_images()), training=False))
    received = network.predict_on_batch(some_images())
    assert expected.shape == (4, 1000)
    assert_same_outputs(received, expected, atol=1e-4)


@pytest.mark.parametrize("ending", [".h5", ".weights.h5"])
def test_weights_without_the_head_are_refused_in_one_line(ending: str, tmp_path: Path) -> None:
    whole = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3), include_top=False)
    file = tmp_path / f"whole{ending}"
    whole.save_weights(file) if ending == ".weights.h5" else whole.save(file)
    with pytest.raises(UserError, match=r"is not a weight file of mobilenetv2\S* with its head \(") as caught:
        build_off_the_shelf(small_settings(image_size=64), file)
    assert "\n" not in str(caught.value)


def test_network_whose_head_is_not_a_dense_layer_is_refused() -> None:
    with pytest.raises(UserError, match=r"^backbone: 'keras:MobileNet' comes without a dense layer"):
        build_off_the_shelf(small_settings(backbone="keras:MobileNet", image_size=64))


# -------------------------------------------------------------------------------------------- names of the library


@pytest.mark.parametrize(
    ("name", "scaling", "features"),
    [
        ("keras:MobileNet", "tf", 1024),
        ("keras:MobileNetV3Small", "none", 576),
        pytest.param("keras:ResNet50", "caffe", 2048, marks=pytest.mark.long),
        pytest.param("keras:NASNetMobile", "tf", 1056, marks=pytest.mark.long),
        pytest.param("keras:DenseNet169", "torch", 1664, marks=pytest.mark.long),
        pytest.param("keras:EfficientNetB1", "torch", 1280, marks=pytest.mark.long),
        pytest.param("keras:ConvNeXtTiny", "none", 768, marks=pytest.mark.long),
    ],
)
def test_any_name_of_keras_applications_works(name: str, scaling: str, features: int) -> None:
    entry = find_backbone(name, "keras")
    built = build_backbone(entry, 64, pretrained=False)
    assert (built.scaling, built.num_features) == (scaling, features)
    (block,) = blocks_of(built.network, entry)
    assert sum(len(layer.weights) for layer in block) == len(built.network.weights)
    assert not [layer for layer in block if isinstance(layer, keras.Model)]


@pytest.mark.long
def test_nested_models_are_counted() -> None:
    network = classifier("keras:ConvNeXtTiny", 64)
    assert count_parameters(network)[0] == 27_820_128 + 768 * NUM_CLASSES + NUM_CLASSES
    # 4.46 giga at 224 pixels (Liu et al. 2022, table 9: 4.5), whose last map is 7 x 7; that of 64 pixels is 2 x 2
    assert count_macs(network) == pytest.approx(4.455e9 * 4 / 49, rel=0.01)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("keras:nasnet_mobile", "backbone: received .* Keras Applications has no image classifier .* NASNetMobile"),
        ("keras:VGG11", "backbone: received 'keras:VGG11', but Keras Applications has no image .* mean VGG1"),
        ("keras:Xception", r"data.image_size: received 64, .* \(Input size must be at least 71x71"),
    ],
)
def test_name_or_size_that_keras_refuses_is_one_line(name: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}") as caught:
        build_backbone(find_backbone(name, "keras"), 64, pretrained=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["vgg16", "keras:VGG19"])
def test_image_size_too_small_for_vgg_is_one_line(name: str) -> None:
    with pytest.raises(UserError, match=r"^data.image_size: received 31, .* must be at least 32x32") as caught:
        build_backbone(find_backbone(name, "keras"), 31, pretrained=False)
    assert "\n" not in str(caught.value)


def test_unknown_name_is_reported_before_data_is_read() -> None:
    words = ["--regime", "scratch", "--device", "cpu", "--data.source", "lacking"]
    with pytest.raises(UserError, match=r"^backbone: received 'keras:VGG11'"):
        main(read_settings("keras", [*words, "--backbone", "keras:VGG11"]))
    with pytest.raises(UserError, match=r"^data\.source: received 'lacking'"):
        main(read_settings("keras", [*words, "--backbone", "keras:VGG16"]))


def test_network_that_scales_pixels_itself_accepts_no_other_scaling() -> None:
    own = "keras:MobileNetV3Small"
    with pytest.raises(UserError, match=r"^pixel_scaling: received 'torch', .* scales pixels itself; allowed: auto$"):
        build_classifier(small_settings(backbone=own, pixel_scaling="torch"), NUM_CLASSES)


# --------------------------------------------------------------------------------------------------- damaged downloads


def spoil(file: str) -> None:
    Path(file).write_bytes(b"half a file")


def test_damaged_download_is_not_reported_as_a_wrong_image_size(
    keras_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", lambda _, file, __: spoil(file))
    with pytest.raises(WeightsNotDownloaded, match=r"^weights: imagenet could .* \(Incomplete or corr") as caught:
        build_backbone(CATALOGUE["resnet50"], 64, pretrained=True)
    assert str(keras_home / "models") in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_file_of_unknown_hash_is_one_line(keras_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", lambda _, file, __: spoil(file))
    with pytest.raises(WeightsNotDownloaded, match=r"^weights: imagenet could not .*MobileNetV2 \(Unable") as caught:
        build_backbone(CATALOGUE["mobilenet_v2"], 128, pretrained=True)
    assert str(keras_home / "models") in str(caught.value) and "\n" not in str(caught.value)
    (keras_home / "models" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_128_no_top.h5").unlink()
