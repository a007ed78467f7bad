"""Hashes of settings: which experiment a run is, and which features of a frozen backbone can be reused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import MISSING
from typing import Any

from tandem.protocol.settings import FIELDS, PhaseSettings, Settings, walk

# Settings that every run has recorded, and every hash contains, whatever their value. The list is closed: stored hashes
# depend on it, and a setting that is not in it is hashed only where its value is not the one of runs before it existed.
_ORIGINAL_SETTINGS = frozenset(
    group + name
    for group, names in {
        "": (
            *("regime", "phases", "backbone", "weights", "allow_random_weights", "pixel_scaling"),
            *("batch_norm_momentum", "learning_rate", "thawed_rate_factor", "batch_size", "max_epochs", "seed"),
            *("seeds", "imagenet_classes", "precision", "device", "threads", "cache_views"),
        ),
        "phases.": ("trainable", "blocks", "learning_rate", "max_epochs"),
        "acceleration.": ("tf32",),
        "data.": (
            *("source", "classes", "image_size", "resize", "split", "fractions", "folds", "fold", "split_seed"),
            *("images_per_class", "train_images_per_class", "on_bad_image", "duplicates"),
        ),
        "augmentation.": (
            "horizontal_flip",
            "crop_padding",
            "random_resized_crop",
            "brightness",
            "contrast",
            "saturation",
            "hue",
        ),
        "head.": ("hidden", "dropout", "batch_norm", "initialization", "normal_std"),
        "optimizer.": ("name", "beta_1", "beta_2", "epsilon", "momentum", "nesterov", "weight_decay", "layer_decay"),
        "schedule.": ("name", "warmup_epochs", "factor", "patience", "min_delta", "min_learning_rate"),
        "early_stopping.": ("patience", "min_delta", "restore"),
    }.items()
    for name in names
)


def values_before() -> dict[str, Any]:
    """Values that runs had, in effect, before a setting existed, by name; without settings that all runs have."""
    return {
        name: _value_before(item)
        for name, item in FIELDS.items()
        if item.metadata["affects"] != "nothing" and ("before" in item.metadata or name not in _ORIGINAL_SETTINGS)
    }


def settings_hash(settings: Settings) -> str:
    """SHA-256 (hexadecimal) of the settings that affect numbers. Equal hashes mean the same experiment.

    A setting that is newer than a stored hash is left out where it has the value that runs had before it existed, so
    that stored hashes stay valid.

    Args:
        settings: As they were read, that is, resolved.
    """
    content = json.dumps(hashed_settings(settings), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()


def feature_settings(settings: Settings) -> dict[str, Any]:
    """The settings that a frozen backbone's features of an image depend on, by name; new ones as in settings_hash.

    The order is a part of the hash that names a cache: settings of no group first, then by name.
    """
    found = {
        name: value
        for name, item, value in walk(settings)
        if item.metadata.get("changes_features") and _is_hashed(name, item, value)
    }
    return {name: found[name] for name in sorted(found, key=lambda name: ("." in name, name))}


def hashed_settings(owner: Any, prefix: str = "") -> dict[str, Any]:
    """The settings of a run, or of a group, that belong to its hash, nested as they are declared.

    Args:
        owner: Settings, one of its groups, or a phase.
        prefix: What precedes the names: `augmentation.` for that group.
    """
    content: dict[str, Any] = {}
    for item in dataclasses.fields(owner):
        name, value = prefix + item.name, getattr(owner, item.name)
        if dataclasses.is_dataclass(value):
            if of_group := hashed_settings(value, f"{name}."):
                content[item.name] = of_group
        elif _is_hashed(name, item, value):
            phases = isinstance(value, list) and all(isinstance(part, PhaseSettings) for part in value)
            content[item.name] = [hashed_settings(part, f"{name}.") for part in value] if phases else value
    return content


def _is_hashed(name: str, item: dataclasses.Field[Any], value: Any) -> bool:
    if item.metadata["affects"] != "numbers":
        return False
    return name in _ORIGINAL_SETTINGS or value != _value_before(item)


def _value_before(item: dataclasses.Field[Any]) -> Any:
    default = item.default_factory() if item.default_factory is not MISSING else item.default
    return item.metadata.get("before", default)
