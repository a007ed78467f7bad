"""Tables over several data sets: models by data sets, models by folds, and means of families of backbones."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter, itemgetter
from typing import NamedTuple

import numpy as np

from tandem.comparison.configurations import Configuration, Group, family_of
from tandem.comparison.group_tables import BACKBONE, FRAMEWORK, REGIME
from tandem.evaluation.significance import SMALLEST_NUM_DATA_SETS, SMALLEST_NUM_MODELS, rank_over_data_sets
from tandem.evaluation.ties import merge_ties
from tandem.rendering.tables import Column, Field, Table, Value, table_of


class Model(NamedTuple):
    """A configuration without its settings of data, so that it can be found again on another data set."""

    backbone: str
    regime: str
    framework: str
    settings: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """Backbone, regime, framework and settings in one line."""
        return " ".join([*self[:3], *(f"{name} {value}" for name, value in self.settings if value)])


@dataclass(frozen=True, kw_only=True)
class ModelRanks:
    """Ranks of models over data sets, with the tests of Friedman and Nemenyi."""

    average: Mapping[Model, float]
    """Average rank, 1 is the best."""
    cliques: tuple[tuple[Model, ...], ...]
    """The largest sets of models within which no two average ranks differ significantly."""
    critical_difference: float
    """Smallest significant difference of two average ranks (Nemenyi)."""
    friedman_p_value: float
    """p value of Friedman's test that all models are equal."""
    approximate: bool
    """True for so few data sets or models that the p value is an approximation."""


@dataclass(frozen=True, kw_only=True)
class _Accuracies:
    """Accuracy of models on data sets, or on folds of one."""

    models: tuple[Model, ...]
    """In the order of the tables."""
    columns: tuple[str, ...]
    """Names of the data sets or folds."""
    of_model: Mapping[Model, Mapping[str, float]]
    """By the name of a column; without those on which the model has no result."""

    @property
    def complete(self) -> list[Model]:
        """The models with a result in each column."""
        return [model for model in self.models if len(self.of_model[model]) == len(self.columns)]

    def mean(self, model: Model) -> float | None:
        """Mean over the columns; None unless there is a result in each."""
        return _mean([self.of_model[model].get(name) for name in self.columns])


def data_set_tables(groups: Sequence[Group]) -> tuple[tuple[Table, ...], ModelRanks | None]:
    """Accuracy by model and data set, means of families of backbones, and accuracy by model and fold.

    The folds of a data set are one column, their mean, and have a table of their own. They are not data sets: the
    training images of two of five folds are the same to three quarters.

    Args:
        groups: Of an experiment; those with another budget than the first are left out.

    Returns:
        The tables; none for a single data set without folds. Ranks of the models with a result on every data set;
        None for fewer than three of either, or if two columns are of the same data set.
    """
    if not groups:
        return (), None
    left_out = [group.name for group in groups if group.budget != groups[0].budget]
    groups = [group for group in groups if group.budget == groups[0].budget]
    notes = [f"Left out because their budget differs: {'; '.join(left_out)}."] if left_out else []
    found = _accuracies(groups)
    columns = _columns(groups)

    tables: list[Table] = []
    for folds in columns.values():
        if len(folds) > 1:
            table = _fold_table(folds, found, notes)
            tables.append(replace(table, name=f"folds_{len(tables) + 1}") if tables else table)
    if len(columns) < 2:
        return tuple(tables), None

    of_data_sets = _means_over_folds(found, columns)
    ranks, why_not = None, []
    if len(of_data_sets.columns) >= SMALLEST_NUM_DATA_SETS and len(of_data_sets.complete) >= SMALLEST_NUM_MODELS:
        if len({members[0].data_set for members in columns.values()}) == len(columns):
            ranks = _rank(of_data_sets)
        else:
            why_not = ["No ranks, because several columns have the same data set and may share images."]
    tables.append(_data_set_table(of_data_sets, ranks, [*notes, *why_not]))
    families: dict[tuple[str, str, str], list[Model]] = defaultdict(list)
    for model in of_data_sets.models:
        families[family_of(model.backbone), model.regime, model.framework].append(model)
    if any(len(members) > 1 for members in families.values()):
        tables.append(_family_table(families, of_data_sets))
    return tuple(tables), ranks


def _accuracies(groups: Sequence[Group]) -> _Accuracies:
    """Accuracy of each model in each group, which is a data set or a fold."""
    found: dict[Model, dict[str, float]] = defaultdict(dict)
    configurations: dict[Model, Configuration] = {}
    # A setting in which the runs of one data set differ tells models apart on all of them.
    differing = dict.fromkeys(name for group in groups for one in group.configurations for name, _ in one.settings)
    # The columns stand for the settings of data.
    names = [name for name in differing if not name.startswith("data") and name != "split"]
    for group in groups:
        for one in group.configurations:
            own = tuple((name, one.all_settings.get(name, "")) for name in names)
            model = Model(one.backbone, one.regime, one.framework, own)
            # The best of several configurations, which differ in their hardware or their settings of data.
            found[model][group.name] = max(one.accuracy, found[model].get(group.name, 0.0))
            configurations[model] = one
    return _Accuracies(
        models=tuple(sorted(found, key=lambda model: configurations[model].sort_key)),
        columns=tuple(group.name for group in groups),
        of_model=found,
    )


def _columns(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """The groups of each column by its name: a data set, or all folds of one."""
    columns: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        columns[group.name if group.fold is None else f"{group.data_set}, mean of folds"].append(group)
    return {members[0].name if len(members) == 1 else name: members for name, members in columns.items()}


def _means_over_folds(found: _Accuracies, columns: Mapping[str, Sequence[Group]]) -> _Accuracies:
    """Accuracy on each data set, for folds their mean."""
    of_model: dict[Model, dict[str, float]] = {}
    for model in found.models:
        means = {
            name: _mean([found.of_model[model].get(group.name) for group in members])
            for name, members in columns.items()
        }
        of_model[model] = {name: mean for name, mean in means.items() if mean is not None}
    return _Accuracies(models=found.models, columns=tuple(sorted(columns)), of_model=of_model)


def _rank(accuracies: _Accuracies) -> ModelRanks:
    models = accuracies.complete
    # Equal means of folds can differ in their last bits, and would not share a rank.
    scores = [merge_ties([accuracies.of_model[model][name] for model in models]) for name in accuracies.columns]
    ranks = rank_over_data_sets(np.array(scores))
    return ModelRanks(
        average=dict(zip(models, ranks.average_ranks.tolist(), strict=True)),
        cliques=tuple(tuple(models[place] for place in clique) for clique in ranks.cliques),
        critical_difference=ranks.critical_difference,
        friedman_p_value=ranks.friedman_p_value,
        approximate=ranks.approximate,
    )


def _data_set_table(accuracies: _Accuracies, ranks: ModelRanks | None, notes: Sequence[str]) -> Table:
    fields: list[Field[Model]] = [
        *_model_fields(accuracies.models),
        *_score_fields(accuracies),
        _mean_field(accuracies),
    ]
    all_notes = [
        "Accuracy on the test images of each data set; means and ranks only for results on all of them.",
        *notes,
    ]
    if ranks is not None:
        average = ranks.average
        fields.append((Column(key="rank", heading="mean rank", kind="number", better="lower"), average.get))
        all_notes.append(
            f"Friedman's test of equal models: p = {ranks.friedman_p_value:.4f}"
            f"{' (approximate for so few)' if ranks.approximate else ''}; by Nemenyi's test mean ranks "
            f"{ranks.critical_difference:.2f} apart differ significantly."
        )
    return table_of(accuracies.models, fields, name="data_sets", title="Models and data sets", notes=all_notes)


def _fold_table(folds: Sequence[Group], found: _Accuracies, notes: Sequence[str]) -> Table:
    names = tuple(sorted((fold.name for fold in folds), key=lambda name: (len(name), name)))  # fold 9 before fold 10
    models = tuple(model for model in found.models if any(name in found.of_model[model] for name in names))
    of_model = {
        model: {name: score for name, score in found.of_model[model].items() if name in names} for model in models
    }
    accuracies = _Accuracies(models=models, columns=names, of_model=of_model)

    def deviation(model: Model) -> float | None:
        return statistics.stdev(of_model[model].values()) if len(of_model[model]) == len(names) else None

    return table_of(
        models,
        (
            *_model_fields(models),
            *_score_fields(accuracies),
            _mean_field(accuracies),
            (Column(key="deviation", heading="standard deviation", kind="score"), deviation),
        ),
        name="folds",
        title=f"Models and folds: {folds[0].data_set}",
        notes=(
            "Accuracy on the test images of each fold; mean and standard deviation (n - 1) only for results on all of "
            "them.",
            "No ranks and no tests over folds, because folds share most of their training images.",
            *notes,
        ),
    )


def _family_table(families: Mapping[tuple[str, str, str], Sequence[Model]], accuracies: _Accuracies) -> Table:
    means = {
        family: [_mean([accuracies.of_model[model].get(name) for model in members]) for name in accuracies.columns]
        for family, members in families.items()
    }

    def value_of(index: int) -> Callable[[tuple[str, str, str]], Value]:
        return lambda family: means[family][index]

    return table_of(
        list(families),
        (
            (Column(key="family", heading="family"), itemgetter(0)),
            (REGIME, itemgetter(1)),
            (FRAMEWORK, itemgetter(2)),
            (Column(key="members", heading="models", kind="number"), lambda family: len(families[family])),
            *((_score_column(name), value_of(index)) for index, name in enumerate(accuracies.columns)),
            (_score_column("mean"), lambda family: _mean(means[family])),
        ),
        name="families",
        title="Means of families of backbones",
    )


def _model_fields(models: Sequence[Model]) -> list[Field[Model]]:
    """The names of a model, and the settings in which the models differ."""
    settings = dict.fromkeys(name for model in models for name, _ in model.settings)

    def value_of(name: str) -> Callable[[Model], Value]:
        return lambda model: dict(model.settings).get(name) or None

    names = [(column, attrgetter(column.key)) for column in (BACKBONE, REGIME, FRAMEWORK)]
    return [*names, *((Column(key=name, heading=name), value_of(name)) for name in settings)]


def _score_fields(accuracies: _Accuracies) -> list[Field[Model]]:
    def value_of(name: str) -> Callable[[Model], Value]:
        return lambda model: accuracies.of_model[model].get(name)

    return [(_score_column(name), value_of(name)) for name in accuracies.columns]


def _mean_field(accuracies: _Accuracies) -> Field[Model]:
    return _score_column("mean"), accuracies.mean


def _score_column(name: str) -> Column:
    return Column(key=name, heading=name, kind="score", better="higher")


def _mean(values: Sequence[float | None]) -> float | None:
    """None unless all values are known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
