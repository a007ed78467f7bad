"""Names of the weights that runs started from, the same in both frameworks where possible."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from tandem.comparison.recorded_settings import NOT_APPLICABLE, framework_of, settings_of
from tandem.tracking import vocabulary

if TYPE_CHECKING:
    from tandem.tracking.reader import RunRecord

CLASSES = "data.classes"
A_FILE, AN_EARLIER_RUN = "a file", "an earlier run"
"""Words for weights whose name distinguishes no rows."""


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """The weights that a run started from."""

    label: str
    """Their name, such as that of a file."""
    word: str
    """A word for their kind, the same for all files and for all earlier runs."""
    seeds: tuple[str, ...] = ()
    """Seeds of the earlier runs that they come from, the latest first."""


def training_identity(run: RunRecord, weights: Mapping[str, InitialWeights]) -> tuple:
    """Key that is equal for runs whose training differs only in framework and seed."""
    settings = settings_of(run) | {
        CLASSES: _sorted_names(run.params.get(CLASSES, "")),
        "backbone": run.params.get("backbone", ""),
        "regime": run.params.get("regime", ""),
        "weights": weights[run.run_id].label,
        "split": run.tags.get(vocabulary.SPLIT_HASH, ""),
    }
    return tuple(sorted(settings.items()))


def _sorted_names(text: str) -> str:
    """A list of names, as a parameter, in alphabetical order."""
    try:
        names = json.loads(text)
    except json.JSONDecodeError:
        return text
    return json.dumps(sorted(names)) if isinstance(names, list) else text


def initial_weights(runs: Iterable[RunRecord]) -> dict[str, InitialWeights]:
    """Initial weights of each run by run id, with the same name in both frameworks where possible.

    Weights of an earlier run are named after what that run trained, because each framework has its own run with its
    own id. Different weights that would have the same name are numbered.
    """
    by_id = {run.run_id: run for run in runs}
    found: dict[str, InitialWeights] = {}
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
            identity = training_identity(source, found)
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
        found[run.run_id] = InitialWeights(label=label, word=word or label, seeds=seeds)
    return found


def words_for_weights(groups: Iterable[Sequence[RunRecord]], weights: Mapping[str, InitialWeights]) -> dict[str, str]:
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
