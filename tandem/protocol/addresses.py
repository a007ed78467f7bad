"""Addresses of MLflow and of a sweep's study, checked before anything is imported or connected to.

SQLAlchemy reads and writes the addresses of databases: in them, characters of a password or a folder that mean
something in an address are encoded.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, unquote, urlsplit
from urllib.request import url2pathname

from tandem.errors import UserError
from tandem.secrets import remember_secrets, shown_uri, user_info

if TYPE_CHECKING:
    from sqlalchemy import URL

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
"""Kinds of databases that MLflow and Optuna work with, as SQLAlchemy calls them."""

FILE_URI = "file:"
"""Beginning of a sqlite database that is given as a URI, in the form of sqlite.org/uri.html."""

Use = Literal["tracking", "study"]

_ALLOWED = {
    "tracking": "sqlite:///FILE.db, http(s)://HOST:PORT of an MLflow server, and postgresql://...; to keep runs on "
    "this machine use sqlite:///mlflow.db",
    "study": "sqlite:///FILE.db and postgresql://...; when not given, a journal file is used",
}
_NOT_ALLOWED = {
    "tracking": "MLflow cannot keep runs in this tracking URI",
    "study": "sweep.storage: a study cannot be kept there",
}


def resolve_address(address: str, use: Use) -> str:
    """An address in the form that every library reads, with the file of a sqlite database absolute.

    Blanks and control characters at its ends, such as the line end of an environment file of Windows, are ignored. A
    password may hold characters that should be encoded and are not.

    Args:
        address: Of an MLflow server or a database.
        use: MLflow's, or that of a sweep's study, which has no server.

    Raises:
        UserError: MLflow, or Optuna, cannot use it.
    """
    text = strip(address)
    remember_secrets(text)
    scheme, separator, _ = text.partition("://")
    kind = scheme.partition("+")[0].lower()
    if not separator or (re.search(r"[\x00-\x1f\x7f]", text.partition("?")[0]) and kind != "sqlite") or "\0" in text:
        raise _refusal(text, use)
    text = scheme.lower() + text[len(scheme) :]
    if kind in ("http", "https") and use == "tracking":
        return _resolve_server(text, use)
    if kind in DATABASES:
        return _resolve_database(text, use)
    raise _refusal(text, use)


def strip(text: str) -> str:
    """A text without blanks and control characters at its ends."""
    return re.sub(r"^[\s\x00-\x1f\x7f\ufeff\u200b]+|[\s\x00-\x1f\x7f\ufeff\u200b]+$", "", text)


def sqlite_file(address: str) -> Path | None:
    """File of a sqlite database's address, None for other addresses."""
    if not address.startswith("sqlite"):
        return None
    from sqlalchemy import make_url  # imports for a quarter of a second, which --help need not wait for

    database = make_url(address).database or ""
    if database.startswith(FILE_URI):
        database = url2pathname(urlsplit(database).path)
    return Path(database)


def sqlite_address(file: Path, like: str | None = None) -> str:
    """Address of a sqlite database.

    Args:
        file: Absolute path.
        like: Another sqlite address, whose driver and parameters the new one has.
    """
    from sqlalchemy import URL, make_url

    url = make_url(like) if like else URL.create("sqlite")
    is_uri = (url.database or "").startswith(FILE_URI)
    database = FILE_URI + quote(str(file)) if is_uri else str(file)
    # SQLAlchemy writes other alphabets in a form that MLflow takes for the name of a folder, which may be too long.
    start, _, query = _render(url.set(database="x")).partition("/x")
    readable = f"{start}/{re.sub('[%?]', lambda found: quote(found[0]), database)}{query}"
    return readable if make_url(readable).database == database else _render(url.set(database=database))


def _resolve_database(text: str, use: Use) -> str:
    url = _parse(text)
    is_file = text.startswith("sqlite")
    if not is_file and (url is None or "@" in f"{url.host}{url.database}"):  # a password with an @ that is not encoded
        url = _parse(_with_encoded_user(text))
    if url is None or "@" in (url.host or "") or not (url.port is None or 0 < url.port < 65536):
        raise _refusal(text, use)
    if url.get_backend_name() != "sqlite":
        return _render(url)
    file = sqlite_file(_render(url))
    if url.host or not url.database or url.database in (":memory:", FILE_URI) or file is None or file.name == "":
        raise _refusal(text, use)
    file = absolute(file)
    try:
        str(file).encode()
    except UnicodeEncodeError:
        name = os.fsencode(file).decode(errors="backslashreplace")
        raise UserError(f"{name}: MLflow cannot keep files in a folder whose name is not UTF-8: rename it") from None
    return sqlite_address(file, like=_render(url))


def _resolve_server(text: str, use: Use) -> str:
    for candidate in (text, _with_encoded_user(text)):
        try:
            parts = urlsplit(candidate)
            if parts.hostname and (parts.port is None or parts.port > 0) and " " not in parts.netloc:
                return candidate.rstrip("/")
        except ValueError:  # a bracket, or a port that is no number
            continue
    raise _refusal(text, use)


def absolute(path: Path) -> Path:
    """A path from the root, in which ~ is the home folder.

    Raises:
        UserError: There is no home folder, or the working folder has been removed.
    """
    try:
        return path.expanduser().absolute()
    except RuntimeError:
        raise UserError(
            f"{path}: this user has no home folder, neither by the environment variable HOME nor by the system: set "
            "HOME, or give a path without ~"
        ) from None
    except FileNotFoundError:
        raise UserError(f"{path}: the working folder does not exist any more: change to another one") from None


def _parse(text: str) -> URL | None:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        return None


def _render(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def _with_encoded_user(text: str) -> str:
    """The address with everything before the last @ read as user and password, and these encoded."""
    before, info, rest = user_info(text)
    if not info:
        return text
    user, colon, password = info.partition(":")
    return before + quote(unquote(user), safe="") + colon + quote(unquote(password), safe="") + rest


def _refusal(text: str, use: Use) -> UserError:
    line = f"{_NOT_ALLOWED[use]}: received {shown_uri(text)!r}, allowed are {_ALLOWED[use]}"
    if user_info(text)[1]:
        line += "; in a password, write the characters @ : / ? # [ ] % as %40 %3A %2F %3F %23 %5B %5D %25"
    return UserError(line)
