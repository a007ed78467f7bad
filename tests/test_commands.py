from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from tandem import commands
from tandem.commands import ROOT, module_command, script_command


@pytest.fixture(autouse=True)
def not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(commands.importlib.metadata, "distribution", missing)
    monkeypatch.delenv("PYTHONPATH", raising=False)


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)


def test_commands_in_the_checkout_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(commands.shutil, "which", lambda name: sys.executable)
    assert module_command("tandem.tracking.replay", "runs/a b") == "python -m tandem.tracking.replay 'runs/a b'"
    assert script_command("compare.py", "--experiment", "x") == "python compare.py --experiment x"


def test_commands_work_in_the_folder_where_they_are_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my results & 'runs'"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(commands.shutil, "which", lambda name: None)
    replayed = run(module_command("tandem.tracking.replay", folder / "no such run"), folder)
    assert replayed.stderr.startswith("replay: error: no journal at ")
    helped = run(script_command("mlflow_server/serve.py", "--help"), folder)
    assert "MLflow UI" in helped.stdout


def test_installed_package_needs_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands.importlib.metadata, "distribution", lambda name: object())
    assert "PYTHONPATH" not in module_command("tandem.grid")


def test_command_is_made_in_a_folder_that_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert str(ROOT / "compare.py") in script_command("compare.py")
