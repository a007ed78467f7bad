"""Kinds of data.source: a name, a folder of images, or files that hold images (Parquet, tar)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from tandem.errors import UserError
from tandem.protocol.file_names import IMAGE_ENDINGS, is_system_folder, text_of
from tandem.protocol.label_table import part_column
from tandem.protocol.part_names import PARTS, assign_parts, kind_of

HUB_PREFIX = "hf:"
"""Beginning of the name of a data set on the Hugging Face Hub: hf:OWNER/NAME, or hf:OWNER/NAME:CONFIGURATION."""

PARQUET_ENDINGS = (".parquet",)
TAR_ENDINGS = (".tar",)
PACKED_TAR_ENDINGS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

SAVED_DICT_FILE = "dataset_dict.json"
"""File that the library datasets writes beside the splits of a data set (save_to_disk)."""

SAVED_FILES = ("dataset_info.json", "state.json")
"""Files that it writes for a data set without splits, and for each split."""

Kind = Literal["hub", "saved", "parquet", "tars", "folder", "file", "missing"]


def kind_of_source(source: str) -> Kind:
    """The kind of a source that is not the name of a data set of Tandem's own.

    Args:
        source: The setting data.source.

    Raises:
        UserError: A folder holds files of both kinds.
    """
    if source.startswith(HUB_PREFIX):
        return "hub"
    path = Path(source).expanduser()
    if not path.is_dir():
        if not path.exists():
            return "missing"
        endings: dict[tuple[str, ...], Kind] = {PARQUET_ENDINGS: "parquet", (*TAR_ENDINGS, *PACKED_TAR_ENDINGS): "tars"}
        return next((kind for of_kind, kind in endings.items() if path.name.lower().endswith(of_kind)), "file")
    if (path / SAVED_DICT_FILE).is_file() or all((path / name).is_file() for name in SAVED_FILES):
        return "saved"
    endings_found = set()
    for _, folders, files in os.walk(path):
        folders[:] = [name for name in folders if not is_system_folder(text_of(name))]
        for name in files:
            lower = name.lower()
            if os.path.splitext(lower)[1] in IMAGE_ENDINGS and not name.startswith("."):
                return "folder"
            endings_found |= {ending for ending in (*PARQUET_ENDINGS, *TAR_ENDINGS) if lower.endswith(ending)}
            endings_found |= {TAR_ENDINGS[0] for ending in PACKED_TAR_ENDINGS if lower.endswith(ending)}
    if len(endings_found) > 1:
        raise UserError(
            f"data.source: {source} holds both {' and '.join(sorted(endings_found))} files; move one kind elsewhere, "
            "or name the folder of the other"
        )
    if endings_found & set(PARQUET_ENDINGS):
        return "parquet"
    return "tars" if endings_found else "folder"


def saved_splits(folder: Path) -> list[str]:
    """Names of the splits of a data set that was written with save_to_disk; empty if it has none."""
    try:
        return list(json.loads((folder / SAVED_DICT_FILE).read_text(encoding="utf-8"))["splits"])
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"data.source: {folder / SAVED_DICT_FILE} is not a list of splits as the library datasets writes it; save "
            "the data set again with save_to_disk"
        ) from None


def files_by_part(
    source: Path, endings: tuple[str, ...], given: Mapping[str, str] | None
) -> tuple[dict[str | None, list[Path]], dict[str, str], tuple[str, ...]]:
    """Files of images by their part, which their names say: train-00000-of-00002.parquet, or test/0001.tar.

    Args:
        source: A file, or a folder of files.
        endings: Endings of the files.
        given: The setting data.parts: the beginning of the files' names, or the folder, of each part; None to recognise
            the names.

    Returns:
        The files of each part, all under None if there are no parts; the name of each part; and lines on what is not
        used.

    Raises:
        UserError: Some names are understood and others are not, or data.parts names nothing.
    """
    if not source.is_dir():
        return {None: [source]}, {}, ()
    files = sorted(
        path
        for path in source.rglob("*")
        if path.name.lower().endswith(endings) and not any(map(is_system_folder, path.relative_to(source).parts))
    )
    names = {path: _name_of_part(path.relative_to(source), given) for path in files}
    if not given and not any(kind_of(name) for name in names.values()):
        return {None: files}, {}, ()
    parts, notes = assign_parts(names.values(), given, of=f"files in {source}")
    found: dict[str | None, list[Path]] = {}
    for path, name in names.items():
        if name in parts:
            found.setdefault(parts[name], []).append(path)
    return found, {part: name for name, part in parts.items()}, notes


def _name_of_part(path: Path, given: Mapping[str, str] | None) -> str:
    """The word in a file's path that says its part: its folder, or its name up to the first number."""
    stem = path.name.split(".")[0]
    candidates = [stem, *reversed(path.parts[:-1])]
    for word in candidates:
        for name in (given or {}).values():
            if word == name or (word == stem and stem.startswith(name)):
                return name
    for word in candidates:
        kind = kind_of(word)
        if kind in PARTS:
            return kind
        if kind is not None:
            return word
    return stem.rstrip("0123456789-_.") or stem


def parquet_parts(files: list[Path], columns: Mapping[str, str] | None) -> tuple[str, list[str]] | None:
    """The column of Parquet files that says the part of each row, and its values; None if there is none.

    Args:
        files: The files.
        columns: The setting data.columns.
    """
    import pyarrow  # takes half a second to import
    import pyarrow.parquet

    def values_of(name: str) -> list[str]:
        tables = [pyarrow.parquet.read_table(file, columns=[name]) for file in files]
        return [str(value) for table in tables for value in table[name].to_pylist()]

    try:
        schema = pyarrow.parquet.read_schema(files[0])
        texts = [field.name for field in schema if pyarrow.types.is_string(field.type)]
        name = (columns or {}).get("part") or part_column(texts, values_of)
        return (name, values_of(name)) if name is not None and name in schema.names else None
    except (OSError, pyarrow.ArrowException):
        return None  # reported when the images are listed
