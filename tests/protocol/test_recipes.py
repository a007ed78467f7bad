from __future__ import annotations

import typing
from pathlib import Path

import pytest

from tandem.errors import UserError
from tandem.protocol.frameworks import Framework
from tandem.protocol.parser import change_settings, read_settings
from tandem.protocol.recipes import recipe_file, recipe_settings
from tandem.protocol.regimes import num_cached_views, phases_of
from tandem.protocol.settings import FIELDS, Recipe, flatten
from tandem.protocol.settings_hash import settings_hash
from tandem.tracking.provenance import settings_yaml

RECIPES = typing.get_args(Recipe)
FRAMEWORKS = typing.get_args(Framework)


def test_every_recipe_has_a_file_and_every_file_a_name() -> None:
    files = {path.stem.removeprefix("recipe_") for path in recipe_file("best").parent.glob("recipe_*.yaml")}
    assert files == set(RECIPES)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_is_read_from_any_folder(
    framework: Framework, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = flatten(read_settings(framework, ["--recipe", recipe]))
    own = recipe_settings(recipe)
    assert {name: settings[name] for name in own} == dict(own)
    assert settings["recipe"] == recipe
    # Nothing else differs from a run without a recipe.
    others = set(settings) - set(own) - {"recipe"}
    defaults = flatten(read_settings(framework, []))
    assert {name: settings[name] for name in others} == {name: defaults[name] for name in others}


def test_best_thaws_with_layer_wise_rates_after_a_linear_probe() -> None:
    settings = read_settings("torch", ["--recipe", "best"])
    head, everything = phases_of(settings)
    assert (head.trainable, everything.trainable) == ("head", "all")
    assert everything.learning_rate < head.learning_rate
    assert (settings.optimizer.name, settings.schedule.name) == ("adamw", "cosine")
    assert settings.optimizer.layer_decay < 1 and settings.schedule.warmup_epochs > 0
    assert settings.loss.label_smoothing == 0.1
    assert [phase.batch_norm for phase in (head, everything)] == ["frozen", "frozen"]
    assert settings.augmentation.horizontal_flip and settings.augmentation.random_resized_crop is not None


def test_fast_trains_only_the_head_on_cached_features() -> None:
    settings = read_settings("keras", ["--recipe", "fast"])
    (phase,) = phases_of(settings)
    assert phase.trainable == "head" and num_cached_views(phase, settings) == 1


def test_command_line_and_configuration_files_override_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("learning_rate: 0.02\noptimizer: {layer_decay: 0.5}\n", encoding="utf-8")
    # Whatever the order on the command line is.
    for words in (["--recipe", "best", "--config", str(file)], ["--config", str(file), "--recipe", "best"]):
        settings = read_settings("torch", [*words, "--optimizer.layer_decay", "0.6"])
        assert (settings.learning_rate, settings.optimizer.layer_decay) == (0.02, 0.6)
        assert settings.optimizer.name == "adamw"  # the rest of the group is the recipe's


def test_configuration_file_may_name_a_recipe_which_the_command_line_may_replace(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("recipe: best\nmax_epochs: 7\n", encoding="utf-8")
    settings = read_settings("torch", ["--config", str(file)])
    assert (settings.regime, settings.max_epochs) == ("two_stage", 7)
    settings = read_settings("torch", ["--config", str(file), "--recipe", "fast"])
    assert (settings.regime, settings.max_epochs, settings.optimizer.layer_decay) == ("frozen", 7, 1)
    settings = read_settings("torch", ["--config", str(file), "--recipe", "null"])
    assert (settings.recipe, settings.regime, settings.max_epochs) == (None, "finetune", 7)


def test_run_of_a_recipe_is_the_experiment_of_its_settings() -> None:
    by_name = read_settings("torch", ["--recipe", "best"])
    by_hand = read_settings("torch", ["--config", str(recipe_file("best"))])
    assert settings_hash(by_name) == settings_hash(by_hand)
    assert FIELDS["recipe"].metadata["affects"] == "nothing"


def test_stored_settings_of_a_run_give_the_same_settings_again(tmp_path: Path) -> None:
    settings = read_settings("torch", ["--recipe", "best", "--optimizer.name", "sgd", "--learning_rate", "0.1"])
    file = tmp_path / "settings.yaml"
    file.write_text(settings_yaml(settings), encoding="utf-8")
    assert read_settings("torch", ["--config", str(file)]) == settings
    # Trials of a sweep change single settings and do not read the recipe again.
    assert change_settings(settings, "torch", {"max_epochs": 3}).optimizer.name == "sgd"


def test_unknown_recipe_is_refused_with_the_names() -> None:
    with pytest.raises(UserError, match=r"recipe: received 'best_of_all', allowed: best, fast or null"):
        read_settings("torch", ["--recipe", "best_of_all"])


def test_refused_setting_of_a_recipe_names_the_recipe() -> None:
    with pytest.raises(UserError, match=r"optimizer\.layer_decay: received 0\.8, allowed: 1 .*; --recipe best sets it"):
        read_settings("torch", ["--recipe", "best", "--regime", "frozen"])
    # A setting that the user gave is the user's.
    with pytest.raises(UserError, match=r"^batch_size: received 0, allowed: .*[^t]$") as caught:
        read_settings("torch", ["--recipe", "best", "--batch_size", "0"])
    assert "recipe" not in str(caught.value)
