from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import threading
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from tandem.data.download import (
    RemoteFile,
    fetch,
    fetch_from_kaggle,
    keep_checksum,
    one_process_at_a_time,
    unpack,
)
from tandem.errors import UserError
from tests.data.publisher import Publisher

CONTENT = np.random.default_rng(0).bytes(1_500_000)


def remote(publisher: Publisher, content: bytes = CONTENT, *, checksum: str | None = "right") -> RemoteFile:
    publisher.files["/images.bin"] = content
    if checksum == "right":
        checksum = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    return RemoteFile(url=publisher.url("images.bin"), checksum=checksum)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(*files: RemoteFile, folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        fetch(files, folder, quiet=True)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ------------------------------------------------------------------------------------------------------- one file


def test_file_is_fetched_once(publisher: Publisher, tmp_path: Path) -> None:
    file = remote(publisher)
    fetch((file,), tmp_path, quiet=True)
    fetch((file,), tmp_path, quiet=True)
    assert (tmp_path / "images.bin").read_bytes() == CONTENT
    assert names(tmp_path) == ["images.bin"]
    assert publisher.requests == [("/images.bin", None)]


def test_fetched_file_has_the_permissions_of_the_umask(publisher: Publisher, tmp_path: Path) -> None:
    fetch((remote(publisher),), tmp_path, quiet=True)
    other = tmp_path / "other"
    other.touch()
    assert (tmp_path / "images.bin").stat().st_mode == other.stat().st_mode


def test_file_that_the_user_has_put_there_needs_no_network(tmp_path: Path) -> None:
    (tmp_path / "images.bin").write_bytes(CONTENT)
    checksum = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    fetch((RemoteFile(url="https://nowhere.invalid/images.bin", checksum=checksum),), tmp_path, quiet=True)


def test_wrong_file_in_its_place_is_named_and_left_alone(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "images.bin").write_bytes(b"something else")
    message = refusal(remote(publisher), folder=tmp_path)
    assert message == (
        f"data.source: {tmp_path}/images.bin has the md5 checksum {hashlib.md5(b'something else').hexdigest()} "
        f"instead of {hashlib.md5(CONTENT).hexdigest()}; remove it, and it is downloaded from "
        f"{publisher.url('images.bin')}"
    )
    assert (tmp_path / "images.bin").read_bytes() == b"something else"
    assert publisher.requests == []


def test_file_with_another_checksum_leaves_nothing_behind(publisher: Publisher, tmp_path: Path) -> None:
    file = remote(publisher, CONTENT[:-1] + b"\0")
    message = refusal(file, folder=tmp_path)
    assert f"the file from {file.url} does not have the checksum {file.checksum} and was removed" in message
    assert str(tmp_path / "images.bin") in message
    assert names(tmp_path) == []


@pytest.mark.parametrize("cut", [1, 700_000, len(CONTENT) - 1])
def test_interrupted_download_is_resumed(publisher: Publisher, tmp_path: Path, cut: int) -> None:
    file = remote(publisher)
    publisher.cut_after = cut
    message = refusal(file, folder=tmp_path)
    assert f"the download of {file.url} broke off after {cut / 1e6:.1f} MB; run again to resume it, or" in message
    assert names(tmp_path) == ["images.bin.partial"]

    publisher.cut_after = None
    fetch((file,), tmp_path, quiet=True)
    assert (tmp_path / "images.bin").read_bytes() == CONTENT
    assert names(tmp_path) == ["images.bin"]
    assert publisher.requests[-1] == ("/images.bin", f"bytes={cut}-")


def test_server_that_sends_no_parts_sends_all_again(publisher: Publisher, tmp_path: Path) -> None:
    file = remote(publisher)
    (tmp_path / "images.bin.partial").write_bytes(CONTENT[:1000])
    publisher.ranges = False
    fetch((file,), tmp_path, quiet=True)
    assert (tmp_path / "images.bin").read_bytes() == CONTENT


def test_download_killed_before_its_last_step_is_completed(publisher: Publisher, tmp_path: Path) -> None:
    file = remote(publisher)
    (tmp_path / "images.bin.partial").write_bytes(CONTENT)
    fetch((file,), tmp_path, quiet=True)
    assert (tmp_path / "images.bin").read_bytes() == CONTENT
    assert publisher.requests == [("/images.bin", f"bytes={len(CONTENT)}-")]


def test_partial_of_another_file_is_detected_and_removed(publisher: Publisher, tmp_path: Path) -> None:
    file = remote(publisher)
    (tmp_path / "images.bin.partial").write_bytes(b"other")
    assert "does not have the checksum" in refusal(file, folder=tmp_path)
    assert names(tmp_path) == []
    fetch((file,), tmp_path, quiet=True)


def test_bytes_are_kept_as_they_are_whatever_encoding_the_server_claims(publisher: Publisher, tmp_path: Path) -> None:
    packed = gzip.compress(CONTENT)
    publisher.files["/images.gz"] = packed
    publisher.headers = {"Content-Encoding": "gzip"}
    file = RemoteFile(url=publisher.url("images.gz"), checksum=f"md5:{hashlib.md5(packed).hexdigest()}")
    fetch((file,), tmp_path, quiet=True)
    assert (tmp_path / "images.gz").read_bytes() == packed


def test_progress_goes_to_stderr(publisher: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetch((remote(publisher),), tmp_path, quiet=False)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"Downloading {publisher.url('images.bin')} to {tmp_path}/images.bin\n"


# ------------------------------------------------------------------------------------------------------ cannot be had


def test_offline_message_says_what_to_download_and_where_to_put_it(tmp_path: Path) -> None:
    file = RemoteFile(url="https://nowhere.invalid/a/images.bin", checksum=None)
    assert refusal(file, folder=tmp_path) == (
        "data.source: nowhere.invalid cannot be reached; download https://nowhere.invalid/a/images.bin and put it at "
        f"{tmp_path}/images.bin, or run again online"
    )
    assert names(tmp_path) == []


def test_offline_message_names_exactly_the_missing_files(publisher: Publisher, tmp_path: Path) -> None:
    first = remote(publisher)
    others = [RemoteFile(url=f"https://nowhere.invalid/{name}", checksum="md5:0") for name in ("b.bin", "c.bin")]
    message = refusal(first, *others, folder=tmp_path)
    assert (
        f"download https://nowhere.invalid/b.bin, https://nowhere.invalid/c.bin and put them into {tmp_path}, or"
        in message
    )
    assert names(tmp_path) == ["images.bin"]


def test_file_that_is_not_published_any_more_is_named_with_its_status(publisher: Publisher, tmp_path: Path) -> None:
    url = publisher.url("gone.bin")
    assert refusal(RemoteFile(url=url, checksum=None), folder=tmp_path) == (
        f"data.source: {url} is not available (404); download {url} and put it at {tmp_path}/gone.bin"
    )


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"data\.cache_folder: .*file/mnist cannot be written \(Not a directory\)"),
        one_process_at_a_time(tmp_path / "file" / "mnist", quiet=True),
    ):
        pass


def test_a_second_process_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entered = threading.Event()

    def enter() -> None:
        with one_process_at_a_time(tmp_path / "mnist", quiet=False):
            entered.set()

    with FileLock(tmp_path / "mnist.lock"):
        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(0.3)
    thread.join()
    assert entered.is_set()
    assert "Another process is preparing" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- without a checksum


def test_checksum_of_the_first_copy_is_kept_where_none_is_published(
    publisher: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = remote(publisher, checksum=None)
    fetch((file,), tmp_path, quiet=True)
    keep_checksum(file, tmp_path, quiet=False)
    checksum = hashlib.sha256(CONTENT).hexdigest()
    assert (tmp_path / "images.bin.sha256").read_text() == checksum + "\n"
    assert f"images.bin has no published checksum; later copies have to have this one's: {checksum}" in (
        capsys.readouterr().err.replace("\n", " ")
    )

    (tmp_path / "images.bin").unlink()
    remote(publisher, CONTENT + b"more", checksum=None)
    assert f"does not have the checksum sha256:{checksum}" in refusal(file, folder=tmp_path)
    (tmp_path / "images.bin").write_bytes(CONTENT + b"more")
    assert f"instead of {checksum}; remove it" in refusal(file, folder=tmp_path)


def test_published_checksum_is_not_written_down(publisher: Publisher, tmp_path: Path) -> None:
    file = remote(publisher)
    fetch((file,), tmp_path, quiet=True)
    keep_checksum(file, tmp_path, quiet=True)
    assert names(tmp_path) == ["images.bin"]


# ---------------------------------------------------------------------------------------------------------- archives


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


FILES = {"pets/cat/a.png": CONTENT[:70_000], "pets/dog/b.png": CONTENT[70_000:140_000], "readme": b"about"}


@pytest.mark.parametrize(("write", "name"), [(write_tar, "pets.tgz"), (write_zip, "pets.zip")])
def test_folder_of_an_archive_is_unpacked(tmp_path: Path, write: object, name: str) -> None:
    assert callable(write)
    archive = write(tmp_path / name, FILES)
    unpack(archive, "pets", tmp_path / "pets", quiet=True)
    assert (tmp_path / "pets/dog/b.png").read_bytes() == FILES["pets/dog/b.png"]
    assert names(tmp_path) == ["pets", name]


@pytest.mark.parametrize(("write", "name"), [(write_tar, "pets.tgz"), (write_zip, "pets.zip")])
@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.9999])
def test_truncated_archive_leaves_nothing_behind(tmp_path: Path, write: object, name: str, share: float) -> None:
    assert callable(write)
    archive = write(tmp_path / name, FILES)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError) as caught:
        unpack(archive, "pets", tmp_path / "pets", quiet=True)
    assert str(caught.value).startswith(f"data.source: {archive} is damaged (")
    assert str(caught.value).endswith("; remove it, and it is downloaded again")
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == [name]


def test_archive_with_a_flipped_byte_is_damaged(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "pets.tgz", FILES)
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"pets\.tgz is damaged"):
        unpack(archive, "pets", tmp_path / "pets", quiet=True)
    assert names(tmp_path) == ["pets.tgz"]


def test_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "pets.tgz", {"cars/a.png": b"car"})
    with pytest.raises(UserError, match=r"pets\.tgz has no pets in it"):
        unpack(archive, "pets", tmp_path / "pets", quiet=True)
    assert names(tmp_path) == ["pets.tgz"]


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil-of-tandem-tests"])
def test_archive_writes_nothing_outside_its_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "datasets"
    folder.mkdir()
    archive = write_tar(folder / "pets.tgz", {**FILES, f"pets/../../{name}" if name[0] == "." else name: b"evil"})
    try:
        unpack(archive, "pets", folder / "pets", quiet=True)
    except UserError as error:
        assert "damaged" in str(error)
    assert names(tmp_path) == ["datasets"]
    assert not os.path.exists("/tmp/evil-of-tandem-tests")


def test_leftover_of_a_killed_unpacking_is_replaced(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "pets.tgz", FILES)
    (tmp_path / "pets.partial/pets/old").mkdir(parents=True)
    unpack(archive, "pets", tmp_path / "pets", quiet=True)
    assert names(tmp_path) == ["pets", "pets.tgz"]
    assert names(tmp_path / "pets") == ["cat", "dog"]


# ------------------------------------------------------------------------------------------------------------ Kaggle

HANDLE = "somebody/pets"


def kaggle_refusal(tmp_path: Path) -> str:
    with pytest.raises(UserError) as caught:
        fetch_from_kaggle(HANDLE, tmp_path, tmp_path / "datasets/pets")
    assert "\n" not in str(caught.value)
    return str(caught.value)


BY_HAND = "download https://www.kaggle.com/datasets/somebody/pets and unpack it into {}/datasets/pets"


def test_kaggle_download_is_unpacked_under_the_cache_folder(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["/archive"] = write_zip(tmp_path / "a.zip", FILES).read_bytes()
    folder = fetch_from_kaggle(HANDLE, tmp_path, tmp_path / "datasets/pets")
    assert (folder / "pets/cat/a.png").read_bytes() == FILES["pets/cat/a.png"]
    assert folder.is_relative_to(tmp_path / "kagglehub")


def test_interrupted_kaggle_download_is_resumed(publisher: Publisher, tmp_path: Path) -> None:
    files = {f"{number}.bin": CONTENT for number in range(3)}
    publisher.files["/archive"] = write_zip(tmp_path / "a.zip", files).read_bytes()
    publisher.cut_after = 4_000_000
    assert kaggle_refusal(tmp_path) == (
        "data.source: the download of somebody/pets from Kaggle broke off; run again to resume it, or "
        + BY_HAND.format(tmp_path)
    )
    publisher.cut_after = None
    folder = fetch_from_kaggle(HANDLE, tmp_path, tmp_path / "datasets/pets")
    assert (folder / "2.bin").read_bytes() == CONTENT
    assert publisher.requests[-1][0] == "/archive" and publisher.requests[-1][1] not in (None, "bytes=0-")


@pytest.mark.parametrize("status", [401, 403])
def test_kaggles_login_is_explained(publisher: Publisher, tmp_path: Path, status: int) -> None:
    publisher.kaggle_status = status
    message = kaggle_refusal(tmp_path)
    assert message.startswith(
        f"data.source: Kaggle wants you to log in ({status}): write an API token from https://www"
    )
    assert "~/.kaggle/access_token" in message and message.endswith(BY_HAND.format(tmp_path))


def test_data_set_that_kaggle_lacks_is_named(publisher: Publisher, tmp_path: Path) -> None:
    publisher.kaggle_status = 404
    expected = "data.source: Kaggle answers 404 for somebody/pets; " + BY_HAND.format(tmp_path)
    assert kaggle_refusal(tmp_path) == expected


def test_kaggle_offline_message_says_what_to_download_and_where(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens on the port of the discard protocol
    expected = f"data.source: localhost cannot be reached; {BY_HAND.format(tmp_path)}, or run again online"
    assert kaggle_refusal(tmp_path) == expected
