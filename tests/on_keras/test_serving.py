from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from tandem.on_keras.networks import Classifier, build_classifier
from tandem.on_keras.serving import save_model
from tandem.protocol.settings import HeadSettings
from tests.oracles import softmax
from tests.small_runs import NUM_CLASSES, small_settings
from train_keras import predict_batch

IMAGE_SHAPE = (8, 8, 3)


@dataclass(frozen=True)
class Saved:
    network: Classifier
    folder: Path
    model: mlflow.pyfunc.PyFuncModel


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A network with dropout; the scaling is the one that turns the channels around."""
    settings = small_settings(pixel_scaling="caffe", head=HeadSettings(hidden=[16], dropout=0.5))
    network = build_classifier(settings, NUM_CLASSES, IMAGE_SHAPE)
    network(some_images(9), training=True)  # batch-norm statistics of its own
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(network, folder, image_shape=IMAGE_SHAPE, num_classes=NUM_CLASSES)
    return Saved(network, folder, mlflow.pyfunc.load_model(str(folder)))


def some_images(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (number, *IMAGE_SHAPE), dtype=np.uint8)


@pytest.mark.parametrize("number", [1, 7])
def test_loaded_model_gives_the_network_s_probabilities(saved: Saved, number: int) -> None:
    images = some_images(number)
    probabilities = np.asarray(saved.model.predict(images))
    assert (probabilities.shape, probabilities.dtype) == ((number, NUM_CLASSES), np.float32)
    logits = predict_batch(saved.network, images)
    assert probabilities == pytest.approx(softmax(logits), abs=1e-5)


def test_dropout_is_off_in_the_saved_model(saved: Saved) -> None:
    first, second = (np.asarray(saved.model.predict(some_images(4))) for _ in range(2))
    assert np.array_equal(first, second)


def test_signature_says_what_goes_in_and_out(saved: Saved) -> None:
    signature = saved.model.metadata.signature
    (images,), (probabilities,) = signature.inputs.inputs, signature.outputs.inputs
    assert (images.shape, images.type) == ((-1, 8, 8, 3), np.dtype(np.uint8))
    assert (probabilities.shape, probabilities.type) == ((-1, NUM_CLASSES), np.dtype(np.float32))


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, *IMAGE_SHAPE), np.float32),
        np.zeros((2, *IMAGE_SHAPE), np.int64),
        np.zeros((2, 9, 8, 3), np.uint8),
        np.zeros((2, 8, 8), np.uint8),
    ],
    ids=["float32", "int64", "other size", "grey"],
)
def test_images_that_are_not_as_trained_are_refused(saved: Saved, images: np.ndarray) -> None:
    with pytest.raises(MlflowException, match="enforce schema"):
        saved.model.predict(images)


def test_model_holds_no_pickle(saved: Saved) -> None:
    names = {path.name for path in saved.folder.rglob("*") if path.is_file()}
    assert not any(name.endswith((".pkl", ".pth", ".pickle")) for name in names)
