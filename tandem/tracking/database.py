"""The sqlite file that MLflow keeps runs in: created whole, and followed when its folder is moved."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlflow.store.db.base_sql_model import Base
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from tandem.errors import UserError
from tandem.files import PARTIAL, whole_path
from tandem.output import warn
from tandem.protocol.addresses import sqlite_address

ARTIFACTS_FOLDER = "mlartifacts"

SECONDS_OF_CREATION = 10.0
"""Seconds without a change after which a half-made database counts as left behind. MLflow's 60 migrations take 5 s."""

# Columns with places of files, as URIs.
_PLACES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
    "trace_tags": ("value",),
}

_TABLES = frozenset(Base.metadata.tables)
_ALEMBIC = ("alembic_", "_alembic_", "sqlite_")  # beginnings of tables that hold no content
_FILLED = frozenset(("workspaces",))  # tables in which MLflow's migrations put rows

_COMPANIONS = ("-journal", "-wal", "-shm")  # of a sqlite file: unfinished changes


def create_database(uri: str, file: Path) -> None:
    """Creates MLflow's tables in a new file, which is complete when it gets its name. The caller holds its lock.

    MLflow creates them in sixty steps; a process that is killed in between would leave a file that no later run can
    use.
    """
    for leftover in file.parent.iterdir():
        if leftover.name.startswith(f".{file.name.partition('.')[0][:50]}.") and PARTIAL in leftover.name:
            leftover.unlink(missing_ok=True)
    if file.exists() and file.stat().st_size:
        warn(f"{file} was not complete, since a process was killed while it created it: it is created again")
    with whole_path(file, sync=True) as partial:
        with without_strange_folder(like := sqlite_address(partial, like=uri)):
            SqlAlchemyStore(like, str(file.parent / ARTIFACTS_FOLDER)).engine.dispose()
        # Changes that a killed process had not finished would be made in the new file.
        for ending in _COMPANIONS:
            partial.with_name(partial.name + ending).unlink(missing_ok=True)
            file.with_name(file.name + ending).unlink(missing_ok=True)


def is_half_made(file: Path) -> bool:
    """True if there is no database, or one of which a killed process created only a part.

    The latter is empty, or holds some of MLflow's tables with nothing in them.
    """
    try:
        if file.stat().st_size == 0:
            return True
        with contextlib.closing(_open_read_only(file)) as connection:
            tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            # the default experiment is the last thing that MLflow creates
            if "experiments" in tables and _has_rows(connection, "experiments"):
                return False
            own = {name for name in tables if not name.startswith(_ALEMBIC)}
            return own <= _TABLES and not any(_has_rows(connection, name) for name in own - _FILLED)
    except FileNotFoundError:
        return True
    except sqlite3.Error:  # MLflow says what is wrong with it
        return False


def is_left_behind(file: Path) -> bool:
    """True if nobody goes on with a half-made database. The caller holds its lock, which other programs do not know."""
    while file.exists() and (age := time.time() - file.stat().st_mtime) < SECONDS_OF_CREATION:
        time.sleep(min(1.0, SECONDS_OF_CREATION - max(age, 0.0)))
        if not is_half_made(file):
            return False
    return True


def follow_moved_folder(file: Path) -> None:
    """Corrects the places of files in a database whose folder was moved together with its artifacts.

    Raises:
        UserError: The database cannot be written.
    """
    moves, lost = _find_moves(file)
    before = ", ".join(sorted({str(path.parent) for path in lost}))
    if not moves or (not can_write(file) and not lost):
        return
    if not can_write(file):
        raise UserError(
            f"{file} was moved: its files were in {before}, but the database cannot be written to note their new "
            f"place; make it writable, or copy {file.name} and {ARTIFACTS_FOLDER}/ into a folder of yours"
        )
    with contextlib.closing(sqlite3.connect(file, timeout=60)) as connection, connection:
        connection.execute("BEGIN IMMEDIATE")
        for table, columns in _PLACES.items():
            there = {row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')}
            for column in there.intersection(columns):
                for old, new in moves.items():
                    # names of tables and columns are constants
                    change = f'UPDATE "{table}" SET "{column}" = :new || substr("{column}", :length) '  # nosec B608
                    where = f'WHERE substr("{column}", 1, :length) = :old'
                    values = {"new": new, "old": f"{old}/", "length": len(old) + 1}
                    connection.execute(change + where, values)
    if lost:
        warn(f"{file} was moved: its files were in {before}, and are now read from {file.parent / ARTIFACTS_FOLDER}")


def can_write(file: Path) -> bool:
    """True if this user may write a database, which takes a second file in its folder."""
    return os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)


def _find_moves(file: Path) -> tuple[dict[str, str], list[Path]]:
    """Places of files that have moved together with the database.

    Returns:
        Old and new place of the artifacts' folder, as URIs or as paths, and the folders of experiments with files that
        are no longer at the old one.
    """
    root = file.parent / ARTIFACTS_FOLDER
    try:
        with contextlib.closing(_open_read_only(file)) as connection:
            places = [row[0] for row in connection.execute("SELECT DISTINCT artifact_location FROM experiments")]
    except sqlite3.Error:  # MLflow says what is wrong with it
        return {}, []
    moves, lost = {}, []
    for place in places:
        if not place or not place.startswith(("file:///", "/")):
            continue
        is_uri = place.startswith("file:")
        path = Path(url2pathname(urlsplit(place).path) if is_uri else place)
        if path.parent.name != ARTIFACTS_FOLDER or path.parent == root or path.exists():
            continue
        if (root / path.name).exists():
            lost.append(path)
        elif path.parent.exists():
            continue
        moves[place.rpartition("/")[0]] = root.as_uri() if is_uri else str(root)
    return moves, lost


def _has_rows(connection: sqlite3.Connection, table: str) -> bool:
    return connection.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone() is not None  # nosec B608: MLflow's names


def _open_read_only(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=60)


@contextlib.contextmanager
def without_strange_folder(uri: str) -> Iterator[None]:
    """Removes the folder that MLflow creates where an address has encoded characters, which it does not decode."""
    folder = Path(uri.removeprefix("sqlite:///").partition("?")[0]).parent
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    finally:
        for path in new:
            with contextlib.suppress(OSError):
                path.rmdir()
