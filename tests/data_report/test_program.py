from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tandem.data_report.__main__ import main, parse_arguments
from tandem.errors import UserError
from tandem.protocol.settings import DataSettings

WriteImages = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def pets(write_images: WriteImages) -> Path:
    folder = write_images({"train/cat": 6, "train/dog": 6, "test/cat": 2, "test/dog": 2}, size=(48, 40))
    (folder / "train/dog/text.jpg").write_text("this is a text")
    return folder


def test_data_settings_have_the_names_and_defaults_of_the_scripts() -> None:
    arguments = parse_arguments(["--data.image_size", "64", "birds", "--data.split", "publisher", "--html", "x.html"])
    assert arguments.data == DataSettings(image_size=64, split="publisher")
    assert arguments.source == "birds" and arguments.html == "x.html"


def test_images_may_be_smaller_than_a_backbone_takes() -> None:
    assert parse_arguments(["digits", "--data.image_size", "8"]).data.image_size == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["birds", "--data.image_size", "3"], "data.image_size: received 3, allowed: a whole number, at least 8, at"),
        (["birds", "--data.fractions", "[0.5, 0.1]"], r"data.fractions: received \[0.5, 0.1\], allowed: three numbers"),
        (["birds", "--data.imagesize", "64"], "data.imagesize: there is no such setting; did you mean data.image_size"),
        (["birds", "--learning_rate", "1"], "learning_rate: only the training scripts have this setting; --help lists"),
        (["birds", "dogs"], "dogs: unexpected word on the command line"),
        (["--html", "x.html"], "the following arguments are required: source"),
    ],
)
def test_bad_words_are_refused_in_one_line(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_arguments(words)
    assert "\n" not in str(caught.value)


def test_nulls_in_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("image_size: null\n")
    with pytest.raises(UserError, match=r"data\.image_size: received None, allowed: a whole number"):
        parse_arguments(["birds", "--data", "data.yaml"])


def test_report_is_printed_and_written(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(pets), "--data.split", "publisher", "--data.fractions", "[0.6,0.2,0.2]"]
    words += ["--data.image_size", "48", "--data.cache_folder", str(tmp_path / "cache")]
    main([*words, "--html", "out/page.html", "--output", "out/tables"])
    printed = capsys.readouterr()
    assert "Images of each class: pets" in printed.out
    assert "left out: train/dog/text.jpg: not an image" in printed.out  # reported, and no reason to stop
    assert "16 images of 2 classes" in printed.out and "No two images look almost the same" in printed.out
    assert "Written to out/page.html (" in printed.err
    assert "<h1>Data set: pets</h1>" in (tmp_path / "out/page.html").read_text(encoding="utf-8")
    assert (tmp_path / "out/tables/classes.csv").read_text().splitlines()[1].startswith("cat,8,50.0,")
    assert not (tmp_path / "mlflow.db").exists()


def test_report_is_logged_to_an_experiment_once(pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = f"sqlite:///{tmp_path}/elsewhere.db"
    words = [str(pets), "--data.image_size", "32", "--data.cache_folder", str(tmp_path / "cache")]
    for expected in ("as the run", "already"):
        main([*words, "--experiment", "mine", "--tracking.uri", uri])
        assert f"Logged to the experiment mine {expected}" in capsys.readouterr().err
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("mine")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "data set: pets" and run.data.metrics["data/num_unreadable"] == 1


def test_place_that_cannot_be_written_is_named(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = [str(pets), "--data.image_size", "32", "--data.cache_folder", str(tmp_path / "cache")]
    for option in ("--html", "--output"):
        with pytest.raises(UserError, match=r"cannot write the report to .*file.*choose another --html or --output"):
            main([*words, option, "file/report"])
