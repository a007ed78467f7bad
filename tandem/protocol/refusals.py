"""Messages about settings: what was received, what is allowed, and what was probably meant."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import types
import typing
from typing import Any, Literal, NoReturn

from tandem.errors import UserError, one_line
from tandem.protocol.settings import (
    PhaseSettings,
    Settings,
    flatten,
)
from tandem.protocol.yaml_text import cut, shown

GROUPS = frozenset(name for name, hint in typing.get_type_hints(Settings).items() if dataclasses.is_dataclass(hint))
_TYPE_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    types.NoneType: "null",
    dict[
        str, Any
    ]: "a mapping like {learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}, optimizer.name: [adam, sgd]}",
    dict[str, str]: "a mapping of texts to texts, like {train: Training, test: Testing}",
    dict[str, float]: "a mapping of classes to numbers, like {melanoma: 5}",
    PhaseSettings: "a phase",
}
LONGEST_LIST = 60  # characters of a list that is suggested
CONFIG_FILE = "give the path of a YAML file of settings by name, such as `regime: frozen`"
# Names that other programs have for a setting, so that their users find ours.
OTHER_NAMES = {
    "model": "backbone",
    "arch": "backbone",
    "network": "backbone",
    "pretrained": "weights",
    "dataset": "data.source",
    "data_dir": "data.source",
    "img_size": "data.image_size",
    "imgsz": "data.image_size",
    "size": "data.image_size",
    "optim": "optimizer.name",
    "wd": "optimizer.weight_decay",
    "gpus": "num_devices",
    "workers": "threads",
    "project": "tracking.experiment",
    "output": "tracking.folder",
}
EXAMPLES = {
    int: "256, 128",
    float: "0.7, 0.1, 0.2",
    str: '"cat", "dog"',
    PhaseSettings: "{trainable: head}, {trainable: last, blocks: 2}",
}


def refuse(name: str, received: Any, allowed: str) -> NoReturn:
    """Raises UserError in one line: the setting, what was received, what is allowed."""
    raise UserError(f"{name}: received {shown(received)}, allowed: {allowed}")


def refuse_group(group: str, value: Any) -> NoReturn:
    """Refuses a single value for a group of settings."""
    refuse(group, value, describe(group) + close_value(group, value))


def describe(name: str) -> str:
    """The allowed values of a setting in words, from its type and its limits."""
    owner: Any = Settings
    *groups, last = name.split(".")
    for group in groups:
        owner = PhaseSettings if group == "phases" else typing.get_type_hints(owner)[group]
    hints = typing.get_type_hints(owner)
    if last not in hints:
        return "a setting of this name"
    words = _type_in_words(hints[last])
    if name == "seeds":
        words = words.replace(EXAMPLES[int], "0, 1, 2")
    limits = next(item.metadata for item in dataclasses.fields(owner) if item.name == last)
    for key, text in (("above", "above"), ("at_least", "at least"), ("at_most", "at most")):
        if key in limits:
            words += f", {text} {limits[key]}"
    return words


def _type_in_words(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_in_words(argument) for argument in arguments)
    if origin is list:
        return f"a list of {_type_in_words(arguments[0]).removeprefix('a ')}s, like [{EXAMPLES[arguments[0]]}]"
    if dataclasses.is_dataclass(hint) and hint not in _TYPE_WORDS:
        return "a group of " + ", ".join(item.name for item in dataclasses.fields(hint))
    return _TYPE_WORDS[hint]


def refusal_of(error: argparse.ArgumentError) -> str:
    """The parser's message, which can be several lines of types, in the form of refuse: name, received, allowed."""
    message = str(error)
    names = list(flatten(Settings()))
    if found := re.match(r'Parser key "(?P<name>[^"]+)"', message):
        name = found["name"]
        if name == "config":
            return f"config: {message.splitlines()[0].split(': ', 1)[1]}; give the path of a YAML file"
        if name == "phases" and (problem := _problem_of_a_phase(message)):
            return problem
        # a union has one message per type; the last line has the whole value
        received = re.findall(r"(?:Got|Given) value: (.*)|Unable to load config '(.*)'", message) or [("", "")]
        value = received[-1][0] or received[-1][1]
        if "Namespace(" in value:  # how the parser writes the phases of a list that it has understood
            value = "a list that holds something else"
        return f"{name}: received {shown(value)}, allowed: {describe(name)}{close_value(name, value)}"
    if found := re.match(r"argument (?P<option>[^\s:]+): expected one argument", message):
        name = found["option"].partition("/")[0].lstrip("-")
        if name == "config":
            return f"config: received no value; {CONFIG_FILE}"
        return f"{name}: received no value, allowed: {describe(name)}"
    if found := re.match(r"argument (?P<option>[^\s:]+): ignored explicit argument (?P<value>.*)", message):
        return f"{found['option'].replace('/', ' and ')}: received {cut(found['value'])}, takes no value"
    if found := re.search(r"Group '(?P<group>[^']*)' does not accept option '(?P<option>[^']*)'", message):
        return _unknown(f"{found['group']}.{found['option']}", names)
    if found := re.search(r"Option '(?P<option>[^']*)' is not accepted", message):
        return _unknown(found["option"], names)
    if found := re.match(r"unrecognized arguments: (?P<word>\S*)", message):
        if not found["word"].strip("-") or not found["word"].startswith("-"):
            return f"{cut(found['word'])}: unexpected word on the command line; names of settings begin with --"
        return _unknown(found["word"].split("=")[0].lstrip("-"), names)
    if message.startswith(("Unexpected config:", "Key must be a string")):
        return f"config: {_middle(message)}; {CONFIG_FILE}"
    if found := re.match(r"Problems parsing config: (?P<why>.*)", message, re.DOTALL):
        return f"config: the file is not YAML: {_middle(found['why'])}"
    return f"config: {_middle(message)}; {CONFIG_FILE}"


def _middle(message: str) -> str:
    return one_line(UserError(" ".join(message.split())))


def close_value(name: str, value: Any) -> str:
    """The allowed word that was probably meant, or the setting of a group."""
    if name in GROUPS:
        for key, hint in typing.get_type_hints(_hint_of(name)).items():
            if typing.get_origin(hint) is Literal and value in typing.get_args(hint):
                return f"; did you mean {name}.{key} {value}?"
        return ""
    if listed := _as_list(name, value):
        return f"; did you mean '{listed}'?"
    words = {word.replace("_", ""): word for word in map(str, typing.get_args(_hint_of(name))) if word.isidentifier()}
    close = difflib.get_close_matches(re.sub(r"[\s_-]", "", str(value).lower())[:100], words, n=1, cutoff=0.8)
    return f"; did you mean {words[close[0]]}?" if close else ""


def _as_list(name: str, value: Any) -> str:
    """Values without brackets as the list that was probably meant: 0 as [0]; empty if that is no list of the type.

    Also empty if they are not plain words that a person would repeat: control characters, quotes, or very many.
    """
    hint = _hint_of(name)
    lists = [one for one in (hint, *typing.get_args(hint)) if typing.get_origin(one) is list]
    kinds = [kind for one in lists for kind in typing.get_args(one) if kind in (int, float, str)]
    items = [item for item in re.split(r"[\s,]+", str(value).strip("[](){} ,")) if item]
    plain = len(str(value)) <= LONGEST_LIST and all(re.fullmatch(r"[\w.+-]+", item) for item in items)
    if not kinds or not items or not plain:
        return ""
    try:
        for item in items:
            kinds[0](item)
    except ValueError:
        return ""
    return f"[{', '.join(items)}]"


def _hint_of(name: str) -> Any:
    owner: Any = Settings
    *groups, last = name.split(".")
    for group in groups:
        owner = PhaseSettings if group == "phases" else typing.get_type_hints(owner)[group]
    return typing.get_type_hints(owner).get(last)


def _problem_of_a_phase(message: str) -> str | None:
    """The parser's message about a single phase; None if it is about the whole list."""
    if found := re.search(r"Option '(?P<option>[^']*)' is not accepted", message):
        names = ", ".join(item.name for item in dataclasses.fields(PhaseSettings))
        return f"phases.{cut(found['option'])}: there is no such setting; a phase has {names}"
    if re.search("arguments are required: trainable", message):
        return f"phases.trainable: received nothing in one of the phases, allowed: {describe('phases.trainable')}"
    # the second key in the message is the phase's, and the first value after it belongs to that key
    pattern = r'Parser key "phases".*?Parser key "(?P<key>\w+)":.*?(?:Got|Given) value: (?P<value>[^\n]*)'
    if found := re.match(pattern, message, re.DOTALL):
        name = f"phases.{found['key']}"
        return f"{name}: received {shown(found['value'])}, allowed: {describe(name)}{close_value(name, found['value'])}"
    return None


def _similar(option: str, names: list[str]) -> list[str]:
    """The most similar names, and those that are almost as similar."""
    close = difflib.get_close_matches(option, names, n=3, cutoff=0.5)
    ratios = [difflib.SequenceMatcher(None, name, option).ratio() for name in close]
    return [name for name, ratio in zip(close, ratios, strict=True) if ratio > ratios[0] - 0.15]


def _with_word(option: str, names: list[str]) -> list[str]:
    """The settings of the same group that have the option's name as a word: horizontal_flip for flip."""
    group, _, last = option.rpartition(".")
    prefix = f"{group}." if group else ""
    rest = (name.removeprefix(prefix) for name in names if group and name.startswith(prefix))
    return [prefix + name for name in rest if last in name.split("_")]


def _unknown(option: str, names: list[str]) -> str:
    close = [name for name in names if name.endswith(f".{option}")] or _with_word(option, names)
    close = close or [OTHER_NAMES[option]] if option in OTHER_NAMES else close or _similar(option[:100], names)
    # initials: lr
    close += [name for name in names if option == "".join(word[:1] for word in name.split("_")) and name not in close]
    hint = f"did you mean {' or '.join(close)}?" if close else "--help lists all settings"
    return f"{cut(option)}: there is no such setting; {hint}"
