"""A grid file: the cells of an experiment, each the settings of one run.

    experiment: birds
    settings:
      data: {source: birds300}
      max_epochs: 100
    cells:
      - frameworks: [torch]
        vary: {backbone: [resnet50], regime: [scratch, two_stage, finetune], seed: [0]}
        settings: {batch_size: 128, learning_rate: 1.0e-4}

`settings` are those of the training scripts, nested as in their files; those at the top hold for all cells. Each block
of `cells` stands for the product of the values that it varies, under dotted names like data.source, in each of its
frameworks; its own `settings` replace those at the top. `required` may name settings that nobody but the user can know,
nested like the others, each with a sentence that says what to give.
"""

from __future__ import annotations

import datetime
import itertools
import json
import re
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Literal, NoReturn

import yaml

from tandem.errors import UserError
from tandem.protocol.parser import Framework, given_settings, read_settings
from tandem.protocol.settings import FIELDS, Settings, flatten, settings_hash

FRAMEWORKS: tuple[Framework, ...] = typing.get_args(Framework)

# A small budget is for a machine without a GPU: it shows that a grid runs, and nothing about the networks.
SMALL_IMAGES_PER_CLASS = 10
SMALL_MAX_EPOCHS = 1
SMALL_BATCH_SIZE = 16


# Cost settings that say what part of a machine computes.
_OF_THE_MACHINE = ("device", "threads", "num_devices")


@dataclass(frozen=True, kw_only=True)
class GridCell:
    """One run of a grid."""

    number: int
    """Counted from 1 in the order of the file."""
    name: str
    """Backbone, regime, framework, and what else differs between the cells: words with spaces between them."""
    framework: Framework
    options: tuple[str, ...]
    """The words after train_torch.py or train_keras.py on the command line."""
    settings: Settings
    """What the options mean."""
    costs: Mapping[str, Any] = field(default_factory=dict)
    """Settings that affect cost alone and that the grid asks for, by dotted name: a finished run counts as this cell's
    only if it had the same. Where the grid leaves them open, any run counts."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The cells of a grid file."""

    cells: tuple[GridCell, ...]
    missing: Mapping[str, str]
    """Settings that the user has not given although the file requires them, with what to give."""


def read_grid(
    path: Path,
    *,
    frameworks: Sequence[Framework] | None = None,
    budget: Literal["full", "small"] = "full",
    keep_models: bool = False,
    tracking_uri: str | None = None,
    more_options: Sequence[str] = (),
) -> Grid:
    """The cells that a grid file stands for.

    Args:
        path: Of the file.
        frameworks: Run each cell in these instead of those that the file names.
        budget: `small` adds the options of small_budget to each cell.
        keep_models: Let each run log its model and its weights.
        tracking_uri: Where the runs are recorded; None as in the settings.
        more_options: Words of the training scripts' command line, which override everything else.

    Raises:
        UserError: The file is no grid file, two of its cells are the same, or a setting of one is wrong.
    """
    content = _read_yaml(path)
    _check_keys(
        content, str(path), needed={"experiment": str, "cells": list}, possible={"settings": dict, "required": dict}
    )
    blocks = [_read_block(block, f"{path}: block {number}") for number, block in enumerate(content["cells"], start=1)]
    if not blocks:
        _refuse(f"{path}: cells", [], "a list of one or more blocks")
    required = {name: str(words) for name, words in _flatten_mapping(content.get("required", {})).items()}
    for_all: dict[str, Any] = {"tracking.experiment": content["experiment"]}
    if not keep_models:
        for_all |= {"tracking.log_model": False, "tracking.log_weights": False}
    given = {word.removeprefix("--").partition("=")[0] for word in more_options if word.startswith("--")}
    for_all |= {name: _placeholder(name) for name in required if name not in given}
    for_all |= _flatten_mapping(content.get("settings", {}))
    if tracking_uri is not None:
        for_all["tracking.uri"] = tracking_uri

    points = [point for block in blocks for point in _points(block, for_all, frameworks)]
    varied = _names_that_differ(blocks)
    sources = {str(values["data.source"]) for _, values in points if "data.source" in values}
    cells: dict[tuple[Framework, str], GridCell] = {}
    for framework, values in points:
        number = len(cells) + 1
        where = f"{path}: cell {number} ({_name_of(framework, values, varied, sources)})"
        try:
            if budget == "small":
                values |= small_budget(read_settings(framework, [*_as_options(values), *more_options]))
            options = (*_as_options(values), *more_options)
            settings = read_settings(framework, list(options))
            _check_single_run(settings)
        except UserError as error:
            for name, words in required.items():
                # the placeholder of a setting that is no text, or not just any, is refused
                placeholder = _placeholder(name)
                if values.get(name) == placeholder and str(error).startswith(f"{name}: received {placeholder!r}"):
                    raise not_given(path, name, words) from None
            raise UserError(f"{where}: {error}") from None
        # settings that only change what a run costs do not tell its cell from another one's
        identity = framework, settings_hash(settings)
        same = cells.get(identity)
        if same and frameworks is None:
            raise UserError(
                f"{where} is the same as cell {same.number}: let what the blocks vary differ in more than what a "
                "run costs, and give no option after -- that the file varies"
            )
        if not same:  # or it stands in the file in both frameworks already
            cells[identity] = GridCell(
                number=number,
                name=_name_of(framework, flatten(settings), varied, sources),
                framework=framework,
                options=options,
                settings=settings,
                costs=_costs_asked_for(framework, settings, values, more_options),
            )
    missing = {
        name: words
        for name, words in required.items()
        if any(flatten(cell.settings).get(name) == _placeholder(name) for cell in cells.values())
    }
    return Grid(cells=tuple(cells.values()), missing=missing)


def _costs_asked_for(
    framework: Framework, settings: Settings, in_file: Collection[str], more_options: Sequence[str]
) -> dict[str, Any]:
    """The cost settings that a cell's file and the options after -- give; `auto` and null leave a setting open.

    Options that say on what to compute describe the machine at hand, on which a grid may go on that was begun on
    another one; only those that stand in the file count.
    """
    after_dashes = given_settings(framework, list(more_options))
    flat = flatten(settings)
    return {
        name: flat[name]
        for name, item in FIELDS.items()
        if item.metadata["affects"] == "cost"
        and (name in in_file or name in after_dashes)
        and not (name in after_dashes and name in _OF_THE_MACHINE)
        and flat[name] not in (None, "auto")
    }


def not_given(path: Path, name: str, words: str) -> UserError:
    """What is said of a setting that the file requires and that is missing.

    Args:
        path: Of the file.
        name: Of the setting, dotted.
        words: The file's, on what to give.
    """
    return UserError(f"{path}: {name} is not given: {words}; add to the command: -- --{name} ...")


def small_budget(settings: Settings) -> dict[str, Any]:
    """What a small budget changes in a run's settings, by their dotted names.

    Fewer images and epochs, batches that so few images can fill, and random weights where there is no network to
    download others from; the tag of the budget keeps such runs out of the tables of full ones.
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
        changes["schedule.warmup_epochs"] = 0  # one epoch is too short for any
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
    # such a cell would be a parent run, by which nobody could tell that all its runs have finished
    if settings.seeds is not None:
        raise UserError(f"seeds: received {settings.seeds}, but a cell is a single run; vary seed in the grid file")
    if settings.data.split == "folds" and settings.data.fold is None:
        raise UserError("data.fold: received None, but a cell is a single run; vary data.fold in the grid file")
    # nor would the run of one that looks for settings be found: no comparison reads it
    if settings.sweep.num_trials is not None:
        received = settings.sweep.num_trials
        raise UserError(f"sweep.num_trials: received {received}, allowed in a grid: null; search with the scripts")
    if settings.find_learning_rate:
        raise UserError("find_learning_rate: received True, allowed in a grid: false; do it with the scripts")


def _flatten_mapping(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted names."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat |= _flatten_mapping(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


@dataclass(frozen=True, kw_only=True)
class _Block:
    """An element of `cells`."""

    frameworks: tuple[Framework, ...]
    vary: Mapping[str, list[Any]]
    settings: Mapping[str, Any]  # by dotted names


def _read_block(content: Any, where: str) -> _Block:
    if not isinstance(content, dict):
        _refuse(where, content, "a mapping with frameworks, and vary or settings or both")
    _check_keys(content, where, needed={"frameworks": list}, possible={"vary": dict, "settings": dict})
    frameworks = content["frameworks"]
    if not frameworks or any(name not in FRAMEWORKS for name in frameworks):
        _refuse(f"{where}: frameworks", frameworks, f"a list of {' and '.join(FRAMEWORKS)}")
    vary = {str(name): values for name, values in content.get("vary", {}).items()}
    settings = _flatten_mapping(content.get("settings", {}))
    for name, values in vary.items():
        if not isinstance(values, list) or not values:
            _refuse(f"{where}: vary: {name}", values, "a list of one or more values")
        if name in settings:
            raise UserError(f"{where}: {name} stands under vary and under settings: leave one of them out")
    return _Block(frameworks=tuple(frameworks), vary=vary, settings=settings)


def _points(
    block: _Block, for_all: Mapping[str, Any], frameworks: Sequence[Framework] | None
) -> Iterator[tuple[Framework, dict[str, Any]]]:
    """Each cell's framework and settings by dotted names, what is varied first; a cell's frameworks side by side."""
    for combination in itertools.product(*block.vary.values()):
        point = dict(zip(block.vary, combination, strict=True))
        for framework in frameworks or block.frameworks:
            yield framework, point | {**for_all, **block.settings} | point


def _read_yaml(path: Path) -> Any:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text in UTF-8"
        raise UserError(
            f"no grid file: received {str(path)!r} ({reason}); give one such as configs/birds.yaml"
        ) from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: this is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        _refuse(str(path), content, "a mapping with experiment and cells, such as configs/birds.yaml")
    return content


_WORDS_OF_TYPES: dict[type, str] = {str: "a text", list: "a list", dict: "a mapping"}


def _check_keys(content: Mapping[Any, Any], where: str, *, needed: dict[str, type], possible: dict[str, type]) -> None:
    allowed = needed | possible
    for name in content:
        if name not in allowed:
            raise UserError(f"{where}: there is no key {name!r} here, allowed: {', '.join(allowed)}")
    for name, kind in allowed.items():
        if name in needed and name not in content:
            raise UserError(f"{where}: {name} is not given; it has to be {_WORDS_OF_TYPES[kind]}")
        if name in content and not isinstance(content[name], kind):
            _refuse(f"{where}: {name}", content[name], _WORDS_OF_TYPES[kind])


def _refuse(where: str, received: Any, allowed: str) -> NoReturn:
    raise UserError(f"{where}: received {received!r}, allowed: {allowed}")


def _placeholder(name: str) -> str:
    """What stands on the command lines of a dry run for a setting that is yet to be given."""
    return re.sub(r"\W", "_", name).upper()


def _as_options(values: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in values.items():
        try:
            words += [f"--{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)]
        except TypeError:  # YAML has more kinds of values than JSON, such as 2024-05-01
            received = str(value) if isinstance(value, datetime.date) else repr(value)
            raise UserError(
                f"{name}: received {received}, allowed: texts, numbers, true, false, null, lists and mappings of them; "
                "put a text that looks like a date in quotes"
            ) from None
    return words


def _names_that_differ(blocks: Sequence[_Block]) -> list[str]:
    """The settings with several values in a grid, but for those that each cell is named by anyway."""
    values: dict[str, set[str]] = {}
    for block in blocks:
        for name, several in block.vary.items():
            values.setdefault(name, set()).update(map(str, several))
    return [name for name, found in values.items() if len(found) > 1 and name not in ("backbone", "regime")]


def _name_of(framework: Framework, values: Mapping[str, Any], varied: Sequence[str], sources: Collection[str]) -> str:
    """A cell's name: of the folders with images the last part, and the whole path of those that share theirs."""
    words = [str(values.get(name, getattr(Settings(), name))) for name in ("backbone", "regime")]
    words.append(framework)
    for name in varied:
        if name in values:
            text = str(values[name])
            last = PurePath(text).name
            is_unique = sum(PurePath(other).name == last for other in sources) <= 1
            words.append(
                (last if is_unique else text) if name == "data.source" else f"{name.rpartition('.')[2]}-{text}"
            )
    return " ".join(re.sub(r"\s+", "", word) for word in words)
