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
from urllib.parse import urlsplit

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
from tandem.protocol.settings import Settings, settings_hash
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


def hide_password(settings: Settings) -> Settings:
    """Settings whose passwords, in tracking.uri and sweep.storage, are replaced by ***."""
    tracking, sweep = settings.tracking, settings.sweep
    if tracking.uri is not None:
        tracking = dataclasses.replace(tracking, uri=without_password(tracking.uri))
    if sweep.storage is not None:
        sweep = dataclasses.replace(sweep, storage=without_password(sweep.storage))
    return dataclasses.replace(settings, tracking=tracking, sweep=sweep)


def without_password(uri: str) -> str:
    """URI whose password, if any, is replaced by ***."""
    password = urlsplit(uri).password
    return uri.replace(f":{password}@", ":***@", 1) if password else uri


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
