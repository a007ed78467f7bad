"""The program that runs the checks on a GPU, here on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.on_gpu import __main__ as program
from tests.on_gpu.machine import ROOT, Machine, Skipped, needs


def passes(machine: Machine) -> None:
    machine.note(ratio=1.5)
    machine.require(True, "not shown")
    machine.require_on_gpu(False, "limits are not checked where a GPU is pretended")


def fails(machine: Machine) -> None:
    machine.require(machine.pretend and False, "1 differs from 2\nsecond line")


def breaks(machine: Machine) -> None:
    raise Skipped("not installed: some_package")


@pytest.mark.parametrize(
    ("check", "result"),
    [
        (passes, {"result": "PASS", "ratio": 1.5}),
        (fails, {"result": "FAIL", "why": "AssertionError: 1 differs from 2"}),
        (breaks, {"result": "SKIP", "why": "not installed: some_package"}),
    ],
)
def test_result_of_a_check_is_written(
    check: Any, result: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(program.CHECKS, "start", check)
    program.run_inside("start", Machine(folder=tmp_path, pretend=True))
    written = json.loads((tmp_path / "result.json").read_text())
    assert ("traceback" in written) == (result["result"] == "FAIL")
    assert {key: value for key, value in written.items() if key != "traceback"} == result


def test_limits_are_checked_on_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="limits are not checked"):
        passes(Machine(folder=tmp_path, pretend=False))


def test_checks_go_on_after_one_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def run_one(name: str, folder: Path, limit: float, *, pretend: bool) -> dict[str, Any]:
        return {"result": "FAIL" if name == "feed" else "PASS", "limit": limit}

    monkeypatch.setattr(program, "run_one", run_one)
    output = tmp_path / "report.json"
    with pytest.raises(SystemExit) as ended:
        program.main(["--output", str(output)])
    assert ended.value.code == 1
    checks = json.loads(output.read_text())["checks"]
    assert len(checks) == 16 and list(checks) == list(program.CHECKS)
    assert [name for name, check in checks.items() if check["result"] == "FAIL"] == ["feed"]
    assert checks["tests"]["limit"] > 400 and checks["start"]["limit"] == program.LONGEST_CHECK_SECONDS
    assert capsys.readouterr().out.count("PASS") == 15


def test_part_can_be_chosen_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "run_one", lambda *arguments, **options: {"result": "SKIP"})
    output = tmp_path / "report.json"
    with pytest.raises(SystemExit) as ended:
        program.main(["--only", "tf32", "--only", "start", "--output", str(output)])
    assert ended.value.code == 0
    assert list(json.loads(output.read_text())["checks"]) == ["start", "tf32"]


def test_check_that_takes_too_long_fails(tmp_path: Path) -> None:
    result = program.run_one("grad_cam", tmp_path / "grad_cam", 1.0, pretend=True)
    assert result == {"result": "FAIL", "why": "took more than 1 seconds"}
    assert program.run_one("grad_cam", tmp_path / "other", 0.5, pretend=True)["result"] == "SKIP"


def test_missing_packages_are_named() -> None:
    needs("json")
    with pytest.raises(Skipped, match=r"^not installed: no_such_package$"):
        needs("json", "no_such_package")


@pytest.mark.long
def test_cheap_checks_pass_where_a_gpu_is_pretended(tmp_path: Path) -> None:
    names = ["start", "devices", "feed", "saved_model", "grad_cam"]
    words = [word for name in names for word in ("--only", name)]
    command = [sys.executable, "-m", "tests.on_gpu", "--pretend", "--output", str(tmp_path / "report.json"), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout
    checks = json.loads((tmp_path / "report.json").read_text())["checks"]
    assert {name: check["result"] for name, check in checks.items()} == dict.fromkeys(names, "PASS")
