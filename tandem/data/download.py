"""Files from their publishers, whole or not at all: checked, and fetched on from where an interruption left them.

What stands under its final name is whole: a download is <name>.partial until its checksum has been compared, and an
archive is unpacked beside and then renamed. So what the user has put at that place is taken as it is.
"""

from __future__ import annotations

import gzip
import os
import shutil
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests
import rich.progress
import urllib3
from filelock import FileLock, Timeout
from rich.console import Console

from tandem.data.console import say
from tandem.errors import UserError

PARTIAL = ".partial"
"""Ending of what is not whole yet, here and among the stores of decoded images."""

KEPT_CHECKSUM = ".sha256"

# requests' own default is to wait for ever: seconds until a server answers, and between two pieces of a file
TIMEOUT = (15, 60)
CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file that somebody publishes."""

    url: str
    checksum: str | None
    """`md5:` or `sha256:` and hexadecimal digits. None where no publisher gives one: then the SHA-256 of the first copy
    is kept beside it, and later copies have to agree with that."""

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


@contextmanager
def one_process_at_a_time(folder: Path, *, quiet: bool) -> Iterator[None]:
    """Makes a folder, and other processes that want it wait, so that a grid's first cells do not all download."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(folder.name + ".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"Another process is preparing {folder}: waiting for it.", quiet=quiet)
            lock.acquire()
    except OSError as error:
        raise UserError(
            f"data.cache_folder: {folder} cannot be written ({error.strerror}); name a folder for downloaded data sets"
        ) from None
    try:
        yield
    finally:
        lock.release()


def fetch(files: tuple[RemoteFile, ...], folder: Path, *, quiet: bool) -> None:
    """Downloads those files that are not in the folder yet, and checks all of them.

    Args:
        files: What has to be there.
        folder: Where it has to be, under its own name; exists.
        quiet: Says nothing and shows no progress bar.

    Raises:
        UserError: A file cannot be had, which says where it is and where it has to be put; or it has another checksum.
    """
    for file in files:
        _check_existing(file, folder / file.name)
    lacking = tuple(file for file in files if not (folder / file.name).exists())
    for file in lacking:
        try:
            _download(file, folder, quiet=quiet)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise UserError(_unavailable(file, lacking, folder, error)) from None
        except OSError as error:
            raise UserError(
                f"data.cache_folder: {file.name} cannot be written into {folder} ({error.strerror}); make room, or "
                "name a folder on another disk"
            ) from None


def keep_checksum(file: RemoteFile, folder: Path, *, quiet: bool) -> None:
    """Of a file without a published checksum, keeps that of the copy in this folder, once it has proved readable."""
    path = folder / file.name
    if _expected_checksum(file, path) is None:
        checksum = pooch.file_hash(str(path), alg="sha256")
        path.with_name(path.name + KEPT_CHECKSUM).write_text(checksum + "\n")
        say(f"{path.name} has no published checksum; SHA-256 of this copy, which is kept: {checksum}", quiet=quiet)


def unpack(archive: Path, inside: str, target: Path, *, quiet: bool) -> None:
    """Unpacks a folder of a .zip or .tar archive to `target`, which is there afterwards as a whole or not at all.

    Args:
        archive: Of any compression that tarfile knows.
        inside: Path of the folder (or file) in the archive.
        target: What becomes of it; its folder exists.
        quiet: No progress bar.

    Raises:
        UserError: The archive is damaged, holds something else, or the disk is full.
    """
    partial = target.with_name(target.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _extract(archive, partial, quiet=quiet)
        if not (partial / inside).exists():
            raise UserError(f"data.source: {archive} holds no {inside}; put the archive there that its publisher gives")
        os.replace(partial / inside, target)
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(
            f"data.source: {archive} is damaged ({' '.join(str(error).split())}); remove it, and it is downloaded again"
        ) from None
    except OSError as error:
        raise UserError(
            f"data.source: {archive} cannot be unpacked into {target.parent} ({error.strerror or error}); make room "
            "there, or remove the archive, and it is downloaded again"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def fetch_from_kaggle(handle: str, cache_folder: Path, place: Path) -> Path:
    """Downloads a data set with Kaggle's own library, which goes on after interruptions and compares checksums.

    Args:
        handle: `owner/name` on kaggle.com.
        cache_folder: kagglehub keeps its downloads in here, unless KAGGLEHUB_CACHE says where.
        place: The folder that the user may fill by hand; for messages.

    Returns:
        The folder with the data set's files.

    Raises:
        UserError: It cannot be had; says where it is and where it has to be put.
    """
    os.environ.setdefault("KAGGLEHUB_CACHE", str(cache_folder / "kagglehub"))
    os.environ.setdefault("KAGGLEHUB_VERBOSITY", "error")  # its progress bar remains
    # here, since it sets up logging when it is imported
    import kagglehub
    from kagglehub import exceptions

    by_hand = f"download https://www.kaggle.com/datasets/{handle} and unpack it into {place}"
    try:
        with redirect_stdout(sys.stderr):  # it prints that there is a newer version of it
            return Path(kagglehub.dataset_download(handle))
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else "?"
        if status in (401, 403):
            raise UserError(
                f"data.source: Kaggle asks who you are ({status}): write an API token from https://www.kaggle.com/"
                f"settings/api into ~/.kaggle/access_token or KAGGLE_API_TOKEN; or {by_hand}"
            ) from None
        raise UserError(f"data.source: Kaggle answers {status} for {handle}; {by_hand}") from None
    except requests.ConnectionError as error:
        raise UserError(f"data.source: {_host(error)} cannot be reached; {by_hand}, or run again online") from None
    except requests.RequestException:
        raise UserError(
            f"data.source: the download of {handle} from Kaggle broke off; run again to go on, or {by_hand}"
        ) from None
    except (
        exceptions.BackendError,
        exceptions.CredentialError,
        exceptions.DataCorruptionError,
        exceptions.KaggleEnvironmentError,
        exceptions.NotFoundError,
        exceptions.UnauthenticatedError,
        OSError,
        ValueError,
    ) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"data.source: {handle} was not downloaded ({reason}); run again, or {by_hand}") from None


def _expected_checksum(file: RemoteFile, path: Path) -> str | None:
    kept = path.with_name(path.name + KEPT_CHECKSUM)
    return file.checksum or (f"sha256:{kept.read_text().strip()}" if kept.exists() else None)


def _check_existing(file: RemoteFile, path: Path) -> None:
    expected = _expected_checksum(file, path)
    if expected is None or not path.exists():
        return
    algorithm, _, digits = expected.partition(":")
    found = pooch.file_hash(str(path), alg=algorithm)
    if found != digits:
        raise UserError(
            f"data.source: {path} has the {algorithm} checksum {found}, expected is {digits}; remove it, and it is "
            f"downloaded from {file.url}"
        )


def _download(file: RemoteFile, folder: Path, *, quiet: bool) -> None:
    path = folder / file.name
    partial = folder / (file.name + PARTIAL)
    pooch.get_logger().setLevel("WARNING")  # its lines would stand between ours

    def resume(url: str, output_file: str, _: object) -> None:
        _fetch_on(url, partial, quiet=quiet)
        os.replace(partial, output_file)

    checksum = _expected_checksum(file, path)
    say(f"Downloading {file.url} to {path}", quiet=quiet)
    try:
        pooch.retrieve(file.url, known_hash=checksum, fname=file.name, path=folder, downloader=resume)
    except requests.RequestException:  # some of which are ValueErrors
        raise
    except ValueError:
        raise UserError(
            f"data.source: what {file.url} sent has not the checksum {checksum} and was removed; run again, or put the "
            f"file with this checksum at {path}"
        ) from None


def _fetch_on(url: str, partial: Path, *, quiet: bool) -> None:
    """Appends to `partial` what it lacks of a file, or fetches all of it where the server cannot send a part."""
    begun = partial.stat().st_size if partial.exists() else 0
    # identity: bytes as they are in the file, which the checksum is of
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={begun}-"} if begun else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing lacks; the checksum says whether it is the file
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            begun = 0
        length = response.headers.get("Content-Length")
        total = begun + int(length) if length else None
        console = Console(stderr=True)
        with (
            rich.progress.Progress(
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(),
                rich.progress.DownloadColumn(),
                rich.progress.TransferSpeedColumn(),
                rich.progress.TimeRemainingColumn(),
                console=console,
                disable=quiet or not console.is_terminal,
            ) as progress,
            partial.open("ab" if begun else "wb") as output,
        ):
            bar = progress.add_task(partial.name.removesuffix(PARTIAL), total=total, completed=begun)
            for chunk in response.raw.stream(CHUNK_BYTES, decode_content=False):
                output.write(chunk)
                progress.advance(bar, len(chunk))


def _unavailable(
    file: RemoteFile, lacking: tuple[RemoteFile, ...], folder: Path, error: requests.RequestException | Exception
) -> str:
    rest = [other for other in lacking if not (folder / other.name).exists()]
    place = f"put it at {folder / rest[0].name}" if len(rest) == 1 else f"put them into {folder}"
    by_hand = f"download {', '.join(other.url for other in rest)} and {place}"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"data.source: {file.url} is not to be had ({error.response.status_code}); {by_hand}"
    partial = folder / (file.name + PARTIAL)
    if partial.exists() and partial.stat().st_size:
        so_far = f"{partial.stat().st_size / 1e6:,.1f} MB"
        return f"data.source: the download of {file.url} broke off after {so_far}; run again to go on, or {by_hand}"
    return f"data.source: {_host(error)} cannot be reached; {by_hand}, or run again online"


def _host(error: Exception) -> str:
    request = getattr(error, "request", None)
    return urllib3.util.parse_url(request.url).host or "the server" if request is not None else "the server"


def _extract(archive: Path, into: Path, *, quiet: bool) -> None:
    console = Console(stderr=True)
    say(f"Unpacking {archive}", quiet=quiet)
    with rich.progress.open(
        archive, "rb", description=archive.name, console=console, disable=quiet or not console.is_terminal
    ) as file:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(file) as packed:
                packed.extractall(into)
        else:
            with tarfile.open(fileobj=file) as packed_tar:
                packed_tar.extractall(into, filter="data")
                # tarfile stops before the compressed file does, at whose end its own checksum stands
                assert packed_tar.fileobj is not None
                while packed_tar.fileobj.read(CHUNK_BYTES):
                    pass
