from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tandem.protocol.data_sets import resolve_split
from tandem.protocol.parser import read_settings
from tandem.protocol.settings import (
    OptimizerSettings,
    PhaseSettings,
    Settings,
    SweepSettings,
    TrackingSettings,
    flatten,
)
from tandem.protocol.settings_hash import settings_hash
from tandem.tracking import vocabulary
from tandem.tracking.provenance import hide_password, parameter_text, run_tags, settings_yaml

PHASES = [PhaseSettings(trainable="head"), PhaseSettings(trainable="last", blocks=2, learning_rate=1e-4)]


def tags_of(settings: Settings) -> dict[str, str]:
    return run_tags(settings, framework="torch", backend="torch", versions={})


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(regime="gradual", phases=PHASES, seeds=[3, 1]),
        Settings(optimizer=OptimizerSettings(name="sgd", weight_decay=1e-4, layer_decay=0.7)),
    ],
    ids=["defaults", "phases", "optimizer"],
)
def test_written_settings_are_read_back_unchanged(settings: Settings, tmp_path: Path) -> None:
    settings = replace(settings, data=resolve_split(settings.data))  # as in a run
    file = tmp_path / vocabulary.SETTINGS_FILE
    file.write_text(settings_yaml(settings), encoding="utf-8")
    assert read_settings("torch", ["--config", str(file)]) == settings


@pytest.mark.parametrize(
    ("value", "text"),
    [("finetune", "finetune"), ("3", "3"), (3, "3"), (None, "null"), (True, "true"), ([0.7, "é"], '[0.7, "é"]')],
)
def test_strings_are_unchanged_as_parameters_and_other_values_are_json(value: object, text: str) -> None:
    assert parameter_text(value) == text


def test_long_parameter_is_cut_with_a_reference_to_the_settings_file() -> None:
    text = parameter_text("x" * 7000)
    assert len(text) == 6000
    assert text.endswith("x... (7000 characters, all of them in settings.yaml)")


def test_phases_are_one_parameter() -> None:
    text = parameter_text(flatten(Settings(regime="gradual", phases=PHASES))["phases"])
    assert json.loads(text) == [
        {"trainable": "head", "blocks": None, "learning_rate": None, "max_epochs": None},
        {"trainable": "last", "blocks": 2, "learning_rate": 1e-4, "max_epochs": None},
    ]


def test_settings_hash_depends_on_the_phases() -> None:
    assert settings_hash(Settings(regime="gradual", phases=PHASES)) != settings_hash(
        Settings(regime="gradual", phases=PHASES[:1])
    )


def test_child_run_has_the_tag_of_its_parent() -> None:
    # the MLflow UI nests runs by mlflow.parentRunId
    assert "mlflow.parentRunId" not in tags_of(Settings())
    settings = Settings(tracking=TrackingSettings(parent_run="0123456789abcdef" * 2))
    assert tags_of(settings)["mlflow.parentRunId"] == "0123456789abcdef" * 2


@pytest.mark.parametrize("budget", ["full", "small"])
def test_budget_is_a_tag(budget: str) -> None:
    settings = Settings(tracking=TrackingSettings(budget=budget))  # type: ignore[arg-type]
    assert tags_of(settings)["tandem.budget"] == budget


def test_passwords_of_the_store_and_of_a_sweeps_study_are_hidden() -> None:
    settings = Settings(
        tracking=TrackingSettings(uri="http://me:secret@host:5000"),
        sweep=SweepSettings(storage="postgresql://me:secret@host/optuna"),
    )
    shown = hide_password(settings)
    assert shown.tracking.uri == "http://me:***@host:5000"
    assert shown.sweep.storage == "postgresql://me:***@host/optuna"
    assert hide_password(Settings()) == Settings()


def test_settings_hash_ignores_sweeps_and_range_tests() -> None:
    looking = Settings(find_learning_rate=True, sweep=SweepSettings(num_trials=3))
    assert settings_hash(looking) == settings_hash(Settings())
