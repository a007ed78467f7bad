"""Tables of labels: for each image its file, its class, and perhaps its part or fold."""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from tandem.errors import UserError, some_of
from tandem.protocol.file_names import IMAGE_ENDINGS, composed
from tandem.protocol.part_names import assign_parts, kind_of

ROLES = ("path", "label", "part", "fold")
"""Roles that a column can have, the keys of data.columns."""

# Names of columns, the most telling first; compared without case, and with _ for blanks and hyphens.
NAMES = {
    "path": (
        "path", "file_name", "filename", "file", "filepath", "file_path", "image_path", "img_path", "image_file",
        "image_name", "imagename", "img_name", "image", "img", "image_id", "imageid", "img_id", "id_code", "id",
        "name", "key",
    ),
    "label": (
        "label", "class", "class_name", "classname", "label_name", "category", "category_name", "target",
        "class_id", "classid", "label_id", "labels", "classes", "y", "species", "breed", "diagnosis", "dx",
        "disease", "type", "tag",
    ),
    "part": (
        "part", "split", "subset", "set", "partition", "phase", "usage",
    ),
    "fold": (
        "fold", "folds", "kfold", "k_fold", "fold_id", "cv_fold",
    ),
}  # fmt: skip

NO_LABELS = frozenset(("nan", "<na>", "n/a", "#n/a", "null"))
"""Texts, in lower case, that programs write for a missing value."""

SURE_PART_NAMES = ("part", "split", "subset", "partition")
"""Names of columns that say the part whatever their values are; others have to hold words of parts."""

DELIMITERS = ",;\t|"

MARKS = (b"\xff\xfe", b"\xfe\xff")
"""First bytes of a file in UTF-16."""


@dataclass(frozen=True, kw_only=True)
class LabelRow:
    """One row of a table of labels."""

    line: int
    """Number of the row in the file, the first one below the header is 2."""
    path: str
    """Path or name of the image's file; the ending may be missing."""
    label: str
    """The class; empty if there is none."""
    part: str | None
    """train, val, test; the empty text for a row without a part in a table with parts; None in one without."""
    fold: str | None
    """The fold; None in a table without folds."""


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """A table of labels."""

    rows: tuple[LabelRow, ...]
    """All rows that name an image."""
    parts: dict[str, str]
    """Name of each part in the table; empty without parts."""
    problems: tuple[str, ...]
    """One line per row that cannot be used."""
    notes: tuple[str, ...]
    """Lines on what was assumed."""


def sorted_classes(names: set[str]) -> tuple[str, ...]:
    """Names of classes in the order of the labels: alphabetical, or by value if all are whole numbers."""
    if all(re.fullmatch(r"-?\d+", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def part_column(header: Sequence[str], values_of: Callable[[str], Iterable[str]]) -> str | None:
    """The column that says the part of each row, recognised by its name and its values.

    Args:
        header: Names of all columns.
        values_of: Gives the values of a column.
    """
    by_name = _by_plain_name(header)
    for name in NAMES["part"]:
        if name in by_name and (name in SURE_PART_NAMES or any(map(kind_of, values_of(by_name[name])))):
            return by_name[name]
    return None


def _by_plain_name(header: Sequence[str]) -> dict[str, str]:
    return {re.sub(r"[\s-]+", "_", name.strip().casefold()): name for name in reversed(header)}


def find_table(labels: str, source: str) -> Path:
    """The file of data.labels: relative to the current folder, or else to the folder of the images.

    Raises:
        UserError: There is no such file.
    """
    path = Path(labels).expanduser()
    beside = Path(source).expanduser() / path
    found = next((each for each in (path, beside) if each.is_file()), None)
    if found is None:
        raise UserError(
            f"data.labels: received {labels!r}, and there is no such file here or in {source}; allowed: a table as "
            ".csv, .tsv, .jsonl or .parquet"
        )
    return found


def read_table(
    file: Path, columns: Mapping[str, str] | None = None, given_parts: Mapping[str, str] | None = None
) -> LabelTable:
    """Reads a table of labels.

    Args:
        file: A .csv, .tsv, .txt, .jsonl or .parquet file.
        columns: The setting data.columns: names of the columns by role; others are recognised.
        given_parts: The setting data.parts: values of the column of parts.

    Raises:
        UserError: The file is no table, or its columns or parts are not understood; the message names the setting that
            helps.
    """
    notes: list[str] = []
    header, cells = _read_cells(file, notes)
    if not cells:
        raise UserError(f"data.labels: {file} has the columns {some_of(header)} and no rows")
    roles = _Columns(file, header, cells, columns or {}, notes)
    problems = [
        f"{file.name} line {line}: {len(row)} cells, and the header has {len(header)}"
        for line, row in cells
        if len(row) != len(header)
    ]
    rows = [(line, dict(zip(header, row, strict=True))) for line, row in cells if len(row) == len(header)]
    names = [roles.part_of(row) for _, row in rows]
    if roles.has_parts:
        parts, more = assign_parts([name for name in names if name], given_parts, of=f"parts in {file.name}")
        notes += more
    else:
        parts = _parts_of_paths([roles.path_of(row) for _, row in rows], given_parts, file, notes)
        names = [_first_folder(roles.path_of(row)) for _, row in rows] if parts else [None] * len(rows)
    labels = roles.labels_of([row for _, row in rows])
    found, without_path, num_without_part = [], [], 0
    for (line, row), label, name in zip(rows, labels, names, strict=True):
        if name and name not in parts:
            continue  # a part that data.parts does not name; noted above
        path = roles.path_of(row)
        if not path:
            without_path.append(f"{file.name} line {line}: no file")
            continue
        part = parts.get(name, "") if parts and name is not None else None
        num_without_part += part == ""
        found.append(LabelRow(line=line, path=path, label=label, part=part, fold=roles.fold_of(row)))
    if num_without_part:
        notes.append(
            f"rows of {file.name} without a part, which the publisher's split does not use: {num_without_part}"
        )
    return LabelTable(
        rows=tuple(found),
        parts={part: name for name, part in parts.items()},
        problems=(*problems, *without_path),
        notes=tuple(notes),
    )


class _Columns:
    """The roles of a table's columns."""

    def __init__(
        self,
        file: Path,
        header: list[str],
        cells: list[tuple[int, list[str]]],
        given: Mapping[str, str],
        notes: list[str],
    ) -> None:
        self.file = file
        self.header = header
        self.cells = cells
        for role, name in given.items():
            if name not in header:
                raise UserError(
                    f"data.columns: received {role}: {name}, but {file.name} has the columns {some_of(header)}"
                )
        self.names = {role: given.get(role) or self._recognised(role, set(given.values())) for role in ROLES}
        self.flag = (
            next((name for name in header if self._part_of_flag(name)), None) if not self.names["part"] else None
        )
        rest = [name for name in header if name not in (*self.names.values(), self.flag) and name]
        self.one_hot: list[str] = []
        if self.names["path"] is None and self.names["label"] and len(rest) == 1:
            self.names["path"] = rest.pop()
        if self.names["label"] is None and self.names["path"]:
            index = [header.index(name) for name in rest]
            values = [{row[place] for _, row in cells if len(row) == len(header)} for place in index]
            if len(rest) == 1:
                self.names["label"] = rest[0]
            elif len(rest) > 1 and all(found <= {"0", "1", "0.0", "1.0"} for found in values):
                self.one_hot = rest
        if self.names["path"] is None or not (self.names["label"] or self.one_hot):
            raise UserError(
                f"data.labels: {file.name} has the columns {some_of(header)}, and which of them has the files and "
                "which the classes is not understood; say so with data.columns, such as "
                f"--data.columns '{{path: {header[0]}, label: {header[-1]}}}'"
            )
        label = f"the columns {some_of(rest, 4)}" if self.one_hot else f"column {self.names['label']}"
        more = [f"parts in column {self.names['part']}"] if self.names["part"] else []
        more += [f"folds, for data.split folds, in column {self.names['fold']}"] if self.names["fold"] else []
        more += [f"parts in column {self.flag}"] if self.flag else []
        notes.append(f"{file.name}: files in column {self.names['path']}, classes in {', '.join([label, *more])}")

    @property
    def has_parts(self) -> bool:
        return bool(self.names["part"] or self.flag)

    def path_of(self, row: Mapping[str, str]) -> str:
        name = self.names["path"]
        assert name is not None
        return row[name].strip()

    def part_of(self, row: Mapping[str, str]) -> str | None:
        """The name of a row's part in the table; None in a table without parts."""
        if self.flag:
            part = self._part_of_flag(self.flag)
            other = "test" if part == "train" else "train"
            return part if row[self.flag].strip().casefold() in ("1", "1.0", "true", "yes", "t", "y") else other
        name = self.names["part"]
        return row[name].strip() if name else None

    def fold_of(self, row: Mapping[str, str]) -> str | None:
        name = self.names["fold"]
        return _whole(row[name].strip()) if name else None

    def labels_of(self, rows: Sequence[Mapping[str, str]]) -> list[str]:
        if self.one_hot:
            return [self._label_of_flags(row) for row in rows]
        name = self.names["label"]
        assert name is not None
        labels = [composed(row[name].strip()) for row in rows]
        # 3.0 is how tables with missing values write the whole number 3
        present = [label for label in labels if label and label.casefold() not in NO_LABELS]
        numbers = all(re.fullmatch(r"-?\d+(\.0+)?", label) for label in present)
        return [_whole(label) if numbers else label for label in labels]

    def _label_of_flags(self, row: Mapping[str, str]) -> str:
        set_flags = [name for name in self.one_hot if float(row[name] or 0)]
        if len(set_flags) > 1:
            path = self.path_of(row)
            raise UserError(
                f"data.labels: {self.file.name} gives {path} the classes {some_of(set_flags)}, and an image has one "
                "class; keep one of them, or name the column of classes with data.columns"
            )
        return composed(set_flags[0]) if set_flags else ""

    def _recognised(self, role: str, taken: set[str]) -> str | None:
        if role == "part":
            places = {name: place for place, name in enumerate(self.header)}
            whole = [row for _, row in self.cells if len(row) == len(self.header)]
            found = part_column(self.header, lambda name: {row[places[name]] for row in whole})
            return None if found in taken else found
        by_name = _by_plain_name(self.header)
        return next((by_name[name] for name in NAMES[role] if name in by_name and by_name[name] not in taken), None)

    @staticmethod
    def _part_of_flag(name: str) -> str | None:
        """The part that a column like is_test or is_valid marks with true."""
        lower = name.strip().casefold()
        return kind_of(lower.removeprefix("is")) if re.match(r"is[_ ]", lower) else None


def _read_cells(file: Path, notes: list[str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and the cells of each row with its line's number."""
    ending = file.suffix.lower()
    if ending == ".parquet":
        return _from_records(file, _parquet_records(file))
    text = _text_of(file, notes)
    if ending in (".jsonl", ".json", ".ndjson"):
        return _from_records(file, _json_records(file, text))
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = "\t" if ending == ".tsv" else max(DELIMITERS, key=first.count)
    if not first.count(delimiter):
        delimiter = " "  # lists of the form PATH LABEL
    try:
        rows = list(csv.reader(StringIO(text, newline=None), delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise UserError(f"data.labels: {file} is not a table ({error}); save it as CSV in UTF-8") from None
    cells = [(line, row) for line, row in enumerate(rows, start=1) if any(cell.strip() for cell in row)]
    if not cells or len(cells[0][1]) < 2:
        raise UserError(
            f"data.labels: {file} has no columns (first line: {first[:60]!r}); allowed: a table with the columns path "
            "and label, and perhaps part or fold, as .csv, .tsv, .jsonl or .parquet"
        )
    header = [cell.strip() for cell in cells[0][1]]
    if any(os.path.splitext(cell)[1].lower() in IMAGE_ENDINGS for cell in header):
        if len(header) != 2:
            raise UserError(f"data.labels: {file} has no header; put the names of its columns into its first line")
        is_first = os.path.splitext(header[0])[1].lower() in IMAGE_ENDINGS
        notes.append(f"{file.name} has no header: the files are in its {'first' if is_first else 'second'} column")
        return ["path", "label"] if is_first else ["label", "path"], cells
    doubled = [name for name, count in Counter(header).items() if count > 1]
    if doubled:
        raise UserError(f"data.labels: {file} has several columns called {some_of(doubled)}; rename them")
    return header, cells[1:]


def _text_of(file: Path, notes: list[str]) -> str:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"data.labels: {file} cannot be read ({error.strerror})") from None
    if content[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise UserError(f"data.labels: {file} is a spreadsheet or an archive; save the table as CSV in UTF-8")
    try:
        return content.decode("utf-16" if content.startswith(MARKS) else "utf-8-sig")
    except UnicodeDecodeError:
        if b"\0" in content:
            raise UserError(f"data.labels: {file} is not text; allowed: .csv, .tsv, .jsonl or .parquet") from None
    notes.append(f"{file.name} is not in UTF-8 and was read as Windows-1252")
    return content.decode("cp1252", "replace")


def _json_records(file: Path, text: str) -> list[Any]:
    try:
        if text.lstrip().startswith("["):
            return list(json.loads(text))
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise UserError(f"data.labels: {file} is not JSON, one object per line ({error})") from None


def _parquet_records(file: Path) -> list[Any]:
    import pyarrow.parquet  # takes a second to import

    try:
        return pyarrow.parquet.read_table(file).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"data.labels: {file} is not a Parquet file ({' '.join(str(error).split())})") from None


def _from_records(file: Path, records: list[Any]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    if not records or not all(isinstance(record, dict) for record in records):
        raise UserError(f"data.labels: {file} has no rows with names; allowed: one object per line, or a table")
    header = list(dict.fromkeys(str(name) for record in records for name in record))
    rows = [[_as_text(record.get(name), name, file) for name in header] for record in records]
    return header, list(enumerate(rows, start=1))


def _as_text(value: Any, name: str, file: Path) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, list) and name.casefold() in NAMES["label"]:
        if len(value) > 1:
            raise UserError(
                f"data.labels: {file.name} gives an image the classes {some_of([str(each) for each in value])} in "
                f"{name}, and an image has one class"
            )
        return str(value[0]) if value else ""
    return str(value)


def _whole(text: str) -> str:
    return re.sub(r"\.0+$", "", text) if re.fullmatch(r"-?\d+\.0+", text) else text


def _parts_of_paths(
    paths: Sequence[str], given: Mapping[str, str] | None, file: Path, notes: list[str]
) -> dict[str, str]:
    """Parts by the first folder of the paths, if all paths have one: train/0001.jpg."""
    folders = {_first_folder(path) for path in paths if path}
    names = sorted(name for name in folders if name is not None)
    if None in folders or not (given or (names and all(kind_of(name) for name in names))):
        return {}
    parts, more = assign_parts(names, given, of=f"folders in {file.name}")
    notes += more
    return parts


def _first_folder(path: str) -> str | None:
    parts = [part for part in re.split(r"[/\\]", path) if part not in ("", ".")]
    return parts[0] if len(parts) > 1 else None
