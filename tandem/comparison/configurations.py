"""Sorts the runs of an experiment into groups of configurations, which the comparison shows as rows.

A configuration is all runs that differ only in their seed, or in their fold of the training images; of several runs
with the same seed and fold the latest counts. Every setting in which the runs of a group differ separates
configurations, so that unlike runs are never averaged. A group holds the configurations with the same test images and
the same budget.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import typing
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from tandem.evaluation.ties import mean
from tandem.protocol.recipes import recipe_settings
from tandem.protocol.settings import FIELDS, Affects, Recipe, Regime, Settings, flatten, values_before
from tandem.tracking import vocabulary

if TYPE_CHECKING:
    from tandem.tracking.reader import RunRecord

NAMES_IN_A_LINE = 12

ACCURACY = vocabulary.TEST_PREFIX + "accuracy"
FIRST_PHASE = vocabulary.phase_name(1) + "/"  # before a metric's name
NOT_APPLICABLE = "-"
CLASSES = "data.classes"
A_FILE, AN_EARLIER_RUN = "a file", "an earlier run"
"""Words for weights whose name distinguishes no rows."""

# Parameters that affect numbers but are not among a configuration's settings: backbone, regime and weights have columns
# of their own, a row averages over seeds, and tags hold the origin of the weights and the hashes of the images.
_SHOWN_OTHERWISE = {"backbone", "regime", "seed", "seeds", "weights", "allow_random_weights", "data.source"}
_SHOWN_OTHERWISE |= {vocabulary.NUM_CLASSES, *vocabulary.NUM_IMAGES.values()}
# Groups of settings that affect nothing, including those that only older versions had.
_GROUPS_WITHOUT_EFFECT = ("tracking.", "sweep.")
_WITHOUT_FROZEN_PHASE = ("off_the_shelf", "scratch", "finetune")
# Settings, or the first part of their names, that a network off the shelf does not use.
_SETTINGS_OF_TRAINING = (
    *("learning_rate", "batch_size", "accumulate", "max_epochs", "ema_decay", "max_minutes", "batch_norm_momentum"),
    "sampling",
    *("augmentation.", "mixing.", "loss.", "head.", "optimizer.", "schedule.", "early_stopping."),
)
# Settings that only one regime reads.
_SETTINGS_OF_REGIMES = {
    "thawed_rate_factor": "two_stage",
    "phases": "gradual",
    "imagenet_classes": "off_the_shelf",
}

_REGIMES = typing.get_args(Regime)
_DEFAULTS = flatten(Settings())
_REPEATED = ("seed", "data.fold")


@dataclass(frozen=True, kw_only=True)
class _Weights:
    """The weights that a run started from."""

    label: str
    """Their name, such as that of a file."""
    word: str
    """A word for their kind, the same for all files and for all earlier runs."""
    seeds: tuple[str, ...] = ()
    """Seeds of the earlier runs that they come from, the latest first."""


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
    weights = _initial_weights(runs)

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
    words = _words_for_weights(latest_runs, weights)

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


def framework_of(run: RunRecord) -> str:
    """torch, keras, or keras with its backend in parentheses if that is not TensorFlow."""
    framework, backend = run.tags.get(vocabulary.FRAMEWORK, "?"), run.tags.get(vocabulary.BACKEND, "")
    return f"{framework} ({backend})" if framework == "keras" and backend not in ("", "tensorflow") else framework


def settings_of(run: RunRecord) -> dict[str, str]:
    """Settings that affect what a run learns, except the weights; those that its regime does not read do not apply."""
    settings = {"data": run.tags.get(vocabulary.DATA_NAME, "")}
    for name, value in {**_values_before("numbers"), **run.params}.items():
        if _affects(name) == "numbers" and name not in _SHOWN_OTHERWISE:
            settings[name] = value
    if has_folds_of_training(run):
        settings["data.fold"] = NOT_APPLICABLE  # A row averages over these folds, which share their test images.
    for name, regime in _SETTINGS_OF_REGIMES.items():
        if run.params.get("regime") != regime:
            settings[name] = NOT_APPLICABLE
    if run.params.get("regime") == "off_the_shelf":
        settings |= {name: NOT_APPLICABLE for name in settings if name.startswith(_SETTINGS_OF_TRAINING)}
    return settings


def has_folds_of_training(run: RunRecord) -> bool:
    """True if the run is one of a cross-validation within the training images."""
    return run.params.get("data.split") == "publisher_folds"


def _sorted_names(text: str) -> str:
    """A list of names, as a parameter, in alphabetical order."""
    try:
        names = json.loads(text)
    except json.JSONDecodeError:
        return text
    return json.dumps(sorted(names)) if isinstance(names, list) else text


def _affects(name: str) -> Affects:
    """Effect of a run's parameter. A parameter that is not a setting of this version may have changed numbers."""
    if name in FIELDS:
        return FIELDS[name].metadata["affects"]
    return "nothing" if name.startswith(_GROUPS_WITHOUT_EFFECT) else "numbers"


@functools.cache
def _values_before(affects: Affects) -> Mapping[str, str]:
    """Values of settings in runs that are older than the settings, in the form of MLflow's parameters."""
    return {name: _as_parameter(value) for name, value in values_before().items() if _affects(name) == affects}


def _as_parameter(value: Any) -> str:
    """A setting's value in the form of MLflow's parameters."""
    return value if isinstance(value, str) else json.dumps(value)


def costs_of(run: RunRecord) -> dict[str, str]:
    before = _values_before("cost")
    costs = {
        "hardware": run.tags.get(vocabulary.HARDWARE, ""),
        "computed on": run.tags.get(vocabulary.DEVICE, ""),
        **{name: run.params.get(name, before.get(name, "")) for name in FIELDS if _affects(name) == "cost"},
    }
    if not _may_cache_features(run):
        costs["cache_features"] = NOT_APPLICABLE
    return costs


def same_costs(costs: Iterable[Iterable[tuple[str, str]]]) -> bool:
    """True if the times of some runs can be compared: on the same hardware, with the same settings of speed.

    Args:
        costs: (name, value) of what the times of each run depend on. What does not apply to a run does not count.
    """
    values = defaultdict(set)
    for name, value in itertools.chain.from_iterable(costs):
        values[name].add(value)
    return all(len(found - {NOT_APPLICABLE}) < 2 for found in values.values())


def caches_features(run: RunRecord) -> bool:
    """True if the run computed the features of a frozen backbone once instead of in every epoch."""
    if not _may_cache_features(run) or costs_of(run)["cache_features"] != "true":
        return False
    # A run that logged how long that took, and took no time for it, did not do it.
    return run.metrics.get(vocabulary.FEATURE_SECONDS) != 0


def _may_cache_features(run: RunRecord) -> bool:
    """True if a phase of the run trains only the head, on one device, on images whose views can be kept."""
    params = run.params
    regime = params.get("regime")
    if regime == "gradual":
        has_frozen_phase = '"head"' in params.get("phases", "")
    else:
        has_frozen_phase = regime not in _WITHOUT_FROZEN_PHASE
    augmented, mixed = (
        any(
            name in params and params[name] != _as_parameter(item.default)
            for name, item in FIELDS.items()
            if name.startswith(group)
        )
        for group in ("augmentation.", "mixing.")
    )
    views = params.get("cache_views", "null") != "null"
    one_device = params.get("num_devices", "1") == "1"
    return has_frozen_phase and one_device and not mixed and (views or not augmented)


def _training_identity(run: RunRecord, weights: Mapping[str, _Weights]) -> tuple:
    """Key that is equal for runs whose training differs only in framework and seed."""
    settings = settings_of(run) | {
        CLASSES: _sorted_names(run.params.get(CLASSES, "")),
        "backbone": run.params.get("backbone", ""),
        "regime": run.params.get("regime", ""),
        "weights": weights[run.run_id].label,
        "split": run.tags.get(vocabulary.SPLIT_HASH, ""),
    }
    return tuple(sorted(settings.items()))


def _latest_of_each_seed(
    runs: Iterable[RunRecord], weights: Mapping[str, _Weights]
) -> tuple[list[RunRecord], list[RunRecord]]:
    latest: dict[tuple, RunRecord] = {}
    repeated = []
    for run in sorted(runs, key=lambda run: run.start_time):
        seeds = run.params.get("seed"), run.params.get("data.fold"), weights[run.run_id].seeds
        identity = (framework_of(run), *seeds, *_training_identity(run, weights), *costs_of(run).items())
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


def _initial_weights(runs: Iterable[RunRecord]) -> dict[str, _Weights]:
    """Initial weights of each run by run id, with the same name in both frameworks where possible.

    Weights of an earlier run are named after what that run trained, because each framework has its own run with its
    own id. Different weights that would have the same name are numbered.
    """
    by_id = {run.run_id: run for run in runs}
    found: dict[str, _Weights] = {}
    known: dict[str, list[object]] = defaultdict(list)
    # Oldest first: the weights of a run are named before those of the runs that start from it.
    for run in sorted(by_id.values(), key=lambda run: run.start_time):
        weights = run.params.get("weights", "")
        source = by_id.get(weights.removeprefix("runs:/").strip("/")) if weights.startswith("runs:/") else None
        identity: object = run.tags.get(vocabulary.WEIGHTS_ORIGIN, weights)
        word, seeds = None, tuple[str, ...]()
        if run.params.get("regime") == "scratch":
            label = identity = NOT_APPLICABLE
        elif identity == vocabulary.RANDOM_FOR_IMAGENET:
            label = identity = "random"
        elif source is not None and source.run_id in found:
            data = source.tags.get(vocabulary.DATA_NAME, "other data")
            label = f"{source.params.get('backbone', '?')} {source.params.get('regime', '?')} on {data}"
            identity = _training_identity(source, found)
            seeds = source.params.get("seed", ""), *found[source.run_id].seeds
        elif weights in ("", "imagenet", "random"):
            label = identity = weights
        elif weights.startswith("runs:/"):
            label, word = weights, AN_EARLIER_RUN
        else:
            label, word = PurePath(weights).name, A_FILE
        if identity not in known[label]:
            known[label].append(identity)
        number = known[label].index(identity) + 1
        label = label if number == 1 else f"{label} ({number})"
        found[run.run_id] = _Weights(label=label, word=word or label, seeds=seeds)
    return found


def _words_for_weights(groups: Iterable[Sequence[RunRecord]], weights: Mapping[str, _Weights]) -> dict[str, str]:
    """Name of each run's weights by run id, or only their kind: "a file" or "an earlier run".

    File names and run ids differ between the frameworks and would keep their runs from being paired. They are used
    only for a backbone, regime and framework with several files or earlier runs in one group.
    """
    words: dict[str, str] = {}
    ambiguous = set()
    kinds: dict[str, tuple] = {}
    for runs in groups:
        used = defaultdict(set)
        for run in runs:
            own = weights[run.run_id]
            kinds[run.run_id] = run.params.get("backbone"), run.params.get("regime"), framework_of(run), own.word
            used[kinds[run.run_id]].add(own.label)
        ambiguous |= {kind for kind, labels in used.items() if len(labels) > 1}
    for run_id, kind in kinds.items():
        words[run_id] = weights[run_id].label if kind in ambiguous else weights[run_id].word
    return words


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
