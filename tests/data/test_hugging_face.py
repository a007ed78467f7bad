from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tandem.data.prepare import prepare
from tandem.data.sources import find_source
from tandem.errors import UserError
from tandem.protocol.data_sets import resolve_split
from tandem.protocol.settings import DataSettings
from tests.own_data import encoded, table_of, write_one_parquet, write_parquet_shards, write_saved


def settings_of(source: Path | str, tmp_path: Path, **values: Any) -> DataSettings:
    return DataSettings(source=str(source), image_size=8, cache_folder=str(tmp_path / "cache"), **values)


def test_missing_library_is_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    for source in (write_one_parquet(tmp_path), "hf:owner/name"):
        with pytest.raises(UserError, match=r"is read by the library datasets, .*; pip install datasets$"):
            find_source(settings_of(source, tmp_path), quiet=True)


def test_images_are_the_bytes_of_the_files(tmp_path: Path) -> None:
    source = find_source(settings_of(write_one_parquet(tmp_path), tmp_path), quiet=True)
    assert source.name == "pets"
    assert [source.read(image.key) for image in source.images] == [encoded(f"one{n}") for n in range(12)]


def test_classes_keep_the_order_of_the_published_labels(tmp_path: Path) -> None:
    write_saved(tmp_path / "saved", {"train": 12, "test": 6})
    data = prepare(settings_of(tmp_path / "saved", tmp_path), quiet=True)
    assert data.classes == ("dog", "cat")
    assert data.labels[data.keys.index("train/01")] == 1


def test_second_time_reads_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet_shards(tmp_path / "pets")
    first = prepare(settings_of(tmp_path / "pets", tmp_path), quiet=True)
    from tandem.data import hugging_face

    monkeypatch.setattr(hugging_face._Table, "read", None)
    again = prepare(settings_of(tmp_path / "pets", tmp_path), quiet=True)
    assert again.split.hash == first.split.hash


def test_other_rows_are_noticed(tmp_path: Path) -> None:
    write_parquet_shards(tmp_path / "pets")
    first = prepare(settings_of(tmp_path / "pets", tmp_path), quiet=True)
    file = tmp_path / "pets/data/train-00000-of-00001.parquet"
    pyarrow.parquet.write_table(table_of(12, "others", label=[n % 2 for n in range(12)]), file)
    second = prepare(settings_of(tmp_path / "pets", tmp_path), quiet=True)
    assert second.split.hash != first.split.hash and second.split.test_hash == first.split.test_hash


def test_bad_image_in_a_row_is_named(tmp_path: Path) -> None:
    content = pyarrow.table({"image": [b"no image", *(encoded(str(n)) for n in range(11))], "label": [0, 1] * 6})
    pyarrow.parquet.write_table(content, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"1 file.*\n  images/00: not an image, despite its name$"):
        prepare(settings_of(tmp_path / "a.parquet", tmp_path), quiet=True)


def test_code_beside_the_data_is_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    write_parquet_shards(folder)
    for name in ("pets.py", "__init__.py", "data/pets.py"):
        (folder / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    prepare(settings_of(folder, tmp_path), quiet=True)
    assert not (tmp_path / "ran").exists()


def test_data_set_of_the_hub_that_cannot_be_loaded_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(name: str, configuration: str | None, cache_dir: str) -> None:
        raise ConnectionError(f"Couldn't reach '{name}' ({configuration}) on the Hub\nTraceback")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(
        UserError, match=r"data\.source: hf:owner/name:plain cannot be loaded by datasets: .*reach"
    ) as caught:
        prepare(settings_of("hf:owner/name:plain", tmp_path), quiet=True)
    assert "\n" not in str(caught.value)


def test_data_set_of_the_hub_is_read_with_its_own_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    write_saved(tmp_path / "saved", {"train": 12, "test": 6})
    asked = []

    def load(name: str, configuration: str | None, cache_dir: str) -> Any:
        asked.append((name, configuration))
        return datasets.load_from_disk(str(tmp_path / "saved"))

    monkeypatch.setattr(datasets, "load_dataset", load)
    settings = settings_of("hf:owner/name:plain", tmp_path)
    assert resolve_split(settings).split == "publisher"
    data = prepare(settings, quiet=True)
    assert asked == [("owner/name", "plain")]
    assert (data.name, len(data.rows("test"))) == ("owner/name:plain", 6)


def test_data_set_of_the_hub_without_test_images_names_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    write_saved(tmp_path / "saved", {"train": 12})
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *_, cache_dir: datasets.load_from_disk(str(tmp_path / "saved"))
    )
    with pytest.raises(UserError, match=r"data\.split: .*publisher.*allowed here: fractions"):
        prepare(settings_of("hf:owner/name", tmp_path), quiet=True)
