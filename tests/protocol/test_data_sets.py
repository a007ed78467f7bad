from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tandem.data.named import READERS
from tandem.errors import UserError
from tandem.protocol.data_sets import DATA_SETS, resolve_split
from tandem.protocol.parser import read_settings
from tandem.protocol.settings import DataSettings, resolve
from tandem.protocol.settings_hash import settings_hash

WriteImages = Callable[..., Path]


def test_every_data_set_with_a_name_has_a_split_and_can_be_read() -> None:
    assert set(DATA_SETS) == {"digits", *READERS}


def test_every_data_set_is_named_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_settings("torch", ["--help_all"])
    text = capsys.readouterr().out
    assert [name for name in DATA_SETS if f"`{name}`" not in text] == []


@pytest.mark.parametrize("name", DATA_SETS)
def test_fractions_are_three_parts_of_the_whole(name: str) -> None:
    fractions = DATA_SETS[name].fractions
    assert min(fractions) > 0 and sum(fractions) == pytest.approx(1)


@pytest.mark.parametrize(
    ("source", "split", "fractions"),
    [
        ("digits", "fractions", [0.7, 0.1, 0.2]),
        ("some/folder", "fractions", [0.7, 0.1, 0.2]),
        ("./cifar100", "fractions", [0.7, 0.1, 0.2]),
        ("birds300", "fractions", [0.7, 0.1, 0.2]),
        ("vegetables", "fractions", [0.7, 0.15, 0.15]),
        ("cifar100", "publisher", [4 / 6, 1 / 6, 1 / 6]),
        ("imagenette", "publisher", [0.7, 0.1, 0.2]),
    ],
)
def test_a_run_records_the_split_of_its_data_set(source: str, split: str, fractions: list[float]) -> None:
    for framework in ("torch", "keras"):
        data = read_settings(framework, ["--data.source", source]).data  # type: ignore[arg-type]
        assert (data.split, data.fractions) == (split, fractions)


def test_explicit_values_are_kept() -> None:
    words = ["--data.source", "vegetables", "--data.split", "publisher", "--data.fractions", "[0.6, 0.2, 0.2]"]
    data = read_settings("torch", words).data
    assert (data.split, data.fractions) == ("publisher", [0.6, 0.2, 0.2])
    one = resolve_split(DataSettings(source="cifar100", fractions=[0.8, 0.1, 0.1]))
    assert (one.split, one.fractions) == ("publisher", [0.8, 0.1, 0.1])
    other = resolve_split(DataSettings(source="cifar100", split="folds"))
    assert (other.split, other.fractions) == ("folds", [4 / 6, 1 / 6, 1 / 6])


def test_automatic_split_is_that_of_the_last_source(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data: {source: cifar100}")
    data = read_settings("torch", ["--config", str(tmp_path / "a.yaml"), "--data.source", "vegetables"]).data
    assert (data.split, data.fractions) == ("fractions", [0.7, 0.15, 0.15])


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (["Training/cat", "Training/dog", "Testing/cat", "Testing/dog"], "publisher"),
        (["train/cat", "train/dog", "eval/cat", "eval/dog"], "publisher"),
        (["train/cat", "train/dog", "test"], "fractions"),
        (["cat", "dog"], "fractions"),
        (["bus", "car", "train"], "fractions"),
    ],
)
def test_split_of_a_folder_depends_on_its_parts(write_images: WriteImages, names: list[str], split: str) -> None:
    source = str(write_images({name: 1 for name in names}))
    words = ["--data.source", source]
    found = read_settings("torch", words)
    assert (found.data.split, found.data.fractions) == (split, [0.7, 0.1, 0.2])
    # a finished run is found by the hash of what `auto` meant
    assert settings_hash(found) == settings_hash(read_settings("keras", [*words, "--data.split", split]))
    assert resolve(found) == found


def test_parts_that_are_not_understood_are_refused_with_the_settings(write_images: WriteImages) -> None:
    folder = write_images({f"batch{number}/{name}": 1 for number in "12" for name in ("cat", "dog")})
    with pytest.raises(
        UserError, match=r"data\.source: .*data\.parts, such as --data\.parts '\{train: batch1, test: batch2\}'"
    ):
        read_settings("torch", ["--data.source", str(folder)])
    named = ["--data.parts", "{train: batch1, test: batch2}"]
    assert read_settings("torch", ["--data.source", str(folder), *named]).data.split == "publisher"


def test_folder_that_is_not_there_is_split_by_fractions() -> None:
    # a grid may be read on a machine without the images; the script that needs them refuses it
    assert read_settings("torch", ["--data.source", "nowhere/at/all"]).data.split == "fractions"
