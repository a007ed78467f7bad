"""Sorts the runs of an experiment into groups of configurations, which the comparison shows as rows.

A configuration is all runs that differ only in their seed, or in their fold of the training images; of several runs
with the same seed and fold the latest counts. Every setting in which the runs of a group differ separates
configurations, so that unlike runs are never averaged. A group holds the configurations with the same test images and
the same budget.
"""

from __future__ import annotations

import json
import re
import typing
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from tandem.comparison.initial_weights import (
    CLASSES,
    InitialWeights,
    initial_weights,
    training_identity,
    words_for_weights,
)
from tandem.comparison.recorded_settings import (
    NOT_APPLICABLE,
    costs_of,
    framework_of,
    has_folds_of_training,
    settings_of,
)
from tandem.evaluation.ties import mean
from tandem.protocol.recipes import recipe_settings
from tandem.protocol.settings import Recipe, Regime, Settings, flatten
from tandem.tracking import vocabulary

if TYPE_CHECKING:
    from tandem.tracking.reader import RunRecord

NAMES_IN_A_LINE = 12

ACCURACY = vocabulary.TEST_PREFIX + "accuracy"
FIRST_PHASE = vocabulary.phase_name(1) + "/"  # before a metric's name
_REGIMES = typing.get_args(Regime)
_DEFAULTS = flatten(Settings())
_REPEATED = ("seed", "data.fold")


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Runs that differ only in their seed, or in their fold of the training images; the latest of each."""

    label: str
    """Name in tables and figures, unique in its group."""
    backbone: str
    regime: str
    framework: str
    """torch, keras, or keras with its backend in parentheses."""
    settings: tuple[tuple[str, str], ...]
    """(name, value) of the other settings in which the runs of the group differ."""
    all_settings: Mapping[str, str] = field(default_factory=dict)
    """Value of every other setting, by name, so that the configuration is found again in another group."""
    costs: tuple[tuple[str, str], ...]
    """(name, value) of what the runs of the group differ in and what changes only their costs, such as the hardware."""
    runs: tuple[RunRecord, ...]
    """At least one, in the order of the seeds and folds."""

    def mean(self, metric: str) -> float | None:
        """Mean over the runs; None unless all of them have the metric."""
        values = [run.metrics[metric] for run in self.runs if metric in run.metrics]
        return mean(values) if len(values) == len(self.runs) else None

    @property
    def accuracy(self) -> float:
        """Mean accuracy on the test images; 0 where it is unknown, so that configurations can be ordered by it."""
        return self.mean(ACCURACY) or 0.0

    @property
    def random_weights(self) -> bool:
        """True if a run of a pretrained regime started from random weights."""
        return self.regime != "scratch" and any(
            run.tags.get(vocabulary.WEIGHTS_ORIGIN, run.params.get("weights"))
            in ("random", vocabulary.RANDOM_FOR_IMAGENET)
            for run in self.runs
        )

    @property
    def ended_by_time_limit(self) -> bool:
        """True if a time limit ended the training of a run."""
        return any(vocabulary.TIME_LIMIT in run.tags for run in self.runs)

    @property
    def weights_kind(self) -> Literal["none", "random", "imagenet", "run", "file"]:
        """Kind of weights that the runs started from; `none` from scratch."""
        weights = self.runs[0].params.get("weights", "")
        if self.regime == "scratch":
            return "none"
        if self.random_weights:
            return "random"
        if weights in ("", "imagenet"):
            return "imagenet"
        return "run" if weights.startswith("runs:/") else "file"

    @property
    def sort_key(self) -> tuple:
        """Position in tables: by backbone, regime and settings, PyTorch before Keras."""
        regime = _REGIMES.index(self.regime) if self.regime in _REGIMES else len(_REGIMES)
        settings = [_number_first(value) for _, value in (*self.settings, *self.costs)]
        # "torch" before "keras", "keras" before "keras (jax)".
        return self.backbone, regime, self.regime, settings, self.framework != "torch", self.framework


@dataclass(frozen=True, kw_only=True)
class Group:
    """Configurations with the same test images and the same budget."""

    name: str
    """Name of the data, unique among the groups of an experiment."""
    title: str
    """Name of the data, the budget if it is small, and the numbers of classes and test images."""
    suffix: str
    """Appended to the names of the group's tables, files and anchors: "" for the first group, then _2, _3."""
    budget: str
    """full or small."""
    data_set: str
    """Name of the data set; groups with the same data set may share images."""
    fold: str | None
    """The fold of a cross-validation that holds the test images; None without folds."""
    configurations: tuple[Configuration, ...]
    """At least one, in the order of the tables."""


def group_runs(
    runs: Sequence[RunRecord], same_images: Mapping[str, str] = MappingProxyType({})
) -> tuple[tuple[Group, ...], tuple[str, ...]]:
    """Sorts the runs of an experiment into groups of configurations.

    Args:
        runs: Runs of one experiment, in any order and of any status.
        same_images: Hashes of test images that stand for the same ones, each with the hash to take in its place.

    Returns:
        The groups: full budgets before small ones, then larger groups first, then the group with the latest run.
        Notes that name the runs that are left out or are not in the first group, with the reason.
    """
    weights = initial_weights(runs)

    def images_of(run: RunRecord) -> str:
        tag = run.tags[vocabulary.TEST_HASH]
        return same_images.get(tag, tag)

    groups: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    unfinished, untested = [], []
    for run in runs:
        if run.status != "FINISHED":
            unfinished.append(run)
        elif ACCURACY not in run.metrics or vocabulary.TEST_HASH not in run.tags:
            untested.append(run)
        else:
            groups[images_of(run), _budget_of(run)].append(run)
    ordered = sorted(
        groups.values(),
        key=lambda group: (_budget_of(group[0]) == "full", len(group), max(run.start_time for run in group)),
        reverse=True,
    )

    notes = []
    for group in ordered[1:]:
        other_images = images_of(group[0]) != images_of(ordered[0][0])
        reason = "their test images differ from those" if other_images else "their budget differs from that"
        notes.append(
            f"In separate tables because {reason} of the first tables ({_describe_data(group)}): {name_runs(group)}."
        )
    if unfinished:
        by_status = Counter(run.status for run in unfinished)
        statuses = ", ".join(f"{count} {status}" for status, count in sorted(by_status.items()))
        notes.append(f"Left out because they are not finished ({statuses}): {name_runs(unfinished)}.")
    if untested:
        notes.append(f"Left out because they have no results on test images: {name_runs(untested)}.")

    latest_runs = []
    for group in ordered:
        latest, repeated = _latest_of_each_seed(group, weights)
        latest_runs.append(latest)
        if repeated:
            notes.append(f"Left out because a later run has the same settings and seed: {name_runs(repeated)}.")
    words = words_for_weights(latest_runs, weights)

    found: list[Group] = []
    for number, latest in enumerate(latest_runs, start=1):
        name = _data_name(latest)
        times = 1 + sum(other.name == name or other.name.startswith(f"{name} (") for other in found)
        found.append(
            Group(
                name=name if times == 1 else f"{name} ({times})",
                title=_describe_data(latest),
                suffix="" if number == 1 else f"_{number}",
                budget=_budget_of(latest[0]),
                data_set=_data_set(latest),
                fold=_fold_of(latest),
                configurations=tuple(_configurations(latest, words)),
            )
        )
    return tuple(found), tuple(notes)


def family_of(backbone: str) -> str:
    """Name of a backbone without its size and version: resnet for resnet50, mobilenet for mobilenet_v2."""
    return re.split(r"_|\d", backbone, maxsplit=1)[0]


def _data_set(runs: Sequence[RunRecord]) -> str:
    names = Counter(run.tags.get(vocabulary.DATA_NAME, "") for run in runs)
    return ", ".join(name for name, _ in names.most_common() if name) or "unnamed data"


def _fold_of(runs: Sequence[RunRecord]) -> str | None:
    folds = {run.params.get("data.fold") for run in runs if run.params.get("data.split") == "folds"}
    return folds.pop() if len(folds) == 1 else None


def _data_name(runs: Sequence[RunRecord]) -> str:
    fold = _fold_of(runs)
    budget = ", small budget" if _budget_of(runs[0]) == "small" else ""
    return _data_set(runs) + ("" if fold is None else f", fold {fold}") + budget


def _budget_of(run: RunRecord) -> str:
    return run.tags.get(vocabulary.BUDGET, "full")


def _label(settings: Sequence[tuple[str, str]], words: Sequence[str]) -> str:
    own = [f"{name} {value}" for name, value in settings if value not in ("", NOT_APPLICABLE)]
    return " ".join(words) + (f" ({', '.join(own)})" if own else "")


def _latest_of_each_seed(
    runs: Iterable[RunRecord], weights: Mapping[str, InitialWeights]
) -> tuple[list[RunRecord], list[RunRecord]]:
    latest: dict[tuple, RunRecord] = {}
    repeated = []
    for run in sorted(runs, key=lambda run: run.start_time):
        seeds = run.params.get("seed"), run.params.get("data.fold"), weights[run.run_id].seeds
        identity = (framework_of(run), *seeds, *training_identity(run, weights), *costs_of(run).items())
        if identity in latest:
            repeated.append(latest[identity])
        latest[identity] = run
    return list(latest.values()), repeated


def _configurations(runs: Sequence[RunRecord], words: Mapping[str, str]) -> list[Configuration]:
    """The configurations of the runs of one group.

    Args:
        runs: Of the group.
        words: Name of each run's weights by run id.
    """
    settings = {}
    # Equal test images have equal classes, which can only be listed in another order.
    by_time = sorted(runs, key=lambda run: run.start_time)
    orders = list(dict.fromkeys(run.params.get(CLASSES, "null") for run in by_time))
    for run in runs:
        own = {"weights": words[run.run_id], **settings_of(run)}
        own[CLASSES] = f"order {orders.index(run.params.get(CLASSES, 'null')) + 1}"
        own["split"] = NOT_APPLICABLE if has_folds_of_training(run) else run.tags.get(vocabulary.SPLIT_HASH, "")[:8]
        settings[run.run_id] = own
    if _settings_explain_splits(settings.values()):
        for own in settings.values():
            del own["split"]
    costs = {run.run_id: costs_of(run) for run in runs}
    differing_settings, differing_costs = _differing(settings.values()), _differing(costs.values())
    if of_recipes := _settings_of_recipes(runs, settings, differing_settings):
        differing_settings = ["recipe", *(name for name in differing_settings if name not in of_recipes)]
        for run in runs:
            settings[run.run_id]["recipe"] = _recipe_of(run) or NOT_APPLICABLE
    if "weights" not in differing_settings and any(own["weights"] == "random" for own in settings.values()):
        differing_settings.insert(0, "weights")  # the regime's name suggests pretrained weights

    members = defaultdict(list)
    for run in runs:
        members[
            run.params.get("backbone", "?"),
            run.params.get("regime", "?"),
            framework_of(run),
            tuple((name, settings[run.run_id].get(name, "")) for name in differing_settings),
            tuple((name, costs[run.run_id].get(name, "")) for name in differing_costs),
        ].append(run)
    several_backbones = len({backbone for backbone, *_ in members}) > 1
    configurations = [
        Configuration(
            label=_label((*own, *cost), ((backbone,) if several_backbones else ()) + (regime, framework)),
            backbone=backbone,
            regime=regime,
            framework=framework,
            settings=own,
            all_settings=settings[found[0].run_id],
            costs=cost,
            runs=tuple(sorted(found, key=lambda run: [_number_first(run.params.get(name, "")) for name in _REPEATED])),
        )
        for (backbone, regime, framework, own, cost), found in members.items()
    ]
    return sorted(configurations, key=lambda configuration: configuration.sort_key)


def _settings_of_recipes(
    runs: Sequence[RunRecord], settings: Mapping[str, Mapping[str, str]], names: Iterable[str]
) -> set[str]:
    """Names of settings that differ only by the recipe: each run has its recipe's value, or without one the default.

    Args:
        runs: Of one group.
        settings: Of each run, by its id.
        names: Settings that differ between the runs.
    """

    def is_explained(run: RunRecord, name: str) -> bool:
        recipe = _recipe_of(run)
        own = recipe_settings(recipe) if recipe in typing.get_args(Recipe) else {}
        value = own.get(name, _DEFAULTS.get(name))
        expected = value if isinstance(value, str) else json.dumps(value)
        return settings[run.run_id].get(name, "") in (expected, NOT_APPLICABLE)

    if len({_recipe_of(run) for run in runs}) < 2:
        return set()
    return {name for name in names if name in _DEFAULTS and all(is_explained(run, name) for run in runs)}


def _recipe_of(run: RunRecord) -> str | None:
    """Name of the recipe that the run started from."""
    recipe = run.params.get("recipe", "null")
    return None if recipe == "null" else recipe


def _differing(settings: Collection[Mapping[str, str]]) -> list[str]:
    """Names of the settings that differ between runs or that some runs lack."""
    names = dict.fromkeys(name for own in settings for name in own)
    values = {name: {own.get(name, "") for own in settings} - {NOT_APPLICABLE} for name in names}
    return [name for name, found in values.items() if len(found) > 1]


def _settings_explain_splits(settings: Iterable[Mapping[str, str]]) -> bool:
    """True if runs with equal data settings have equal splits; images in a folder may have changed between runs."""
    splits = defaultdict(set)
    for own in settings:
        data = tuple(sorted((name, value) for name, value in own.items() if name.startswith("data")))
        splits[data].add(own["split"])
    return all(len(found) == 1 for found in splits.values())


def _describe_data(runs: Sequence[RunRecord]) -> str:
    """Name of the data with the numbers of classes and test images on which the runs agree."""
    parts = [_data_name(runs)]
    for parameter, words in ((vocabulary.NUM_CLASSES, "classes"), (vocabulary.NUM_IMAGES["test"], "test images")):
        values = {run.params[parameter] for run in runs if parameter in run.params}
        if len(values) == 1:
            parts.append(f"{values.pop()} {words}")
    return ", ".join(parts)


def name_runs(runs: Iterable[RunRecord]) -> str:
    """Names of runs in one line, oldest first."""
    # With the id, because runs without a name of their own are all named after backbone, regime and framework.
    return some([f"{run.name} ({run.run_id[:8]})" for run in sorted(runs, key=lambda run: run.start_time)])


def some(names: Sequence[str]) -> str:
    """Names in one line, at most 12 of them."""
    more = len(names) - NAMES_IN_A_LINE
    return ", ".join(names[:NAMES_IN_A_LINE]) + (f" and {more} more" if more > 0 else "")


def _number_first(value: str) -> tuple[int, float, str]:
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value
