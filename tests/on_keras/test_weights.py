from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from tandem.errors import UserError
from tandem.on_keras.backbones import load_weights
from tandem.on_keras.networks import Classifier, build_classifier
from tandem.on_keras.weights import count_parameters, hash_weights, save_weights
from tandem.protocol.settings import HeadSettings
from tests.small_runs import NUM_CLASSES, small_settings

IMAGE_SHAPE = (8, 8, 3)

WriteFile = Callable[[Path, Path], None]
"""Writes a file, given the folder of save_weights and the file's path."""


@pytest.fixture(scope="module")
def network() -> Classifier:
    """A network with weights and batch-norm statistics of its own."""
    keras.utils.set_random_seed(1)
    network = build_classifier(small_settings(head=HeadSettings(hidden=[16])), NUM_CLASSES)
    network(some_images(), training=True)
    return network


@pytest.fixture(scope="module")
def folder(network: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that save_weights writes."""
    folder = tmp_path_factory.mktemp("run") / "weights"
    save_weights(network, folder)
    return folder


@pytest.fixture
def offline(no_network: None, keras_home: Path) -> Path:
    """Keras's folder of weights, empty, on a machine without a network."""
    return keras_home / "models"


def some_images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, *IMAGE_SHAPE), dtype=np.uint8)


def build_from(file: Path) -> Classifier:
    settings = small_settings(weights=str(file))
    return build_classifier(settings, NUM_CLASSES, file)


@pytest.fixture(scope="module")
def one_backbone() -> keras.Model:
    return build_classifier(small_settings(), NUM_CLASSES).backbone


@pytest.fixture
def backbone(one_backbone: keras.Model) -> keras.Model:
    """A backbone whose weights are in no file; the same for all tests, since building one takes a second."""
    one_backbone.set_weights([np.full(weight.shape, 0.5, np.float32) for weight in one_backbone.weights])
    return one_backbone


@pytest.fixture(scope="module")
def whole_network() -> keras.Model:
    return keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3))


def test_saved_backbone_is_loaded_unchanged(network: Classifier, folder: Path) -> None:
    loaded = build_from(folder / "backbone.weights.h5")
    assert hash_weights(loaded.backbone) == hash_weights(network.backbone)
    other = build_classifier(small_settings(), NUM_CLASSES)
    assert hash_weights(other.backbone) != hash_weights(network.backbone)


def test_hash_sees_one_changed_batch_norm_statistic(folder: Path) -> None:
    backbone = build_from(folder / "backbone.weights.h5").backbone
    before = hash_weights(backbone)
    last = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)][-1]
    variance = keras.ops.convert_to_numpy(last.moving_variance).copy()
    variance[-1] += 1e-6
    last.moving_variance.assign(variance)
    assert hash_weights(backbone) != before


def test_parameters_are_counted_all_and_trainable(network: Classifier, folder: Path) -> None:
    head = 1280 * 16 + 16 + 16 * NUM_CLASSES + NUM_CLASSES
    assert count_parameters(network) == (2_223_872 + head, 2_223_872 + head)
    frozen = build_from(folder / "backbone.weights.h5")
    frozen.backbone.trainable = False
    head = 1280 * NUM_CLASSES + NUM_CLASSES
    assert count_parameters(frozen) == (2_223_872 + head, head)


@pytest.mark.parametrize("name", ["whole.weights.h5", "whole.h5", "notop.weights.h5", "notop.h5"])
def test_weights_of_a_published_network_are_loaded(
    name: str, whole_network: keras.Model, backbone: keras.Model, tmp_path: Path
) -> None:
    without_top = keras.Model(whole_network.input, whole_network.layers[-2].output, name=whole_network.name)
    published = whole_network if name.startswith("whole") else without_top
    file = tmp_path / name
    if name.endswith(".weights.h5"):
        published.save_weights(file)
    else:
        published.save(file)  # the older format of Keras Applications' files
    load_weights(backbone, file)
    for received, expected in zip(backbone.get_weights(), without_top.get_weights(), strict=True):
        assert np.array_equal(received, expected)


def wrong_network(folder: Path, file: Path) -> None:
    keras.applications.MobileNetV3Small(weights=None, input_shape=(32, 32, 3), pooling="avg").save_weights(file)


def other_width(folder: Path, file: Path) -> None:
    keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), alpha=0.5, pooling="avg").save_weights(file)


def truncated(folder: Path, file: Path) -> None:
    file.write_bytes((folder / "backbone.weights.h5").read_bytes()[:100_000])


def text(folder: Path, file: Path) -> None:
    file.write_text("these are no weights\n" * 9)


def empty(folder: Path, file: Path) -> None:
    file.touch()


def other_tables(folder: Path, file: Path) -> None:
    with h5py.File(file, "w") as tables:
        tables["measurements"] = np.zeros(3)


def head(folder: Path, file: Path) -> None:
    file.write_bytes((folder / "head.weights.h5").read_bytes())


def layer_too_many(folder: Path, file: Path) -> None:
    network = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), include_top=False, pooling="avg")
    keras.Model(network.input, keras.layers.Dense(3)(keras.layers.BatchNormalization()(network.output))).save_weights(
        file
    )


@pytest.mark.parametrize("name", ["file.weights.h5", "file.h5"])
@pytest.mark.parametrize(
    "write", [layer_too_many, wrong_network, other_width, truncated, text, empty, other_tables, head]
)
def test_unsuitable_file_is_named_in_one_line(
    write: WriteFile, name: str, folder: Path, backbone: keras.Model, tmp_path: Path
) -> None:
    file = tmp_path / name
    write(folder, tmp_path / "file.weights.h5")
    (tmp_path / "file.weights.h5").rename(file)
    with pytest.raises(UserError) as caught:
        load_weights(backbone, file)
    assert str(caught.value).startswith(f"weights: {file} ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["damaged.weights.h5", "damaged.h5"])
def test_weights_that_are_not_finite_are_refused(
    value: float, name: str, backbone: keras.Model, tmp_path: Path
) -> None:
    network = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), include_top=False, pooling="avg")
    gamma, file = network.get_layer("bn_Conv1").gamma, tmp_path / name
    gamma.assign(keras.ops.full(gamma.shape, value))
    network.save_weights(file) if name.endswith(".weights.h5") else network.save(file)
    with pytest.raises(UserError, match=r"not finite in 1 of 260 arrays, the first is .*bn_Conv1/gamma; "):
        load_weights(backbone, file)


@pytest.mark.parametrize("name", ["deeper.weights.h5", "deeper.h5"])
def test_weights_of_a_network_with_more_layers_are_refused(name: str, tmp_path: Path) -> None:
    def small(blocks: int) -> keras.Model:
        images = keras.Input((8, 8, 3))
        values = images
        for block in range(blocks):
            values = keras.layers.Conv2D(3, 3, padding="same", name=f"block{block}_conv")(values)
        return keras.Model(images, keras.layers.Dense(2, name="predictions")(keras.layers.Flatten()(values)))

    file = tmp_path / name
    small(3).save_weights(file) if name.endswith(".weights.h5") else small(3).save(file)
    with pytest.raises(UserError, match=r"2 arrays that this network does not have|1 of its layers .* block2_conv"):
        load_weights(small(2), file)
    load_weights(small(3), file)


def test_missing_imagenet_weights_name_the_file_and_its_folder(offline: Path) -> None:
    settings = small_settings(weights="imagenet", image_size=96)
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        build_classifier(settings, NUM_CLASSES)
    assert time.monotonic() - start < 20
    message = str(caught.value)
    assert message.startswith("weights: imagenet could not be downloaded")
    assert f"put the file into {offline}, or" in message
    assert "\n" not in message

    address = re.search(r"https://storage\.googleapis\.com/\S+/(mobilenet_v2\S+_96_no_top\.h5)", message)
    assert address is not None
    offline.mkdir(parents=True, exist_ok=True)
    published = keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3), include_top=False)
    published.save(offline / address[1])
    loaded = build_classifier(settings, NUM_CLASSES)
    for received, expected in zip(loaded.backbone.get_weights(), published.get_weights(), strict=True):
        assert np.array_equal(received, expected)
