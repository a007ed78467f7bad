"""Images whose classes are in a table: the files that its rows name, found in a folder of any layout."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from tandem.data.console import counted
from tandem.data.folders import Walk, decoder_of, opener_of, reader_of
from tandem.data.source import Source, SourceImage, check_labels, choose_classes
from tandem.errors import UserError, some_of
from tandem.protocol.file_names import composed, text_of
from tandem.protocol.folder_layout import ClassFolder
from tandem.protocol.label_table import NO_LABELS, LabelRow, LabelTable, sorted_classes
from tandem.protocol.settings import DataSettings


def table_source(root: Path, table_file: Path, table: LabelTable, settings: DataSettings) -> Source:
    """The source of the images that a table names.

    Rows without a file, files with several rows and rows without a class are problems, named all at once. Images that
    no row names are counted.

    Args:
        root: Folder of the images.
        table_file: The table's file, which is not counted as passed over.
        table: Their classes.
        settings: Classes, and the largest number of pixels.

    Raises:
        UserError: A wanted class does not exist.
    """
    walk = Walk(root=root)
    walk.take([ClassFolder(path=root, class_name="", part=None)], lambda _: True)
    if table_file.parent.resolve() == root:
        walk.passed_over.endings -= Counter([table_file.suffix.lower()])
    files = _Files(walk.images)
    wanted = None if settings.classes is None else [composed(name) for name in settings.classes]
    no_labels = {row.label for row in table.rows if row.label.casefold() in NO_LABELS} - set(wanted or ())
    available = sorted_classes({row.label for row in table.rows if row.label} - no_labels)
    check_labels(available, wanted)
    classes = choose_classes(available, wanted)
    problems = [*walk.problems, *table.problems]
    by_key: dict[str, list[LabelRow]] = defaultdict(list)
    for row in table.rows:
        found = files.find(row.path)
        if isinstance(found, SourceImage):
            by_key[found.key].append(row)
        else:
            problems.append(f"line {row.line}, {row.path}: {found}")
    images = []
    for key, rows in by_key.items():
        if len(rows) > 1:
            lines = ", ".join(str(row.line) for row in rows)
            labels = some_of(sorted({row.label or "none" for row in rows}))
            problems.append(f"{key}: named in lines {lines} (label {labels})")
        elif not rows[0].label or rows[0].label in no_labels:
            written = f" ({rows[0].label}; data.classes can name it)" if rows[0].label else ""
            problems.append(f"line {rows[0].line}, {key}: no label{written}")
        elif rows[0].label in classes:
            [row] = rows
            stamp = files.by_key[key].stamp
            images.append(SourceImage(key=key, class_name=row.label, part=row.part or None, stamp=stamp, fold=row.fold))
    unnamed = Counter(f"{key.rpartition('/')[0]}/" for key in files.by_key if key not in by_key)
    if unnamed:
        folders = some_of(
            [f"{folder} {number}" if folder != "/" else str(number) for folder, number in unnamed.items()]
        )
        number = counted(unnamed.total(), "image")
        walk.passed_over.unused.append(f"passed over: {number} that no row of the table names ({folders})")
    if table.rows and not by_key:
        raise UserError(
            f"data.labels: none of the {len(table.rows):,} rows names a file in {root} (the first one names "
            f"{table.rows[0].path!r}, the first file is {next(iter(files.by_key), 'missing')!r}); say which column has "
            "the files with data.columns, such as {path: COLUMN}"
        )
    return Source(
        name=text_of(root.name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"),
        location=str(root),
        classes=classes,
        images=tuple(images),
        problems=tuple(problems),
        parts=table.parts,
        notes=(*table.notes, *walk.note_on_content()),
        passed_over=walk.passed_over.lines(),
        read=reader_of(root),
        open=opener_of(settings.max_pixels),
        decode=decoder_of(settings.max_pixels),
    )


class _Files:
    """Image files by the names that a table can give them."""

    def __init__(self, images: list[SourceImage]) -> None:
        self.by_key: Mapping[str, SourceImage] = {image.key: image for image in images}
        self._by_end: dict[str, list[SourceImage]] = defaultdict(list)
        self._whole: dict[str, SourceImage] = {}
        for image in images:
            for end in _ends(composed(image.key)):
                self._by_end[end].append(image)
            self._whole |= {whole.casefold(): image for whole in _without_ending(composed(image.key))}

    def find(self, path: str) -> SourceImage | str:
        """The file that a row names, or why there is none.

        A row may name a file by the end of its path in the folder, such as its name alone, or by a longer path that
        ends with the path in the folder, such as an absolute one of another machine. The ending may be missing.
        """
        cleaned = composed(re.sub(r"^(\./)+", "", path.replace("\\", "/"))).strip("/")
        for text in (cleaned, cleaned.casefold()):
            found = {image.key: image for image in self._by_end.get(text, [])}
            if exact := [image for image in found.values() if composed(image.key) == text]:
                return exact[0]
            if len(found) > 1:
                return f"several files are called so ({some_of(sorted(found), 4)})"
            if found:
                return next(iter(found.values()))
        parts = cleaned.split("/")
        for first in range(1, len(parts)):
            if image := self._whole.get("/".join(parts[first:]).casefold()):
                return image
        return "there is no such file"


def _without_ending(path: str) -> tuple[str, str]:
    return path, os.path.splitext(path)[0]


def _ends(path: str) -> set[str]:
    """The ends of a path, with and without the ending, as they are and in lower case."""
    ends = {"/".join(text.split("/")[first:]) for text in _without_ending(path) for first in range(path.count("/") + 1)}
    return ends | {end.casefold() for end in ends}
