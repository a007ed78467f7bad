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
from tests.small_runs import (
    IMAGE_SHAPE,
    NUM_CLASSES,
    assert_same_outputs,
    random_images,
    small_settings,
    tell_images_apart,
)
from train_keras import predict_batch


@dataclass(frozen=True)
class Saved:
    network: Classifier
    folder: Path
    model: mlflow.pyfunc.PyFuncModel


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A network with dropout, whose pixel scaling reverses the channels."""
    settings = small_settings(pixel_scaling="caffe", head=HeadSettings(hidden=[16], dropout=0.5))
    network = tell_images_apart(build_classifier(settings, NUM_CLASSES))
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(network, folder, image_shape=IMAGE_SHAPE, num_classes=NUM_CLASSES)
    return Saved(network, folder, mlflow.pyfunc.load_model(str(folder)))


@pytest.mark.parametrize("batch_size", [1, 7])
def test_loaded_model_gives_the_probabilities_of_the_network(saved: Saved, batch_size: int) -> None:
    images = random_images(7)
    batches = [np.asarray(saved.model.predict(batch)) for batch in np.split(images, 7 // batch_size)]
    assert {(batch.shape, batch.dtype.name) for batch in batches} == {((batch_size, NUM_CLASSES), "float32")}
    logits = predict_batch(saved.network, small_settings(), images)
    assert_same_outputs(np.concatenate(batches), softmax(logits), atol=1e-5)


def test_dropout_is_off_in_the_saved_model(saved: Saved) -> None:
    first, second = (np.asarray(saved.model.predict(random_images(4))) for _ in range(2))
    assert np.array_equal(first, second)


def test_signature_describes_images_and_probabilities(saved: Saved) -> None:
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
def test_images_of_other_types_and_shapes_are_refused(saved: Saved, images: np.ndarray) -> None:
    with pytest.raises(MlflowException, match="enforce schema"):
        saved.model.predict(images)


def test_saved_model_has_no_pickle(saved: Saved) -> None:
    names = {path.name for path in saved.folder.rglob("*") if path.is_file()}
    assert not any(name.endswith((".pkl", ".pth", ".pickle")) for name in names)
