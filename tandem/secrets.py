"""Hides passwords, tokens and keys in everything that is printed, stored or sent.

shown_uri is the one form in which an address is shown or stored. hide_secrets is for texts that others wrote, such as
messages and tracebacks: it hides the secrets of addresses in them, of this process's environment, and of the addresses
that the process has used (remember_secrets).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "***"

SHORTEST_SECRET = 4
"""Characters of a secret that is hidden wherever it occurs in a text. A shorter one would hide parts of words."""

LONG_SECRET = 8
"""Characters of a secret that is hidden even within a word."""

# Names of environment variables with secrets, such as MLFLOW_TRACKING_TOKEN, AWS_SECRET_ACCESS_KEY and PGPASSWORD.
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:TOKEN|SECRET|PASSWD|PASSPHRASE|CREDENTIALS?|APIKEY|PAT)(?:_|$)|PASSWORD|_KEY$|ACCESS_KEY",
    re.IGNORECASE,
)
_NAME_OF_A_FILE = re.compile(r"_(?:FILE|PATH|DIR|FOLDER)$", re.IGNORECASE)

# Beginnings by which GitHub, GitLab, Hugging Face, Slack, Databricks, OpenAI and AWS mark their tokens; eyJ begins
# every JSON web token.
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:gh[pousr]_|github_pat_|glpat-|hf_|xox[abprs]-|dapi|sk-|AKIA|ASIA|eyJ)[\w.=-]{12,}"
    r"|(?<=\bBearer )[^\s'\"]+|(?<=\bBasic )[A-Za-z0-9+/]{12,}={0,2}"
)

# Parameters of an address that say how to connect, and are no secrets.
_HARMLESS_PARAMETERS = frozenset(
    (
        *("application_name", "cache", "charset", "check_same_thread", "client_encoding", "connect_timeout", "driver"),
        *("host", "immutable", "isolation_level", "keepalives", "mode", "nolock", "port", "sslcert", "sslmode"),
        *("sslrootcert", "ssl_ca", "ssl_cert", "target_session_attrs", "timeout", "uri", "vfs"),
        *("compareRunsMode", "viewStateShareKey", "workflowType"),  # of the pages of MLflow
    )
)

_ADDRESS = re.compile(r"[A-Za-z][\w.+-]*://[^\s'\"<>`]+")
_USER = re.compile(r"[\w.-]{1,19}")  # a longer one may be a token

_remembered: set[str] = set()


def shown_uri(uri: str) -> str:
    """An address without its secrets, to be shown or stored: postgresql://ann:***@host/db.

    Hidden are passwords, user names that may be tokens, values of parameters that are not known to be harmless, and
    tokens. An address that cannot be read for sure, since a password holds characters that belong to addresses, is
    read in the way that hides most.
    """
    return _TOKEN.sub(HIDDEN, "".join(text if not is_secret else HIDDEN for text, is_secret in _pieces(uri)))


def has_secrets(uri: str) -> bool:
    """True if shown_uri would hide something."""
    return shown_uri(uri) != uri


def remember_secrets(uri: str) -> None:
    """Makes hide_secrets hide the secrets of this address wherever they occur, as libraries may write them."""
    for text, is_secret in _pieces(uri):
        if is_secret:
            _remembered.update((text, unquote(text), unquote_plus(text)))


def hide_secrets(text: str) -> str:
    """A text without the secrets of addresses in it, of the environment, and of remembered addresses."""
    known = {
        form
        for secret in (*_remembered, *_secrets_of_environment())
        if len(secret) >= SHORTEST_SECRET
        for form in _forms(secret)
    }
    for secret in sorted(known, key=len, reverse=True):
        if secret in text:
            # a short one may also be a part of ordinary words
            word = re.escape(secret) if len(secret) >= LONG_SECRET else rf"(?<!\w){re.escape(secret)}(?!\w)"
            text = re.sub(word, HIDDEN, text)
    if "://" in text:
        text = _ADDRESS.sub(lambda found: shown_uri(found[0]), text)
    return _TOKEN.sub(HIDDEN, text)


def _forms(secret: str) -> Iterator[str]:
    """The secret as it stands in texts: plain, encoded for an address, and within quotes of Python and JSON."""
    yield from (secret, quote(secret), quote(secret, safe=""), quote_plus(secret))
    yield from (repr(secret)[1:-1], repr(secret.encode(errors="replace"))[2:-1], json.dumps(secret)[1:-1])


def user_info(uri: str) -> tuple[str, str, str]:
    """The address up to its user, the text up to the last @, and the rest.

    A password may hold any character that is not encoded as it should be, @ included.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        scheme, rest = "", uri
        if rest.startswith(("/", ".", "~")) or ":" not in rest.partition("@")[0]:  # a path, or git@host:path
            return "", "", rest
    before = scheme + separator
    if rest.startswith("/") or "@" not in rest:
        return before, "", rest
    user, _, host = rest.rpartition("@")
    return before, user, "@" + host


def _pieces(uri: str) -> Iterator[tuple[str, bool]]:
    """Consecutive parts of an address, each with True if it is secret."""
    before, info, rest = user_info(uri)
    yield before, False
    if info:
        user, colon, password = info.partition(":")
        is_web = before.partition("+")[0].partition(":")[0].lower() in ("http", "https", "git")
        # In https://TOKEN@host and https://TOKEN:x-oauth-basic@host the user name is the secret.
        is_token = is_web and (password in ("", "x-oauth-basic") or not _USER.fullmatch(user))
        yield user, is_token
        yield colon, False
        yield password, bool(password)
    place, mark, query = rest.partition("?")
    if not rest.startswith("/"):  # in the path of a file # is a letter
        place, hash_mark, fragment = place.partition("#")
        if hash_mark:
            mark, query = hash_mark, fragment + mark + query
    yield place, False
    yield mark, False
    is_page = mark == "#" and query.startswith("/")  # of a web page: #/experiments/1
    for number, parameter in enumerate(re.split("([&;#?])", query)):
        name, equals, value = parameter.partition("=")
        if number % 2 or (is_page and not equals):
            yield parameter, False
        elif not equals:
            yield name, bool(name)
        else:
            yield name + equals, False
            yield value, bool(value) and name not in _HARMLESS_PARAMETERS


def _secrets_of_environment() -> Iterator[str]:
    for name, value in list(os.environ.items()):
        if _SECRET_NAME.search(name) and not _NAME_OF_A_FILE.search(name):
            yield value.strip()
        elif "://" in value and "@" in value:  # such as a proxy, a package index or a database
            yield from (text for text, is_secret in _pieces(value.strip()) if is_secret)
