"""Differences between two rows that are compared as if only their framework differed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath

from tandem.comparison.configurations import Configuration, some
from tandem.comparison.recorded_settings import NOT_APPLICABLE, costs_of, settings_of
from tandem.comparison.rows import Pair
from tandem.protocol.backbones import CATALOGUE
from tandem.tracking import vocabulary

MOST_CLAUSES = 6  # in a sentence of the recommendation; the note of the table has all
LONGEST_VALUE = 40  # characters

_MOMENTUM = "batch_norm_momentum"
_PUBLISHED_WEIGHTS = "published weights"  # how the catalogue begins a clause about them
_WORDS_FOR_WEIGHTS = {
    "imagenet": "the published weights",
    "file": "weights from a file",
    "run": "weights of an earlier run",
    "random": "random weights",
    "none": "random weights",
}


def other_differences(pair: Pair) -> list[str]:
    """Everything known that differs between two rows besides the framework, one clause each; weights come first."""
    of_networks = _of_networks(pair)
    about_weights = [clause for clause in of_networks if clause.startswith(_PUBLISHED_WEIGHTS)]
    others = [clause for clause in of_networks if clause not in about_weights]
    return [*_of_weights(pair), *about_weights, *_of_settings(pair), *_of_runs(pair), *others]


def differences_sentence(pairs: Sequence[Pair], most: int | None = None) -> str:
    """What differs besides the framework; a clause that does not hold for all pairs names those for which it does.

    Args:
        pairs: At least one.
        most: Number of clauses; all if None.
    """
    of_pairs = [(pair, other_differences(pair)) for pair in pairs]
    clauses = list(dict.fromkeys(clause for _, found in of_pairs for clause in found))
    if not clauses:
        return "Besides the framework, nothing that is recorded differs."
    several = len({pair.first.configuration.backbone for pair in pairs}) > 1
    written = []
    for clause in clauses[:most]:
        members = [pair.first.configuration for pair, found in of_pairs if clause in found]
        names = dict.fromkeys(" ".join(_names(one, several=several)) for one in members)
        written.append(clause if len(members) == len(of_pairs) else f"{clause} ({some(list(names))})")
    if most is not None and len(clauses) > most:
        written.append(f"and {len(clauses) - most} more, which the table of frameworks names")
    return f"Besides the framework, these differ: {'; '.join(written)}."


def _names(configuration: Configuration, *, several: bool) -> tuple[str, ...]:
    return (configuration.backbone, configuration.regime) if several else (configuration.regime,)


def _of_weights(pair: Pair) -> list[str]:
    configurations = [row.configuration for row in (pair.first, pair.second)]
    first, second = configurations
    kinds = first.weights_kind, second.weights_kind
    if kinds[0] != kinds[1]:
        one, two = (_WORDS_FOR_WEIGHTS[kind] for kind in kinds)
        return [f"the initial weights ({one} in {first.framework}, {two} in {second.framework})"]
    if kinds[0] in ("none", "random"):
        return ["the random numbers in the backbone's initial weights"]
    if kinds[0] == "imagenet":
        return []  # The catalogue says whether they differ.
    origins = [
        {run.tags.get(vocabulary.WEIGHTS_ORIGIN, run.params.get("weights", "")) for run in one.runs}
        for one in configurations
    ]
    if origins[0] == origins[1]:
        return []
    if kinds[0] == "run":
        return ["the pretrained weights (each framework has those of its own earlier runs)"]
    names = [some(sorted({PurePath(run.params["weights"]).name for run in one.runs})) for one in configurations]
    return [f"the pretrained weights ({names[0]} in {first.framework}, {names[1]} in {second.framework})"]


def _of_networks(pair: Pair) -> list[str]:
    configurations = [row.configuration for row in (pair.first, pair.second)]
    backbone = configurations[0].backbone
    if backbone not in CATALOGUE:
        return []
    published = all(one.weights_kind == "imagenet" for one in configurations)
    own_momentum = any(run.params.get(_MOMENTUM) == "null" for one in configurations for run in one.runs)
    return [
        clause
        for clause in CATALOGUE[backbone].differences
        if (published or not clause.startswith(_PUBLISHED_WEIGHTS)) and (own_momentum or _MOMENTUM not in clause)
    ]


def _of_settings(pair: Pair) -> list[str]:
    """Names and values of the settings and the hardware that differ."""
    first, second = (row.configuration.runs[0] for row in (pair.first, pair.second))
    found = []
    for of_run in (settings_of, costs_of):
        one, two = of_run(first), of_run(second)
        for name in sorted(one.keys() | two.keys()):
            values = _value(one, name), _value(two, name)
            if values[0] != values[1] and NOT_APPLICABLE not in values:
                found.append(f"{name} ({values[0]} and {values[1]})")
    return found


def _value(values: Mapping[str, str], name: str) -> str:
    value = values.get(name, "") or "not recorded"
    return value if len(value) <= LONGEST_VALUE else value[: LONGEST_VALUE - 3] + "..."


def _of_runs(pair: Pair) -> list[str]:
    seeds = [sorted(run.params.get("seed", "") for run in row.configuration.runs) for row in (pair.first, pair.second)]
    return [] if seeds[0] == seeds[1] else [f"the seeds ({', '.join(seeds[0])} and {', '.join(seeds[1])})"]
