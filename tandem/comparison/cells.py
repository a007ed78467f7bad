"""From the runs of an experiment to the cells that are compared.

A cell is everything that was the same but the seed. Of several runs with the same seed the latest counts. Settings in
which the runs of a group differ belong to a cell, so that nothing unlike is averaged. Cells stand in one group only if
they were tested on the same images and had the same budget.
"""

from __future__ import annotations

import functools
import json
import re
import typing
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from tandem.evaluation.ties import best_of, mean
from tandem.protocol.settings import FIELDS, Affects, Regime, values_before
from tandem.tracking import vocabulary

if TYPE_CHECKING:
    from tandem.tracking.reader import RunRecord

NAMES_IN_A_LINE = 12

ACCURACY = vocabulary.TEST_PREFIX + "accuracy"
FIRST_PHASE = vocabulary.phase_name(1) + "/"  # before a metric's name
NOT_APPLICABLE = "-"

# Parameters that affect numbers but are not among a cell's settings: backbone, regime and weights have columns of their
# own, a row averages over seeds, and tags hold the origin of the weights and the hashes of the images.
_SHOWN_OTHERWISE = {"backbone", "regime", "seed", "seeds", "weights", "allow_random_weights", "data.source"}
_SHOWN_OTHERWISE |= {vocabulary.NUM_CLASSES, *vocabulary.NUM_IMAGES.values()}
# Groups that affect nothing, so that older versions' settings in them count for nothing, too.
_GROUPS_WITHOUT_EFFECT = ("tracking.", "sweep.")
_WITHOUT_FROZEN_PHASE = ("off_the_shelf", "scratch", "finetune")
# Settings, or the beginnings of their names, that say nothing of a network off the shelf.
_SETTINGS_OF_TRAINING = (
    *("learning_rate", "batch_size", "max_epochs", "batch_norm_momentum"),
    *("augmentation.", "head.", "optimizer.", "schedule.", "early_stopping."),
)
# Settings that one regime alone reads.
_SETTINGS_OF_REGIMES = {
    "thawed_rate_factor": "two_stage",
    "phases": "gradual",
    "imagenet_classes": "off_the_shelf",
}

_REGIMES = typing.get_args(Regime)


@dataclass(frozen=True, kw_only=True)
class _Weights:
    """What a run began with: its name, and a word for it that does not tell one file from another."""

    label: str
    word: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Runs that differ in nothing but their seed, the latest of each seed.

    Args:
        label: what the cell is called, unique in its group.
        settings: those in which the runs of the group differ, beyond the ones that have a field here.
        costs: the same for what changes the costs alone.
        runs: ordered by their seeds.
    """

    label: str
    backbone: str
    regime: str
    framework: str
    settings: tuple[tuple[str, str], ...]
    costs: tuple[tuple[str, str], ...]
    runs: tuple[RunRecord, ...]

    def mean(self, metric: str) -> float | None:
        """Mean over the runs; None unless all of them have the metric."""
        values = [run.metrics[metric] for run in self.runs if metric in run.metrics]
        return mean(values) if len(values) == len(self.runs) else None

    @property
    def sort_key(self) -> tuple:
        regime = _REGIMES.index(self.regime) if self.regime in _REGIMES else len(_REGIMES)
        settings = [_number_first(value) for _, value in (*self.settings, *self.costs)]
        # "torch" before "keras", "keras" before "keras (jax)".
        return self.backbone, regime, self.regime, settings, self.framework != "torch", self.framework


@dataclass(frozen=True, kw_only=True)
class Group:
    """Cells that were tested on the same images, with the same budget.

    Args:
        name: of the data, unique among the groups of an experiment.
        title: the data's name, the budget if it is small, and the number of classes and test images.
        suffix: of the names of the group's tables, files and anchors.
        budget: full or small.
        data_set: the data's name alone; groups with the same one may share images.
        fold: which of a cross-validation's folds its test images are; None without such.
        cells: in the order of the tables; at least one.
    """

    name: str
    title: str
    suffix: str
    budget: str
    data_set: str
    fold: str | None
    cells: tuple[Cell, ...]


def group_runs(runs: Sequence[RunRecord]) -> tuple[tuple[Group, ...], tuple[str, ...]]:
    """Sorts the runs of an experiment into groups of cells.

    Args:
        runs: of one experiment, in any order and of any status.

    Returns:
        The groups, those of a small budget last, then the one with the most runs first, of groups of one size that of
        the latest run; and lines that say which runs stand in none of them or apart from the first, and why.
    """
    weights = _initial_weights(runs)
    groups: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    unfinished, untested = [], []
    for run in runs:
        if run.status != "FINISHED":
            unfinished.append(run)
        elif ACCURACY not in run.metrics or vocabulary.TEST_HASH not in run.tags:
            untested.append(run)
        else:
            groups[run.tags[vocabulary.TEST_HASH], _budget_of(run)].append(run)
    ordered = sorted(
        groups.values(),
        key=lambda group: (_budget_of(group[0]) == "full", len(group), max(run.start_time for run in group)),
        reverse=True,
    )

    notes = []
    for group in ordered[1:]:
        other_images = group[0].tags[vocabulary.TEST_HASH] != ordered[0][0].tags[vocabulary.TEST_HASH]
        apart = "Tested on other images" if other_images else "Run with another budget"
        notes.append(
            f"{apart} than the first tables ({_describe_data(group)}), so in tables of their own: {name_runs(group)}."
        )
    if unfinished:
        by_status = Counter(run.status for run in unfinished)
        statuses = ", ".join(f"{count} {status}" for status, count in sorted(by_status.items()))
        notes.append(f"Left out, not finished ({statuses}): {name_runs(unfinished)}.")
    if untested:
        notes.append(f"Left out, finished without results on test images: {name_runs(untested)}.")

    found: list[Group] = []
    for number, group in enumerate(ordered, start=1):
        latest, repeated = _latest_of_each_seed(group, weights)
        if repeated:
            notes.append(f"Left out, repeated later with the same settings and seed: {name_runs(repeated)}.")
        name = _data_name(latest)
        times = 1 + sum(other.name == name or other.name.startswith(f"{name} (") for other in found)
        found.append(
            Group(
                name=name if times == 1 else f"{name} ({times})",
                title=_describe_data(latest),
                suffix="" if number == 1 else f"_{number}",
                budget=_budget_of(group[0]),
                data_set=_data_set(latest),
                fold=_fold_of(latest),
                cells=tuple(_cells(latest, weights)),
            )
        )
    return tuple(found), tuple(notes)


def partners(cells: Sequence[Cell]) -> list[tuple[Cell, Cell]]:
    """Cells of PyTorch and of Keras with the same backbone, regime and settings.

    Returns:
        (PyTorch, Keras); of PyTorch's that one which was trained on the same hardware, where there is such a one.
    """
    found = defaultdict(list)
    for cell in cells:
        found[cell.backbone, cell.regime, cell.settings].append(cell)
    pairs = []
    for group in found.values():
        torch_cells = [cell for cell in group if cell.framework == "torch"]
        for keras in group:
            if torch_cells and keras.framework != "torch":
                pairs.append((next((cell for cell in torch_cells if cell.costs == keras.costs), torch_cells[0]), keras))
    return pairs


def scratch_partners(cells: Sequence[Cell]) -> list[tuple[Cell, Cell]]:
    """Each pretrained cell with one of its backbone and framework that was trained from scratch on the same images.

    A network off the shelf has been trained on none of them, so nothing was transferred to them.

    Returns:
        (pretrained, scratch); of several trained from scratch the one with the same settings, else the most accurate.
    """
    pairs = []
    for cell in cells:
        if cell.regime in ("scratch", "off_the_shelf") or began_at_random(cell):
            continue
        choice = [
            other
            for other in cells
            if (other.regime, other.backbone, other.framework) == ("scratch", cell.backbone, cell.framework)
            and _data_settings(other) == _data_settings(cell)
        ]
        if choice:
            most = max(_alike(other, cell) for other in choice)
            alike = [other for other in choice if _alike(other, cell) == most]
            pairs.append((cell, best_of(alike, lambda other: other.mean(ACCURACY) or 0.0)))
    return pairs


def began_at_random(cell: Cell) -> bool:
    """Whether some of its runs, of a regime that needs weights, had random ones."""
    return cell.regime != "scratch" and any(
        run.tags.get(vocabulary.WEIGHTS_ORIGIN, run.params.get("weights")) in ("random", vocabulary.RANDOM_FOR_IMAGENET)
        for run in cell.runs
    )


def family_of(backbone: str) -> str:
    """The backbone's name up to its size or version: resnet of resnet50, mobilenet of mobilenet_v2."""
    return re.split(r"_|\d", backbone, maxsplit=1)[0]


def _data_settings(cell: Cell) -> list[tuple[str, str]]:
    return [(name, value) for name, value in cell.settings if name == "split" or name.startswith("data")]


def _alike(first: Cell, second: Cell) -> int:
    """In how many settings two cells are the same."""
    return sum(one == other for one, other in zip(first.settings, second.settings, strict=True)) + (
        first.costs == second.costs
    )


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


def _label(cell_settings: Sequence[tuple[str, str]], words: Sequence[str]) -> str:
    own = [f"{name} {value}" for name, value in cell_settings if value not in ("", NOT_APPLICABLE)]
    return " ".join(words) + (f" ({', '.join(own)})" if own else "")


def framework_of(run: RunRecord) -> str:
    """torch, keras, or keras with its backend where that is not TensorFlow."""
    framework, backend = run.tags.get(vocabulary.FRAMEWORK, "?"), run.tags.get(vocabulary.BACKEND, "")
    return f"{framework} ({backend})" if framework == "keras" and backend not in ("", "tensorflow") else framework


def _own_settings(run: RunRecord) -> dict[str, str]:
    """What may make a run learn something else than the others of its group; its weights stand elsewhere."""
    settings = {"data": run.tags.get(vocabulary.DATA_NAME, "")}
    for name, value in {**_values_before("numbers"), **run.params}.items():
        if _affects(name) == "numbers" and name not in _SHOWN_OTHERWISE:
            settings[name] = value
    for name, regime in _SETTINGS_OF_REGIMES.items():
        if run.params.get("regime") != regime:
            settings[name] = NOT_APPLICABLE
    if run.params.get("regime") == "off_the_shelf":
        settings |= {name: NOT_APPLICABLE for name in settings if name.startswith(_SETTINGS_OF_TRAINING)}
    return settings


def _affects(name: str) -> Affects:
    """What a parameter of a run affects. One that is no setting of this version may have changed numbers."""
    if name in FIELDS:
        return FIELDS[name].metadata["affects"]
    return "nothing" if name.startswith(_GROUPS_WITHOUT_EFFECT) else "numbers"


@functools.cache
def _values_before(affects: Affects) -> Mapping[str, str]:
    """Values of settings in runs that are older than them, as MLflow keeps parameters."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in values_before().items()
        if _affects(name) == affects
    }


def _costs(run: RunRecord) -> dict[str, str]:
    before = _values_before("cost")
    costs = {
        "hardware": run.tags.get(vocabulary.HARDWARE, ""),
        "computed on": run.tags.get(vocabulary.DEVICE, ""),
        **{name: run.params.get(name, before.get(name, "")) for name in FIELDS if _affects(name) == "cost"},
    }
    if run.params.get("regime") in _WITHOUT_FROZEN_PHASE:
        costs["cache_features"] = NOT_APPLICABLE
    return costs


def _training_identity(run: RunRecord, weights: Mapping[str, _Weights]) -> tuple:
    """Equal for runs that differ in nothing that they learn from but framework and seed."""
    settings = _own_settings(run) | {
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
        identity = (framework_of(run), run.params.get("seed"), *_training_identity(run, weights), *_costs(run).items())
        if identity in latest:
            repeated.append(latest[identity])
        latest[identity] = run
    return list(latest.values()), repeated


def _cells(runs: Sequence[RunRecord], weights: Mapping[str, _Weights]) -> list[Cell]:
    words = _words_for_weights(runs, weights)
    settings = {}
    for run in runs:
        own = {"weights": words[run.run_id], **_own_settings(run)}
        own["split"] = run.tags.get(vocabulary.SPLIT_HASH, "")[:8]
        settings[run.run_id] = own
    if _settings_explain_splits(settings.values()):
        for own in settings.values():
            del own["split"]
    costs = {run.run_id: _costs(run) for run in runs}
    differing_settings, differing_costs = _differing(settings.values()), _differing(costs.values())
    if "weights" not in differing_settings and "random" in words.values():
        differing_settings.insert(0, "weights")  # the name of a regime promises pretrained ones

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
    cells = [
        Cell(
            label=_label((*own, *cost), ((backbone,) if several_backbones else ()) + (regime, framework)),
            backbone=backbone,
            regime=regime,
            framework=framework,
            settings=own,
            costs=cost,
            runs=tuple(sorted(found, key=lambda run: _number_first(run.params.get("seed", "")))),
        )
        for (backbone, regime, framework, own, cost), found in members.items()
    ]
    return sorted(cells, key=lambda cell: cell.sort_key)


def _differing(settings: Collection[Mapping[str, str]]) -> list[str]:
    """Names of the settings that are not the same in all runs, or that only some runs have."""
    names = dict.fromkeys(name for own in settings for name in own)
    values = {name: {own.get(name, "") for own in settings} - {NOT_APPLICABLE} for name in names}
    return [name for name, found in values.items() if len(found) > 1]


def _settings_explain_splits(settings: Iterable[Mapping[str, str]]) -> bool:
    """Whether runs with equal data settings have equal splits; a folder's training images may have changed since."""
    splits = defaultdict(set)
    for own in settings:
        data = tuple(sorted((name, value) for name, value in own.items() if name.startswith("data")))
        splits[data].add(own["split"])
    return all(len(found) == 1 for found in splits.values())


def _initial_weights(runs: Iterable[RunRecord]) -> dict[str, _Weights]:
    """The weights that each run began with, under names that are the same in both frameworks where that is possible.

    An earlier run is named by what it trained, since each framework has its own with its own id. Unlike weights that
    would have the same name are numbered.
    """
    by_id = {run.run_id: run for run in runs}
    found: dict[str, _Weights] = {}
    known: dict[str, list[object]] = defaultdict(list)
    # Earlier runs first: the name of a run's weights is needed before that of the weights made from it.
    for run in sorted(by_id.values(), key=lambda run: run.start_time):
        weights = run.params.get("weights", "")
        source = by_id.get(weights.removeprefix("runs:/").strip("/")) if weights.startswith("runs:/") else None
        identity: object = run.tags.get(vocabulary.WEIGHTS_ORIGIN, weights)
        word = None
        if run.params.get("regime") == "scratch":
            label = identity = NOT_APPLICABLE
        elif identity == vocabulary.RANDOM_FOR_IMAGENET:
            label = identity = "random"
        elif source is not None and source.run_id in found:
            data = source.tags.get(vocabulary.DATA_NAME, "other data")
            label = f"{source.params.get('backbone', '?')} {source.params.get('regime', '?')} on {data}"
            identity = _training_identity(source, found)
        elif weights in ("", "imagenet", "random"):
            label = identity = weights
        elif weights.startswith("runs:/"):
            label, word = weights, "an earlier run"
        else:
            label, word = PurePath(weights).name, "a file"
        if identity not in known[label]:
            known[label].append(identity)
        number = known[label].index(identity) + 1
        label = label if number == 1 else f"{label} ({number})"
        found[run.run_id] = _Weights(label=label, word=word or label)
    return found


def _words_for_weights(runs: Iterable[RunRecord], weights: Mapping[str, _Weights]) -> dict[str, str]:
    """The name of each run's weights, or just "a file" or "an earlier run".

    Names of files and ids of runs differ between the frameworks, so such runs could never stand side by side; the names
    are needed only where one framework used several for one backbone.
    """
    used = defaultdict(set)
    for run in runs:
        used[run.params.get("backbone"), framework_of(run), weights[run.run_id].word].add(weights[run.run_id].label)
    ambiguous = {(backbone, word) for (backbone, _, word), labels in used.items() if len(labels) > 1}
    return {
        run.run_id: weights[run.run_id].label
        if (run.params.get("backbone"), weights[run.run_id].word) in ambiguous
        else weights[run.run_id].word
        for run in runs
    }


def _describe_data(runs: Sequence[RunRecord]) -> str:
    """The data's name and its number of classes and test images, as far as the runs agree on them."""
    parts = [_data_name(runs)]
    for parameter, words in ((vocabulary.NUM_CLASSES, "classes"), (vocabulary.NUM_IMAGES["test"], "test images")):
        values = {run.params[parameter] for run in runs if parameter in run.params}
        if len(values) == 1:
            parts.append(f"{values.pop()} {words}")
    return ", ".join(parts)


def name_runs(runs: Iterable[RunRecord]) -> str:
    """The names of some runs in one line, oldest first."""
    # With the id: runs that nobody has named are all called by backbone, regime and framework.
    return some([f"{run.name} ({run.run_id[:8]})" for run in sorted(runs, key=lambda run: run.start_time)])


def some(names: Sequence[str]) -> str:
    """Names in one line, cut short where there are many."""
    more = len(names) - NAMES_IN_A_LINE
    return ", ".join(names[:NAMES_IN_A_LINE]) + (f" and {more} more" if more > 0 else "")


def _number_first(value: str) -> tuple[int, float, str]:
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value
