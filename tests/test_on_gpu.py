"""The program that runs the checks on a GPU, here on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.on_gpu import __main__ as program
from tests.on_gpu import script_checks
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


def test_results_so_far_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_one(name: str, *arguments: Any, **options: Any) -> dict[str, Any]:
        if name == "tf32":
            raise KeyboardInterrupt
        return {"result": "PASS"}

    monkeypatch.setattr(program, "run_one", run_one)
    with pytest.raises(KeyboardInterrupt):
        program.main(["--output", str(tmp_path / "report.json")])
    assert list(json.loads((tmp_path / "report.json").read_text())["checks"]) == ["start", "devices"]


@pytest.fixture
def python_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes shell commands the program that checks start as Python."""

    def replace(commands: str) -> None:
        program = tmp_path / "python"
        program.write_text(f"#!/bin/sh\n{commands}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))

    return replace


def test_check_that_takes_too_long_ends_with_all_that_it_started(
    tmp_path: Path, python_is: Callable[[str], None]
) -> None:
    python_is(f"sleep 60 & echo $! > {tmp_path}/number; wait")
    result = program.run_one("grad_cam", tmp_path / "grad_cam", 1.0, pretend=True)
    assert result == {"result": "FAIL", "why": "took more than 1 seconds"}
    child = int((tmp_path / "number").read_text())
    for _ in range(100):
        if not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the process that the check has started goes on")
    assert program.run_one("grad_cam", tmp_path / "other", 0.5, pretend=True)["result"] == "SKIP"


def test_check_without_a_result_fails(tmp_path: Path, python_is: Callable[[str], None]) -> None:
    python_is("echo segmentation fault >&2; exit 3")
    result = program.run_one("grad_cam", tmp_path / "grad_cam", 9.0, pretend=True)
    assert result == {"result": "FAIL", "why": "status 3", "traceback": "segmentation fault\n"}


def result_of(check: Any, folder: Path, *, seconds: float = 120.0, pretend: bool = False) -> str:
    """The reason why a check fails or is skipped; empty if it passes."""
    try:
        check(Machine(folder=folder, pretend=pretend, seconds=seconds))
    except (AssertionError, Skipped) as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("commands", "why"),
    [
        ("echo 'tests/a.py::test_1 PASSED'", ""),
        ("echo 'tests/a.py::test_1 PASSED'; exec sleep 60", ""),  # stopped at the end of its time
        ("echo 'tests/a.py::test_1 PASSED'; echo 'FAILED tests/a.py::test_2 - x'; exit 1", "['tests/a.py::test_2 - x'"),
        ("echo 'ERROR: unknown option'; exit 4", "status 4: ERROR: unknown option"),
        ("exec sleep 60", "no test has passed"),
        ("", "no test has passed"),
    ],
)
def test_tests_must_have_started_and_passed(
    commands: str, why: str, tmp_path: Path, python_is: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script_checks, "needs", lambda *packages: None)
    python_is(commands)
    received = result_of(script_checks.check_tests, tmp_path, seconds=15.5)
    assert received.startswith(why) and bool(received) == bool(why)


NUMBERS = {"ratio": 1.0, "script": 100.0, "bare": 100.0}


@pytest.mark.parametrize(
    ("changed", "busy", "why"),
    [
        ({}, 95.0, ""),
        ({}, 80.0, "the GPU is busy for 80 %"),
        ({"resnet50, float32, channels_last": {**NUMBERS, "ratio": 0.9}}, 95.0, "resnet50, float32, channels_last: th"),
        ({"mobilenet_v2, float32, channels_last": {**NUMBERS, "script": 120.0}}, 95.0, "mobilenet_v2: the default"),
    ],
)
def test_speed_has_limits(
    changed: dict[str, Any], busy: float, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_python(words: list[str], machine: Machine) -> dict[str, Any]:
        if "--stream" in words:
            return {"busy_percent": busy}
        case = ", ".join(words[words.index(word) + 1] for word in ("--backbone", "--variant"))
        return changed.get(case, NUMBERS)

    monkeypatch.setattr(script_checks, "needs", lambda *packages: None)
    monkeypatch.setattr(script_checks, "run_python", run_python)
    monkeypatch.setattr(script_checks, "last_json", lambda numbers: numbers)
    received = result_of(script_checks.check_speed, tmp_path)
    assert received.startswith(why) and bool(received) == bool(why)
    assert result_of(script_checks.check_speed, tmp_path, seconds=10) == "no time to measure"


def a_run(**changes: Any) -> dict[str, Any]:
    """A run on a GPU, as `train` returns it."""
    tags = {"tandem.device": "gpu", "tandem.split_hash": "1", "tandem.batches_hash": "2"}
    metrics = {"cost/peak_gpu_memory_megabytes": 300.0, "system/gpu_0_memory_megabytes": 5_000.0}
    run: dict[str, Any] = {"tags": tags, "metrics": metrics, "history": {"train/loss": [2.0, 1.0]}}
    for name, value in changes.items():
        place, _, key = name.partition(" ")
        run[place] = {**run[place], key: value}
    return run


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"tags tandem.device": "cpu"}, "jax float32 ran on the cpu"),
        ({"metrics cost/peak_gpu_memory_megabytes": 0.0}, "jax float32: the peak"),
        ({"metrics system/gpu_0_memory_megabytes": 60_000.0}, "jax float32: 60000.0 of 80000 MB are in use"),
        ({"history train/loss": [2.0, float("nan")]}, "jax float32: losses [2.0, nan]"),
    ],
)
def test_keras_must_train_on_the_gpu_with_the_memory_that_it_needs(
    changes: dict[str, Any], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(machine: Machine, framework: str, experiment: str, *words: str, KERAS_BACKEND: str) -> dict[str, Any]:
        if KERAS_BACKEND == "tensorflow":
            raise AssertionError("device: received 'gpu', but tensorflow finds no GPU here; allowed: cpu or auto")
        return a_run(**(changes if KERAS_BACKEND == "jax" else {}))

    monkeypatch.setattr(script_checks, "needs", lambda *packages: None)
    monkeypatch.setattr(script_checks, "train", train)
    monkeypatch.setattr(script_checks, "_process_that_holds_memory", lambda machine: None)
    monkeypatch.setattr("tandem.protocol.gpus.gpu_memory_bytes", lambda: 80_000_000_000)
    received = result_of(script_checks.check_keras, tmp_path)
    assert received.startswith(why) and bool(received) == bool(why)


@pytest.mark.parametrize(
    ("case", "changes", "why"),
    [
        ("", {}, ""),
        ("float32finetune", {"tags tandem.device": "cpu"}, "finetune in float32 ran on the cpu"),
        ("float32finetune", {"tags tandem.batches_hash": "3"}, "finetune in float32: tandem.batches_hash differs"),
        ("float16two_stage", {"tags tandem.split_hash": "3"}, "two_stage in float16: tandem.split_hash differs"),
        ("bfloat16two_stage", {"history train/loss": [2.0, 2.1]}, "two_stage in bfloat16: losses [2.0, 2.1] do not"),
        ("float32finetune", {"history train/loss": [2.0, 1.01]}, "the losses differ from the CPU's"),
        ("repeat 2", {"history train/loss": [2.0, 1.0000001]}, "deterministic runs differ"),
    ],
)
def test_training_must_be_that_of_a_cpu(
    case: str, changes: dict[str, Any], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(machine: Machine, framework: str, experiment: str, *words: str) -> dict[str, Any]:
        return a_run(**(changes if experiment == case else {}))

    monkeypatch.setattr(script_checks, "needs", lambda *packages: None)
    monkeypatch.setattr(script_checks, "train", train)
    received = result_of(script_checks.check_training, tmp_path)
    assert received.startswith(why) and bool(received) == bool(why)


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
