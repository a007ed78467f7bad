"""Reads Settings from the command line and YAML files, and reports whatever is wrong with them in one clear line."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import itertools
import math
import os
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace, set_loader, set_parsing_settings

from tandem.errors import UserError, exit_with, one_line, use_utf8
from tandem.protocol.addresses import resolve_address, strip
from tandem.protocol.backbones import Backbone, find_backbone, num_blocks
from tandem.protocol.data_sets import DATA_SETS
from tandem.protocol.environment import check_environment
from tandem.protocol.label_table import ROLES
from tandem.protocol.part_names import PARTS
from tandem.protocol.processes import check_shares, num_started_processes
from tandem.protocol.regimes import phases_of
from tandem.protocol.repeats import repeats_of
from tandem.protocol.search_space import combinations, read_space
from tandem.protocol.settings import (
    FOLD_SPLITS,
    AugmentationSettings,
    DataSettings,
    PhaseSettings,
    Settings,
    flatten,
    resolve,
    walk,
    with_values,
)
from tandem.protocol.yaml_text import check as check_yaml
from tandem.protocol.yaml_text import cut, read_text, shown
from tandem.protocol.yaml_text import load as load_yaml

Framework = Literal["torch", "keras"]

LONGEST_NAME = 250
"""Characters of a name that MLflow and Optuna keep in a database."""

_NAMES = ("tracking.experiment", "tracking.run_name", "sweep.study")
_PATHS = ("data.source", "data.cache_folder", "weights", "tracking.folder", "imagenet_classes")
_GROUPS = frozenset(name for name, hint in typing.get_type_hints(Settings).items() if dataclasses.is_dataclass(hint))

KERAS_BACKENDS = ("tensorflow", "jax", "torch")
"""Values of KERAS_BACKEND, the default first."""

WEIGHT_FILES = {"torch": (".pth", ".pt", ".safetensors"), "keras": (".h5",)}
"""Endings of weight files, by the framework that reads them."""


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
    try:
        values = parser.parse_args(argv)
    except argparse.ArgumentError as error:
        unknown = re.match(r"unrecognized arguments: --([\w.]+)", str(error))
        if unknown and unknown[1] in flatten(Settings()):
            raise UserError(
                f"{unknown[1]}: only the training scripts have this setting; --help lists those of this program"
            ) from None
        raise UserError(_refusal_of(error)) from None
    values = parser.instantiate(values)
    _check_nulls(vars(values.data), DataSettings, "data.")
    # the program's own source, if it has one, decides which of the settings are allowed
    settings = Settings(data=dataclasses.replace(values.data, source=values.get("source", values.data.source)))
    _check_limits(settings)
    _check_data(settings)
    return values


def read_settings(framework: Framework, argv: list[str] | None = None) -> Settings:
    """As parse_settings, but raises UserError for bad settings."""
    parser = _make_parser(framework)
    words = sys.argv[1:] if argv is None else argv
    _check_words(words)
    try:
        values = parser.parse_args(words)
    except argparse.ArgumentError as error:
        raise UserError(_refusal_of(error)) from None
    return _finish(parser, values, framework)


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
        raise UserError(_refusal_of(error)) from None
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


def check_settings(settings: Settings, framework: Framework) -> None:
    """Raises UserError for the first setting that is out of its limits, contradicts another, or is unsupported."""
    _check_texts(settings)
    _check_limits(settings)
    _check_data(settings)
    _check_regime(settings)
    _check_optimizer(settings)
    _check_features(settings)
    if settings.precision == "float16" and settings.device == "cpu":
        _refuse("precision", "float16", "float32 or bfloat16 with device cpu")
    if framework == "keras" and (backend := os.environ.get("KERAS_BACKEND", KERAS_BACKENDS[0])) not in KERAS_BACKENDS:
        raise UserError(f"KERAS_BACKEND: received {backend!r}, allowed: {', '.join(KERAS_BACKENDS)}")
    _check_devices(settings, framework)
    backbone = find_backbone(settings.backbone, framework)
    if settings.data.image_size < backbone.min_image_size:
        least = f"at least {backbone.min_image_size} for backbone {backbone.name}"
        _refuse("data.image_size", settings.data.image_size, least)
    for phase in settings.phases or []:
        if phase.blocks is not None and phase.blocks > num_blocks(backbone):
            _refuse("phases.blocks", phase.blocks, f"at most {num_blocks(backbone)}, which {backbone.name} has")
    _check_weights(settings.weights, framework, backbone)


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
            text = read_text(Path(value), "config", _CONFIG_FILE) if not value.startswith("{") else value
            if not [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]:
                raise UserError(f"config: {cut(value)} holds no settings; {_CONFIG_FILE}")
            check_yaml(text, "config")
        elif "\0" in value:
            _refuse(cut(name), value, "a text without NUL characters")
        elif name in _GROUPS and os.path.isfile(value):
            check_yaml(read_text(Path(value), name, _CONFIG_FILE), name)
        elif name in _GROUPS and not value.startswith("{"):
            _refuse_group(name, value)
        else:
            check_yaml(value, cut(name))


def _refuse_group(group: str, value: Any) -> NoReturn:
    _refuse(group, value, _describe(group) + _close_value(group, value))


def _load(text: str) -> Any:
    """The content of a YAML text, in which an empty group means its defaults."""
    value = load_yaml(text)
    if isinstance(value, dict):
        return {name: content for name, content in value.items() if content is not None or name not in _GROUPS}
    return value


def _check_texts(settings: Settings) -> None:
    for name, _, value in walk(settings):
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                _check_text(name, text)
    if settings.tracking.uri is not None:
        resolve_address(settings.tracking.uri, "tracking")
    if settings.sweep.storage is not None:
        resolve_address(settings.sweep.storage, "study")


def _check_text(name: str, text: str) -> None:
    if "\0" in text:
        _refuse(name, text, "a text without NUL characters")
    if not strip(text):
        _refuse(name, text, "a text that is not empty, or leave it out")
    if found := re.search(r"\$\{\w+\}", text):
        _refuse(name, text, f"a text without {found[0]}: variables are not replaced here; write the value itself")
    if name in _NAMES and (len(text) > LONGEST_NAME or not text.isprintable()):
        _refuse(name, text, f"at most {LONGEST_NAME} printable characters")
    if name in _PATHS and text.startswith("~"):
        try:
            Path(text).expanduser()
        except RuntimeError:
            allowed = "a path without ~, since this user has no home folder; or set the environment variable HOME"
            _refuse(name, text, allowed)


def _flat_names(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Namespace):
            yield from _flat_names(vars(value), f"{prefix}{name}.")
        else:
            yield prefix + name


def _check_limits(settings: Settings) -> None:
    of_phases = (walk(phase, "phases.") for phase in settings.phases or [])
    for name, item, value in itertools.chain(walk(settings), *of_phases):
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float) and not _within(number, item.metadata):
                _refuse(name, value, _describe(name))


def _check_data(settings: Settings) -> None:
    data, augmentation = settings.data, settings.augmentation
    fractions = data.fractions
    if fractions is not None and (len(fractions) != 3 or abs(sum(fractions) - 1) > 1e-6 or min(fractions) <= 0):
        _refuse("data.fractions", fractions, "three numbers above 0 (train, val, test) that add up to 1")
    if data.fold is not None and data.split not in FOLD_SPLITS:
        with_it = " and ".join(FOLD_SPLITS)
        _refuse("data.fold", data.fold, f"null with data.split {data.split}; data.split {with_it} take it")
    if data.fold is not None and data.fold >= data.folds:
        _refuse("data.fold", data.fold, f"0 to {data.folds - 1}, since data.folds is {data.folds}")
    if data.classes is not None and (len(data.classes) < 2 or len(set(data.classes)) < len(data.classes)):
        _refuse("data.classes", data.classes, "two or more different class names")
    if data.parts is not None and not ("train" in data.parts and set(data.parts) <= set(PARTS)):
        _refuse("data.parts", data.parts, "a mapping with the key train, and perhaps val and test")
    if data.parts is not None and len(set(data.parts.values())) < len(data.parts):
        _refuse("data.parts", data.parts, "a different name for each part")
    if data.columns is not None and not set(data.columns) <= set(ROLES):
        _refuse("data.columns", data.columns, f"a mapping with some of the keys {', '.join(ROLES)}")
    for name in ("parts", "labels", "columns"):
        if getattr(data, name) is not None and data.source in DATA_SETS:
            _refuse(f"data.{name}", getattr(data, name), f"null with data.source {data.source}, which has its own")
    if augmentation.crop_padding >= data.image_size:
        _refuse("augmentation.crop_padding", augmentation.crop_padding, f"less than {data.image_size}")
    shares = augmentation.random_resized_crop
    if shares is not None and (len(shares) != 2 or shares[0] > shares[1]):
        _refuse("augmentation.random_resized_crop", shares, "two numbers, the smallest and the largest share")


def _check_regime(settings: Settings) -> None:
    regime = settings.regime
    if regime == "gradual" and not settings.phases:
        _refuse("phases", settings.phases, f"with regime gradual one or more, like [{_EXAMPLES[PhaseSettings]}]")
    if regime != "gradual" and settings.phases is not None:
        _refuse("phases", flatten(settings)["phases"], f"null with regime {regime}; regime gradual takes phases")
    for phase in settings.phases or []:
        if phase.trainable == "last" and phase.blocks is None:
            _refuse("phases.blocks", None, "with trainable last a whole number, at least 1")
        if phase.trainable != "last" and phase.blocks is not None:
            _refuse("phases.blocks", phase.blocks, f"null with trainable {phase.trainable}; trainable last takes it")
    if settings.seeds is not None and (not settings.seeds or len(set(settings.seeds)) < len(settings.seeds)):
        _refuse("seeds", settings.seeds, "one or more different whole numbers")
    if regime == "off_the_shelf":
        if settings.weights == "random" or settings.weights.startswith("runs:"):
            _refuse(
                "weights", settings.weights, "imagenet or a file, with regime off_the_shelf, which needs their head"
            )
    elif settings.imagenet_classes is not None:
        _refuse("imagenet_classes", settings.imagenet_classes, f"null with regime {regime}; off_the_shelf takes it")


def _check_optimizer(settings: Settings) -> None:
    optimizer, schedule, phases = settings.optimizer, settings.schedule, phases_of(settings)
    if optimizer.weight_decay and optimizer.name == "adam":
        allowed = "0 with optimizer.name adam; optimizer.name adamw takes it"
        _refuse("optimizer.weight_decay", optimizer.weight_decay, allowed)
    if optimizer.nesterov and optimizer.name != "sgd":
        _refuse("optimizer.nesterov", True, f"false with optimizer.name {optimizer.name}; optimizer.name sgd takes it")
    if optimizer.nesterov and optimizer.momentum == 0:
        _refuse("optimizer.nesterov", True, "false with optimizer.momentum 0")
    if optimizer.layer_decay != 1 and all(phase.trainable == "head" for phase in phases):
        allowed = f"1 with regime {settings.regime}, which does not train the backbone"
        _refuse("optimizer.layer_decay", optimizer.layer_decay, allowed)
    if schedule.warmup_epochs and schedule.name == "plateau":
        allowed = "0 with schedule.name plateau; schedule.name none or cosine takes it"
        _refuse("schedule.warmup_epochs", schedule.warmup_epochs, allowed)
    for phase in phases:
        where = f"phase {phase.number} of regime {settings.regime}"
        if schedule.warmup_epochs >= phase.max_epochs:
            allowed = f"less than the {phase.max_epochs} epochs of {where}"
            _refuse("schedule.warmup_epochs", schedule.warmup_epochs, allowed)
        if schedule.name != "none" and schedule.min_learning_rate > phase.learning_rate:
            allowed = f"at most {phase.learning_rate:g}, the learning rate of {where}"
            _refuse("schedule.min_learning_rate", schedule.min_learning_rate, allowed)


def _check_search(settings: Settings, framework: Framework) -> None:
    """Checks a sweep or a range test: there is something to train, and every value of the space is allowed."""
    num_trials = settings.sweep.num_trials
    if settings.find_learning_rate and num_trials is not None:
        _refuse("find_learning_rate", True, "false with sweep.num_trials; do one after the other")
    name, received = ("sweep.num_trials", num_trials) if num_trials is not None else ("find_learning_rate", True)
    if num_trials is None and not settings.find_learning_rate:
        return
    without = "null" if num_trials is not None else "false"
    if not phases_of(settings):
        _refuse(name, received, f"{without} with regime {settings.regime}, which trains nothing")
    if repeats_of(settings):
        _refuse(name, received, f"{without} with seeds or all folds; give one seed and one data.fold")
    if settings.num_devices != 1:
        _refuse("num_devices", settings.num_devices, f"1 with {name}; several processes share a sweep instead")
    if num_trials is None:
        return
    space = read_space(settings)
    if settings.regime == "scratch" and any(dimension.name == "regime" for dimension in space):
        _refuse("regime", "scratch", "one with pretrained weights where sweep.space varies it")
    parser = _make_parser(framework)
    # the parser checks types: of all first values at once, then of all second ones
    for index in range(max(len(dimension.extremes) for dimension in space)):
        values = {dimension.name: dimension.extremes[index] for dimension in space if index < len(dimension.extremes)}
        try:
            parser.parse_object(values)
        except argparse.ArgumentError as error:
            raise UserError(f"sweep.space.{_refusal_of(error)}") from None
    for values in combinations(space):
        try:
            check_settings(with_values(settings, values), framework)
            if not phases_of(with_values(settings, values)):
                raise UserError("nothing is trained, so trials cannot be judged")
        except UserError as error:
            words = ", ".join(f"{name} {value!r}" for name, value in values.items())
            raise UserError(f"sweep.space: {words}: {error}") from None


def _check_features(settings: Settings) -> None:
    views = settings.cache_views
    if views is None:
        return
    if settings.augmentation == AugmentationSettings():
        _refuse("cache_views", views, "null without augmentation, since each image has one view")
    if not settings.cache_features:
        _refuse("cache_views", views, "null with cache_features false")
    if settings.num_devices != 1:
        _refuse("cache_views", views, "null unless num_devices is 1, since features are cached on one device only")
    if all(phase.trainable != "head" for phase in phases_of(settings)):
        _refuse("cache_views", views, f"null with regime {settings.regime}, in which no phase trains only the head")


def _check_devices(settings: Settings, framework: Framework) -> None:
    num_devices = settings.num_devices
    # processes of torchrun or srun share a sweep, each with its own trials
    num_started = num_started_processes() if settings.sweep.num_trials is None else 1
    backend = os.environ.get("KERAS_BACKEND", KERAS_BACKENDS[0])
    if framework == "keras" and num_started > 1:
        allowed = f"one process of train_keras.py, which uses all devices; torchrun or srun started {num_started}"
        _refuse("num_devices", num_devices, allowed)
    if framework == "keras" and num_devices != 1 and backend != "jax":
        _refuse("num_devices", num_devices, f"1 with KERAS_BACKEND {backend}; KERAS_BACKEND=jax takes more")
    if num_started > 1 and num_devices not in ("auto", num_started):
        _refuse("num_devices", num_devices, f"{num_started}, the number that torchrun or srun started, or auto")
    if num_started > 1 and repeats_of(settings):
        name, value = ("data.fold", None) if settings.seeds is None else ("seeds", settings.seeds)
        _refuse(name, value, "a single seed and fold if torchrun or srun starts the processes of one run")
    if framework == "torch" and num_devices != 1 and settings.acceleration.compile:
        _refuse("acceleration.compile", True, "null or false unless num_devices is 1")
    if settings.regime == "off_the_shelf" and num_devices != "auto" and num_devices > 1:
        _refuse("num_devices", num_devices, "1 with regime off_the_shelf, which trains nothing")
    if num_devices != "auto":
        check_shares(settings.batch_size, num_devices)


def _check_nulls(values: Any, owner: Any, prefix: str = "") -> None:
    # jsonargparse accepts null for every setting of a file, and any value for a group
    for name, hint in typing.get_type_hints(owner).items():
        if dataclasses.is_dataclass(hint):
            if not isinstance(values[name], Namespace):
                _refuse_group(prefix + name, values[name])
            _check_nulls(values[name], hint, f"{prefix}{name}.")
        elif values[name] is None and types.NoneType not in typing.get_args(hint):
            _refuse(prefix + name, None, _describe(prefix + name))


def _check_weights(weights: str, framework: Framework, backbone: Backbone) -> None:
    if weights in ("imagenet", "random") or re.fullmatch(r"runs:/[0-9a-f]{32}", weights):
        return
    endings = WEIGHT_FILES[framework]
    if backbone.builds[framework].package == "tandem":
        endings += (".safetensors",)  # of torch, converted to Keras
    allowed = f"imagenet, random, runs:/<run id of 32 hex digits>, or a file that ends in {', '.join(endings)}"
    if weights.startswith("runs:"):
        _refuse("weights", weights, allowed)
    path = Path(weights).expanduser()
    if not os.path.isfile(path):
        _refuse("weights", weights, f"{allowed}; there is no such file")
    if path.suffix not in endings:
        _refuse("weights", weights, f"{allowed} for train_{framework}.py")


@functools.cache
def _make_parser(framework: Framework) -> ArgumentParser:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    set_loader("yaml", _load, exceptions=(yaml.YAMLError, ValueError))
    parser = ArgumentParser(
        prog=f"train_{framework}.py",
        description="Trains and evaluates one classifier and records it in MLflow. All options can also be given in a "
        "YAML file with --config; one file works for both train_torch.py and train_keras.py.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file of settings; options after it override it.")
    parser.add_class_arguments(Settings, None)
    return parser


def _within(number: float, limits: Any) -> bool:
    try:
        number = float(number) if abs(number) > 2**63 else number
    except OverflowError:
        return False
    # NaN is outside of any limit
    return (
        math.isfinite(number)
        and ("above" not in limits or number > limits["above"])
        and ("at_least" not in limits or number >= limits["at_least"])
        and ("at_most" not in limits or number <= limits["at_most"])
    )


def _refuse(name: str, received: Any, allowed: str) -> NoReturn:
    raise UserError(f"{name}: received {shown(received)}, allowed: {allowed}")


def _describe(name: str) -> str:
    """The allowed values of a setting in words, from its type and its limits."""
    owner: Any = Settings
    *groups, last = name.split(".")
    for group in groups:
        owner = PhaseSettings if group == "phases" else typing.get_type_hints(owner)[group]
    hints = typing.get_type_hints(owner)
    if last not in hints:
        return "a setting of this name"
    words = _type_in_words(hints[last])
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
        return f"a list of {_type_in_words(arguments[0]).removeprefix('a ')}s, like [{_EXAMPLES[arguments[0]]}]"
    if dataclasses.is_dataclass(hint) and hint not in _TYPE_WORDS:
        return "a group of " + ", ".join(item.name for item in dataclasses.fields(hint))
    return _TYPE_WORDS[hint]


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
    PhaseSettings: "a phase",
}
_CONFIG_FILE = "give the path of a YAML file of settings by name, such as `regime: frozen`"
_EXAMPLES = {
    int: "256, 128",
    float: "0.7, 0.1, 0.2",
    str: '"cat", "dog"',
    PhaseSettings: "{trainable: head}, {trainable: last, blocks: 2}",
}


def _refusal_of(error: argparse.ArgumentError) -> str:
    """The parser's message, which can be several lines of types, in the form of _refuse: name, received, allowed."""
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
        return f"{name}: received {shown(value)}, allowed: {_describe(name)}{_close_value(name, value)}"
    if found := re.search(r"Group '(?P<group>[^']*)' does not accept option '(?P<option>[^']*)'", message):
        return _unknown(f"{found['group']}.{found['option']}", names)
    if found := re.search(r"Option '(?P<option>[^']*)' is not accepted", message):
        return _unknown(found["option"], names)
    if found := re.match(r"unrecognized arguments: (?P<word>\S*)", message):
        if not found["word"].startswith("-"):
            return f"{cut(found['word'])}: unexpected word on the command line; names of settings begin with --"
        return _unknown(found["word"].split("=")[0].lstrip("-"), names)
    if message.startswith(("Unexpected config:", "Key must be a string")):
        return f"config: {_middle(message)}; {_CONFIG_FILE}"
    if found := re.match(r"Problems parsing config: (?P<why>.*)", message, re.DOTALL):
        return f"config: the file is not YAML: {_middle(found['why'])}"
    return f"config: {_middle(message)}; {_CONFIG_FILE}"


def _middle(message: str) -> str:
    return one_line(UserError(" ".join(message.split())))


def _close_value(name: str, value: Any) -> str:
    """The allowed word that was probably meant, or the setting of a group."""
    if name in _GROUPS:
        for key, hint in typing.get_type_hints(_hint_of(name)).items():
            if typing.get_origin(hint) is Literal and value in typing.get_args(hint):
                return f"; did you mean {name}.{key} {value}?"
        return ""
    words = {word.replace("_", ""): word for word in map(str, typing.get_args(_hint_of(name))) if word.isidentifier()}
    close = difflib.get_close_matches(re.sub(r"[\s_-]", "", str(value).lower())[:100], words, n=1, cutoff=0.8)
    return f"; did you mean {words[close[0]]}?" if close else ""


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
        return f"phases.trainable: received nothing in one of the phases, allowed: {_describe('phases.trainable')}"
    # the second key in the message is the phase's, and the first value after it belongs to that key
    pattern = r'Parser key "phases".*?Parser key "(?P<key>\w+)":.*?(?:Got|Given) value: (?P<value>[^\n]*)'
    if found := re.match(pattern, message, re.DOTALL):
        name = f"phases.{found['key']}"
        return (
            f"{name}: received {shown(found['value'])}, allowed: {_describe(name)}{_close_value(name, found['value'])}"
        )
    return None


def _similar(option: str, names: list[str]) -> list[str]:
    """The most similar names, and those that are almost as similar."""
    close = difflib.get_close_matches(option, names, n=3, cutoff=0.5)
    ratios = [difflib.SequenceMatcher(None, name, option).ratio() for name in close]
    return [name for name, ratio in zip(close, ratios, strict=True) if ratio > ratios[0] - 0.15]


def _unknown(option: str, names: list[str]) -> str:
    close = [name for name in names if name.endswith(f".{option}")] or _similar(option[:100], names)
    # initials: lr
    close += [name for name in names if option == "".join(word[:1] for word in name.split("_")) and name not in close]
    hint = f"did you mean {' or '.join(close)}?" if close else "--help lists all settings"
    return f"{cut(option)}: there is no such setting; {hint}"
