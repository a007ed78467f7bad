"""Lists image files and reads them, in batches and on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tandem.data.console import num_cores
from tandem.data.decoding import prepare_pillow
from tandem.data.manifest import describe_problem
from tandem.errors import UserError
from tandem.protocol.file_names import IMAGE_ENDINGS

T = TypeVar("T")


def list_files(given: Sequence[str | Path]) -> list[Path]:
    """The files that are named, and the image files in the folders that are named and in their subfolders.

    Hidden files and folders are passed over, as in training.

    Raises:
        UserError: Something that is named does not exist, or there are no image files.
    """
    files: list[Path] = []
    for name in given:
        path = Path(name).expanduser()
        if path.is_dir():
            files += _files_in(path)
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"there is no file or folder {name}; give image files, or folders of them")
    if not files:
        raise UserError(
            f"{', '.join(map(str, given))} has no image files; expected files ending in "
            f"{', '.join(sorted(IMAGE_ENDINGS))}"
        )
    return list(dict.fromkeys(files))


def _files_in(root: Path) -> list[Path]:
    found: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(folder, name)
            for name in sorted(names)
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_ENDINGS
        ]
    return found


@dataclass(kw_only=True, eq=False)
class FileReader(Generic[T]):
    """Reads image files on all cores, one batch ahead of the one that is predicted."""

    files: Sequence[Path]
    convert: Callable[[bytes, str], T]
    """From a file's content and the ending of its name to a result; raises an exception for a file that is no image.
    Several threads call it."""
    problems: list[str] = field(default_factory=list)
    """One line per file that is no readable image, of the batches so far."""

    def batches(self, batch_size: int, *, title: str, quiet: bool = False) -> Iterator[tuple[list[Path], list[T]]]:
        """Readable files and their results, in order.

        Args:
            batch_size: Most files per batch.
            title: Title of the progress bar.
            quiet: Shows no progress bar.
        """
        prepare_pillow()  # before the threads start
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        progress = Progress(*columns, console=console, disable=quiet or not console.is_terminal)
        pool = ThreadPoolExecutor(num_cores(), thread_name_prefix="decode")
        try:
            with progress:
                bar = progress.add_task(title, total=len(self.files))
                ahead: list[Future[T | _Problem]] = []
                for start in range(0, len(self.files) + batch_size, batch_size):
                    ready, ahead = ahead, [pool.submit(self._read, file) for file in self.files[start:][:batch_size]]
                    results = [future.result() for future in ready]
                    files = self.files[start - batch_size : start] if ready else []
                    self.problems += [each.line for each in results if isinstance(each, _Problem)]
                    read = {
                        file: each for file, each in zip(files, results, strict=True) if not isinstance(each, _Problem)
                    }
                    if read:
                        yield list(read), list(read.values())
                    progress.advance(bar, len(results))
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, file: Path) -> T | _Problem:
        content = b""
        try:
            content = file.read_bytes()
            return self.convert(content, file.suffix)
        except Exception as error:  # Pillow has many exceptions for damaged files
            return _Problem(f"{file}: {describe_problem(error, content)}")


@dataclass(frozen=True)
class _Problem:
    line: str
