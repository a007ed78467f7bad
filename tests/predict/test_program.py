from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from tandem.errors import UserError
from tandem.predict.__main__ import main
from tandem.serving.image_model import ImageModel
from tests.serving.logged import DESCRIPTION, log_run
from tests.serving.mean_colours import mean_colours
from tests.serving.photographs import CLASSES, write_photographs

pytestmark = pytest.mark.usefixtures("own_environment")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    return write_photographs(tmp_path / "photographs")


def predict(client: MlflowClient, tmp_path: Path, *words: str | Path) -> pd.DataFrame:
    output = tmp_path / "out" / "predictions.csv"
    main([*map(str, words), "--output", str(output), "--tracking_uri", client.tracking_uri])
    return pd.read_csv(output)


def test_folder_is_predicted_as_the_model_predicts_its_files(
    client: MlflowClient, tmp_path: Path, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = log_run(client, tmp_path)
    table = predict(client, tmp_path, f"runs:/{run_id}", photographs)
    files = sorted(photographs.rglob("*.*"))
    expected = ImageModel(DESCRIPTION, mean_colours).predict(files)
    assert table["path"].tolist() == [str(file) for file in files]
    assert table["class"].tolist() == expected["class"].tolist() and len(set(table["class"])) == 3
    np.testing.assert_allclose(table["probability"], expected["probability"], rtol=1e-6)
    assert table.columns.tolist() == [
        *("path", "class", "probability", "class_2", "probability_2", "class_3", "probability_3")
    ]
    sums = table[["probability", "probability_2", "probability_3"]].sum(axis=1)
    np.testing.assert_allclose(sums, 1, rtol=1e-5)
    assert (table["probability"] >= table["probability_2"]).all()
    assert "18 images: cat" in capsys.readouterr().out


def test_files_and_folders_are_predicted_once_each(client: MlflowClient, tmp_path: Path, photographs: Path) -> None:
    run_id = log_run(client, tmp_path)
    file = photographs / "dog" / "0.png"
    table = predict(client, tmp_path, f"runs:/{run_id}", file, photographs / "dog", "--top", "1")
    assert len(table) == 6 and table["path"][0] == str(file)
    assert table.columns.tolist() == ["path", "class", "probability"]


def test_unreadable_files_are_listed_and_left_out(
    client: MlflowClient, tmp_path: Path, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = log_run(client, tmp_path)
    (photographs / "cat" / "broken.jpg").write_bytes(b"no image")
    whole = (photographs / "cat" / "3.jpg").read_bytes()
    (photographs / "cat" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photographs / "cat" / "notes.txt").write_text("no image, and not called one")
    (photographs / "cat" / ".hidden.png").write_bytes(b"")
    table = predict(client, tmp_path, f"runs:/{run_id}", photographs)
    assert len(table) == 18
    message = capsys.readouterr().err
    assert "2 files cannot be read and are left out" in message
    assert "broken.jpg: not an image" in message and "cut.jpg: " in message and "notes.txt" not in message
    with pytest.raises(UserError, match=r"none of the files is a readable image:\n  .*broken.jpg: not an image"):
        predict(client, tmp_path, f"runs:/{run_id}", photographs / "cat" / "broken.jpg")


def test_several_runs_predict_by_the_mean_of_their_probabilities(
    client: MlflowClient, tmp_path: Path, photographs: Path
) -> None:
    squash, crop = (log_run(client, tmp_path, resize=how) for how in ("squash", "crop"))
    turned = log_run(client, tmp_path, classes=("owl", "dog", "cat"))
    tables = [
        predict(client, tmp_path, *(f"runs:/{run_id}" for run_id in members), photographs).sort_values("path")
        for members in ((squash,), (crop,), (squash, crop), (squash, turned))
    ]
    probabilities = [by_class(table) for table in tables]
    expected = (probabilities[0] + probabilities[1]) / 2
    assert np.abs(probabilities[0] - probabilities[1]).max() > 1e-3
    np.testing.assert_allclose(probabilities[2], expected, atol=1e-6)
    # the other run calls red owl
    np.testing.assert_allclose(probabilities[3], (probabilities[0] + probabilities[0][:, ::-1]) / 2, atol=1e-6)


def by_class(table: pd.DataFrame) -> np.ndarray:
    """Probabilities of shape (files, classes) from the three best classes of each file."""
    result = np.zeros((len(table), 3))
    for suffix in ("", "_2", "_3"):
        places = [CLASSES.index(name) for name in table[f"class{suffix}"]]
        result[np.arange(len(table)), places] = table[f"probability{suffix}"]
    return result


def test_best_is_the_run_that_the_comparison_recommends(
    client: MlflowClient, tmp_path: Path, photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_run(client, tmp_path, regime="finetune")  # gets two images of three right
    best = log_run(client, tmp_path, regime="scratch")  # gets all right
    predict(client, tmp_path, "--best", "mine", photographs)
    assert f"runs:/{best}: mobilenet_v2, scratch, torch" in " ".join(capsys.readouterr().err.split())


def test_gallery_shows_the_least_certain_image_first(client: MlflowClient, tmp_path: Path) -> None:
    run_id = log_run(client, tmp_path)
    for name, level in (("sure", 255), ("unsure", 20)):
        pixels = np.zeros((30, 40, 3), np.uint8)
        pixels[..., 0] = level
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    page = tmp_path / "page.html"
    predict(client, tmp_path, f"runs:/{run_id}", tmp_path / "sure.png", tmp_path / "unsure.png", "--html", page)
    text = page.read_text(encoding="utf-8")
    assert 0 < text.index("unsure.png") < text.index("sure.png", text.index("unsure.png") + 10)
    assert "cat (2)" in text and text.count("data:image/") == 2 and "<script src" not in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photographs"], "give either models .* or --best EXPERIMENT. Received: neither"),
        (["runs:/0", "photographs", "--best", "mine"], "Received: runs:/0, mine"),
        (["runs:/0"], "give image files or folders to predict. Received only runs:/0"),
        (["runs:/0", "nowhere"], "there is no file or folder nowhere"),
        (["runs:/0", "empty"], "empty has no image files; expected files ending in "),
        (["runs:/0", "photographs", "--top", "0"], "--top: received 0; allowed: 1 and more"),
    ],
)
def test_wrong_arguments_are_refused(
    words: list[str], message: str, tmp_path: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        main(words)


def test_members_of_an_ensemble_need_the_same_classes(client: MlflowClient, tmp_path: Path, photographs: Path) -> None:
    pets, birds = log_run(client, tmp_path), log_run(client, tmp_path, classes=("owl", "tit", "jay"))
    with pytest.raises(UserError, match="Received: cat, dog, owl and owl, tit, jay; predict with each by itself"):
        predict(client, tmp_path, f"runs:/{pets}", f"runs:/{birds}", photographs)
