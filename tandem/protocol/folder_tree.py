"""Folders of a data set, listed no further than a question needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from tandem.protocol.file_names import IMAGE_ENDINGS, TABLE_ENDINGS, composed, is_system_folder, text_of
from tandem.protocol.part_names import kind_of


class Folder:
    """A folder with lazy answers, so that no folder is listed further than a question needs."""

    def __init__(self, path: Path, ancestors: tuple[tuple[int, int], ...]) -> None:
        self.path = path
        self.name = text_of(path.name)
        self.class_name = composed(self.name)
        self.kind = kind_of(self.name)
        self._ancestors = ancestors

    def check(self) -> None:
        """Raises OSError if the folder cannot be listed."""
        os.scandir(self.path).close()

    @cached_property
    def has_images(self) -> bool:
        """True if images are directly in the folder."""
        return any(
            os.path.splitext(entry.name)[1].lower() in IMAGE_ENDINGS and not entry.name.startswith(".")
            for entry in self._entries()
            if not _is_folder(entry)
        )

    @cached_property
    def children(self) -> list[Folder]:
        """Folders in the folder, sorted, without a system's and without second ways to the same folder."""
        return self._children_and_links[0]

    @property
    def links(self) -> list[tuple[Path, str]]:
        """Links in the folder that lead to a folder which contains it or is beside them, with the folder's name."""
        return self._children_and_links[1]

    @cached_property
    def _children_and_links(self) -> tuple[list[Folder], list[tuple[Path, str]]]:
        found = [entry for entry in self._entries() if _is_folder(entry) and not is_system_folder(text_of(entry.name))]
        names = {identity: ".." for identity in (*self._ancestors, *identity_of(self.path))}
        ancestors = tuple(names)
        children, links = [], []
        for entry in sorted(found, key=lambda entry: (entry.is_symlink(), entry.name)):
            path = Path(entry.path)
            identities = identity_of(path)
            if entry.is_symlink() and identities and identities[0] in names:
                links.append((path, names[identities[0]]))
                continue
            names |= dict.fromkeys(identities, text_of(entry.name))
            children.append(Folder(path, ancestors))
        return sorted(children, key=lambda child: child.path.name), links

    @cached_property
    def folders(self) -> list[Folder]:
        """Children that hold images somewhere."""
        return [child for child in self.children if child.holds_images]

    @cached_property
    def holds_images(self) -> bool:
        """True if there are images in the folder or in one below it, or if it cannot be listed."""
        return self.is_unreadable or self.has_images or any(child.holds_images for child in self.children)

    @cached_property
    def is_unreadable(self) -> bool:
        try:
            self.check()
        except OSError:
            return True
        return False

    @cached_property
    def is_of_folders(self) -> bool:
        """True if its images are all in folders."""
        return not self.has_images and bool(self.folders)

    @property
    def names_inside(self) -> set[str]:
        return {child.class_name for child in self.folders}

    def tables(self) -> list[str]:
        """Names of files that may be tables of labels."""
        return sorted(text_of(entry.name) for entry in self._entries() if entry.name.lower().endswith(TABLE_ENDINGS))

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(self.path) as entries:
                yield from entries
        except OSError:
            return


def identity_of(path: Path) -> tuple[tuple[int, int], ...]:
    """Device and number of a folder, the same for all ways to it; empty if it is gone."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return ((status.st_dev, status.st_ino),)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False
