"""Sixteen checks on one NVIDIA GPU: `make test-gpu`, or parts of them by name.

    python -m tests.on_gpu                         # all, about eight minutes; the results are in on_gpu.json
    python -m tests.on_gpu --only tf32 --only feed
    python -m tests.on_gpu --pretend               # on the CPU with small sizes: finds faults of the checks themselves

Each check runs in a process of its own, prints PASS, FAIL or SKIP in one line with what it measured, and the others go
on. A check whose packages are not installed is skipped. Data are generated or scikit-learn's digits, weights are
random; no network is needed. docs/gpu.md says what each check is for.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
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
        run_inside(arguments.only[0], Machine(folder=arguments.inside, pretend=arguments.pretend))
        return
    report: dict[str, Any] = {"pretend": arguments.pretend, "python": sys.version.split()[0], "versions": versions()}
    print(", ".join(f"{name} {number}" for name, number in report["versions"].items()), flush=True)
    with tempfile.TemporaryDirectory(prefix="tandem-on-gpu-") as folder:
        report["checks"] = run_all(arguments, Path(folder))
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


def run_all(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Runs the checks one after the other, each in a process of its own."""
    end = time.monotonic() + arguments.seconds
    checks: dict[str, Any] = {}
    for number, name in enumerate(CHECKS):
        if arguments.only and name not in arguments.only:
            continue
        left = end - time.monotonic()
        limit = left if name == "tests" or arguments.pretend else min(left, LONGEST_CHECK_SECONDS)
        start = time.monotonic()
        checks[name] = run_one(name, folder / name, limit, pretend=arguments.pretend)
        checks[name]["seconds"] = round(time.monotonic() - start, 1)
        shown = {key: value for key, value in checks[name].items() if key not in ("result", "traceback")}
        print(f"{checks[name]['result']} {number:2} {name}: {json.dumps(shown)}", flush=True)
    return checks


def run_one(name: str, folder: Path, limit: float, *, pretend: bool) -> dict[str, Any]:
    """The result of one check: PASS, FAIL or SKIP, and what it measured."""
    if limit < 1:
        return {"result": "SKIP", "why": "no time is left"}
    folder.mkdir()
    words = [sys.executable, "-m", "tests.on_gpu", "--only", name, "--inside", str(folder)]
    environment = {**os.environ, "TANDEM_CHECK_SECONDS": str(int(limit))}
    try:
        done = subprocess.run(
            [*words, *["--pretend"] * pretend],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"result": "FAIL", "why": f"took more than {limit:.0f} seconds"}
    result = folder / "result.json"
    if not result.is_file():
        return {"result": "FAIL", "why": f"status {done.returncode}", "traceback": done.stderr[-2000:]}
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
