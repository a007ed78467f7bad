"""Facts that several files state: version, Python, packaged files, tools."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from pathlib import Path

import yaml

import tandem

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_version_and_its_date_are_equal_in_changelog_and_citation() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    version, date = re.search(r"^## (\S+) \((\d{4}-\d{2}-\d{2})\)$", read("CHANGELOG.md"), re.MULTILINE).groups()  # type: ignore[union-attr]
    assert version == tandem.__version__ == citation["version"]
    assert date == str(citation["date-released"])
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "tandem.__version__"}


def test_oldest_python_is_the_same_for_installation_make_readme_and_linter() -> None:
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert f"sys.version_info < ({oldest.replace('.', ', ')})" in read("Makefile")
    assert f"Python {oldest} or newer" in read("README.md")
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"


def test_files_beside_the_code_are_packaged() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    files = [file for file in (ROOT / "tandem").rglob("*.*") if file.is_file() and file.suffix not in (".py", ".pyc")]
    assert len(files) >= 4
    for file in files:
        assert any(fnmatch.fnmatch(file.name, pattern) for pattern in patterns), file
        assert (file.parent / "__init__.py").exists(), file


def test_design_describes_every_package() -> None:
    described = set(re.findall(r"^      (\w+)/ ", read("docs/design.md"), re.MULTILINE))
    assert {file.parent.name for file in (ROOT / "tandem").glob("*/__init__.py")} <= described


def test_every_package_is_packaged() -> None:
    assert PROJECT["tool"]["setuptools"]["packages"]["find"]["include"] == ["tandem*"]
    for file in (ROOT / "tandem").rglob("*.py"):
        assert (file.parent / "__init__.py").exists(), file


def test_licence_is_that_of_the_project() -> None:
    assert PROJECT["project"]["license"] == yaml.safe_load(read("CITATION.cff"))["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0" in read("LICENSE")
    assert "Copyright 2026 The Tandem authors" in read("LICENSE")


def test_commit_hooks_use_the_tools_of_the_environment() -> None:
    (local,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    tools = [hook["entry"].split()[0] for hook in local["hooks"]]
    assert local["repo"] == "local" and tools == [".venv/bin/ruff", ".venv/bin/ruff", ".venv/bin/mypy"]
    for tool in ("ruff", "mypy"):
        assert f"\n{tool}\n" in read("requirements-dev.txt") and f"\n{tool}==" in read("constraints.txt")
