"""Layout of a folder of images: which of its folders are classes, and which are the publisher's parts.

Only names and the presence of images are looked at, so it takes milliseconds. A folder is a part if it has the name of
a part and holds class folders; a folder with such a name that holds images is a class. What could be either is refused.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NoReturn

from tandem.errors import UserError, some_of
from tandem.protocol.file_names import MARKS, NO_CLASSES, composed, text_of
from tandem.protocol.folder_tree import Folder, identity_of
from tandem.protocol.part_names import (
    HELD_OUT_AS_TEST,
    PARTS,
    SEVERAL,
    UNLABELLED,
    check_given,
    kind_of,
    suggestion,
    without_test,
)

ALIKE = 0.5
"""Share of common names from which on two folders of class folders look like parts of one data set."""


@dataclass(frozen=True, kw_only=True)
class ClassFolder:
    """A folder of images of one class in one part."""

    path: Path
    """The folder."""
    class_name: str
    """Its name in Unicode's composed form (NFC), in which names that look the same are the same."""
    part: str | None
    """train, val, test, or None for a data set without parts."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The class folders of a folder of images, and its folders that are not used."""

    root: Path
    """The folder that the keys of images begin in: the given one, or one that it wraps."""
    given: Path
    """The given folder."""
    entered: str
    """Path from the given folder to the root, with a slash at its end; empty if they are the same."""
    class_folders: tuple[ClassFolder, ...]
    """All class folders, sorted by path."""
    parts: dict[str, str]
    """Name of each part's folder; empty for a data set without parts."""
    unlabelled: tuple[Path, ...] = ()
    """Folders of images that have no classes."""
    unused: tuple[tuple[Path, str], ...] = ()
    """Other folders that are not used, each with the reason."""
    notes: tuple[str, ...] = ()
    """Lines on what was assumed."""


def find_layout(
    folder: Path,
    *,
    parts: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    enter: bool = True,
) -> Layout:
    """Finds the class folders of a folder of images.

    Args:
        folder: The folder.
        parts: The setting data.parts: the folder of each part; None to recognise them.
        classes: The setting data.classes. Folders that it names are classes, whatever they are called.
        enter: Looks into lone folders that wrap the data set.

    Raises:
        UserError: The folder could be read in several ways, or has no class folders; the message names the setting
            that helps.
        OSError: The folder cannot be listed.
    """
    given = Folder(folder, ancestors=tuple(each for parent in folder.parents for each in identity_of(parent)))
    given.check()
    wanted = {composed(name) for name in classes or ()}
    return _Finder(given, parts, wanted, enter=enter).layout()


class _Finder:
    """The decision on the layout of one folder."""

    def __init__(self, given: Folder, parts: Mapping[str, str] | None, wanted: set[str], *, enter: bool) -> None:
        self.given = given
        self.wanted = wanted
        self.parts = parts
        self.class_folders: list[ClassFolder] = []
        self.unlabelled: list[Path] = []
        self.unused: list[tuple[Path, str]] = []
        self.notes: list[str] = []
        self.root = self._enter(given) if enter else given

    def layout(self) -> Layout:
        self._refuse_marked(self.root)
        for child in self.root.children:
            is_left_out = self.parts or (self.wanted and self.wanted <= self.root.names_inside - {child.class_name})
            if child.kind is not None and child.is_unreadable and not is_left_out:
                raise UserError(
                    f"data.source: {child.path} cannot be read; make it readable, or leave it out by naming the other "
                    "folders with data.parts or data.classes"
                )
        if self.parts:
            found = self._given_parts(self.parts)
        elif (
            self.wanted
            and self.wanted <= self.root.names_inside
            and any(child.kind or child.is_of_folders for child in self.root.folders if child.class_name in self.wanted)
        ):
            found = self._as_classes()  # data.classes says so
        elif any(child.kind in PARTS and child.folders for child in self.root.folders) and (
            parts := self._named_parts()
        ):
            found = self._as_parts(parts)
        else:
            found = self._without_parts()
        self.unused += [(path, f"a link to {target}/") for path, target in self.root.links]
        entered = self.root.path.relative_to(self.given.path)
        return Layout(
            root=self.root.path,
            given=self.given.path,
            entered="" if entered == Path() else f"{text_of(entered.as_posix())}/",
            class_folders=tuple(sorted(self.class_folders, key=lambda folder: str(folder.path))),
            parts={part: found[part] for part in PARTS if part in found},
            unlabelled=tuple(self.unlabelled),
            unused=tuple(self.unused),
            notes=tuple(self.notes),
        )

    def _enter(self, folder: Folder) -> Folder:
        """The folder, or the one inside of lone folders: archives often hold a single folder."""
        while not folder.has_images and len(folder.folders) == 1:
            [only] = folder.folders
            has_given_part = any((folder.path / name).is_dir() for name in (self.parts or {}).values())
            if has_given_part or only.class_name in self.wanted or not only.is_of_folders:
                break
            self._note_empty_parts(folder)
            folder = only
        return folder

    def _refuse_marked(self, folder: Folder) -> None:
        """Refuses folders that could be classes or a system's, unless data.classes says which are classes."""
        marked = [child for child in folder.folders if child.name.startswith(MARKS)]
        if marked and not self.wanted:
            others = [child.name for child in folder.folders if child not in marked]
            self._refuse(
                f"holds {some_of([f'{self._path_of(child.path)}/' for child in marked])}, which could be classes or "
                "folders of a system",
                f"name the classes with data.classes, such as [{some_of(others or [marked[0].name], 4)}], or move "
                "what is no class elsewhere",
            )

    def _note_empty_parts(self, folder: Folder) -> None:
        """Notes the folders that are called like parts and hold no images."""
        empty = [child for child in folder.children if child.kind is not None and not child.holds_images]
        self.unused += [(child.path, "it holds no images") for child in empty]

    # ----------------------------------------------------------------------------------------------- folders with parts

    def _named_parts(self) -> dict[str, Folder]:
        """Part folders by part; empty if the only folder with such a name is a class."""
        holding = [child for child in self.root.folders if child.kind in PARTS and child.folders]
        if len(holding) < 2:
            # a class folder may have subfolders besides its images
            holding = [child for child in holding if not child.has_images]
        if not holding:
            return {}
        others = [child for child in self.root.folders if child not in holding]
        names = [child.name for child in holding]
        if strange := [child.name for child in others if child.kind == SEVERAL and child.folders]:
            self._refuse(
                f"holds {self._listed(holding + others)}, and {strange[0]}/ is not understood",
                self._say_parts([*names, *strange]),
            )
        if len(holding) == 1 and any(child.kind is None or child.folders for child in others):
            self._refuse(
                f"holds {self._listed(holding + others)}, and {names[0]}/ could be a part or a class",
                f"data.parts {{{holding[0].kind}: {names[0]}}} makes it a part, and data.classes with the names of all "
                "class folders makes it a class",
            )
        by_part: dict[str, Folder] = {}
        for child in holding:
            assert child.kind is not None
            if child.kind in by_part:
                both = f"{by_part[child.kind].name}/ and {child.name}/"
                self._refuse(f"holds {both}, which both look like {child.kind}", self._say_parts(names))
            by_part[child.kind] = child
        if "train" not in by_part:
            self._refuse(f"holds {self._listed(holding)} and no folder for training", self._say_parts(names))
        return by_part

    def _as_parts(self, by_part: dict[str, Folder]) -> dict[str, str]:
        self._note_empty_parts(self.root)
        train = self._class_folders_in(by_part["train"])
        if sum(folder.holds_images for folder in train) == 1:
            self._refuse_unlabelled(by_part["train"])
        if not self.wanted:
            self._check_folders_of_folders(
                [folder for folder in train if folder.is_of_folders], within=f"{by_part['train'].name}/"
            )
        classes = {folder.class_name for folder in train}
        found: dict[str, str] = {}
        for part, folder in by_part.items():
            inside = train if part == "train" else self._class_folders_in(folder)
            labelled = classes & {child.class_name for child in inside if child.holds_images}
            if not labelled and sum(child.holds_images for child in inside) == 1:
                self.unlabelled.append(inside[0].path if len(inside) == 1 else folder.path)
                continue
            if not labelled:
                held = some_of([child.name for child in inside])
                self._refuse(
                    f"has no class in both {by_part['train'].name}/ ({some_of(sorted(classes))}) and {folder.name}/ "
                    f"({held})",
                    f"data.parts {{train: {by_part['train'].name}}} leaves {folder.name}/ out",
                )
            self._add_part(part, folder, inside)
            found[part] = folder.name
        for other in self.root.folders:
            if other not in by_part.values():
                self._sort_out(other, classes, [folder.name for folder in by_part.values()])
        return self._with_test(found)

    def _given_parts(self, parts: Mapping[str, str]) -> dict[str, str]:
        names = [child.name for child in self.root.children]
        check_given(
            {part: name for part, name in parts.items() if not self._inside(name).is_dir()},
            names,
            of=f"the folders in {self.root.path}",
        )
        chosen = {part: Folder(self._inside(name), ancestors=()) for part, name in parts.items()}
        train = self._class_folders_in(chosen["train"])
        for part, folder in chosen.items():
            inside = train if part == "train" else self._class_folders_in(folder)
            if not folder.folders:
                self._refuse_unlabelled(folder)
            self._add_part(part, folder, inside)
        for other in self.root.folders:
            if all(other.path != folder.path and other.path not in folder.path.parents for folder in chosen.values()):
                self.unused.append((other.path, "data.parts does not name it"))
        return dict(parts)

    def _inside(self, name: str) -> Path:
        """A folder by its path in the root; one outside of it does not count."""
        path = self.root.path / os.fsdecode(name.encode("utf-8", "surrogateescape"))
        inside = self.root.path in Path(os.path.normpath(path)).parents
        return path if inside else self.root.path / "\n"

    def _class_folders_in(self, part: Folder) -> list[Folder]:
        """Children of a part's folder, or of a lone folder in it, such as seg_train/seg_train/."""
        inside = part
        while len(inside.folders) == 1 and not inside.has_images and inside.folders[0].is_of_folders:
            if inside.folders[0].class_name in self.wanted:
                break
            inside = inside.folders[0]
        if inside is not part:
            self.notes.append(f"looked into {self._path_of(inside.path)}/, the only folder in {part.name}/")
        self._refuse_marked(inside)
        return inside.children

    def _add_part(self, part: str, folder: Folder, inside: list[Folder]) -> None:
        self.class_folders += [ClassFolder(path=child.path, class_name=child.class_name, part=part) for child in inside]

    def _sort_out(self, other: Folder, classes: set[str], names: list[str]) -> None:
        """Decides on a folder beside the parts that is no part itself."""
        inside = other.names_inside
        if not other.folders and other.class_name in classes:
            self.unused.append((other.path, "a class folder beside the parts"))
        elif not other.folders or (other.kind == UNLABELLED and not inside & classes):
            self.unlabelled.append(other.path)
        elif any(kind_of(name) in PARTS for name in inside):
            self.unused.append((other.path, "it has parts of its own, like a nested copy"))
        elif other.kind is not None or inside & classes or (len(other.folders) == 1 and other.folders[0].folders):
            every = [*names, other.name]
            self._refuse(
                f"holds {', '.join(f'{name}/' for name in every)}, and {other.name}/ is not understood",
                self._say_parts(every),
            )
        else:
            self.unused.append((other.path, "it is no part"))

    def _with_test(self, found: dict[str, str]) -> dict[str, str]:
        """The parts; with training and validation images alone, the latter are tested on."""
        if not without_test(found):
            return found
        self.class_folders = [
            ClassFolder(path=each.path, class_name=each.class_name, part="test" if each.part == "val" else each.part)
            for each in self.class_folders
        ]
        self.notes.append(HELD_OUT_AS_TEST.format(f"{found['val']}/"))
        return {"train": found["train"], "test": found["val"]}

    # -------------------------------------------------------------------------------------------- folders without parts

    def _without_parts(self) -> dict[str, str]:
        folders = self.root.folders
        if self.wanted and self.wanted <= self.root.names_inside:
            return self._as_classes()  # data.classes says so
        self._check_folders_called_like_parts(folders)
        if strange := [child for child in folders if child.name.casefold() in NO_CLASSES]:
            if not any(child.is_of_folders for child in folders) and strange == folders:
                self._refuse_unlabelled(*folders)
            self._refuse(
                f"holds {self._listed(folders)}, and {strange[0].name}/ is not called like a class",
                "name the folder that holds the class folders with data.source, or all classes with data.classes",
            )
        of_folders = [child for child in folders if child.is_of_folders]
        if len(of_folders) == len(folders) > 0 and self._parts_in_classes(folders):
            return self._with_test(self._as_parts_in_classes(folders))
        flat = {child.class_name for child in folders if not child.is_of_folders}
        for child in of_folders:
            if len(child.names_inside & flat) > 1:
                self._refuse(
                    f"holds {child.name}/, whose folders are called like its neighbours "
                    f"({some_of(sorted(child.names_inside & flat))})",
                    f"name the class folders with data.classes to leave {child.name}/ out, or move it elsewhere",
                )
        self._check_folders_of_folders(of_folders)
        return self._as_classes()

    def _check_folders_of_folders(self, of_folders: list[Folder], within: str = "") -> None:
        """Refuses class folders that hold folders of the same names, like parts; otherwise notes what they hold."""
        for first, second in combinations(of_folders, 2):
            common, together = first.names_inside & second.names_inside, first.names_inside | second.names_inside
            if len(common) >= ALIKE * len(together):
                names = [f"{within}{child.name}" for child in of_folders]
                self._refuse(
                    f"holds {some_of([f'{name}/' for name in names])}, which hold folders of the same names "
                    f"({some_of(sorted(common))}): they look like parts",
                    f"{self._say_parts(names)}; if they are classes, name them with data.classes",
                )
        if of_folders:
            inside = [f"{within}{child.name}/{grandchild.name}" for child in of_folders for grandchild in child.folders]
            self.notes.append(f"images in subfolders count for their class folder: {some_of(inside, 4)}")

    def _as_classes(self) -> dict[str, str]:
        if not self.root.folders and self.root.has_images:
            self._refuse_unlabelled(self.root)
        for child in self.root.children:
            self.class_folders.append(ClassFolder(path=child.path, class_name=child.class_name, part=None))
        return {}

    def _check_folders_called_like_parts(self, folders: list[Folder]) -> None:
        """Refuses folders of images that are called like parts, unless one called train stands among classes."""
        called = [child for child in folders if child.kind is not None and child.has_images]
        others = [child for child in folders if child not in called]
        if not called:
            return
        names = [child.name for child in called]
        if not others or len({child.kind for child in called}) > 1 or (len(others) == 1 and self.root.tables()):
            self._refuse_unlabelled(*called)
        if any(child.kind in (UNLABELLED, SEVERAL, "val", "test") for child in called):
            every = [child.name for child in folders]
            self._refuse(
                f"holds {names[0]}/, which could be a class or images without labels",
                f"name the classes with data.classes [{some_of(every, 4)}], with {names[0]} or without it",
            )
        self.notes.append(f"{names[0]}/ is a class, since it holds images and no class folders")

    def _parts_in_classes(self, folders: list[Folder]) -> bool:
        """True if each class folder holds parts: cat/train, cat/test, dog/train, dog/test."""
        return all(child.kind is None for child in folders) and all(
            grandchild.kind in PARTS and not grandchild.folders for child in folders for grandchild in child.folders
        )

    def _as_parts_in_classes(self, folders: list[Folder]) -> dict[str, str]:
        parts: dict[str, str] = {}
        for child in folders:
            counts = Counter(grandchild.kind for grandchild in child.folders)
            for grandchild in child.folders:
                assert grandchild.kind is not None
                if counts[grandchild.kind] > 1:
                    names = [each.name for each in child.folders]
                    self._refuse(
                        f"holds {child.name}/ with {some_of(names)}, of which several look like {grandchild.kind}",
                        "rename or merge them",
                    )
                parts[grandchild.kind] = f"*/{grandchild.name}"
                self.class_folders.append(
                    ClassFolder(path=grandchild.path, class_name=child.class_name, part=grandchild.kind)
                )
        return parts

    # --------------------------------------------------------------------------------------------------------- refusals

    def _refuse_unlabelled(self, *folders: Folder) -> NoReturn:
        """Refuses images that are not in class folders."""
        names = ", ".join(f"{self._path_of(folder.path)}/" for folder in folders if folder is not self.root)
        tables = [table for folder in (self.given, self.root, *folders) for table in folder.tables()]
        example = tables[0] if tables else "labels.csv"
        as_classes = ", or name them with data.classes if they are classes" if len(folders) > 1 else ""
        self._refuse(
            f"holds {f'{names} with ' if names else ''}images that are not in a folder per class",
            f"give a table of their classes with data.labels, such as --data.labels {example}{as_classes}",
        )

    def _say_parts(self, names: list[str]) -> str:
        return f"say which is which with data.parts, such as --data.parts '{suggestion(names)}'"

    def _listed(self, folders: Sequence[Folder]) -> str:
        return some_of([f"{folder.name}/" for folder in folders])

    def _path_of(self, path: Path) -> str:
        return text_of(path.relative_to(self.root.path).as_posix())

    def _refuse(self, found: str, help: str) -> NoReturn:
        raise UserError(f"data.source: {self.root.path} {found}; {help}")
