from __future__ import annotations

import base64
import dataclasses
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from tandem.data.prepare import PreparedData, prepare
from tandem.protocol.settings import DataSettings
from tandem.serving.image_model import SERVING_VARIABLE, Description, ImageModel
from tests.serving.logged import DESCRIPTION
from tests.serving.mean_colours import mean_colours
from tests.serving.photographs import CLASSES, write_photographs

MODEL = ImageModel(DESCRIPTION, mean_colours)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs") / "own")


@pytest.fixture(scope="module")
def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.*"))


def prepared(folder: Path, **changes: Any) -> PreparedData:
    cache = str(folder.parent / "cache")
    return prepare(DataSettings(source=str(folder), image_size=20, cache_folder=cache, **changes), quiet=True)


@pytest.mark.parametrize("how", ["squash", "crop"])
def test_pixels_are_those_of_the_store_to_the_bit(folder: Path, how: Any) -> None:
    data = prepared(folder, resize=how)
    seen: list[np.ndarray] = []

    def network(images: np.ndarray) -> np.ndarray:
        seen.append(images)
        return mean_colours(images)

    description = dataclasses.replace(DESCRIPTION, resize=how)
    ImageModel(description, network).predict([folder / key for key in data.keys])
    assert np.array_equal(np.concatenate(seen), data.images)
    assert [len(batch) for batch in seen] == [4, 4, 4, 4, 2]


def forms_of(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    text = base64.b64encode(content).decode()
    return {
        "path": file,
        "text of a path": str(file),
        "bytes": content,
        "base64": text,
        "base64 on lines": base64.encodebytes(content).decode(),
        "data URL": f"data:image/png;base64,{text}",
        "Pillow image": Image.open(BytesIO(content)),
    }


def test_all_forms_of_an_image_give_the_same_prediction(files: list[Path]) -> None:
    for file in files[:3]:  # RGB, grey and with transparency
        expected = MODEL.predict([file])
        for name, form in forms_of(file).items():
            pd.testing.assert_frame_equal(MODEL.predict([form]), expected, obj=name)
            pd.testing.assert_frame_equal(MODEL.predict(form), expected, obj=f"single {name}")


def test_all_containers_give_the_same_predictions(files: list[Path]) -> None:
    texts = [str(file) for file in files]
    expected = MODEL.predict(texts)
    assert len(expected) == len(files) and expected["class"].nunique() == 3
    others = [pd.Series(texts), np.array(texts), np.array(texts, object), {"images": texts}, tuple(texts)]
    others += [pd.DataFrame({"any": texts}), pd.DataFrame({"number": range(len(texts)), "image": texts})]
    for container in others:
        pd.testing.assert_frame_equal(MODEL.predict(container), expected)


def test_arrays_of_any_size_are_resized_as_files_are(files: list[Path]) -> None:
    for file in files[:2]:
        pixels = np.asarray(Image.open(file))
        expected = MODEL.predict([file])
        numbers = pixels.astype(np.int64)  # as JSON gives them
        for form in (pixels, [pixels], pixels[None], numbers, [numbers.tolist()]):
            pd.testing.assert_frame_equal(MODEL.predict(form), expected)
    grey = np.asarray(Image.open(files[1]))
    pd.testing.assert_frame_equal(MODEL.predict(grey[..., None]), MODEL.predict(np.dstack([grey] * 3)))


def test_predictions_name_the_classes(files: list[Path]) -> None:
    table = MODEL.predict(files)
    assert table.columns.tolist() == ["class", "probability", *(f"probability:{name}" for name in CLASSES)]
    in_colour = [index for index, file in enumerate(files) if file.stem not in ("1", "5")]  # these are grey
    assert table["class"][in_colour].tolist() == [files[index].parent.name for index in in_colour]
    probabilities = table.filter(like="probability:").to_numpy()
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    assert np.array_equal(table["probability"], probabilities.max(axis=1))


def test_no_images_give_no_rows() -> None:
    assert MODEL.predict([]).columns.tolist()[:2] == ["class", "probability"] and MODEL.predict([]).empty


@pytest.mark.parametrize(
    ("received", "message"),
    [
        ([b"no image"], r"image 0 \(bytes\): cannot identify"),
        ([b""], r"image 0 \(bytes\): the file is empty"),
        (["nowhere.png"], r"image 0 \(nowhere.png\): it is neither a file nor base64"),
        (["bm8gaW1hZ2U="], r"image 0 \(bm8gaW1hZ2U=\): cannot identify"),
        ("x" * 100_000, r"x{60} \.\.\.\)"),
        (np.zeros((2, 8, 8, 3), np.float32), r"received float32 of shape \(8, 8, 3\); allowed: whole numbers"),
        (np.full((8, 8, 3), 256), r"from 256 to 256; allowed: whole numbers from 0 to 255"),
        (np.zeros((2, 8, 8, 2), np.uint8), r"\(8, 8, 2\); allowed"),
        (np.zeros((1, 2, 8, 8, 3), np.uint8), r"shape \(1, 2, 8, 8, 3\); allowed"),
        (np.array([b"bytes"]), "drops their last zeros"),
        ([3.5], r"image 0 \(float\): received float; allowed: a path"),
        (3.5, "received float; allowed: paths"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), "received the columns a, b; allowed: a single column, or one named"),
    ],
)
def test_wrong_input_gets_a_message(received: Any, message: str) -> None:
    with pytest.raises(MlflowException, match=message):
        MODEL.predict(received)


def test_server_reads_no_files_of_its_machine(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVING_VARIABLE, "true")
    with pytest.raises(MlflowException, match="it is no base64 text of an image file"):
        MODEL.predict([str(files[0])])
    assert len(MODEL.predict([base64.b64encode(files[0].read_bytes()).decode()])) == 1


def test_description_is_kept_as_json_and_newer_fields_are_ignored() -> None:
    values = DESCRIPTION.to_dict()
    assert Description.from_dict({**values, "added_later": 1}) == DESCRIPTION
    assert Description.from_dict(values).image_shape == (20, 20, 3)
