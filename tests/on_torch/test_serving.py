from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException
from torch.export.passes import move_to_device_pass

from tandem.on_torch.networks import Classifier, build_classifier
from tandem.on_torch.serving import copy_on_cpu, save_model
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
from train_torch import predict_batch


@dataclass(frozen=True)
class Saved:
    network: Classifier
    folder: Path
    model: mlflow.pyfunc.PyFuncModel
    modes_before: list[bool]
    modes_after: list[bool]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A network with dropout in the layout channels_last, saved in training mode; its scaling reverses the channels."""
    settings = small_settings(pixel_scaling="caffe", head=HeadSettings(hidden=[16], dropout=0.5))
    network = tell_images_apart(build_classifier(settings, NUM_CLASSES)).train()
    network.to(memory_format=torch.channels_last)
    folder = tmp_path_factory.mktemp("saved") / "model"
    before = [module.training for module in network.modules()]
    save_model(network, folder, image_shape=IMAGE_SHAPE, num_classes=NUM_CLASSES)
    after = [module.training for module in network.modules()]
    return Saved(network, folder, mlflow.pyfunc.load_model(str(folder)), before, after)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_loaded_model_gives_the_probabilities_of_the_network(saved: Saved, batch_size: int) -> None:
    images = random_images(7)
    batches = [np.asarray(saved.model.predict(batch)) for batch in np.split(images, 7 // batch_size)]
    assert {(batch.shape, batch.dtype.name) for batch in batches} == {((batch_size, NUM_CLASSES), "float32")}
    logits = predict_batch(saved.network.eval(), small_settings(), images)
    assert_same_outputs(np.concatenate(batches), softmax(logits), atol=1e-5)


def test_dropout_is_off_in_the_saved_model(saved: Saved) -> None:
    first, second = (np.asarray(saved.model.predict(random_images(4))) for _ in range(2))
    assert np.array_equal(first, second)


def test_saving_does_not_change_the_network(saved: Saved) -> None:
    assert saved.modes_after == saved.modes_before
    assert all(parameter.requires_grad for parameter in saved.network.parameters())


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


@pytest.mark.parametrize("prediction_device", [None, "cuda"])
def test_model_is_loaded_where_torch_finds_a_gpu(
    saved: Saved, prediction_device: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = random_images(3)
    expected = np.asarray(saved.model.predict(images))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    if prediction_device is not None:
        monkeypatch.setenv("MLFLOW_DEFAULT_PREDICTION_DEVICE", prediction_device)
    model = mlflow.pyfunc.load_model(str(saved.folder))
    assert np.array_equal(np.asarray(model.predict(images)), expected)


def test_exported_program_can_be_moved_to_another_device(saved: Saved) -> None:
    # as docs/gpu.md does it for a GPU; an operation that stayed on the CPU would refuse the other tensors
    program = torch.export.load(saved.folder / "data" / "model.pt2")
    moved = move_to_device_pass(program, "meta").module()
    probabilities = moved(torch.zeros((5, *IMAGE_SHAPE), dtype=torch.uint8, device="meta"))
    assert (probabilities.device.type, probabilities.shape) == ("meta", (5, NUM_CLASSES))


def test_copying_to_the_cpu_copies_no_weight_on_its_own_device(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(tensor: torch.Tensor, memo: object) -> torch.Tensor:
        raise AssertionError("a weight was copied where it is")

    monkeypatch.setattr(torch.Tensor, "__deepcopy__", refuse)
    monkeypatch.setattr(torch.nn.Parameter, "__deepcopy__", refuse)
    copied = copy_on_cpu(saved.network).state_dict()
    for name, value in saved.network.state_dict().items():
        assert torch.equal(copied[name], value) and copied[name].data_ptr() != value.data_ptr()
