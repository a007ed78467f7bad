"""Command lines for the user, which work in the folder in which they are printed."""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The checkout, which has the scripts."""


def module_command(module: str, *words: object) -> str:
    """Command that runs a program of Tandem, or of a package: python -m MODULE WORDS."""
    variables = "" if _is_importable(module) else f"PYTHONPATH={shlex.quote(str(ROOT))} "
    return variables + shlex.join([_python(), "-m", module, *map(str, words)])


def script_command(script: str, *words: object) -> str:
    """Command that runs a script of the checkout, such as mlflow_server/serve.py."""
    path = script if _is_current(ROOT) else str(ROOT / script)
    return shlex.join([_python(), path, *map(str, words)])


def _python() -> str:
    found = shutil.which("python")
    # not resolved: the link in a virtual environment is what makes its packages importable
    return "python" if found and os.path.abspath(found) == os.path.abspath(sys.executable) else sys.executable


def _is_importable(module: str) -> bool:
    if module.partition(".")[0] != "tandem" or _is_current(ROOT):
        return True
    try:
        importlib.metadata.distribution("tandem")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _is_current(folder: Path) -> bool:
    try:
        return Path.cwd().samefile(folder)
    except OSError:
        return False
