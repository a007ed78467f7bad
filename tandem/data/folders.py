"""Images in folders: a walk that takes every file once, whatever links there are, and counts what it passes over."""

from __future__ import annotations

import functools
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from tandem.data.console import counted
from tandem.data.decoding import UNSIGNED_FORMATS, Decoded, decode, open_image, prepare_pillow
from tandem.data.optional_formats import PACKAGES, is_dicom, is_installed, package_for
from tandem.data.source import SourceImage, stamp_of
from tandem.errors import some_of
from tandem.protocol.file_names import MARKS, is_system_folder, is_utf8, text_of
from tandem.protocol.folder_layout import ClassFolder

# Camera raw files. Pillow takes many of them for TIFF files and would read their thumbnails.
CAMERA_RAW = frozenset(
    (
        ".3fr", ".arw", ".cr2", ".cr3", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".mrw",
        ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
    )
)  # fmt: skip

FIRST_BYTES = 256
"""Bytes of a file that its signature is looked for in."""

NO_ENDING = "no ending"

ICLOUD_ENDING = ".icloud"
"""Ending of the hidden files that stand for files in Apple's iCloud: .photograph.jpg.icloud."""

MOST_ENDINGS = 8
"""Endings that a line lists."""


@dataclass(kw_only=True)
class PassedOver:
    """Counts of what a walk does not use."""

    endings: Counter[str] = field(default_factory=Counter)
    """Files that are no images, by ending."""
    system_folders: Counter[str] = field(default_factory=Counter)
    """Folders of systems, by name."""
    hidden: int = 0
    """Files whose names begin with a dot."""
    in_the_cloud: int = 0
    """Files that iCloud lists and has not downloaded."""
    special: int = 0
    """FIFOs, sockets and devices."""
    links: list[str] = field(default_factory=list)
    """Links to folders that are read anyway."""
    broken_links: list[str] = field(default_factory=list)
    """Links to files or folders that do not exist."""
    strays: Counter[str] = field(default_factory=Counter)
    """Images beside the class folders, by folder."""
    unused: list[str] = field(default_factory=list)
    """Lines on folders that are not used."""

    def lines(self) -> tuple[str, ...]:
        """Lines for the user, at most one of each kind; folders that are not used have one each."""
        counts = []
        if self.endings:
            endings = some_of([f"{ending} {number}" for ending, number in _by_count(self.endings)], MOST_ENDINGS)
            packages = {package_for(ending): ending for ending in self.endings}
            hints = [f"; pip install {package} reads {ending}" for package, ending in packages.items() if package]
            counts.append(f"{counted(self.endings.total(), 'file')} ({endings}{''.join(hints)})")
        if self.system_folders:
            names = [f"{name} {number}" if number > 1 else name for name, number in _by_count(self.system_folders)]
            number = self.system_folders.total()
            of_systems = "folder of a system" if number == 1 else "folders of systems"
            counts.append(f"{number:,} {of_systems} ({some_of(names, MOST_ENDINGS)})")
        if self.hidden:
            counts.append(counted(self.hidden, "hidden file"))
        if self.special:
            counts.append(f"{self.special:,} FIFOs, sockets or devices")
        if self.in_the_cloud:
            counts.append(f"{counted(self.in_the_cloud, 'file')} that iCloud has not downloaded")
        if self.broken_links:
            links = some_of(self.broken_links, 4)
            counts.append(f"{counted(len(self.broken_links), 'link')} to what does not exist ({links})")
        counts += [
            f"{counted(number, 'image')} without a class directly in {folder}" for folder, number in self.strays.items()
        ]
        lines = [f"passed over: {'; '.join(counts)}"] if counts else []
        if self.links:
            lines.append(
                f"passed over: {counted(len(self.links), 'link')} to folders that are read already: "
                f"{some_of(self.links, 4)}"
            )
        return (*lines, *self.unused)


@dataclass(kw_only=True)
class Walk:
    """Images of a folder, found by one walk."""

    root: Path
    """The folder that keys begin in."""
    images: list[SourceImage] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """One line per file or folder that cannot be used."""
    passed_over: PassedOver = field(default_factory=PassedOver)
    by_content: Counter[str] = field(default_factory=Counter)
    """Images that do not have the ending of one, by ending."""
    linked_files: list[str] = field(default_factory=list)
    """Files that are links to files in another folder of the source."""
    _class_keys: set[str] = field(default_factory=set)
    """Keys of the class folders."""
    _seen: dict[tuple[int, int], str] = field(default_factory=dict)
    """Folders that were walked, by device and number, with their paths."""
    _links: list[tuple[str, str, ClassFolder]] = field(default_factory=list)

    def take(self, folders: Iterable[ClassFolder], is_wanted: Callable[[str], bool]) -> None:
        """Lists the images of class folders.

        Folders are walked before links to folders, so that a link never takes images from the class that they are in.

        Args:
            folders: The class folders.
            is_wanted: True for the name of a class that is used. The folders of others are not listed.
        """
        prepare_pillow()
        for path in (self.root, *self.root.parents):
            self._see(path, "..")
        others = []
        for folder in sorted(folders, key=lambda folder: folder.path.is_symlink()):
            if not is_wanted(folder.class_name):
                others.append(folder)
            elif folder.path.is_symlink() and not self._see(folder.path, ""):
                self._add_link(str(folder.path))
            else:
                self._take_class(folder)
        if self._links:
            for folder in others:  # a link may lead into a class that is not used
                for below, _, _ in os.walk(folder.path):
                    self._see(Path(below), below)
        while self._links:
            link, key, folder = self._links.pop(0)
            if self._see(Path(link), link):
                self._take_folder(link, key, folder)
            else:
                self._add_link(link)

    def count_images(self, folder: Path) -> int:
        """Number of files in a folder and below it that have the ending of an image."""
        return sum(
            os.path.splitext(name)[1].lower() in readable_endings() and not name.startswith(".")
            for _, _, files in os.walk(folder)
            for name in files
        )

    def key_of(self, path: Path) -> str:
        """Path of a folder in the source, for messages."""
        return _readable(_relative(path, self.root))

    def count_system_folders(self, folders: Iterable[Path], wanted: set[str]) -> None:
        """Counts folders of systems that are directly in these folders, except those that are wanted classes."""
        for folder in folders:
            with suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    name = text_of(entry.name)
                    if is_system_folder(name) and name not in wanted and stat.S_ISDIR(_mode(entry) or 0):
                        self.passed_over.system_folders[name] += 1

    def count_files(self, folder: Path) -> None:
        """Counts the files that are directly in a folder of class folders."""
        try:
            entries = list(os.scandir(folder))
        except OSError:
            return
        for entry in entries:
            mode = _mode(entry)
            ending = os.path.splitext(entry.name)[1].lower()
            if mode is None:
                self._add_broken_link(entry, _relative(Path(entry.path), self.root))
            elif stat.S_ISREG(mode) and not entry.name.startswith("."):
                if ending in readable_endings():
                    shown = f"{_relative(folder, self.root)}/".removeprefix("./") or "the folder"
                    self.passed_over.strays[shown] += 1
                else:
                    self.passed_over.endings[ending or NO_ENDING] += 1

    def note_on_content(self) -> tuple[str, ...]:
        """Lines on files that are used although their names do not look like it."""
        lines = []
        if self.by_content:
            endings = some_of([f"{ending} {number}" for ending, number in _by_count(self.by_content)], MOST_ENDINGS)
            lines.append(f"images by their content: {counted(self.by_content.total(), 'file')} ({endings})")
        if self.linked_files:
            lines.append(
                f"{counted(len(self.linked_files), 'link')} to files of another class or part, which count as copies: "
                f"{some_of(self.linked_files, 4)}"
            )
        if deeper := self._deeper_images():
            folders = some_of([f"{key}/ {number}" for key, number in sorted(deeper.items())], 4)
            number = counted(deeper.total(), "image")
            lines.append(f"{number} in folders beside the images of a class count for the class: {folders}")
        return tuple(lines)

    def _deeper_images(self) -> Counter[str]:
        """Images in folders of class folders that hold images themselves, by folder."""
        folders = Counter(image.key.rpartition("/")[0] for image in self.images)
        deeper: Counter[str] = Counter()
        for key in folders.keys() - self._class_keys:
            parents = ["/".join(key.split("/")[:depth]) for depth in range(1, key.count("/") + 1)]
            if any(parent in self._class_keys and parent in folders for parent in parents):
                deeper[key] = folders[key]
        return deeper

    def _take_class(self, folder: ClassFolder) -> None:
        key = "" if folder.path == self.root else _relative(folder.path, self.root)
        if not is_utf8(key):
            self.problems.append(f"{_readable(key)}/: its name is not UTF-8")
            return
        self._class_keys.add(key)
        before = len(self.images), len(self.problems), self.passed_over.endings.copy()
        self._see(folder.path, str(folder.path))
        self._take_folder(str(folder.path), key, folder)
        if before[:2] == (len(self.images), len(self.problems)) and not any(link[2] is folder for link in self._links):
            others = self.passed_over.endings - before[2]
            found = some_of([f"{ending} {number}" for ending, number in _by_count(others)], MOST_ENDINGS)
            self.problems.append(f"{key}/: a class folder without images{f' ({found})' if found else ''}")

    def _take_folder(self, path: str, key: str, folder: ClassFolder) -> None:
        try:
            with os.scandir(path) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self.problems.append(f"{key}/: cannot be read: {error.strerror}")
            return
        for entry in found:
            name = text_of(entry.name)
            mode = _mode(entry)
            if mode is not None and stat.S_ISDIR(mode):
                self._take_subfolder(entry, _join(key, name), folder)
            elif name.startswith("."):
                self.passed_over.in_the_cloud += name.endswith(ICLOUD_ENDING)
                self.passed_over.hidden += not name.endswith(ICLOUD_ENDING)
            elif mode is not None and not stat.S_ISREG(mode):
                self.passed_over.special += 1
            else:
                self._take_file(entry, _join(key, name), folder)

    def _take_subfolder(self, entry: os.DirEntry[str], key: str, folder: ClassFolder) -> None:
        name = text_of(entry.name)
        if is_system_folder(name) or name.startswith(MARKS):
            self.passed_over.system_folders[name] += 1
        elif not is_utf8(name):
            self.problems.append(f"{_readable(key)}/: its name is not UTF-8")
        elif entry.is_symlink():
            self._links.append((entry.path, key, folder))
        elif self._see(Path(entry.path), entry.path):
            self._take_folder(entry.path, key, folder)
        else:
            self._add_link(entry.path)

    def _take_file(self, entry: os.DirEntry[str], key: str, folder: ClassFolder) -> None:
        ending = os.path.splitext(entry.name)[1].lower()
        if ending not in readable_endings():
            if entry.is_symlink() and _mode(entry) is None:
                self._add_broken_link(entry, key)
                return
            if ending in CAMERA_RAW or package_for(ending) or not _is_image(entry.path):
                self.passed_over.endings[ending or NO_ENDING] += 1
                return
            self.by_content[ending or NO_ENDING] += 1
        if not is_utf8(key):
            self.problems.append(f"{_readable(key)}: its name is not UTF-8")
            return
        if entry.is_symlink():
            self._note_linked_file(entry.path, key, folder)
        self.images.append(
            SourceImage(key=key, class_name=folder.class_name, part=folder.part, stamp=stamp_of(entry.path))
        )

    def _note_linked_file(self, path: str, key: str, folder: ClassFolder) -> None:
        target = Path(os.path.realpath(path))
        if target.is_relative_to(self.root) and not target.is_relative_to(os.path.realpath(folder.path)):
            self.linked_files.append(f"{key} -> {_relative(target, self.root)}")

    def _see(self, path: Path, name: str) -> bool:
        """True if a folder has not been seen before; it is remembered."""
        try:
            status = os.stat(path)
        except OSError:
            return True  # reported when it is listed
        identity = status.st_dev, status.st_ino
        if identity in self._seen:
            return False
        self._seen[identity] = name
        return True

    def _add_broken_link(self, entry: os.DirEntry[str], key: str) -> None:
        if entry.is_symlink():
            self.passed_over.broken_links.append(f"{_readable(key)} -> {_readable(text_of(os.readlink(entry.path)))}")

    def _add_link(self, path: str) -> None:
        target = Path(os.path.realpath(path))
        inside = target.is_relative_to(self.root)
        shown = f"{_relative(target, self.root)}/" if inside and target != self.root else text_of(str(target))
        self.passed_over.links.append(f"{_relative(Path(path), self.root)} -> {shown}")


@functools.cache
def readable_endings() -> frozenset[str]:
    """Endings of the image files that can be read."""
    formats = {*prepare_pillow(), *UNSIGNED_FORMATS.values()}
    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in formats}
    return frozenset(endings | ({*PACKAGES["pydicom"]} if is_installed("pydicom") else set()))


def reader_of(root: Path) -> Callable[[str], bytes]:
    """A function that reads files by their keys, whatever the locale is."""
    folder = os.fsencode(root)

    def read(key: str) -> bytes:
        with open(os.path.join(folder, key.encode()), "rb") as file:
            return file.read()

    return read


def opener_of(max_pixels: int) -> Callable[[str, bytes], Image.Image]:
    """A function that opens image files."""
    return lambda key, file: open_image(file, ending=os.path.splitext(key)[1].lower(), max_pixels=max_pixels)


def decoder_of(max_pixels: int) -> Callable[[str, bytes], Decoded]:
    """A function that decodes image files."""
    return lambda key, file: decode(file, ending=os.path.splitext(key)[1].lower(), max_pixels=max_pixels)


def _is_image(path: str) -> bool:
    """True if a file with another ending is an image by its first bytes."""
    try:
        with open(path, "rb") as file:
            if is_dicom(file.read(FIRST_BYTES)):
                return is_installed("pydicom")
            file.seek(0)
            Image.open(file, formats=prepare_pillow()).close()
    except Exception:  # Pillow has many exceptions for files that are no images
        return False
    return True


def _mode(entry: os.DirEntry[str]) -> int | None:
    """Kind of the file that an entry is, or links to; None if it is gone."""
    try:
        return entry.stat().st_mode
    except OSError:
        return None


def _join(key: str, name: str) -> str:
    return f"{key}/{name}" if key else name


def _relative(path: Path, root: Path) -> str:
    return text_of(Path(os.path.relpath(path, root)).as_posix())


def _readable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _by_count(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
