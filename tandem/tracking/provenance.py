"""Origin of a run: its settings as parameters, file and hash, versions, script, user and commit."""

from __future__ import annotations

import dataclasses
import getpass
import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import yaml
from mlflow.utils.mlflow_tags import (
    MLFLOW_GIT_COMMIT,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)

import tandem
from tandem.protocol.environment import recorded_environment
from tandem.protocol.settings import Settings, walk, with_values
from tandem.protocol.settings_hash import settings_hash
from tandem.secrets import shown_uri
from tandem.tracking import vocabulary
from tandem.tracking.system import describe_hardware

PARAMETER_LIMIT = 6000  # characters; MLflow silently truncates longer values


def parameter_text(value: Any) -> str:
    """Text of a parameter for MLflow: strings unchanged, other values as JSON (null, true, [0.7, 0.1, 0.2])."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) <= PARAMETER_LIMIT:
        return text
    ending = f"... ({len(text)} characters, all of them in {vocabulary.SETTINGS_FILE})"
    return text[: PARAMETER_LIMIT - len(ending)] + ending


def settings_yaml(settings: Settings) -> str:
    """Settings as a configuration file for the training scripts."""
    return yaml.safe_dump(dataclasses.asdict(settings), sort_keys=False, allow_unicode=True)


def method_title(settings: Settings, framework: str) -> str:
    """Name of a method in MLflow: what differs most between runs first, since the UI cuts long names."""
    return f"{framework} {settings.regime} {settings.backbone}"


def run_title(settings: Settings, framework: str) -> str:
    """Name of a run that the user has not named: its method, and its seed and fold unless there is only the first."""
    seed = f", seed {settings.seed}" if settings.seed else ""
    fold = f", fold {settings.data.fold}" if settings.data.fold is not None else ""
    return method_title(settings, framework) + seed + fold


def hide_password(settings: Settings) -> Settings:
    """The settings, as they are recorded: without the secrets of addresses, such as tracking.uri."""
    shown = {name: shown_uri(value) for name, _, value in walk(settings) if isinstance(value, str) and "://" in value}
    return with_values(settings, shown)


def run_tags(settings: Settings, framework: str, backend: str, versions: Mapping[str, str]) -> dict[str, str]:
    """Tags of every run at its start."""
    versions = {
        "tandem": tandem.__version__,
        "python": platform.python_version(),
        "mlflow": mlflow.__version__,
        **versions,
    }
    script = Path(sys.argv[0]).absolute()
    tags = {
        vocabulary.FRAMEWORK: framework,
        vocabulary.BACKEND: backend,
        vocabulary.SETTINGS_HASH: settings_hash(settings),
        vocabulary.BUDGET: settings.tracking.budget,
        vocabulary.HARDWARE: describe_hardware(),
        vocabulary.ENVIRONMENT: json.dumps(recorded_environment()),
        **{vocabulary.VERSION_PREFIX + name: version for name, version in versions.items()},
        MLFLOW_SOURCE_NAME: script.name,
        MLFLOW_SOURCE_TYPE: "LOCAL",
        MLFLOW_USER: _user(),
    }
    if settings.tracking.parent_run is not None:
        tags[MLFLOW_PARENT_RUN_ID] = settings.tracking.parent_run
    if commit := _git_commit(script.parent):
        tags[MLFLOW_GIT_COMMIT] = commit
    return tags


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, the user may have no name
        return "unknown"


def _git_commit(folder: Path) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
