"""Reads Settings from the command line and YAML files, and reports whatever is wrong with them in one clear line."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace, set_loader, set_parsing_settings

from tandem.errors import UserError, exit_with, use_utf8
from tandem.protocol.checks import check_data, check_limits, check_settings
from tandem.protocol.environment import check_environment
from tandem.protocol.frameworks import Framework
from tandem.protocol.help import ShortHelp, usage
from tandem.protocol.recipes import recipe_file, recipe_settings
from tandem.protocol.refusals import CONFIG_FILE, GROUPS, describe, refusal_of, refuse, refuse_group
from tandem.protocol.regimes import phases_of
from tandem.protocol.repeats import repeats_of
from tandem.protocol.search_space import combinations, read_space
from tandem.protocol.settings import (
    DataSettings,
    Settings,
    flatten,
    resolve,
    with_values,
)
from tandem.protocol.yaml_text import check as check_yaml
from tandem.protocol.yaml_text import cut, read_text
from tandem.protocol.yaml_text import load as load_yaml


def parse_settings(framework: Framework, argv: list[str] | None = None) -> Settings:
    """Reads a run's settings from the command line, which may contain `--config FILE`; exits with status 2 on bad ones.

    Args:
        framework: The script that asks; some settings are allowed in one of the two only.
        argv: Words of the command line without the program; those of sys.argv by default.
    """
    if argv is None:
        use_utf8()
    program = f"train_{framework}.py"
    try:
        return read_settings(framework, argv)
    except UserError as error:
        exit_with(program, error)


def read_data_settings(parser: ArgumentParser, argv: list[str] | None = None) -> Namespace:
    """Reads the command line of another program that takes the data settings under the scripts' names and limits.

    Args:
        parser: Has a group `data` with some or all settings of DataSettings.
        argv: Words of the command line without the program; those of sys.argv by default.

    Returns:
        The parser's values; `data` is a DataSettings.

    Raises:
        UserError: A word cannot be read, or a value is out of its limits.
    """
    _check_words(sys.argv[1:] if argv is None else argv)
    try:
        values = parser.parse_args(argv)
    except argparse.ArgumentError as error:
        unknown = re.match(r"unrecognized arguments: --([\w.]+)", str(error))
        if unknown and unknown[1] in flatten(Settings()):
            raise UserError(
                f"{unknown[1]}: only the training scripts have this setting; --help lists those of this program"
            ) from None
        raise UserError(refusal_of(error)) from None
    values = parser.instantiate(values)
    _check_nulls(vars(values.data), DataSettings, "data.")
    # the program's own source, if it has one, decides which of the settings are allowed
    settings = Settings(data=dataclasses.replace(values.data, source=values.get("source", values.data.source)))
    check_limits(settings)
    check_data(settings)
    return values


def read_settings(framework: Framework, argv: list[str] | None = None) -> Settings:
    """As parse_settings, but raises UserError for bad settings."""
    parser = _make_parser(framework)
    words = sys.argv[1:] if argv is None else argv
    _check_words(words)
    try:
        values = parser.parse_args(words)
        if values.recipe is not None:
            values = parser.parse_args(["--config", str(recipe_file(values.recipe)), *words])
    except argparse.ArgumentError as error:
        raise UserError(refusal_of(error)) from None
    try:
        return _finish(parser, values, framework)
    except UserError as error:
        name = str(error).partition(":")[0]
        if values.recipe is None or name not in recipe_settings(values.recipe):
            raise
        raise UserError(f"{error}; --recipe {values.recipe} sets it, unless you give --{name}") from None


def given_settings(framework: Framework, argv: list[str]) -> set[str]:
    """Dotted names of the settings that a command line gives, itself or in its files.

    Args:
        framework: As in parse_settings.
        argv: Words that read_settings accepts.
    """
    return set(_flat_names(vars(_make_parser(framework).parse_args(argv, defaults=False))))


def change_settings(settings: Settings, framework: Framework, changes: Mapping[str, Any]) -> Settings:
    """Replaces some settings, with the same checks as if the new values had been given on the command line.

    Args:
        settings: Result of read_settings.
        framework: As in parse_settings.
        changes: New values by dotted names.

    Raises:
        UserError: As in read_settings.
    """
    parser = _make_parser(framework)
    try:
        values = parser.parse_object(dataclasses.asdict(with_values(settings, changes)))
    except argparse.ArgumentError as error:
        raise UserError(refusal_of(error)) from None
    return _finish(parser, values, framework)


def _finish(parser: ArgumentParser, values: Namespace, framework: Framework) -> Settings:
    check_environment()
    _check_nulls(values, Settings)
    values = parser.instantiate(values)
    settings = Settings(**{item.name: values[item.name] for item in dataclasses.fields(Settings)})
    if settings.regime == "scratch":
        settings = dataclasses.replace(settings, weights="random")
    check_settings(settings, framework)
    _check_search(settings, framework)
    # after the checks, whose messages repeat what was received, and before the run, which records what it did
    return resolve(settings)


def _check_words(words: Sequence[str]) -> None:
    """Checks what is hard to check once it is parsed: bounds of YAML texts, and groups that are given as a value."""
    for number, word in enumerate(words):
        if not word.startswith("--"):
            continue
        name, equals, value = word[2:].partition("=")
        if not equals:
            if number + 1 == len(words) or words[number + 1].startswith("--"):
                continue  # the parser says that the value is missing
            value = words[number + 1]
        if name == "config":
            text = read_text(Path(value), "config", CONFIG_FILE) if not value.startswith("{") else value
            if not [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]:
                raise UserError(f"config: {cut(value)} holds no settings; {CONFIG_FILE}")
            check_yaml(text, "config")
        elif "\0" in value:
            refuse(cut(name), value, "a text without NUL characters")
        elif name in GROUPS and os.path.isfile(value):
            check_yaml(read_text(Path(value), name, CONFIG_FILE), name)
        elif name in GROUPS and not value.startswith("{"):
            refuse_group(name, value)
        else:
            check_yaml(value, cut(name))


def _load(text: str) -> Any:
    """The content of a YAML text, in which an empty group means its defaults."""
    value = load_yaml(text)
    if isinstance(value, dict):
        return {name: content for name, content in value.items() if content is not None or name not in GROUPS}
    return value


def _flat_names(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Namespace):
            yield from _flat_names(vars(value), f"{prefix}{name}.")
        else:
            yield prefix + name


def _check_nulls(values: Any, owner: Any, prefix: str = "") -> None:
    # jsonargparse accepts null for every setting of a file, and any value for a group
    for name, hint in typing.get_type_hints(owner).items():
        if dataclasses.is_dataclass(hint):
            if not isinstance(values[name], Namespace):
                refuse_group(prefix + name, values[name])
            _check_nulls(values[name], hint, f"{prefix}{name}.")
        elif values[name] is None and types.NoneType not in typing.get_args(hint):
            refuse(prefix + name, None, describe(prefix + name))


def _check_search(settings: Settings, framework: Framework) -> None:
    """Checks a sweep or a range test: there is something to train, and every value of the space is allowed."""
    num_trials = settings.sweep.num_trials
    if settings.find_learning_rate and num_trials is not None:
        refuse("find_learning_rate", True, "false with sweep.num_trials; do one after the other")
    name, received = ("sweep.num_trials", num_trials) if num_trials is not None else ("find_learning_rate", True)
    if num_trials is None and not settings.find_learning_rate:
        return
    without = "null" if num_trials is not None else "false"
    if not phases_of(settings):
        refuse(name, received, f"{without} with regime {settings.regime}, which trains nothing")
    if repeats_of(settings):
        refuse(name, received, f"{without} with seeds or all folds; give one seed and one data.fold")
    if settings.num_devices != 1:
        refuse("num_devices", settings.num_devices, f"1 with {name}; several processes share a sweep instead")
    if num_trials is None:
        return
    space = read_space(settings)
    if settings.regime == "scratch" and any(dimension.name == "regime" for dimension in space):
        refuse("regime", "scratch", "one with pretrained weights where sweep.space varies it")
    parser = _make_parser(framework)
    # the parser checks types: of all first values at once, then of all second ones
    for index in range(max(len(dimension.extremes) for dimension in space)):
        values = {dimension.name: dimension.extremes[index] for dimension in space if index < len(dimension.extremes)}
        try:
            parser.parse_object(values)
        except argparse.ArgumentError as error:
            raise UserError(f"sweep.space.{refusal_of(error)}") from None
    for values in combinations(space):
        try:
            check_settings(with_values(settings, values), framework)
            if not phases_of(with_values(settings, values)):
                raise UserError("nothing is trained, so trials cannot be judged")
        except UserError as error:
            words = ", ".join(f"{name} {value!r}" for name, value in values.items())
            raise UserError(f"sweep.space: {words}: {error}") from None


@functools.cache
def _make_parser(framework: Framework) -> ArgumentParser:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    set_loader("yaml", _load, exceptions=(yaml.YAMLError, ValueError))
    parser = ArgumentParser(
        prog=f"train_{framework}.py",
        description="Trains and evaluates one classifier and records it in MLflow. All options can also be given in a "
        "YAML file with --config; one file works for both train_torch.py and train_keras.py.",
        usage=usage(framework),
        add_help=False,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "-h",
        "--help",
        action=ShortHelp,
        const=framework,
        default=argparse.SUPPRESS,
        help="Explain the settings that most runs give, and list all others.",
    )
    parser.add_argument("--help_all", action="help", default=argparse.SUPPRESS, help="Explain all settings.")
    parser.add_argument(
        "--config", action="config", metavar="FILE", help="YAML file of settings; options after it override it."
    )
    parser.add_class_arguments(Settings, None)
    return parser
