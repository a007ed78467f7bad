"""Settings of a run as MLflow has recorded them: those that affect what it learns, and those that affect its cost."""

from __future__ import annotations

import functools
import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tandem.protocol.fields import Affects
from tandem.protocol.settings import FIELDS
from tandem.protocol.settings_hash import values_before
from tandem.tracking import vocabulary

if TYPE_CHECKING:
    from tandem.tracking.reader import RunRecord

NOT_APPLICABLE = "-"

# Parameters that affect numbers but are not among a configuration's settings: backbone, regime and weights have columns
# of their own, a row averages over seeds, and tags hold the origin of the weights and the hashes of the images.
_SHOWN_OTHERWISE = {"backbone", "regime", "seed", "seeds", "weights", "allow_random_weights", "data.source"}
_SHOWN_OTHERWISE |= {vocabulary.NUM_CLASSES, *vocabulary.NUM_IMAGES.values()}
# Groups of settings that affect nothing, including those that only older versions had.
_GROUPS_WITHOUT_EFFECT = ("tracking.", "sweep.")
_WITHOUT_FROZEN_PHASE = ("off_the_shelf", "scratch", "finetune")
_WITH_FROZEN_BACKBONE = ("off_the_shelf", "frozen")
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
    if run.params.get("regime") in _WITH_FROZEN_BACKBONE:
        settings["backbone_batch_norm"] = NOT_APPLICABLE
    if run.params.get("regime") == "off_the_shelf":
        settings |= {name: NOT_APPLICABLE for name in settings if name.startswith(_SETTINGS_OF_TRAINING)}
    return settings


def has_folds_of_training(run: RunRecord) -> bool:
    """True if the run is one of a cross-validation within the training images."""
    return run.params.get("data.split") == "publisher_folds"


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
