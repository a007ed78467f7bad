"""Downloads from publishers: with checksums, resumed after interruptions, and complete or not there at all.

Whatever stands under its final name is complete: a download is called <name>.partial until its checksum has been
compared, and an archive is unpacked beside its final place and then renamed. Files that the user puts there are used as
they are.
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
from rich.console import Console

from tandem import interrupts
from tandem.data.cache import in_megabytes, partial_of, wait_for_lock
from tandem.data.console import say
from tandem.errors import UserError
from tandem.files import PARTIAL, whole_file

KEPT_CHECKSUM = ".sha256"
"""Ending of the file with the checksum of the first copy of a file without a published one."""

TIMEOUT = (15, 60)
"""Seconds until a server answers, and between two pieces of a file; requests waits for ever by default."""
CHUNK_BYTES = 1 << 18


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A published file."""

    url: str
    checksum: str | None
    """`md5:` or `sha256:` and hexadecimal digits. None if none is published: the SHA-256 of the first copy is then kept
    beside it, and later copies have to have the same."""

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


@contextmanager
def one_process_at_a_time(folder: Path, *, quiet: bool) -> Iterator[None]:
    """Makes a folder and lets other processes that need it wait, so that a grid's first cells do not all download."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = wait_for_lock(folder, busy=f"preparing {folder}", quiet=quiet)
    except OSError as error:
        raise UserError(
            f"data.cache_folder: {folder} cannot be written ({error.strerror}); name a folder for downloaded data sets"
        ) from None
    with lock:
        yield


def fetch(files: tuple[RemoteFile, ...], folder: Path, *, quiet: bool) -> None:
    """Downloads files that are not in a folder yet, and checks all of them.

    Args:
        files: The files, each of which has its own name in the folder.
        folder: An existing folder.
        quiet: Prints nothing and shows no progress bar.

    Raises:
        UserError: A file cannot be downloaded; the message says where it is published and where to put it. Or it has
            another checksum.
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
    """Keeps the checksum of a folder's copy of a file without a published one; to be called once it has been read."""
    path = folder / file.name
    if _expected_checksum(file, path) is None:
        checksum = pooch.file_hash(str(path), alg="sha256")
        with whole_file(path.with_name(path.name + KEPT_CHECKSUM), sync=True) as kept:
            kept.write(checksum + "\n")
        say(f"{path.name} has no published checksum; later copies have to have this one's: {checksum}", quiet=quiet)


def unpack(archive: Path, inside: str, target: Path, *, quiet: bool) -> None:
    """Unpacks a folder of a .zip or .tar archive to `target`, completely or not at all.

    Args:
        archive: An archive with any compression that tarfile knows.
        inside: Path of the folder (or file) in the archive.
        target: Its new path; the folder above exists.
        quiet: Shows no progress bar.

    Raises:
        UserError: The archive is damaged or has no such folder, or the disk is full.
    """
    partial = partial_of(target)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _extract(archive, partial, quiet=quiet)
        if not (partial / inside).exists():
            raise UserError(f"data.source: {archive} has no {inside} in it; replace it by its publisher's archive")
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
    """Downloads a data set with Kaggle's own library, which resumes downloads and compares checksums.

    Args:
        handle: `owner/name` on kaggle.com.
        cache_folder: Folder for kagglehub's downloads, unless KAGGLEHUB_CACHE names one.
        place: Folder that the user may fill by hand; for messages.

    Returns:
        The folder with the data set's files.

    Raises:
        UserError: The download failed; the message says where the data set is published and where to put it.
    """
    os.environ.setdefault("KAGGLEHUB_CACHE", str(cache_folder / "kagglehub"))
    os.environ.setdefault("KAGGLEHUB_VERBOSITY", "error")  # its progress bar remains
    # imported here, since it sets up logging on import
    import kagglehub
    from kagglehub import exceptions

    by_hand = f"download https://www.kaggle.com/datasets/{handle} and unpack it into {place}"
    try:
        with redirect_stdout(sys.stderr):  # it prints that a newer version exists
            return Path(kagglehub.dataset_download(handle))
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else "?"
        if status in (401, 403):
            raise UserError(
                f"data.source: Kaggle wants you to log in ({status}): write an API token from https://www.kaggle.com/"
                f"settings/api into ~/.kaggle/access_token or KAGGLE_API_TOKEN; or {by_hand}"
            ) from None
        raise UserError(f"data.source: Kaggle answers {status} for {handle}; {by_hand}") from None
    except requests.ConnectionError as error:
        raise UserError(f"data.source: {_host(error)} cannot be reached; {by_hand}, or run again online") from None
    except requests.RequestException:
        raise UserError(
            f"data.source: the download of {handle} from Kaggle broke off; run again to resume it, or {by_hand}"
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
            f"data.source: {path} has the {algorithm} checksum {found} instead of {digits}; remove it, and it is "
            f"downloaded from {file.url}"
        )


def _download(file: RemoteFile, folder: Path, *, quiet: bool) -> None:
    path = folder / file.name
    partial = partial_of(path)
    pooch.get_logger().setLevel("WARNING")  # its lines would mix with ours

    def resume(url: str, output_file: str, _: object) -> None:
        _resume(url, partial, quiet=quiet)
        os.replace(partial, output_file)

    checksum = _expected_checksum(file, path)
    say(f"Downloading {file.url} to {path}", quiet=quiet)
    try:
        pooch.retrieve(file.url, known_hash=checksum, fname=file.name, path=folder, downloader=resume)
    except requests.RequestException:  # some of which are ValueErrors
        raise
    except ValueError:
        raise UserError(
            f"data.source: the file from {file.url} does not have the checksum {checksum} and was removed; run again, "
            f"or put the file with this checksum at {path}"
        ) from None


def _resume(url: str, partial: Path, *, quiet: bool) -> None:
    """Appends the missing rest of a file to `partial`, or fetches all of it if the server cannot send a part."""
    begun = partial.stat().st_size if partial.exists() else 0
    # identity: the file's own bytes, whose checksum is published
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={begun}-"} if begun else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is missing; the checksum tells if it is the right file
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
                interrupts.check()  # the part that is there stays
                output.write(chunk)
                progress.advance(bar, len(chunk))


def _unavailable(
    file: RemoteFile, lacking: tuple[RemoteFile, ...], folder: Path, error: requests.RequestException | Exception
) -> str:
    rest = [other for other in lacking if not (folder / other.name).exists()]
    place = f"put it at {folder / rest[0].name}" if len(rest) == 1 else f"put them into {folder}"
    by_hand = f"download {', '.join(other.url for other in rest)} and {place}"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"data.source: {file.url} is not available ({error.response.status_code}); {by_hand}"
    partial = partial_of(folder / file.name)
    if partial.exists() and partial.stat().st_size:
        so_far = in_megabytes(partial.stat().st_size)
        return f"data.source: the download of {file.url} broke off after {so_far}; run again to resume it, or {by_hand}"
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
                packed.extractall(into)  # nosec B202: zipfile removes .. and leading slashes
        else:
            with tarfile.open(fileobj=file) as packed_tar:
                packed_tar.extractall(into, filter="data")  # nosec B202: the filter refuses members outside
                # tarfile stops before the end of the compressed file, where the compression's checksum is
                assert packed_tar.fileobj is not None
                while packed_tar.fileobj.read(CHUNK_BYTES):
                    interrupts.check()
