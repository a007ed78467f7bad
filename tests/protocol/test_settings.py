from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from tandem.protocol import data_sets
from tandem.protocol import settings as settings_module
from tandem.protocol import settings_hash as hash_module
from tandem.protocol.data_sets import SplitProtocol
from tandem.protocol.parser import read_settings
from tandem.protocol.settings import (
    FIELDS,
    AccelerationSettings,
    DataSettings,
    HeadSettings,
    OptimizerSettings,
    PhaseSettings,
    Settings,
    TrackingSettings,
    flatten,
    resolve,
    setting,
    with_values,
)
from tandem.protocol.settings_hash import feature_settings, settings_hash, values_before

GROUPS = ["data", "augmentation", "mixing", "loss", "head", "optimizer", "schedule", "early_stopping", "sweep"]
GROUPS += ["acceleration", "tracking"]


def test_names_are_in_the_order_of_declaration() -> None:
    names = list(flatten(Settings()))
    assert names[:6] == ["recipe", "regime", "phases", "backbone", "weights", "allow_random_weights"]
    assert names[names.index("find_learning_rate") + 1] == "data.source"
    assert list(dict.fromkeys(name.split(".")[0] for name in names if "." in name)) == GROUPS
    assert names[-1] == "tracking.system_interval"
    assert len(set(names)) == len(names)


def test_flat_settings_hold_the_values() -> None:
    settings = Settings(seed=3, data=DataSettings(image_size=64, classes=["a", "b"]), head=HeadSettings(hidden=[5]))
    flat = flatten(settings)
    assert (flat["seed"], flat["data.image_size"], flat["head.hidden"]) == (3, 64, [5])
    assert flat["data.classes"] == ["a", "b"]
    assert not any(dataclasses.is_dataclass(value) for value in flat.values())


def test_a_group_can_be_flattened_alone() -> None:
    names = ["hidden", "dropout", "batch_norm", "initialization", "normal_std"]
    assert list(flatten(HeadSettings())) == names
    assert list(flatten(HeadSettings(), "head.")) == [f"head.{name}" for name in names]


def test_phases_are_flattened_to_plain_values() -> None:
    settings = Settings(regime="gradual", phases=[PhaseSettings(trainable="last", blocks=2)])
    expected = [{"trainable": "last", "blocks": 2, "learning_rate": None, "max_epochs": None}]
    assert flatten(settings)["phases"] == expected
    assert flatten(Settings())["phases"] is None


@pytest.mark.parametrize("group", [None, *GROUPS])
def test_settings_cannot_be_changed(group: str | None) -> None:
    owner: Any = Settings() if group is None else getattr(Settings(), group)
    for item in dataclasses.fields(owner):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(owner, item.name, None)


@pytest.mark.parametrize("group", [None, *GROUPS])
def test_settings_are_given_by_name(group: str | None) -> None:
    owner: Any = Settings if group is None else type(getattr(Settings(), group))
    with pytest.raises(TypeError, match="positional"):
        owner("value")
    with pytest.raises(TypeError, match="no_such_setting"):
        owner(no_such_setting=1)


def test_default_lists_are_not_shared() -> None:
    first, second = Settings(), Settings()
    assert first.head.hidden is not second.head.hidden
    assert first == second


def test_defaults_lie_within_their_limits() -> None:
    def within(owner: Any) -> None:
        for item in dataclasses.fields(owner):
            value = getattr(owner, item.name)
            if dataclasses.is_dataclass(value):
                within(value)
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, int | float):
                    assert number > item.metadata.get("above", -1), item.name
                    assert number >= item.metadata.get("at_least", number), item.name
                    assert number <= item.metadata.get("at_most", number), item.name

    within(Settings())


def test_values_replace_settings_at_any_depth() -> None:
    changed = with_values(Settings(), {"learning_rate": 0.5, "head.dropout": 0.1, "optimizer.name": "sgd"})
    expected = Settings(learning_rate=0.5, head=HeadSettings(dropout=0.1), optimizer=OptimizerSettings(name="sgd"))
    assert changed == expected


# ------------------------------------------------------------------------------------------------ what settings affect


def other_values(hint: Any) -> Iterator[Any]:
    """Values of a type, at least one of each kind that it allows."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from other_values(argument)
    elif origin is Literal:
        yield from arguments
    elif origin is list:
        yield [next(other_values(arguments[0]))]
    elif origin is dict:
        yield {"learning_rate": [0.1, 0.2]}
    else:
        simple = {bool: [True, False], int: [7], float: [0.25], str: ["other"], types.NoneType: [None]}
        yield from simple.get(hint) or [hint(trainable="last", blocks=2)]


def changes() -> Iterator[tuple[str, Any]]:
    """Dotted names of settings, with values other than the default."""
    for name in FIELDS:
        owner: Any = Settings
        *groups, last = name.split(".")
        for group in groups:
            owner = typing.get_type_hints(owner)[group]
        for value in other_values(typing.get_type_hints(owner)[last]):
            if with_values(Settings(), {name: value}) != Settings():
                yield name, value


CHANGES = list(changes())

NO_NUMBERS = {
    "cost": {
        *("device", "threads", "num_devices", "cache_features", "acceleration.compile", "acceleration.channels_last"),
        *("acceleration.fused_optimizer", "acceleration.cudnn_autotune", "acceleration.keep_memory"),
        "acceleration.deterministic",
    },
    "nothing": {
        *("eval_batch_size", "find_learning_rate", "data.cache_folder", "resume", "checkpoint_minutes", "requeue"),
        "recipe",
        "test_time_augmentation",
        *(name for name in flatten(Settings()) if name.startswith(("tracking.", "sweep."))),
    },
}


def test_every_setting_says_what_it_affects_and_is_changed_below() -> None:
    assert set(FIELDS) == set(flatten(Settings())) == {name for name, _ in CHANGES}
    found = {name: item.metadata["affects"] for name, item in FIELDS.items()}
    assert {name for name, affects in found.items() if affects == "cost"} == NO_NUMBERS["cost"]
    assert {name for name, affects in found.items() if affects == "nothing"} == NO_NUMBERS["nothing"]
    assert {found[name] for name in FIELDS} == {"numbers", "cost", "nothing"}


@pytest.mark.parametrize(("name", "value"), CHANGES, ids=str)
def test_settings_hash_changes_with_every_setting_that_affects_numbers_and_no_other(name: str, value: Any) -> None:
    changed = settings_hash(with_values(Settings(), {name: value}))
    affects_numbers = not any(name in names for names in NO_NUMBERS.values())
    assert (changed != settings_hash(Settings())) == affects_numbers


@pytest.mark.parametrize("name", ["trainable", "blocks", "learning_rate", "max_epochs"])
def test_settings_hash_changes_with_every_setting_of_a_phase(name: str) -> None:
    phases = [PhaseSettings(trainable="last", blocks=2), PhaseSettings(trainable="all")]
    values = {"trainable": "head", "blocks": 3, "learning_rate": 0.25, "max_epochs": 7}
    assert set(values) == {item.name for item in dataclasses.fields(PhaseSettings)}
    changed = [dataclasses.replace(phases[0], **{name: values[name]}), phases[1]]
    before, after = (Settings(regime="gradual", phases=these) for these in (phases, changed))
    assert settings_hash(before) != settings_hash(after)
    assert settings_hash(before) != settings_hash(Settings(regime="gradual", phases=phases[::-1]))


# Hashes computed by version 0.1.0. They have to stay what they are, since finished runs are found by them. If a new
# setting changes them, give it `before`, the value that runs had before it existed.
STORED_HASHES = [
    (Settings(), "26650d45096154f13c3b7dc1ff601e0a5047c4a176a414cc13fab88b34b3200c"),
    (Settings(cache_features=False, threads=3), "26650d45096154f13c3b7dc1ff601e0a5047c4a176a414cc13fab88b34b3200c"),
]
STORED_HASHES_OF_OPTIONS = {
    "": "16341d24fd961a4c5ff6c8df963dc54f738f63199488a24bf90594d6e1e1104c",
    "--data.source cifar100": "f550e128ccfb9a1113b402bdabe0aba0bf167a1e866c2b03b311a40201b20be6",
    "--data.split folds --data.fold 1": "b5bdf9155966d3d9447d21541532706d27aeba5be1f0d1862a48c1ed761e89e6",
    "--regime gradual --phases [{trainable:head},{trainable:last,blocks:2,learning_rate:1e-4}]": (
        "030bde4fde73d2687d22d6f089315808233466cca315f7b3141a3ff67b5fc6fb"
    ),
    "--augmentation.horizontal_flip true --augmentation.random_resized_crop [0.08,1.0] --precision bfloat16": (
        "962db29ce41d7bf3fed649f94bc1ef78d4e32a43c66262e4967ca926b564c826"
    ),
    "--regime frozen --augmentation.horizontal_flip true --cache_views 4 --acceleration.tf32 false "
    "--head.hidden [256,64]": "8e1a248478517429721ac1b3ccc246d61861519505cb14eeb4ee35f4430712c6",
    "--regime scratch --optimizer.name sgd --optimizer.nesterov true --schedule.name cosine "
    "--schedule.warmup_epochs 3": "2d2fc393056d5dd173a7ed459cebfe4caff35aa0bf715baee21f00a386635e10",
}


@pytest.mark.parametrize(("settings", "stored"), STORED_HASHES)
def test_settings_hash_is_that_of_earlier_versions(settings: Settings, stored: str) -> None:
    assert settings_hash(settings) == stored


@pytest.mark.parametrize("options", STORED_HASHES_OF_OPTIONS)
def test_settings_hash_of_a_command_line_is_that_of_earlier_versions(options: str) -> None:
    words = [word.replace(":", ": ") if word.startswith("[{") else word for word in options.split()]
    assert settings_hash(read_settings("torch", words)) == STORED_HASHES_OF_OPTIONS[options]


# -------------------------------------------------------------------------------------------------- settings to come


@dataclass(frozen=True, kw_only=True)
class NewGroup:
    beta: float = setting(0.5, affects="numbers", at_least=0)
    workers: int = setting(2, affects="cost", at_least=1)


@dataclass(frozen=True, kw_only=True)
class NewPhaseSettings(PhaseSettings):
    momentum: float = setting(0.9, affects="numbers", at_least=0)


@dataclass(frozen=True, kw_only=True)
class NewHeadSettings(HeadSettings):
    activation: Literal["relu", "gelu"] = setting("relu", affects="numbers")


@dataclass(frozen=True, kw_only=True)
class NewSettings(Settings):
    """Settings of a later version: new ones, a new group, and two whose default differs from older runs."""

    label_smoothing: float = setting(0.0, affects="numbers", at_least=0)
    prefetch: int = setting(4, affects="cost", at_least=1)
    note: str = setting("", affects="nothing")
    rotation: list[int] = setting((), affects="numbers", at_least=0)  # noqa: RUF009
    dithering: bool = setting(True, affects="numbers", before=False)
    patch_size: int | None = setting(None, affects="numbers", before=16, stands_for=lambda settings: 16)
    new_group: NewGroup = field(default_factory=NewGroup)
    head: HeadSettings = field(default_factory=NewHeadSettings)


def test_new_setting_at_its_default_leaves_the_hash_unchanged() -> None:
    earlier = NewSettings(dithering=False, patch_size=16)
    assert settings_hash(earlier) == settings_hash(Settings())
    phases, new_phases = ([of(trainable="last", blocks=2)] for of in (PhaseSettings, NewPhaseSettings))
    assert settings_hash(Settings(regime="gradual", phases=phases)) == settings_hash(
        dataclasses.replace(earlier, regime="gradual", phases=new_phases)
    )
    for name, value in {
        "label_smoothing": 0.1,
        "rotation": [90],
        "new_group.beta": 0.25,
        "head.activation": "gelu",
        "phases": [NewPhaseSettings(trainable="all", momentum=0.5)],
    }.items():
        assert settings_hash(with_values(earlier, {name: value})) != settings_hash(earlier), name
    for name, value in {"prefetch": 5, "note": "x", "new_group.workers": 3}.items():
        assert settings_hash(with_values(earlier, {name: value})) == settings_hash(earlier), name


def test_default_that_changed_has_a_hash_of_its_own() -> None:
    # older runs did not dither, so a run that does is a different experiment, although that is the default
    changed = NewSettings(patch_size=16)
    assert changed.dithering
    assert settings_hash(changed) != settings_hash(Settings())
    assert settings_hash(dataclasses.replace(changed, dithering=False)) == settings_hash(Settings())


def test_value_that_stands_for_another_is_hashed_as_that_one() -> None:
    resolved = resolve(NewSettings(dithering=False, data=DataSettings(split="fractions", fractions=[0.7, 0.1, 0.2])))
    assert isinstance(resolved, NewSettings) and resolved.patch_size == 16
    assert settings_hash(resolved) == settings_hash(Settings(data=resolved.data))
    assert settings_hash(with_values(resolved, {"patch_size": 8})) != settings_hash(resolved)


def test_automatic_split_is_hashed_by_what_it_means(monkeypatch: pytest.MonkeyPatch) -> None:
    automatic = settings_hash(read_settings("torch", []))
    words = ["--data.split", "fractions", "--data.fractions", "[0.7, 0.1, 0.2]"]
    assert automatic == settings_hash(read_settings("keras", words))
    # if a later version splits the data set differently, `auto` becomes a different experiment
    changed = SplitProtocol(split="fractions", fractions=(0.6, 0.2, 0.2))
    monkeypatch.setitem(data_sets.DATA_SETS, "digits", changed)
    words[-1] = "[0.6, 0.2, 0.2]"
    assert settings_hash(read_settings("torch", [])) == settings_hash(read_settings("torch", words)) != automatic


def test_explicit_settings_are_unchanged_when_resolved() -> None:
    settings = Settings(data=DataSettings(split="publisher", fractions=[0.5, 0.25, 0.25]), seed=3)
    assert resolve(settings) == settings


def test_values_before_are_those_of_older_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert values_before() == {
        "accumulate": 1,
        "backbone_batch_norm": "train",
        "ema_decay": None,
        "max_minutes": None,
        "cache_features": False,
        "cache_views": None,
        "num_devices": 1,
        "optimizer.clip_norm": None,
        "schedule.step_epochs": 10,
        "acceleration.compile": None,
        "acceleration.channels_last": False,
        "acceleration.tf32": True,
        "acceleration.fused_optimizer": False,
        "acceleration.cudnn_autotune": False,
        "acceleration.deterministic": False,
        "acceleration.keep_memory": False,
        "data.parts": None,
        "data.labels": None,
        "data.columns": None,
        "data.pixel_range": "auto",
        "data.max_pixels": 178_956_970,
        "augmentation.vertical_flip": False,
        "augmentation.rotation": 0.0,
        "augmentation.policy": "none",
        "augmentation.num_operations": 2,
        "augmentation.magnitude": 9,
        "augmentation.random_erasing": 0.0,
        "sampling": "shuffled",
        "mixing.mixup_alpha": 0.0,
        "mixing.cutmix_alpha": 0.0,
        "loss.label_smoothing": 0.0,
        "loss.class_weights": "none",
    }
    new_fields = {name: item for name, item, _ in settings_module.walk(NewSettings())}
    monkeypatch.setattr(hash_module, "FIELDS", new_fields)
    more = {name: value for name, value in values_before().items() if name not in FIELDS}
    assert more == {
        "label_smoothing": 0.0,
        "prefetch": 4,
        "rotation": [],
        "dithering": False,
        "patch_size": 16,
        "new_group.beta": 0.5,
        "new_group.workers": 2,
        "head.activation": "relu",
    }


def test_features_depend_on_settings_in_an_order_that_names_the_caches_of_earlier_versions() -> None:
    settings = Settings(
        backbone="vgg16", data=DataSettings(image_size=64), acceleration=AccelerationSettings(tf32=False), seed=5
    )
    assert list(feature_settings(settings).items()) == [
        ("backbone", "vgg16"),
        ("pixel_scaling", "auto"),
        ("precision", "float32"),
        ("acceleration.tf32", False),
        ("data.image_size", 64),
    ]


def test_new_setting_at_its_default_leaves_cached_features_valid() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Newer(Settings):
        pooling: Literal["mean", "max"] = setting("mean", affects="numbers", changes_features=True)

    assert feature_settings(Newer()) == feature_settings(Settings())
    assert feature_settings(Newer(pooling="max")) == {**feature_settings(Settings()), "pooling": "max"}


def test_place_and_name_of_a_run_affect_nothing() -> None:
    elsewhere = TrackingSettings(uri="http://x", experiment="other", folder="elsewhere")
    assert settings_hash(Settings(tracking=elsewhere)) == settings_hash(Settings())
