"""Grid files: the cells of an experiment, each with the settings of one run.

    experiment: birds
    settings:
      data: {source: birds300}
      max_epochs: 100
    cells:
      - frameworks: [torch]
        vary: {backbone: [resnet50], regime: [scratch, two_stage, finetune], seed: [0]}
        settings: {batch_size: 128, learning_rate: 1.0e-4}

`settings` are settings of the training scripts, nested as in their configuration files; those at the top hold for all
cells. Each block of `cells` stands for all combinations of the values in `vary`, under dotted names like data.source,
in each of its frameworks; its own `settings` override those at the top. A block with `optional: NAME` counts only if
its name is asked for with `--with NAME`. `required` may list settings that only the user can know, nested like the
others, each with a sentence that says what to give.
"""

from __future__ import annotations

import datetime
import itertools
import json
import re
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, Literal, NoReturn

import yaml

from tandem.errors import UserError
from tandem.protocol.frameworks import Framework
from tandem.protocol.parser import given_settings, read_settings
from tandem.protocol.regimes import num_cached_views, phases_of
from tandem.protocol.settings import FIELDS, FOLD_SPLITS, Settings, flatten
from tandem.protocol.settings_hash import settings_hash
from tandem.protocol.yaml_text import read_file

FRAMEWORKS: tuple[Framework, ...] = typing.get_args(Framework)

# A small budget is for a machine without a GPU: it shows that a grid runs, but says nothing about the networks.
SMALL_IMAGES_PER_CLASS = 10
SMALL_MAX_EPOCHS = 1
SMALL_BATCH_SIZE = 16

# Cost settings that choose the hardware of a run.
_OF_THE_MACHINE = ("device", "threads", "num_devices")


@dataclass(frozen=True, kw_only=True)
class GridCell:
    """One run of a grid."""

    number: int
    """Counted from 1 in the order of the file."""
    name: str
    """Backbone, regime, framework, and the other values that differ between cells, separated by spaces."""
    framework: Framework
    options: tuple[str, ...]
    """Arguments of train_torch.py or train_keras.py."""
    settings: Settings
    """Settings that the options give."""
    costs: Mapping[str, Any] = field(default_factory=dict)
    """Requested values of settings that affect cost only, by dotted name. A finished run counts as this cell's only if
    it had the same values; settings that are not requested may differ."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Cells of a grid file."""

    cells: tuple[GridCell, ...]
    missing: Mapping[str, str]
    """Required settings that the user has not given, each with a sentence that says what to give."""
    left_out: tuple[str, ...] = ()
    """Names of the optional blocks that were not asked for."""


def read_grid(
    path: Path,
    *,
    frameworks: Sequence[Framework] | None = None,
    optional: Collection[str] = (),
    budget: Literal["full", "small"] = "full",
    keep_models: bool = False,
    tracking_uri: str | None = None,
    more_options: Sequence[str] = (),
) -> Grid:
    """Reads the cells of a grid file.

    Args:
        path: The file.
        frameworks: Frameworks for all cells, in place of those in the file.
        optional: Names of the optional blocks whose cells are wanted as well.
        budget: `small` adds the changes of small_budget to each cell.
        keep_models: Let each run log its model and its weights.
        tracking_uri: The tracking URI of the runs; None as in the settings.
        more_options: Further arguments of the training scripts, which override everything else.

    Raises:
        UserError: The file is not a grid file, two of its cells are the same, or a cell has an invalid setting.
    """
    content = _read_content(path)
    blocks = [_read_block(block, f"{path}: block {number}") for number, block in enumerate(content["cells"], start=1)]
    if not blocks:
        _refuse(f"{path}: cells", [], "a list of one or more blocks")
    names = list(dict.fromkeys(block.optional for block in blocks if block.optional))
    if unknown := [name for name in optional if name not in names]:
        _refuse("--with", " ".join(unknown), f"the optional blocks of {path}: {', '.join(names) or 'there are none'}")
    left_out = tuple(name for name in names if name not in optional)
    blocks = [block for block in blocks if block.optional not in left_out]
    required = {name: str(words) for name, words in _flatten_mapping(content.get("required", {})).items()}
    shared = _shared_settings(content, required, keep_models, tracking_uri, more_options)
    points = [point for block in blocks for point in _points(block, shared, frameworks)]
    name_of = _name_cells(blocks, points)
    cells: dict[tuple[Framework, str], GridCell] = {}
    for framework, values in points:
        number = len(cells) + 1
        where = f"{path}: cell {number} ({name_of(framework, values)})"
        try:
            options, settings = _complete(framework, values, budget, more_options)
        except UserError as error:
            _refuse_placeholder(path, values, required, error)
            raise UserError(f"{where}: {error}") from None
        # cells that differ only in settings that affect cost are the same cell
        identity = framework, settings_hash(settings)
        same = cells.get(identity)
        if same and frameworks is None:
            raise UserError(
                f"{where} is the same as cell {same.number}: let the values in vary differ in more than the cost of a "
                "run, and do not give an option after -- that the file varies"
            )
        if not same:  # with `frameworks`, a file that lists both frameworks gives each cell twice
            cells[identity] = GridCell(
                number=number,
                name=name_of(framework, flatten(settings)),
                framework=framework,
                options=options,
                settings=settings,
                costs=_requested_costs(framework, settings, values, more_options),
            )
    missing = {
        name: words
        for name, words in required.items()
        if any(flatten(cell.settings).get(name) == _placeholder(name) for cell in cells.values())
    }
    return Grid(cells=tuple(cells.values()), missing=missing, left_out=left_out)


def _shared_settings(
    content: Mapping[str, Any],
    required: Mapping[str, str],
    keep_models: bool,
    tracking_uri: str | None,
    more_options: Sequence[str],
) -> dict[str, Any]:
    """Settings of all cells by dotted name, with placeholders for required settings that are not given."""
    shared: dict[str, Any] = {"tracking.experiment": content["experiment"]}
    if not keep_models:
        shared |= {"tracking.log_model": False, "tracking.log_weights": False}
    given = {word.removeprefix("--").partition("=")[0] for word in more_options if word.startswith("--")}
    shared |= {name: _placeholder(name) for name in required if name not in given}
    shared |= _flatten_mapping(content.get("settings", {}))
    if tracking_uri is not None:
        shared["tracking.uri"] = tracking_uri
    return shared


def _complete(
    framework: Framework, values: Mapping[str, Any], budget: Literal["full", "small"], more_options: Sequence[str]
) -> tuple[tuple[str, ...], Settings]:
    """Arguments of a cell's script, and the settings that they give.

    Raises:
        UserError: A setting is invalid.
    """
    if budget == "small":
        values = {**values, **small_budget(read_settings(framework, [*_as_options(values), *more_options]))}
    options = (*_as_options(values), *more_options)
    settings = read_settings(framework, list(options))
    _check_single_run(settings)
    return options, settings


def _refuse_placeholder(path: Path, values: Mapping[str, Any], required: Mapping[str, str], error: UserError) -> None:
    """Replaces an error about the placeholder of a required setting by one that says what to give."""
    for name, words in required.items():
        placeholder = _placeholder(name)
        if values.get(name) == placeholder and str(error).startswith(f"{name}: received {placeholder!r}"):
            raise not_given(path, name, words) from None


def _requested_costs(
    framework: Framework, settings: Settings, in_file: Collection[str], more_options: Sequence[str]
) -> dict[str, Any]:
    """Cost settings that the file or the options after -- request; `auto` and null request nothing.

    Options after -- that choose hardware describe the current machine, and another machine may continue the grid; they
    count only in the file. Caching features counts only where a phase of the cell could do it.
    """
    after_dashes = given_settings(framework, list(more_options))
    flat = flatten(settings)
    if not any(num_cached_views(phase, replace(settings, cache_features=True)) for phase in phases_of(settings)):
        flat["cache_features"] = None
    return {
        name: flat[name]
        for name, item in FIELDS.items()
        if item.metadata["affects"] == "cost"
        and (name in in_file or name in after_dashes)
        and not (name in after_dashes and name in _OF_THE_MACHINE)
        and flat[name] not in (None, "auto")
    }


def not_given(path: Path, name: str, words: str) -> UserError:
    """Error for a required setting that is missing.

    Args:
        path: The grid file.
        name: The dotted name of the setting.
        words: The file's sentence that says what to give.
    """
    return UserError(f"{path}: {name} is not given: {words}; add to the command: -- --{name} ...")


def small_budget(settings: Settings) -> dict[str, Any]:
    """Changes of a small budget to a run's settings, by dotted name.

    Fewer images and epochs, batches that so few images can fill, and random weights if ImageNet's cannot be
    downloaded. The tag of the budget keeps such runs out of the tables of full runs.
    """
    images = settings.data.images_per_class
    changes: dict[str, Any] = {
        "data.images_per_class": min(images or SMALL_IMAGES_PER_CLASS, SMALL_IMAGES_PER_CLASS),
        "batch_size": min(settings.batch_size, SMALL_BATCH_SIZE),
        "max_epochs": SMALL_MAX_EPOCHS,
        "allow_random_weights": True,
        "tracking.budget": "small",
        "tracking.data_report": False,
    }
    if settings.schedule.warmup_epochs:
        changes["schedule.warmup_epochs"] = 0  # one epoch is too short for a warm-up
    if settings.phases is not None:
        changes["phases"] = [
            {
                name: value
                for name, value in {**flatten(phase), "max_epochs": SMALL_MAX_EPOCHS}.items()
                if value is not None
            }
            for phase in settings.phases
        ]
    return changes


def _check_single_run(settings: Settings) -> None:
    # such a cell would be a parent run, which does not tell whether all its children have finished
    if settings.seeds is not None:
        raise UserError(f"seeds: received {settings.seeds}, but a cell is a single run; vary seed in the grid file")
    if settings.data.split in FOLD_SPLITS and settings.data.fold is None:
        raise UserError("data.fold: received None, but a cell is a single run; vary data.fold in the grid file")
    # comparisons do not read sweeps and range tests, so such a cell would never be found finished
    if settings.sweep.num_trials is not None:
        received = settings.sweep.num_trials
        raise UserError(f"sweep.num_trials: received {received}, allowed in a grid: null; search with the scripts")
    if settings.find_learning_rate:
        raise UserError("find_learning_rate: received True, allowed in a grid: false; run it with the scripts")


def _flatten_mapping(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one mapping with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat |= _flatten_mapping(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


@dataclass(frozen=True, kw_only=True)
class _Block:
    """One element of `cells`."""

    frameworks: tuple[Framework, ...]
    optional: str | None
    """Name under which the block is asked for; None if its cells always count."""
    vary: Mapping[str, list[Any]]
    """Lists of values by dotted name."""
    settings: Mapping[str, Any]
    """Values by dotted name."""


def _read_block(content: Any, where: str) -> _Block:
    if not isinstance(content, dict):
        _refuse(where, content, "a mapping with frameworks, and vary or settings or both")
    possible: dict[str, type] = {"vary": dict, "settings": dict, "optional": str}
    _check_keys(content, where, needed={"frameworks": list}, possible=possible)
    frameworks = content["frameworks"]
    if not frameworks or any(name not in FRAMEWORKS for name in frameworks):
        _refuse(f"{where}: frameworks", frameworks, f"a list of {' and '.join(FRAMEWORKS)}")
    vary = {str(name): values for name, values in content.get("vary", {}).items()}
    settings = _flatten_mapping(content.get("settings", {}))
    for name, values in vary.items():
        if not isinstance(values, list) or not values:
            _refuse(f"{where}: vary: {name}", values, "a list of one or more values")
        if name in settings:
            raise UserError(f"{where}: {name} is in both vary and settings: remove it from one of them")
    return _Block(frameworks=tuple(frameworks), optional=content.get("optional"), vary=vary, settings=settings)


def _points(
    block: _Block, shared: Mapping[str, Any], frameworks: Sequence[Framework] | None
) -> Iterator[tuple[Framework, dict[str, Any]]]:
    """Framework and settings by dotted name of each cell; varied settings come first, frameworks vary fastest."""
    for combination in itertools.product(*block.vary.values()):
        point = dict(zip(block.vary, combination, strict=True))
        for framework in frameworks or block.frameworks:
            yield framework, point | {**shared, **block.settings} | point


def _read_content(path: Path) -> Any:
    try:
        content = read_file(path, "grid file", "give a file such as configs/birds.yaml", yaml.SafeLoader)
    except UserError as error:
        problem = str(error).removeprefix("grid file.").removeprefix("grid file: ")
        raise UserError(f"{path}: {problem}") from None
    if not isinstance(content, dict):
        _refuse(str(path), content, "a mapping with experiment and cells, such as configs/birds.yaml")
    _check_keys(
        content, str(path), needed={"experiment": str, "cells": list}, possible={"settings": dict, "required": dict}
    )
    return content


_WORDS_OF_TYPES: dict[type, str] = {str: "a text", list: "a list", dict: "a mapping"}


def _check_keys(content: Mapping[Any, Any], where: str, *, needed: dict[str, type], possible: dict[str, type]) -> None:
    allowed = needed | possible
    for name in content:
        if name not in allowed:
            raise UserError(f"{where}: unknown key {name!r}, allowed: {', '.join(allowed)}")
    for name, kind in allowed.items():
        if name in needed and name not in content:
            raise UserError(f"{where}: {name} is missing; expected {_WORDS_OF_TYPES[kind]}")
        if name in content and not isinstance(content[name], kind):
            _refuse(f"{where}: {name}", content[name], _WORDS_OF_TYPES[kind])


def _refuse(where: str, received: Any, allowed: str) -> NoReturn:
    raise UserError(f"{where}: received {received!r}, allowed: {allowed}")


def _placeholder(name: str) -> str:
    """Text in the commands of a dry run for a setting that is not given."""
    return re.sub(r"\W", "_", name).upper()


def _as_options(values: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in values.items():
        try:
            words += [f"--{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)]
        except TypeError:  # YAML has kinds of values that JSON lacks, such as 2024-05-01
            received = str(value) if isinstance(value, datetime.date) else repr(value)
            raise UserError(
                f"{name}: received {received}, allowed: texts, numbers, true, false, null, lists and mappings of them; "
                "quote a text that looks like a date"
            ) from None
    return words


def _name_cells(
    blocks: Sequence[_Block], points: Sequence[tuple[Framework, Mapping[str, Any]]]
) -> Callable[[Framework, Mapping[str, Any]], str]:
    """Function that names a cell by its framework and its settings by dotted name."""
    varied = _names_that_differ(blocks)
    sources = {str(values["data.source"]) for _, values in points if "data.source" in values}

    def text_of(name: str, value: Any) -> str:
        text = str(value)
        if name != "data.source":
            return f"{name.rpartition('.')[2]}-{text}"
        # a folder with images goes by the last part of its path, unless another folder has the same
        last = PurePath(text).name
        return last if sum(PurePath(other).name == last for other in sources) <= 1 else text

    def name_of(framework: Framework, values: Mapping[str, Any]) -> str:
        words = [str(values.get(name, getattr(Settings(), name))) for name in ("backbone", "regime")]
        words += [framework, *(text_of(name, values[name]) for name in varied if name in values)]
        return " ".join(re.sub(r"\s+", "", word) for word in words)

    return name_of


def _names_that_differ(blocks: Sequence[_Block]) -> list[str]:
    """Settings with several values in a grid, except backbone and regime, which are in each cell's name anyway."""
    values: dict[str, set[str]] = {}
    for block in blocks:
        for name, several in block.vary.items():
            values.setdefault(name, set()).update(map(str, several))
    return [name for name, found in values.items() if len(found) > 1 and name not in ("backbone", "regime")]
