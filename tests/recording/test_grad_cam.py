from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image
from scipy.ndimage import zoom

from tandem import interrupts
from tandem.errors import UserError
from tandem.evaluation.predictions import Predictions
from tandem.protocol.settings import Settings, TrackingSettings
from tandem.recording.grad_cam import (
    GradCam,
    choose_images,
    class_activation_maps,
    draw_contact_sheet,
    make_grad_cam,
)
from tandem.recording.run import record_grad_cam
from tandem.tracking.start import start_run


def make_predictions(truth: list[int], hashes: list[str], classes: tuple[str, ...] = ("cat", "dog")) -> Predictions:
    """Every image is predicted as the first class."""
    probabilities = np.zeros((len(truth), len(classes)), np.float32)
    probabilities[:, 0] = 1
    return Predictions(
        keys=tuple(f"{hash_}.png" for hash_ in hashes),
        hashes=tuple(hashes),
        truth=np.array(truth, np.int64),
        probabilities=probabilities,
        classes=classes,
    )


def make_maps(num_images: int = 4, size: tuple[int, int] = (6, 8)) -> GradCam:
    generator = np.random.default_rng(0)
    truth = np.arange(num_images) % 2
    return GradCam(
        keys=tuple(f"folder/{i}.png" for i in range(num_images)),
        hashes=tuple("abcdefghijkl"[:num_images]),
        classes=("猫", "NA"),
        truth=truth,
        predicted=np.zeros_like(truth),
        images=generator.integers(0, 256, (num_images, *size, 3), dtype=np.uint8),
        maps=generator.integers(0, 256, (num_images, 2, *size), dtype=np.uint8),
    )


# --- which images


def test_images_are_spread_over_the_classes_and_taken_by_hash() -> None:
    predictions = make_predictions([0, 0, 0, 1, 1, 1], ["c", "b", "a", "f", "e", "d"])
    assert choose_images(predictions, 4).tolist() == [2, 1, 5, 4]
    assert choose_images(predictions, 3).tolist() == [2, 1, 5]  # the third is the one with the lower hash


def test_same_images_are_chosen_in_any_order_of_images_and_classes() -> None:
    generator = np.random.default_rng(1)
    hashes = [f"{number:08x}" for number in generator.choice(2**32, 60, replace=False)]
    truth = generator.integers(0, 5, 60)
    names = tuple("abcde")
    one = make_predictions(truth.tolist(), hashes, names)
    order = generator.permutation(60)
    renamed = np.array([3, 1, 4, 0, 2])  # class i of the first is class renamed[i] of the second
    names_of_other = tuple(names[i] for i in np.argsort(renamed))
    other = make_predictions(renamed[truth[order]].tolist(), [hashes[i] for i in order], names_of_other)
    chosen = {one.hashes[i] for i in choose_images(one, 12)}
    assert chosen == {other.hashes[i] for i in choose_images(other, 12)}
    assert sorted(np.bincount(one.truth[choose_images(one, 12)])) == [2, 2, 2, 3, 3]


def test_all_images_are_chosen_if_there_are_fewer_than_asked_for() -> None:
    assert sorted(choose_images(make_predictions([0, 1, 1], ["c", "b", "a"]), 12)) == [0, 1, 2]


def test_with_more_classes_than_images_no_class_comes_twice() -> None:
    predictions = make_predictions([0, 0, 1, 1, 2, 2], ["a", "b", "c", "d", "e", "f"], ("x", "y", "z"))
    assert choose_images(predictions, 2).tolist() == [0, 2]


# --- the maps


def test_map_is_the_positive_part_of_the_weighted_channels() -> None:
    features = np.array([[[[1.0, 0.0], [0.0, 2.0]], [[3.0, 1.0], [0.0, 0.0]]]])  # (1, 2, 2, 2 channels)
    gradients = np.zeros_like(features)
    gradients[0, 0, 0] = [4, -8]  # means over the four places: 1 and -2
    # 1*1 - 2*0 = 1, 0 - 2*2 = -4, 3 - 2 = 1, 0; the positive part, over its highest value
    expected = [[1, 0], [1, 0]]
    np.testing.assert_allclose(class_activation_maps(features, gradients, 2, 2)[0], expected, atol=1e-6)


def test_map_of_a_linear_head_on_pooled_features_is_the_class_activation_map() -> None:
    # Zhou et al. 2016: with average pooling and one dense layer Grad-CAM is CAM, the weights times the features.
    generator = np.random.default_rng(2)
    features, weights = generator.normal(size=(3, 5, 4, 7)), generator.normal(size=7)
    gradients = np.broadcast_to(weights / 20, features.shape)  # of mean(features) @ weights
    cam = np.maximum(features @ weights, 0)
    expected = cam / cam.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(class_activation_maps(features, gradients, 5, 4), expected, atol=1e-5)


def test_map_is_enlarged_bilinearly_with_half_pixel_centres() -> None:
    features = np.random.default_rng(3).uniform(size=(1, 3, 4, 1)).astype(np.float32)
    enlarged = zoom(features[0, :, :, 0], 5, order=1, mode="nearest", grid_mode=True)
    made = class_activation_maps(features, np.ones_like(features), 15, 20)[0]
    np.testing.assert_allclose(made, enlarged / enlarged.max(), atol=1e-5)


def test_map_without_support_for_the_class_is_zero() -> None:
    features = np.ones((2, 3, 3, 2))
    gradients = np.stack([-features[0], features[0]])
    maps = class_activation_maps(features, gradients, 6, 6)
    assert maps[0].max() == 0 and maps[1].min() == 1


def test_each_image_has_the_map_of_its_predicted_and_of_its_true_class() -> None:
    predictions = make_predictions([0, 1, 1], ["a", "b", "c"])
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    batches = []

    def network(images: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batches.append(len(images))
        features = np.zeros((len(images), 2, 2, 1), np.float32)
        features[np.arange(len(images)), classes, images[:, 0, 0, 0] % 2] = 1  # class gives the row, image the column
        return features, np.ones_like(features)

    rows = np.array([2, 1])
    made = make_grad_cam(predictions, images[rows], rows, network, batch_size=1)
    assert made is not None and batches == [1] * 4
    assert made.keys == ("c.png", "b.png") and made.hashes == ("c", "b")
    assert made.predicted.tolist() == [0, 0] and made.truth.tolist() == [1, 1]
    # the corner in which each map is highest: predicted class 0 in the upper row, true class 1 in the lower one
    corners = made.maps[:, :, [0, 0, 3, 3], [0, 3, 0, 3]]
    assert corners.argmax(axis=2).tolist() == [[0, 2], [1, 3]]
    assert (corners.max(axis=2) == 255).all()


def test_signal_ends_grad_cam_after_a_batch(interrupted: Callable[[], None]) -> None:
    batches: list[int] = []

    def network(images: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batches.append(len(images))
        interrupted()
        return np.ones((len(images), 2, 2, 1), np.float32), np.ones((len(images), 2, 2, 1), np.float32)

    with pytest.raises(interrupts.Interrupted), interrupts.watch():
        predictions = make_predictions([0, 1, 1], ["a", "b", "c"])
        make_grad_cam(predictions, np.zeros((3, 4, 4, 3), np.uint8), np.arange(3), network, batch_size=1)
    assert batches == [1]


def test_single_cell_gives_no_maps() -> None:
    predictions = make_predictions([0, 1], ["a", "b"])
    cell = np.ones((2, 1, 1, 5), np.float32)
    images = np.zeros((2, 8, 8, 3), np.uint8)
    assert make_grad_cam(predictions, images, np.arange(2), lambda *_: (cell, cell), batch_size=2) is None


# --- pictures and files


def test_overlay_is_grey_where_the_map_is_zero_and_coloured_where_it_is_high() -> None:
    images = np.full((1, 2, 2, 3), 100, np.uint8)
    maps = np.zeros((1, 2, 2, 2), np.uint8)
    maps[0, 0, 0, 0] = 255
    cam = GradCam(
        keys=("a",), hashes=("a",), classes=("x",), truth=np.zeros(1, np.int64), predicted=np.zeros(1, np.int64),
        images=images, maps=maps,
    )  # fmt: skip
    overlays = cam.overlays
    assert overlays.shape == (1, 2, 2, 2, 3) and overlays.dtype == np.uint8
    assert (overlays[0, 1] == 100).all() and (overlays[0, 0, 1] == 100).all()
    # Inferno ends in (252, 255, 164): 0.4 * 100 + 0.6 * that
    np.testing.assert_allclose(overlays[0, 0, 0, 0], [191, 193, 138], atol=1)


def test_maps_come_back_as_they_were_written(tmp_path: Path) -> None:
    cam = make_maps()
    cam.write(tmp_path / "new" / "grad_cam.npz")
    read = GradCam.read(tmp_path / "new" / "grad_cam.npz")
    assert (read.keys, read.hashes, read.classes) == (cam.keys, cam.hashes, cam.classes)
    for name in ("truth", "predicted", "images", "maps"):
        np.testing.assert_array_equal(getattr(read, name), getattr(cam, name))
        assert getattr(read, name).dtype == getattr(cam, name).dtype


def test_damaged_file_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "grad_cam.npz"
    with pytest.raises(UserError, match=r"cannot read Grad-CAM maps from .* No such file"):
        GradCam.read(file)
    cam = make_maps()
    cam.write(file)
    whole = file.read_bytes()
    np.savez(tmp_path / "other.npz", keys=np.arange(3))
    np.save(tmp_path / "array.npy", np.arange(3))
    for damaged in (whole[: len(whole) // 2], b"", b"text", *map(Path.read_bytes, tmp_path.glob("*y"))):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match="is not a file of Grad-CAM maps"):
            GradCam.read(file)
    with pytest.raises(UserError, match=r"other\.npz is not a file of Grad-CAM maps .*hashes|keys"):
        GradCam.read(tmp_path / "other.npz")


@pytest.mark.parametrize("field", ["truth", "predicted", "images", "maps", "hashes"])
def test_arrays_of_different_lengths_are_refused(field: str) -> None:
    fields: dict[str, Any] = {name: getattr(make_maps(), name) for name in GradCam.__dataclass_fields__}
    fields[field] = fields[field][1:]
    with pytest.raises(ValueError, match=r"Received|has to be|have to be"):
        GradCam(**fields)


def test_contact_sheet_shows_each_image_beside_its_two_maps() -> None:
    cam = make_maps(num_images=4, size=(32, 32))
    sheet = np.asarray(draw_contact_sheet(cam))
    found = []
    for tile in (cam.images[3], cam.overlays[3, 0], cam.overlays[3, 1]):
        enlarged = np.asarray(Image.fromarray(tile).resize((160, 160), Image.Resampling.NEAREST))
        corners = np.argwhere((sheet[:-159, :-159] == enlarged[0, 0]).all(axis=2))
        rows = [(y, x) for y, x in corners.tolist() if (sheet[y : y + 160, x : x + 160] == enlarged).all()]
        assert len(rows) == 1
        found += rows
    # The fourth image starts the second row of groups; its maps are on its right.
    assert len({y for y, _ in found}) == 1 and [x for _, x in found] == sorted(x for _, x in found)
    assert found[0][0] > 160


# --- the run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all runs of this file, because MLflow takes seconds to create a database."""
    return tmp_path_factory.mktemp("grad_cam")


def record(root: Path, count: int, cells: int) -> tuple[Path, MlflowClient, str]:
    tracking = TrackingSettings(uri=f"sqlite:///{root}/mlflow.db", folder=str(root / "runs"), grad_cam_images=count)
    settings = Settings(tracking=tracking)
    predictions = make_predictions([0, 1, 1], ["a", "b", "c"])
    images = np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3)
    data: Any = SimpleNamespace(images=images, rows=lambda part: {"test": np.array([0, 2, 3])}[part])
    with start_run(settings, framework="torch", backend="torch", versions={}) as run:
        map_ = np.ones((3, cells, cells, 2), np.float32)
        record_grad_cam(run, settings, data, predictions, lambda images, _: (map_[: len(images)], map_[: len(images)]))
    return run.folder, MlflowClient(tracking_uri=tracking.uri), run.id


def test_run_keeps_maps_and_their_picture(root: Path, tmp_path: Path) -> None:
    folder, client, run_id = record(root, count=2, cells=3)
    assert client.get_run(run_id).data.tags["tandem.grad_cam"] == "2 images"
    assert {file.path for file in client.list_artifacts(run_id, "final")} == {
        "final/grad_cam.npz",
        "final/grad_cam.png",
    }
    cam = GradCam.read(Path(client.download_artifacts(run_id, "final/grad_cam.npz", str(tmp_path))))
    assert cam.keys == ("a.png", "b.png")
    # of the store's images the first test image is row 0, the second row 2
    np.testing.assert_array_equal(cam.images[1], np.arange(384, 576, dtype=np.uint64).astype(np.uint8).reshape(8, 8, 3))
    with Image.open(folder / "final" / "grad_cam.png") as sheet:
        sheet.load()


def test_run_says_why_there_are_no_maps(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, client, run_id = record(root, count=2, cells=1)
    assert client.get_run(run_id).data.tags["tandem.grad_cam"] == (
        "none: the last feature map is 1 x 1 at data.image_size 224"
    )
    assert client.list_artifacts(run_id, "final") == []
    assert capsys.readouterr().err.count("No Grad-CAM") == 1


def test_no_maps_are_made_if_switched_off(root: Path) -> None:
    _, client, run_id = record(root, count=0, cells=3)
    assert "tandem.grad_cam" not in client.get_run(run_id).data.tags
    assert client.list_artifacts(run_id, "final") == []
