from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tandem.data import decoding, folders, manifest, optional_formats
from tandem.data.manifest import scan
from tandem.data.prepare import prepare
from tandem.data.sources import find_source
from tandem.data.store import open_store
from tandem.errors import UserError
from tandem.protocol.data_sets import resolve_split
from tandem.protocol.file_names import IMAGE_ENDINGS
from tandem.protocol.settings import DataSettings
from tests.own_data import NFC, NFD, heic, parts
from tests.own_data import folders as write_folders

WriteImages = Callable[..., Path]


def settings_of(folder: Path, tmp_path: Path, **values: Any) -> DataSettings:
    return DataSettings(source=str(folder), image_size=8, cache_folder=str(tmp_path / "cache"), **values)


def make_unreadable(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Makes folders look like ones that belong to somebody else; root may read them all the same."""
    scandir = os.scandir

    def refuse(path: Any = ".") -> Any:
        if not isinstance(path, int) and Path(os.fsdecode(path)) in folders:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


@pytest.mark.parametrize("folder", ["cat", "cat/indoors"])
def test_folder_that_cannot_be_read_is_a_bad_one(
    write_images: WriteImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    root = write_images({"cat": 5, "cat/indoors": 5, "dog": 5, "owl": 5})
    make_unreadable(monkeypatch, root / folder)
    with pytest.raises(UserError, match=rf"1 file.*\n  {folder}/: cannot be read: Permission denied$"):
        prepare(settings_of(root, tmp_path))
    data = prepare(settings_of(root, tmp_path, on_bad_image="skip"), quiet=True)
    assert data.bad_images == (f"{folder}/: cannot be read: Permission denied",)
    assert data.classes == (("dog", "owl") if folder == "cat" else ("cat", "dog", "owl"))


def test_part_that_cannot_be_read_is_not_passed_over(
    write_images: WriteImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_images({"train/cat": 5, "train/dog": 5, "test/cat": 5, "test/dog": 5})
    make_unreadable(monkeypatch, root / "test")
    with pytest.raises(UserError, match=r"data\.source: .*/test cannot be read; make it readable, or leave it out"):
        prepare(settings_of(root, tmp_path))
    data = prepare(settings_of(root, tmp_path, parts={"train": "train"}), quiet=True)
    assert len(data.keys) == 10


def test_root_that_cannot_be_read_is_named(
    write_images: WriteImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_images({"cat": 5, "dog": 5})
    make_unreadable(monkeypatch, root)
    with pytest.raises(UserError, match=r"data\.source: .*pets cannot be listed: Permission denied"):
        prepare(settings_of(root, tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_permissions_of_the_system_are_respected() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_folders({"cat": 3, "dog": 3, "dog/more": 3})(root)
        root.chmod(0o755)
        (root / "dog/more").chmod(0)
        os.seteuid(65534)
        try:
            source = find_source(DataSettings(source=folder))
        finally:
            os.seteuid(0)
        assert source.problems == ("dog/more/: cannot be read: Permission denied",)


def test_nothing_is_written_into_the_folder_of_the_images(write_images: WriteImages, tmp_path: Path) -> None:
    root = write_images({"train/cat": 8, "train/dog": 8, "test/cat": 4, "test/dog": 4})
    before = {path: path.stat().st_mtime_ns for path in (root, *root.rglob("*"))}
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    prepare(settings_of(root, tmp_path), quiet=True)
    assert {path: path.stat().st_mtime_ns for path in (root, *root.rglob("*"))} == before


def test_file_that_vanishes_while_images_are_read_is_a_bad_one(write_images: WriteImages, tmp_path: Path) -> None:
    root = write_images({"cat": 5, "dog": 5})
    listed = find_source(settings_of(root, tmp_path))
    (root / "cat/002.png").unlink()
    _, problems = scan(listed, tmp_path / "cache", quiet=True)
    assert problems == ("cat/002.png: cannot be read: No such file or directory",)


def test_folder_that_vanishes_while_it_is_listed_is_a_bad_one(
    write_images: WriteImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_images({"cat": 5, "cat/new": 2, "dog": 5})
    take_folder = folders.Walk._take_folder

    def remove_first(self: Any, path: str, key: str, folder: Any) -> None:
        if key == "cat/new":
            for file in (root / "cat/new").iterdir():
                file.unlink()
            (root / "cat/new").rmdir()
        take_folder(self, path, key, folder)

    monkeypatch.setattr(folders.Walk, "_take_folder", remove_first)
    source = find_source(settings_of(root, tmp_path))
    assert source.problems == ("cat/new/: cannot be read: No such file or directory",)


def test_file_that_changes_between_scan_and_store_is_named(write_images: WriteImages, tmp_path: Path) -> None:
    root = write_images({"cat": 5, "dog": 5})
    source = find_source(settings_of(root, tmp_path))
    scanned, _ = scan(source, tmp_path / "cache", quiet=True)
    (root / "cat/002.png").write_bytes((root / "dog/002.png").read_bytes())
    with pytest.raises(UserError, match=r"cat/002\.png: the file has changed since it was scanned; run again"):
        open_store(source, scanned, settings_of(root, tmp_path), quiet=True)


def test_image_that_is_added_between_two_looks_changes_no_decision(write_images: WriteImages, tmp_path: Path) -> None:
    root = write_images({"cat": 5, "dog": 5})
    settings = resolve_split(settings_of(root, tmp_path))
    write_folders({"train/cat": 5, "test/cat": 5, "train/dog": 5, "test/dog": 5})(root)
    # now it has parts: what was decided first is not silently applied to something else
    assert resolve_split(settings_of(root, tmp_path)).split == "publisher" != settings.split


def test_thousand_classes_are_listed_and_named_in_short_lines(tmp_path: Path) -> None:
    root = tmp_path / "many"
    template = write_folders({"x": 3})
    template(tmp_path)
    files = [path.read_bytes() for path in sorted((tmp_path / "x").iterdir())]
    for number in range(1000):
        (root / f"class {number:04d}").mkdir(parents=True)
        for index, file in enumerate(files):
            (root / f"class {number:04d}" / f"{index}.png").write_bytes(file + number.to_bytes(4, "big"))
    data = prepare(settings_of(root, tmp_path), quiet=True)
    assert len(data.classes) == 1000 and len(data.rows("test")) == 1000
    (root / "class 0007/0.png").unlink()
    for values, words in (
        ({}, "1 of 1000 classes have too few images"),
        ({"classes": ["class 0001", "klass"]}, "there is no klass; allowed: class 0000, class 0001"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            prepare(settings_of(root, tmp_path, **values), quiet=True)
        assert len(str(caught.value)) < 700


def test_every_ending_that_is_read_counts_when_parts_are_recognised() -> None:
    assert folders.readable_endings() <= IMAGE_ENDINGS
    assert {".jpg", ".jfif", ".heic", ".dcm", ".tga", ".avif"} <= folders.readable_endings()


@pytest.fixture
def without_optional_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "is_installed", lambda package: False)
    monkeypatch.setattr(optional_formats, "is_installed", lambda package: False)
    readable = folders.readable_endings() - {ending for of in optional_formats.PACKAGES.values() for ending in of}
    monkeypatch.setattr(folders, "readable_endings", lambda: readable)


def test_missing_packages_are_named_with_the_command(
    without_optional_packages: None, write_images: WriteImages, tmp_path: Path
) -> None:
    root = write_images({"cat": 5, "dog": 5})
    for number in range(20):
        (root / f"cat/{number}.heic").write_bytes(heic(number))
    (root / "dog/scan.dcm").write_bytes(b"\0" * 128 + b"DICM")
    (root / "dog/a.svg").touch()
    assert find_source(settings_of(root, tmp_path)).passed_over == (
        "passed over: 22 files (.heic 20, .dcm 1, .svg 1; pip install pillow-heif reads .heic; pip install pydicom "
        "reads .dcm)",
    )


def test_class_of_files_that_a_missing_package_reads_says_so(
    without_optional_packages: None, write_images: WriteImages, tmp_path: Path
) -> None:
    root = write_images({"cat": 5, "dog": 5, "owl": 0})
    (root / "owl/a.heic").write_bytes(b"")
    source = find_source(settings_of(root, tmp_path))
    assert source.problems == ("owl/: a class folder without images (.heic 1)",)


def test_phone_photograph_with_the_wrong_ending_names_the_package(
    write_images: WriteImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_images({"cat": 5, "dog": 5})
    (root / "cat/a.jpg").write_bytes(heic())
    formats = tuple(name for name in decoding.prepare_pillow() if name != "HEIF")
    monkeypatch.setattr(decoding, "prepare_pillow", lambda: formats)
    monkeypatch.setattr(manifest, "missing_package", lambda file: "pillow-heif" if file == heic() else None)
    with pytest.raises(UserError, match=r"cat/a\.jpg: pip install pillow-heif reads its content$"):
        prepare(settings_of(root, tmp_path), quiet=True)


LOCALE = """
import sys
from tandem.data.prepare import prepare
from tandem.protocol.settings import DataSettings

data = prepare(DataSettings(source=sys.argv[1], image_size=8, cache_folder=sys.argv[2]), quiet=True)
print(ascii(data.classes), len(data.keys), ascii(data.report["source"].rpartition("/")[2]), data.split.hash)
"""


def test_names_are_utf8_in_every_locale(tmp_path: Path) -> None:
    root = tmp_path / "très beau"
    write_folders({NFC: 6, f"{NFC}/{NFD}": 2, "thé": 6})(root)
    found = set()
    for variables in ({}, {"LC_ALL": "C", "PYTHONUTF8": "0"}):
        done = subprocess.run(
            [sys.executable, "-c", LOCALE, str(root), str(tmp_path / "cache")],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1
    assert found.pop().startswith("('caf\\xe9', 'th\\xe9') 14 'tr\\xe8s beau' ")


@pytest.mark.long
def test_program_starts_in_utf8_whatever_the_locale_is(tmp_path: Path) -> None:
    parts(train="entraînement train", test="test")(tmp_path / "très")
    done = subprocess.run(
        [sys.executable, "-m", "tandem.data_report", "très", "--data.cache_folder", "cache", "--data.image_size", "32"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "LC_ALL": "C", "PYTHONUTF8": "0"},
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "très: publisher's split (entraînement train is train, test)" in done.stderr.decode()


def test_listing_does_not_depend_on_the_current_folder(
    write_images: WriteImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_images({"cat": 3, "dog": 3})
    absolute = find_source(settings_of(root, tmp_path))
    monkeypatch.chdir(tmp_path)
    relative = find_source(dataclasses.replace(settings_of(root, tmp_path), source="pets"))
    assert (relative.location, relative.images) == (absolute.location, absolute.images)
