from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tandem.errors import UserError
from tandem.protocol.parser import change_settings, read_settings
from tandem.protocol.search_space import VARIED_OF_DATA, Choice, Range, combinations, read_space, varied_backbones
from tandem.protocol.settings import FIELDS, Settings, SweepSettings


def sweep_of(space: Any, *words: str) -> Settings:
    return read_settings("torch", ["--sweep.num_trials", "3", "--sweep.space", json.dumps(space), *words])


def test_learning_rate_is_varied_by_default() -> None:
    settings = read_settings("keras", ["--sweep.num_trials", "3"])
    assert read_space(settings) == (Range(name="learning_rate", low=1e-5, high=0.1, log=True, whole=False),)


def test_ranges_and_choices_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "sweep:\n"
        "  num_trials: 5\n"
        "  space:\n"
        "    learning_rate: {low: 1e-4, high: 1.0e-2, log: true}\n"
        "    head.dropout: {low: 0, high: 0.5}\n"
        "    batch_size: {low: 8, high: 64, log: true}\n"
        "    optimizer.name: [adam, sgd]\n"
        "    head.hidden: [[], [256]]\n"
        "    early_stopping.patience: [3, null]\n"
    )
    assert read_space(read_settings("torch", ["--config", str(file)])) == (
        Range(name="learning_rate", low=1e-4, high=1e-2, log=True, whole=False),
        Range(name="head.dropout", low=0, high=0.5, log=False, whole=False),
        Range(name="batch_size", low=8, high=64, log=True, whole=True),
        Choice(name="optimizer.name", values=("adam", "sgd")),
        Choice(name="head.hidden", values=([], [256])),
        Choice(name="early_stopping.patience", values=(3, None)),
    )


REFUSED: dict[str, tuple[Any, list[str], list[str]]] = {
    "nothing to vary": ({}, [], ["sweep.space:", "one or more"]),
    "no such setting": ({"learningrate": [1, 2]}, [], ["sweep.space.learningrate:", "no such setting"]),
    "a group of settings": ({"head": [1, 2]}, [], ["sweep.space.head:", "no such setting"]),
    "what trials share": ({"seed": [1, 2]}, [], ["sweep.space.seed:", "cannot vary"]),
    "other images": ({"data.split_seed": [1, 2]}, [], ["sweep.space.data.split_seed:", "data.image_size"]),
    "its own setting": ({"sweep.num_trials": [1, 2]}, [], ["sweep.space.sweep.num_trials:", "cannot vary"]),
    "one value": ({"optimizer.name": ["adam"]}, [], ["sweep.space.optimizer.name:", "two or more"]),
    "a value twice": ({"optimizer.name": ["sgd", "sgd"]}, [], ["sweep.space.optimizer.name:", "two or more"]),
    "neither range nor list": ({"head.dropout": 0.2}, [], ["sweep.space.head.dropout:", "0.2", "range"]),
    "a range of words": ({"optimizer.name": {"low": 1, "high": 2}}, [], ["sweep.space.optimizer.name:", "a list"]),
    "no high": ({"head.dropout": {"low": 0.1}}, [], ["sweep.space.head.dropout:", "low and high"]),
    "high below low": ({"head.dropout": {"low": 0.3, "high": 0.1}}, [], ["sweep.space.head.dropout:", "smaller"]),
    "an unknown key": ({"head.dropout": {"low": 0, "high": 0.5, "step": 1}}, [], ["step", "low, high, log"]),
    "log from 0": ({"head.dropout": {"low": 0, "high": 0.5, "log": True}}, [], ["above 0 with log"]),
    "log that is a word": ({"head.dropout": {"low": 0, "high": 0.5, "log": "yes please"}}, [], ["true or false"]),
    "above the limit": ({"learning_rate": {"low": 0.1, "high": 20}}, [], ["learning_rate 20", "at most 10"]),
    "a wrong word": ({"optimizer.name": ["adam", "lion"]}, [], ["sweep.space.optimizer.name:", "lion", "adamw"]),
    "no whole number": ({"batch_size": {"low": 2.5, "high": 8}}, [], ["sweep.space.batch_size:", "whole number"]),
    "values that contradict the others": (
        {"optimizer.weight_decay": {"low": 1e-5, "high": 1e-2}},
        [],
        ["optimizer.weight_decay 1e-05", "optimizer.name adam;"],
    ),
    "values that contradict each other": (
        {"optimizer.name": ["sgd", "adam"], "optimizer.weight_decay": {"low": 1e-5, "high": 1e-2}},
        [],
        ["optimizer.name 'adam', optimizer.weight_decay 1e-05"],
    ),
    "too small for the backbone": ({"data.image_size": [16, 64]}, [], ["data.image_size 16", "at least 32"]),
    "nothing to train": ({"head.dropout": [0, 0.5]}, ["--regime", "off_the_shelf"], ["sweep.num_trials: received 3"]),
    "several seeds": ({"head.dropout": [0, 0.5]}, ["--seeds", "[1, 2]"], ["sweep.num_trials:", "one seed"]),
    "several devices": ({"head.dropout": [0, 0.5]}, ["--num_devices", "2"], ["num_devices: received 2", "allowed: 1"]),
    "what changes no result": ({"cache_features": [True, False]}, [], ["sweep.space.cache_features:", "no result"]),
    "a regime that trains nothing": (
        {"regime": ["frozen", "off_the_shelf"]},
        [],
        ["regime 'off_the_shelf'", "nothing"],
    ),
    "regimes from scratch": (
        {"regime": ["scratch", "frozen"]},
        ["--regime", "scratch"],
        ["regime: received 'scratch'", "pretrained"],
    ),
    "all folds": ({"head.dropout": [0, 0.5]}, ["--data.split", "folds"], ["sweep.num_trials:", "data.fold"]),
    "a range test": ({"head.dropout": [0, 0.5]}, ["--find_learning_rate", "true"], ["find_learning_rate:"]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_wrong_search_space_is_reported_in_one_line(what: str) -> None:
    space, words, told = REFUSED[what]
    with pytest.raises(UserError) as caught:
        sweep_of(space, *words)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in told), message


def test_values_that_are_allowed_only_together_are_allowed() -> None:
    space = {"optimizer.name": ["adamw", "sgd"], "optimizer.weight_decay": {"low": 1e-5, "high": 1e-2}}
    assert len(read_space(sweep_of(space))) == 2


def test_search_space_is_ignored_without_trials() -> None:
    words = ["--sweep.space", '{"seed": [1, 2]}', "--seeds", "[1, 2]"]
    assert read_settings("torch", words).sweep.num_trials is None


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--regime", "off_the_shelf"], "off_the_shelf"), (["--seeds", "[1, 2]"], "one seed")],
)
def test_a_range_test_needs_one_run_that_trains(words: list[str], told: str) -> None:
    with pytest.raises(UserError, match=f"^find_learning_rate: received True, .*{told}"):
        read_settings("torch", ["--find_learning_rate", "true", *words])


def test_every_pair_of_values_occurs_in_a_combination() -> None:
    dimensions = (
        Choice(name="a", values=(1, 2, 3)),
        Range(name="b", low=0, high=1, log=False, whole=False),
        Choice(name="c", values=("x", "y")),
    )
    found = list(combinations(dimensions))
    for first, second in (("a", "b"), ("a", "c"), ("b", "c")):
        values = {"a": (1, 2, 3), "b": (0, 1), "c": ("x", "y")}
        assert {(one[first], one[second]) for one in found} == {(x, y) for x in values[first] for y in values[second]}


def test_changed_settings_are_those_of_a_command_line() -> None:
    words = ["--regime", "gradual", "--phases", '[{"trainable": "head"}, {"trainable": "last", "blocks": 2}]']
    base = read_settings("torch", words)
    changed = change_settings(base, "torch", {"learning_rate": 1, "head.hidden": [8]})
    assert changed == read_settings("torch", [*words, "--learning_rate", "1", "--head.hidden", "[8]"])
    assert change_settings(base, "torch", {}) == base


def test_changed_settings_are_checked() -> None:
    with pytest.raises(UserError, match=r"^optimizer\.nesterov: received True"):
        change_settings(Settings(), "torch", {"optimizer.nesterov": True})


def test_processes_started_together_share_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "8", "RANK": "3", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    assert sweep_of({"head.dropout": [0, 0.5]}).num_devices == 1


def test_a_range_test_takes_one_device() -> None:
    with pytest.raises(UserError, match=r"^num_devices: received 2, allowed: 1 with find_learning_rate"):
        read_settings("torch", ["--find_learning_rate", "true", "--num_devices", "2"])


def test_a_sweep_may_build_all_backbones_that_it_varies() -> None:
    assert varied_backbones(sweep_of({"backbone": ["alexnet", "vgg16"]}, "--data.image_size", "64")) == (
        "alexnet",
        "vgg16",
    )
    assert varied_backbones(sweep_of({"head.dropout": [0, 0.5]})) == ("mobilenet_v2",)
    assert varied_backbones(Settings(backbone="resnet50")) == ("resnet50",)


@pytest.mark.parametrize("name", FIELDS)
def test_sweep_varies_what_affects_numbers_and_trials_do_not_share(name: str) -> None:
    shared = ("seed", "seeds", "phases", "allow_random_weights")
    shared += tuple(name for name in FIELDS if name.startswith("data.") and name not in VARIED_OF_DATA)
    settings = Settings(sweep=SweepSettings(space={name: ["a", "b"]}))
    if FIELDS[name].metadata["affects"] == "numbers" and name not in shared:
        assert read_space(settings) == (Choice(name=name, values=("a", "b")),)
    else:
        with pytest.raises(UserError, match="cannot vary"):
            read_space(settings)
