"""The search space of a sweep: the settings that its trials vary, and their ranges or choices.

sweep:
  space:
    learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}
    head.dropout: {low: 0, high: 0.5}
    optimizer.name: [adam, sgd]
"""

from __future__ import annotations

import itertools
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tandem.errors import UserError
from tandem.protocol.settings import FIELDS, Settings

DEFAULT_SPACE: Mapping[str, Any] = {"learning_rate": {"low": 1e-5, "high": 0.1, "log": True}}
"""From a rate at which hardly anything is learned to one at which Adam diverges; our own choice."""

VARIED_OF_DATA = ("data.image_size", "data.resize")
"""The only settings of the data that trials may differ in: all trials are judged by the same images."""

# Settings that affect numbers and are the same for all trials of a sweep.
_SHARED = ("seed", "seeds", "phases", "allow_random_weights")


@dataclass(frozen=True, kw_only=True)
class Range:
    """A number that is drawn from a range, including both ends."""

    name: str
    """Dotted name of the setting."""
    low: float
    """Smallest value."""
    high: float
    """Largest value."""
    log: bool
    """True for a distribution that is uniform in the logarithm."""
    whole: bool
    """True for whole numbers."""

    @property
    def extremes(self) -> tuple[Any, ...]:
        """Values to be checked: both ends."""
        return self.low, self.high


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A setting whose value is drawn from a list."""

    name: str
    """Dotted name of the setting."""
    values: tuple[Any, ...]
    """Two or more different values."""

    @property
    def extremes(self) -> tuple[Any, ...]:
        """Values to be checked: all."""
        return self.values


Dimension = Range | Choice


def read_space(settings: Settings) -> tuple[Dimension, ...]:
    """The settings that a sweep varies, in the order of the file; by default the learning rate.

    The parser checks the values against the settings' own limits.

    Raises:
        UserError: A setting does not exist or cannot be varied, or has neither a range nor a list.
    """
    space = DEFAULT_SPACE if settings.sweep.space is None else settings.sweep.space
    if not space:
        raise UserError("sweep.space: received {}, allowed: one or more settings, or leave it out")
    return tuple(_read_dimension(name, content) for name, content in space.items())


def combinations(dimensions: Sequence[Dimension]) -> Iterator[dict[str, Any]]:
    """Combinations of values that are checked: all extremes of each dimension and each pair of dimensions, with the
    first value of the others."""
    firsts = {dimension.name: dimension.extremes[0] for dimension in dimensions}
    for number in (1, 2):
        for some in itertools.combinations(dimensions, number):
            for values in itertools.product(*(dimension.extremes for dimension in some)):
                yield firsts | dict(zip((dimension.name for dimension in some), values, strict=True))


def varied_backbones(settings: Settings) -> tuple[str, ...]:
    """Names of all backbones that a run with these settings, or the trials of its sweep, may build."""
    if settings.sweep.num_trials is not None:
        for dimension in read_space(settings):
            if dimension.name == "backbone":
                return dimension.extremes
    return (settings.backbone,)


def _read_dimension(name: Any, content: Any) -> Dimension:
    where = f"sweep.space.{name}"
    if name not in FIELDS:
        raise UserError(
            f"{where}: there is no such setting; give dotted names such as optimizer.name, and see --help for all"
        )
    if not _can_vary(name):
        raise UserError(
            f"{where}: a sweep cannot vary this, since it changes no result, or since all trials use the same images, "
            f"seed and machine; of data it can vary {' and '.join(VARIED_OF_DATA)}"
        )
    if isinstance(content, list):
        if len(content) < 2 or len({repr(value) for value in content}) < len(content):
            raise UserError(f"{where}: received {content!r}, allowed: two or more different values")
        return Choice(name=name, values=tuple(content))
    number = _number_type(name)
    if not isinstance(content, dict):
        allowed = "a range such as {low: 1, high: 8} or a list of values" if number else "a list of values"
        raise UserError(f"{where}: received {content!r}, allowed: {allowed}")
    if number is None:
        raise UserError(f"{where}: received a range, allowed: a list of values, since this is not a single number")
    if unknown := set(content) - {"low", "high", "log"}:
        raise UserError(f"{where}: there is no key {sorted(map(str, unknown))[0]!r} here, allowed: low, high, log")
    values: Mapping[str, Any] = {"low": None, "high": None, "log": False, **content}
    low, high, log = values["low"], values["high"], values["log"]
    if not _is_number(low) or not _is_number(high) or low >= high:
        raise UserError(f"{where}: received {content!r}, allowed: numbers low and high, low the smaller one")
    if not isinstance(log, bool):
        raise UserError(f"{where}: received log {log!r}, allowed: true or false")
    if log and low <= 0:
        raise UserError(f"{where}: received low {low!r}, allowed: above 0 with log true")
    return Range(name=name, low=low, high=high, log=log, whole=number is int)


def _can_vary(name: str) -> bool:
    if name.startswith("data."):
        return name in VARIED_OF_DATA
    return FIELDS[name].metadata["affects"] == "numbers" and name not in _SHARED


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number_type(name: str) -> type | None:
    """int or float if the setting can be such a number, perhaps among other values such as null; otherwise None."""
    owner: Any = Settings
    *groups, last = name.split(".")
    for group in groups:
        owner = typing.get_type_hints(owner)[group]
    hint = typing.get_type_hints(owner)[last]
    kinds = typing.get_args(hint) or (hint,)
    return next((kind for kind in (float, int) if kind in kinds), None)
