from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tandem.protocol.settings import DataSettings, HeadSettings, PhaseSettings, Settings, flatten

GROUPS = ["data", "augmentation", "head", "optimizer", "schedule", "early_stopping", "tracking"]


def test_names_stand_in_the_order_of_declaration() -> None:
    names = list(flatten(Settings()))
    assert names[:5] == ["regime", "phases", "backbone", "weights", "allow_random_weights"]
    assert names[names.index("threads") + 1 :][:2] == ["num_devices", "data.source"]
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
                if item.metadata and number is not None:
                    assert number > item.metadata.get("above", -1), item.name
                    assert number >= item.metadata.get("at_least", number), item.name
                    assert number <= item.metadata.get("at_most", number), item.name

    within(Settings())
