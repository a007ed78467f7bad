"""Recipes: settings to start with, shipped as files beside this module and chosen with `--recipe NAME`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


def recipe_file(name: str) -> Path:
    """File of settings of a recipe.

    Args:
        name: A value of the setting `recipe`.
    """
    return Path(__file__).with_name(f"recipe_{name}.yaml")


@functools.cache
def recipe_settings(name: str) -> Mapping[str, Any]:
    """Settings of a recipe by their dotted names.

    Args:
        name: A value of the setting `recipe`.
    """
    content = yaml.safe_load(recipe_file(name).read_text(encoding="utf-8"))
    return dict(_flat(content))


def _flat(nested: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in nested.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return found
