"""From the runs of an experiment to the tables that compare them.

One row stands for one cell: everything that was the same but the seed. Of several runs with the same seed the latest
counts, and a row is the mean over its seeds. Settings in which the runs of a table differ are columns of it, so that
nothing unlike is averaged.
"""

from __future__ import annotations

import typing
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from tandem.protocol.settings import Regime
from tandem.report.tables import Column, Table, Value
from tandem.tracking import vocabulary

if TYPE_CHECKING:
    from tandem.tracking.reader import RunRecord

NAMES_IN_A_LINE = 12

ACCURACY = vocabulary.TEST_PREFIX + "accuracy"
MACRO_F1 = vocabulary.TEST_PREFIX + "f1_macro"
LOWEST_F1 = vocabulary.TEST_PREFIX + "f1_min"

# Parameters that are columns of their own (backbone, regime), that a row is averaged over (seed), or that change
# nothing in what a run computes: where it is recorded, and where its images lie (the tags hold hashes of the images).
_NO_DIFFERENCE = {"backbone", "regime", "seed", "weights", "data.source", "data.cache_folder"}
_NO_DIFFERENCE |= {vocabulary.NUM_CLASSES, *vocabulary.NUM_IMAGES.values()}
# Settings that change what a run costs but not what it learns; so does the hardware, which is a tag.
_COST_SETTINGS = ("device", "threads")

_REGIMES = typing.get_args(Regime)
_NOT_APPLICABLE = "-"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The tables of an experiment, and lines that say which runs stand in none of them."""

    tables: tuple[Table, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Weights:
    """What a run began with: its name, and a word for it that does not tell one file from another."""

    label: str
    word: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Runs that differ in nothing but their seed, the latest of each seed.

    Args:
        settings: those in which the runs of the group differ, beyond the ones that have a field here.
        costs: the same for what changes the costs alone.
    """

    backbone: str
    regime: str
    framework: str
    settings: tuple[tuple[str, str], ...]
    costs: tuple[tuple[str, str], ...]
    runs: tuple[RunRecord, ...]

    def mean(self, metric: str) -> float | None:
        """Mean over the runs; None unless all of them have the metric."""
        values = [run.metrics[metric] for run in self.runs if metric in run.metrics]
        return sum(values) / len(values) if len(values) == len(self.runs) else None

    @property
    def sort_key(self) -> tuple:
        regime = _REGIMES.index(self.regime) if self.regime in _REGIMES else len(_REGIMES)
        settings = [_number_first(value) for _, value in (*self.settings, *self.costs)]
        # "torch" before "keras", "keras" before "keras (jax)".
        return self.backbone, regime, self.regime, settings, self.framework != "torch", self.framework


def compare_runs(runs: Sequence[RunRecord]) -> Comparison:
    """Makes the tables of an experiment.

    Runs stand in one table only if they were tested on the same images. The tables of the largest such group come
    first; of groups of one size, that of the latest run.

    Args:
        runs: of one experiment, in any order and of any status.

    Returns:
        For each group the summary, the frameworks side by side, and what thawing changed, as far as there are runs for
        it; the tables' names are unique.
    """
    weights = _initial_weights(runs)
    groups: dict[str, list[RunRecord]] = defaultdict(list)
    unfinished, untested = [], []
    for run in runs:
        if run.status != "FINISHED":
            unfinished.append(run)
        elif ACCURACY not in run.metrics or vocabulary.TEST_HASH not in run.tags:
            untested.append(run)
        else:
            groups[run.tags[vocabulary.TEST_HASH]].append(run)
    ordered = sorted(
        groups.values(), key=lambda group: (len(group), max(run.start_time for run in group)), reverse=True
    )

    notes = []
    for group in ordered[1:]:
        notes.append(
            f"Tested on other images than the first tables ({_describe_data(group)}), so in tables of their own: "
            f"{_names(group)}."
        )
    if unfinished:
        by_status = Counter(run.status for run in unfinished)
        statuses = ", ".join(f"{count} {status}" for status, count in sorted(by_status.items()))
        notes.append(f"Left out, not finished ({statuses}): {_names(unfinished)}.")
    if untested:
        notes.append(f"Left out, finished without results on test images: {_names(untested)}.")

    tables: list[Table] = []
    for number, group in enumerate(ordered, start=1):
        latest, repeated = _latest_of_each_seed(group, weights)
        if repeated:
            notes.append(f"Left out, repeated later with the same settings and seed: {_names(repeated)}.")
        cells = _cells(latest, weights)
        suffix = "" if number == 1 else f"_{number}"
        title = _describe_data(latest)
        for table in (summary_table(cells, title), framework_table(cells, title), thawing_table(cells, title)):
            if table.rows or table.name == "summary":
                tables.append(replace(table, name=table.name + suffix))
    return Comparison(tables=tuple(tables), notes=tuple(notes))


def summary_table(cells: Sequence[Cell], data: str) -> Table:
    """Backbone x regime x framework: how good, and at what cost."""
    extra, extra_values = _extra_columns(cells, costs=True)
    columns = (
        Column(key="backbone", heading="backbone"),
        Column(key="regime", heading="regime"),
        Column(key="framework", heading="framework"),
        *extra,
        Column(key="accuracy", heading="accuracy", kind="score", better="higher"),
        Column(key="f1_macro", heading="macro F1", kind="score", better="higher"),
        Column(key="f1_min", heading="lowest F1", kind="score", better="higher"),
        Column(key="train_seconds", heading="training", kind="seconds", better="lower"),
        Column(key="seconds_per_epoch", heading="an epoch", kind="seconds", better="lower"),
        Column(key="parameters", heading="params", kind="amount", better="lower"),
        Column(key="latency_milliseconds", heading="one image", kind="milliseconds", better="lower"),
        Column(key="runs", heading="runs", kind="number"),
    )
    metrics = (
        ACCURACY,
        MACRO_F1,
        LOWEST_F1,
        vocabulary.TRAIN_SECONDS,
        vocabulary.SECONDS_PER_EPOCH,
        vocabulary.PARAMETERS,
        vocabulary.LATENCY_MILLISECONDS,
    )
    rows = tuple(
        (
            cell.backbone,
            cell.regime,
            cell.framework,
            *extra_values(cell),
            *(cell.mean(metric) for metric in metrics),
            len(cell.runs),
        )
        for cell in cells
    )
    return Table(name="summary", title=f"Models, regimes, frameworks: {data}", columns=columns, rows=rows)


def framework_table(cells: Sequence[Cell], data: str) -> Table:
    """PyTorch and Keras side by side wherever both were trained with the same settings; Keras minus PyTorch."""
    extra, extra_values = _extra_columns(cells, costs=False)
    columns = (
        Column(key="backbone", heading="backbone"),
        Column(key="regime", heading="regime"),
        *extra,
        Column(key="keras", heading="Keras side"),
        Column(key="accuracy_torch", heading="torch accuracy", kind="score"),
        Column(key="accuracy_keras", heading="keras accuracy", kind="score"),
        Column(key="accuracy_difference", heading="difference", kind="difference"),
        Column(key="f1_macro_difference", heading="macro F1 difference", kind="difference"),
        Column(key="train_seconds_ratio", heading="training time", kind="ratio"),
        Column(key="runs_torch", heading="torch runs", kind="number"),
        Column(key="runs_keras", heading="keras runs", kind="number"),
    )
    partners = defaultdict(list)
    for cell in cells:
        partners[cell.backbone, cell.regime, cell.settings].append(cell)
    rows = []
    alone = []
    other_machine = False
    for group in partners.values():
        torch_cells = [cell for cell in group if cell.framework == "torch"]
        keras_cells = [cell for cell in group if cell.framework != "torch"]
        if not torch_cells or not keras_cells:
            alone += group
            continue
        for keras in keras_cells:
            torch = next((cell for cell in torch_cells if cell.costs == keras.costs), torch_cells[0])
            comparable = torch.costs == keras.costs
            other_machine = other_machine or not comparable
            row: tuple[Value, ...] = (
                keras.backbone,
                keras.regime,
                *extra_values(keras),
                keras.framework,
                torch.mean(ACCURACY),
                keras.mean(ACCURACY),
                _difference(keras.mean(ACCURACY), torch.mean(ACCURACY)),
                _difference(keras.mean(MACRO_F1), torch.mean(MACRO_F1)),
                _ratio(keras.mean(vocabulary.TRAIN_SECONDS), torch.mean(vocabulary.TRAIN_SECONDS))
                if comparable
                else None,
                len(torch.runs),
                len(keras.runs),
            )
            rows.append(row)
    notes = ["Differences are Keras minus PyTorch; training time is Keras over PyTorch."]
    if other_machine:
        notes.append("No ratio of times where hardware, device or threads were not the same.")
    if alone:
        labels = sorted({f"{cell.backbone} {cell.regime} ({cell.framework})" for cell in alone})
        notes.append(f"In one framework only: {_some(labels)}.")
    return Table(
        name="frameworks", title=f"Keras against PyTorch: {data}", columns=columns, rows=tuple(rows), notes=tuple(notes)
    )


def thawing_table(cells: Sequence[Cell], data: str) -> Table:
    """What the second phase of two_stage, everything trained, added to the first, only the head trained."""
    first = vocabulary.phase_name(1) + "/"
    extra, extra_values = _extra_columns(cells, costs=True)
    columns = (
        Column(key="backbone", heading="backbone"),
        Column(key="framework", heading="framework"),
        *extra,
        Column(key="accuracy_frozen", heading="accuracy frozen", kind="score"),
        Column(key="accuracy_thawed", heading="thawed", kind="score"),
        Column(key="accuracy_difference", heading="difference", kind="difference", better="higher"),
        Column(key="f1_macro_difference", heading="macro F1 difference", kind="difference", better="higher"),
        Column(key="train_seconds_frozen", heading="training frozen", kind="seconds"),
        Column(key="train_seconds", heading="in all", kind="seconds"),
        Column(key="runs", heading="runs", kind="number"),
    )
    rows = tuple(
        (
            cell.backbone,
            cell.framework,
            *extra_values(cell),
            cell.mean(first + ACCURACY),
            cell.mean(ACCURACY),
            _difference(cell.mean(ACCURACY), cell.mean(first + ACCURACY)),
            _difference(cell.mean(MACRO_F1), cell.mean(first + MACRO_F1)),
            cell.mean(first + vocabulary.TRAIN_SECONDS),
            cell.mean(vocabulary.TRAIN_SECONDS),
            len(cell.runs),
        )
        for cell in cells
        if cell.regime == "two_stage" and cell.mean(first + ACCURACY) is not None
    )
    return Table(name="thawing", title=f"What thawing changed in two_stage: {data}", columns=columns, rows=rows)


def _difference(value: float | None, baseline: float | None) -> float | None:
    return None if value is None or baseline is None else value - baseline


def _ratio(value: float | None, baseline: float | None) -> float | None:
    return None if value is None or not baseline else value / baseline


def _framework(run: RunRecord) -> str:
    framework, backend = run.tags.get(vocabulary.FRAMEWORK, "?"), run.tags.get(vocabulary.BACKEND, "")
    return f"{framework} ({backend})" if framework == "keras" and backend not in ("", "tensorflow") else framework


def _own_settings(run: RunRecord) -> dict[str, str]:
    """What may make a run learn something else than the others of its group; its weights stand elsewhere."""
    settings = {"data": run.tags.get(vocabulary.DATA_NAME, "")}
    for name, value in run.params.items():
        if name not in _NO_DIFFERENCE and name not in _COST_SETTINGS and not name.startswith("tracking."):
            settings[name] = value
    if run.params.get("regime") != "two_stage":
        settings["thawed_rate_factor"] = _NOT_APPLICABLE
    return settings


def _costs(run: RunRecord) -> dict[str, str]:
    return {
        "hardware": run.tags.get(vocabulary.HARDWARE, ""),
        "computed on": run.tags.get(vocabulary.DEVICE, ""),
        **{name: run.params.get(name, "") for name in _COST_SETTINGS},
    }


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
        identity = (_framework(run), run.params.get("seed"), *_training_identity(run, weights), *_costs(run).items())
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

    members = defaultdict(list)
    for run in runs:
        members[
            run.params.get("backbone", "?"),
            run.params.get("regime", "?"),
            _framework(run),
            tuple((name, settings[run.run_id].get(name, "")) for name in differing_settings),
            tuple((name, costs[run.run_id].get(name, "")) for name in differing_costs),
        ].append(run)
    cells = [
        Cell(backbone=backbone, regime=regime, framework=framework, settings=own, costs=cost, runs=tuple(found))
        for (backbone, regime, framework, own, cost), found in members.items()
    ]
    return sorted(cells, key=lambda cell: cell.sort_key)


def _differing(settings: Collection[Mapping[str, str]]) -> list[str]:
    """Names of the settings that are not the same in all runs, or that only some runs have."""
    names = dict.fromkeys(name for own in settings for name in own)
    values = {name: {own.get(name, "") for own in settings} - {_NOT_APPLICABLE} for name in names}
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
            label = identity = _NOT_APPLICABLE
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
        used[run.params.get("backbone"), _framework(run), weights[run.run_id].word].add(weights[run.run_id].label)
    ambiguous = {(backbone, word) for (backbone, _, word), labels in used.items() if len(labels) > 1}
    return {
        run.run_id: weights[run.run_id].label
        if (run.params.get("backbone"), weights[run.run_id].word) in ambiguous
        else weights[run.run_id].word
        for run in runs
    }


def _extra_columns(
    cells: Sequence[Cell], *, costs: bool
) -> tuple[tuple[Column, ...], Callable[[Cell], tuple[Value, ...]]]:
    """Columns for the settings in which the cells differ, and what gives a cell's values for them."""

    def values(cell: Cell) -> tuple[Value, ...]:
        return tuple(value or None for _, value in (*cell.settings, *(cell.costs if costs else ())))

    if not cells:
        return (), values
    names = [name for name, _ in (*cells[0].settings, *(cells[0].costs if costs else ()))]
    return tuple(Column(key=name, heading=name) for name in names), values


def _describe_data(runs: Sequence[RunRecord]) -> str:
    """The data's name and its number of classes and test images, as far as the runs agree on them."""
    parts = []
    names = Counter(run.tags.get(vocabulary.DATA_NAME, "") for run in runs)
    parts.append(", ".join(name for name, _ in names.most_common() if name) or "unnamed data")
    for parameter, words in ((vocabulary.NUM_CLASSES, "classes"), (vocabulary.NUM_IMAGES["test"], "test images")):
        values = {run.params[parameter] for run in runs if parameter in run.params}
        if len(values) == 1:
            parts.append(f"{values.pop()} {words}")
    return ", ".join(parts)


def _names(runs: Iterable[RunRecord]) -> str:
    # With the id: runs that nobody has named are all called by backbone, regime and framework.
    return _some([f"{run.name} ({run.run_id[:8]})" for run in sorted(runs, key=lambda run: run.start_time)])


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMES_IN_A_LINE
    return ", ".join(names[:NAMES_IN_A_LINE]) + (f" and {more} more" if more > 0 else "")


def _number_first(value: str) -> tuple[int, float, str]:
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value
