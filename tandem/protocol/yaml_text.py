"""YAML as settings are written in it: read without surprises, and bounded before it is parsed.

A file of settings is small and shallow. A larger or deeper one is a mistake, or made to exhaust the memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tandem.errors import UserError, one_line

LONGEST_TEXT = 2_000_000  # characters; 20,000 classes with long names need one million
DEEPEST = 20  # mappings and lists within each other; settings need five
MOST_NODES = 200_000  # values, with those of aliases counted each time
MOST_MAPPINGS = 200  # in one list, such as phases
LONGEST_NUMBER = 40  # digits; Python converts longer numbers slowly, or not at all
LONGEST_SHOWN = 80  # characters of a value in a message

_NUMBER = re.compile(r"[-+]?[\d_]+")


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML's safe loader with the numbers and truth values of YAML 1.2: no, yes, on, off, 010 and 1:30 are texts."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        letter: [(tag, pattern) for tag, pattern in pairs if tag.rpartition(":")[2] in ("null", "merge")]
        for letter, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_TAG = "tag:yaml.org,2002:"
Loader.add_implicit_resolver(f"{_TAG}bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
Loader.add_implicit_resolver(f"{_TAG}int", re.compile(r"[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789"))
Loader.add_implicit_resolver(
    f"{_TAG}float",
    re.compile(
        r"(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)


def shown(value: Any) -> str:
    """A value for a message: its repr, cut after 80 characters."""
    text = value if isinstance(value, _Text) else repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}... ({len(text)} characters)"


class _Text(str):
    """A text that is shown without quotes."""


def cut(text: str) -> str:
    """A text for a message, cut after 80 characters."""
    return shown(_Text(text if text.isprintable() else repr(text)[1:-1]))


def read_text(path: Path, name: str, expected: str) -> str:
    """Text of a YAML file.

    Args:
        path: The file.
        name: The setting, for messages.
        expected: What to give instead, for messages.

    Raises:
        UserError: It cannot be read, is not UTF-8, or is too long.
    """
    try:
        if path.is_file() and path.stat().st_size > 4 * LONGEST_TEXT:
            raise UserError(f"{name}: {cut(str(path))} has {path.stat().st_size:,} bytes; {expected}")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: the file is not text in UTF-8 ({error}); {expected}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise UserError(f"{name}: received {shown(str(path))}, which cannot be read ({reason}); {expected}") from None


@dataclass
class _Open:
    """A mapping or list that is not closed yet."""

    is_mapping: bool
    path: str
    anchor: str | None
    nodes: int = 1
    mappings: int = 0
    key: str | None = None  # of a mapping, whose value comes next
    keys: set[str] = field(default_factory=set)


def check(text: str, name: str) -> None:
    """Checks a YAML text before it is parsed.

    Args:
        text: A file, or a value of the command line.
        name: The setting of the value; `config` for a file, whose own settings are named then.

    Raises:
        UserError: It is too long or too deep, has too many or too long values, or gives a key twice.
    """
    if len(text) > LONGEST_TEXT:
        raise UserError(f"{name}: received {len(text):,} characters, allowed: at most {LONGEST_TEXT:,}")
    text = text.encode(errors="replace").decode()  # of names of files that are not UTF-8
    try:
        for _ in _events(text, name):
            pass
    except yaml.YAMLError as error:
        if name == "config":
            raise UserError(
                f"config: the file is not YAML: {one_line(UserError(' '.join(str(error).split())))}"
            ) from None


def _events(text: str, name: str) -> Iterator[None]:
    prefix = "" if name == "config" else name
    stack: list[_Open] = []
    sizes: dict[str, int] = {}  # of anchored nodes
    given: set[str] = set()  # dotted names outside of lists

    def where() -> str:
        return (stack[-1].path if stack else prefix) or name

    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        yield
        size = 0
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            is_mapping = isinstance(event, yaml.MappingStartEvent)
            path = where() if stack or prefix else ""
            if stack and stack[-1].is_mapping and stack[-1].key is not None:
                path = ".".join(filter(None, (stack[-1].path, stack[-1].key)))
            if stack and is_mapping and not stack[-1].is_mapping:
                stack[-1].mappings += 1
                if stack[-1].mappings > MOST_MAPPINGS:
                    raise UserError(f"{where()}: received more than {MOST_MAPPINGS} entries, allowed: fewer")
            stack.append(_Open(is_mapping=is_mapping, path=path if path != name or prefix else "", anchor=event.anchor))
            if len(stack) > DEEPEST:
                deepest = stack[1].path or where() if len(stack) > 1 else where()
                raise UserError(
                    f"{cut(deepest)}: received lists or mappings in each other, deeper than the {DEEPEST} allowed"
                )
            continue
        if isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            closed = stack.pop()
            size = closed.nodes
            if closed.anchor:
                sizes[closed.anchor] = size
        elif isinstance(event, yaml.AliasEvent):
            size = sizes.get(str(event.anchor), 1)
        elif isinstance(event, yaml.ScalarEvent):
            size = 1
            if _NUMBER.fullmatch(event.value) and len(event.value) > LONGEST_NUMBER:
                key = stack[-1].key if stack and stack[-1].is_mapping else None
                full = ".".join(filter(None, (stack[-1].path if stack else prefix, key))) or name
                raise UserError(f"{cut(full)}: received {cut(event.value)}, allowed: at most {LONGEST_NUMBER} digits")
        else:
            continue
        if not stack:
            continue
        stack[-1].nodes += size
        if stack[-1].nodes > MOST_NODES:
            raise UserError(f"{cut(where())}: received more than {MOST_NODES:,} values, allowed: fewer")
        if not stack[-1].is_mapping:
            continue
        if stack[-1].key is None and isinstance(event, yaml.ScalarEvent):
            key = event.value
            full = ".".join(filter(None, (stack[-1].path, key)))
            in_list = not all(each.is_mapping for each in stack)
            if key in stack[-1].keys or (full in given and not in_list):
                raise UserError(f"{cut(full)}: given twice in the same file; give it once")
            stack[-1].keys.add(key)
            if not in_list:
                given.add(full)
            stack[-1].key = key
        elif stack[-1].key is None:
            stack[-1].key = ""  # a key that is no text, which the parser refuses
        else:
            stack[-1].key = None


def read_file(path: Path, name: str, expected: str, loader: Any = Loader) -> Any:
    """The content of a YAML file that is no file of settings, with the same bounds.

    Args:
        path: The file.
        name: The setting, or the kind of file, for messages.
        expected: What to give instead, for messages.
        loader: A kind of SafeLoader.

    Raises:
        UserError: It cannot be read, is not YAML, or exceeds a bound.
    """
    text = read_text(path, name, expected)
    check(text, name)
    try:
        return yaml.load(text, Loader=loader)  # nosec B506: a kind of SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        reason = one_line(UserError(" ".join(str(error).split())))
        raise UserError(f"{name}: {cut(str(path))} is not YAML: {reason}; {expected}") from None


def load(text: str) -> Any:
    """The content of a YAML text; a value of the command line that is only a comment is a text."""
    value = yaml.load(text, Loader=Loader)  # nosec B506: a kind of SafeLoader
    if value is None and text.strip().startswith("#") and "\n" not in text.strip():
        return text
    return value
