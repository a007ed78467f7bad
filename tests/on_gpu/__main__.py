"""Sixteen checks on one NVIDIA GPU: `make test-gpu`, or parts of them by name.

    python -m tests.on_gpu                         # all, about eight minutes; the results are in on_gpu.json
    python -m tests.on_gpu --only tf32 --only feed
    python -m tests.on_gpu --pretend               # on the CPU with small sizes: finds faults of the checks themselves

Each check runs in a process of its own, prints PASS, FAIL or SKIP in one line with what it measured, and the others go
on. The JSON file is written after each. A check whose packages are not installed is skipped. Data are generated or
scikit-learn's digits, weights are random; no network is needed. docs/gpu.md says what each check is for.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.on_gpu import script_checks, torch_checks
from tests.on_gpu.machine import ROOT, Machine, Skipped

CHECKS = {
    "start": script_checks.check_start,
    "devices": torch_checks.check_devices,
    "tf32": torch_checks.check_tf32,
    "feed": torch_checks.check_feed,
    "saved_model": torch_checks.check_saved_model,
    "batch_norm": torch_checks.check_batch_norm,
    "training": script_checks.check_training,
    "compile": torch_checks.check_compile,
    "features": torch_checks.check_features,
    "out_of_memory": torch_checks.check_out_of_memory,
    "speed": script_checks.check_speed,
    "latency": torch_checks.check_latency,
    "keras": script_checks.check_keras,
    "grid": script_checks.check_grid,
    "grad_cam": torch_checks.check_grad_cam,
    "tests": script_checks.check_tests,
}
"""From the cheapest to the one that takes the time that is left."""

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "timm", "keras", "tensorflow", "jax", "mlflow", "numpy")
LONGEST_CHECK_SECONDS = 150


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.on_gpu", description="Checks Tandem on one NVIDIA GPU.")
    parser.add_argument("--only", choices=CHECKS, action="append", help="check; may be repeated (default: all)")
    parser.add_argument("--pretend", action="store_true", help="run on the CPU with small sizes")
    parser.add_argument("--seconds", type=float, default=480, help="limit for all checks (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("on_gpu.json"), help="(default: %(default)s)")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.inside:
        machine = Machine(folder=arguments.inside, pretend=arguments.pretend, seconds=arguments.seconds)
        run_inside(arguments.only[0], machine)
        return
    report: dict[str, Any] = {"pretend": arguments.pretend, "python": sys.version.split()[0], "versions": versions()}
    print(", ".join(f"{name} {number}" for name, number in report["versions"].items()), flush=True)
    report["checks"] = {}
    with tempfile.TemporaryDirectory(prefix="tandem-on-gpu-") as folder:
        for name, result in run_all(arguments, Path(folder)):
            report["checks"][name] = result
            partial = arguments.output.with_suffix(".partial")
            partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            partial.replace(arguments.output)
    print(f"Results: {arguments.output}")
    sys.exit(any(check["result"] == "FAIL" for check in report["checks"].values()))


def versions() -> dict[str, str]:
    """Versions of the packages that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def run_all(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Runs the checks one after the other, each in a process of its own.

    Yields:
        Name and result of each.
    """
    end = time.monotonic() + arguments.seconds
    for number, name in enumerate(CHECKS):
        if arguments.only and name not in arguments.only:
            continue
        left = end - time.monotonic()
        limit = left if name == "tests" or arguments.pretend else min(left, LONGEST_CHECK_SECONDS)
        start = time.monotonic()
        result = run_one(name, folder / name, limit, pretend=arguments.pretend)
        result["seconds"] = round(time.monotonic() - start, 1)
        shown = {key: value for key, value in result.items() if key not in ("result", "traceback")}
        print(f"{result['result']} {number:2} {name}: {json.dumps(shown)}", flush=True)
        yield name, result


def run_one(name: str, folder: Path, limit: float, *, pretend: bool) -> dict[str, Any]:
    """The result of one check: PASS, FAIL or SKIP, and what it measured."""
    if limit < 1:
        return {"result": "SKIP", "why": "no time is left"}
    folder.mkdir()
    words = [sys.executable, "-m", "tests.on_gpu", "--only", name, "--inside", str(folder)]
    words += ["--seconds", f"{limit:.0f}", *["--pretend"] * pretend]
    output, result = folder / "output.txt", folder / "result.json"
    with output.open("wb") as file:
        # a session of its own, to end it with all that it has started, which would use the GPU during the next check
        process = subprocess.Popen(words, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            return {"result": "FAIL", "why": f"took more than {limit:.0f} seconds"}
        finally:
            with contextlib.suppress(ProcessLookupError):  # nothing has remained
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if not result.is_file():
        shown = output.read_text(encoding="utf-8", errors="replace")[-2000:]
        return {"result": "FAIL", "why": f"status {status}", "traceback": shown}
    return json.loads(result.read_text(encoding="utf-8"))


def run_inside(name: str, machine: Machine) -> None:
    """Runs a check in this process, and writes its result to its folder."""
    result: dict[str, Any]
    try:
        CHECKS[name](machine)
        result = {"result": "PASS"}
    except Skipped as error:
        result = {"result": "SKIP", "why": str(error)}
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        result = {"result": "FAIL", "why": f"{type(error).__name__}: {first}", "traceback": traceback.format_exc()}
    (machine.folder / "result.json").write_text(json.dumps({**result, **machine.details}), encoding="utf-8")


if __name__ == "__main__":
    main()
