"""Checks that start programs: the training scripts, the grid, benchmarks and tests. They import no framework."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from typing import Any

import numpy as np

from tests.on_gpu.machine import ROOT, STEADY, Machine, Skipped, last_json, last_line, needs, run_python, train

HARDWARE = """
import json
from tandem.protocol.environment import prepare_environment
from tandem.protocol.settings import Settings
prepare_environment(Settings())
from tandem.tracking.system import describe_hardware
import torch
memory = torch.cuda.mem_get_info() if torch.cuda.is_available() else (0, 0)
built_for = torch.cuda.get_arch_list()
print(json.dumps([describe_hardware(), torch.cuda.device_count(), *memory, torch.version.cuda, built_for]))
"""


def check_start(machine: Machine) -> None:
    """Tandem imports; the driver, the card and its free memory; a run sees and names one card."""
    needs("torch")
    driver = "none"
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version,name,memory.free", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    hardware, num_gpus, free, total, cuda, built_for = last_json(run_python(["-c", HARDWARE], machine))
    machine.note(nvidia_smi=driver, hardware=hardware, free=free, total=total, cuda=cuda, built_for=built_for)
    machine.require_on_gpu(num_gpus == 1, f"a run on one GPU sees {num_gpus}")
    machine.require_on_gpu(hardware.count("1 x NVIDIA") == 1, f"the hardware is {hardware}")


def check_training(machine: Machine) -> None:
    """train_torch.py trains in each precision, on the same batches and with the same losses as on a CPU."""
    needs("torch", "pytorch_lightning", "timm", "mlflow")
    losses: dict[str, list[float]] = {}
    exact = ("--acceleration.tf32", "false", "--acceleration.cudnn_autotune", "false", *STEADY)
    on_cpu = train(machine, "torch", "cpu", "--regime", "finetune", *exact, "--device", "cpu")
    precisions = ("float32", "bfloat16") if machine.pretend else ("float32", "bfloat16", "float16")
    for regime, precision in [("finetune", "float32"), *(("two_stage", precision) for precision in precisions)]:
        run = train(machine, "torch", precision + regime, "--regime", regime, "--precision", precision, *exact)
        case = f"{regime} in {precision}"
        device = run["tags"]["tandem.device"]
        machine.require(device == machine.device_setting, f"{case} ran on the {device}")
        for tag in ("tandem.split_hash", *["tandem.batches_hash"] * (regime == "finetune")):
            machine.require(run["tags"][tag] == on_cpu["tags"][tag], f"{case}: {tag} differs from the CPU's")
        losses[case] = run["history"]["train/loss"]
        machine.require(bool(np.isfinite(losses[case]).all()), f"{case}: losses {losses[case]}")
        machine.require(losses[case][-1] < losses[case][0], f"{case}: losses {losses[case]} do not fall")
    # mobilenet_v2, which has more kinds of operations, and amplifies their rounding
    words = ("--regime", "finetune", "--acceleration.deterministic", "true")
    repeats = [train(machine, "torch", f"repeat {number}", *words)["history"]["train/loss"] for number in (1, 2)]
    machine.note(losses=losses, losses_on_cpu=on_cpu["history"]["train/loss"], deterministic=repeats)
    same = np.allclose(losses["finetune in float32"], on_cpu["history"]["train/loss"], rtol=1e-3, atol=0)
    machine.require(same, "the losses differ from the CPU's")
    machine.require(repeats[0] == repeats[1], "deterministic runs differ")


SECONDS_OF_A_MEASUREMENT = 20
"""Of throughput, with the imports; none begins when less is left."""


def check_speed(machine: Machine) -> None:
    """channels_last by default only where it is not slower; the script is as fast as a bare loop; the GPU is busy."""
    needs("torch", "pytorch_lightning", "mlflow")
    end = time.monotonic() + machine.seconds
    size, batch_size, epochs = ("32", "8", "2") if machine.pretend else ("224", "128", "2")
    settings = ["--size", size, "--batch_size", batch_size, "--epochs", epochs]
    backbones = ("mobilenet_v2",) if machine.pretend else ("mobilenet_v2", "efficientnet_b0", "resnet50")
    variants = ("float32, channels_first", "float32, channels_last", *["bfloat16, defaults"] * (not machine.pretend))
    stream = ["-m", "benchmarks.gpu", *["--pretend"] * machine.pretend, "--stream", "flip, padded crop"]
    busy = last_json(run_python(stream, machine))["busy_percent"]
    found: dict[str, dict[str, float]] = {}
    for case in [(backbone, variant) for backbone in backbones for variant in variants]:
        if end - time.monotonic() < SECONDS_OF_A_MEASUREMENT:
            break
        words = ["--framework", "torch", "--backbone", case[0], "--variant", case[1], *settings]
        found[", ".join(case)] = last_json(run_python(["-m", "benchmarks.throughput", "--json", *words], machine))
    cases = len(backbones) * len(variants)
    machine.note(images_per_second=found, busy_percent=busy, measured=f"{len(found)} of {cases} cases")
    machine.require(len(found) > 0, "no time to measure")
    for name, numbers in found.items():
        ratio = numbers["ratio"]
        machine.require_on_gpu(ratio >= 0.97, f"{name}: the script has {ratio:.3f} of the bare loop's speed")
    for backbone in backbones:
        rates = [found.get(f"{backbone}, float32, channels_{place}") for place in ("first", "last")]
        if all(rates):
            first, last = (rate["script"] for rate in rates if rate)
            machine.require_on_gpu(
                first >= 0.95 * last, f"{backbone}: the default, channels_first, is slower in float32"
            )
    machine.require_on_gpu(busy >= 90, f"the GPU is busy for {busy:.0f} %")


HOLD = """
import sys, torch
block = torch.zeros(2**28, device=sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
"""


def check_keras(machine: Machine) -> None:
    """train_keras.py trains on each backend beside a process of torch, and takes only the memory that it needs."""
    needs("keras", "mlflow")
    from tandem.protocol.gpus import gpu_memory_bytes

    other = None if machine.pretend else _process_that_holds_memory(machine)
    found: dict[str, Any] = {}
    try:
        for backend in ("torch", "jax", "tensorflow"):
            for precision in ("float32",) if machine.pretend else ("float32", "bfloat16"):
                name = f"{backend} {precision}"
                try:
                    found[name] = _train_keras(machine, backend, precision)
                except Skipped as error:
                    found[name] = str(error)
    finally:
        if other is not None:
            other.kill()
            other.wait()
    machine.note(runs=found)
    trained = {name: numbers for name, numbers in found.items() if not isinstance(numbers, str)}
    if not trained:
        raise Skipped("no backend of Keras is installed for this device")
    total = (gpu_memory_bytes() or 0) / 1e6
    for name, numbers in trained.items():
        machine.require(bool(np.isfinite(numbers["losses"]).all()), f"{name}: losses {numbers['losses']}")
        machine.require_on_gpu(numbers["peak"] > 0, f"{name}: the peak of the GPU's memory is 0")
        used = numbers["memory of the card"]  # TensorFlow and JAX take 75 % and more if they are let
        machine.require_on_gpu(used is not None and used < total / 2, f"{name}: {used} of {total:.0f} MB are in use")


def _train_keras(machine: Machine, backend: str, precision: str) -> dict[str, Any]:
    needs(backend)
    words = ("--regime", "two_stage", "--precision", precision, "--tracking.system_interval", "1")
    try:
        run = train(machine, "keras", f"{backend} {precision}", *words, KERAS_BACKEND=backend)
    except AssertionError as error:
        if backend != "torch" and "finds no GPU here" in str(error):
            raise Skipped("installed without support of this GPU") from None
        raise
    device = run["tags"]["tandem.device"]
    machine.require(device == machine.device_setting, f"{backend} {precision} ran on the {device}")
    return {
        "losses": run["history"]["train/loss"],
        "peak": run["metrics"]["cost/peak_gpu_memory_megabytes"],
        "memory of the card": run["metrics"].get("system/gpu_0_memory_megabytes"),
    }


def _process_that_holds_memory(machine: Machine) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, machine.device], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


CELLS = """
experiment: two_cells
settings:
  data: {{source: digits, image_size: 32, images_per_class: 10, cache_folder: "{cache}"}}
  weights: random
  regime: finetune
  batch_size: 32
  max_epochs: 1
  device: {device}
cells:
  - frameworks: [torch]
    vary: {{seed: [0, 1]}}
"""


def check_grid(machine: Machine) -> None:
    """Two cells of a grid train at the same time on the one GPU."""
    needs("torch", "mlflow")
    file = machine.folder / "cells.yaml"
    file.write_text(CELLS.format(cache=machine.folder / "cache", device=machine.device_setting))
    start = time.monotonic()
    done = run_python(["-m", "tandem.grid", str(file), "--jobs", "2"], machine)
    machine.note(wall_seconds=round(time.monotonic() - start, 1), line=last_line(done.stdout))
    machine.require(done.returncode == 0, last_line(done.stdout + done.stderr))
    machine.require_on_gpu(
        "1 GPU shared with other cells" in done.stdout + done.stderr, "the cells did not share a GPU"
    )


def check_tests(machine: Machine) -> None:
    """The tests of a user pass on a machine with a GPU, as far as the time allows."""
    needs("torch", "pytest", "hypothesis", "pytest_timeout", "mlflow")
    places = ["tests/protocol"] if machine.pretend else ["tests/protocol", "tests/evaluation", "tests/on_torch"]
    command = [sys.executable, "-m", "pytest", "-v", "--tb=short", "-x", "-m", "not long", *places]
    output_file = machine.folder / "tests.txt"
    was_stopped = False
    with output_file.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        try:
            process.wait(max(1.0, machine.seconds - 15))
        except subprocess.TimeoutExpired:
            was_stopped = True
            process.kill()
            process.wait()
    output = output_file.read_text(encoding="utf-8", errors="replace")
    num_passed = len(re.findall(r" PASSED", output))
    failed = re.findall(r"^(?:FAILED|ERROR) (.+)$", output, re.MULTILINE)
    machine.note(line=last_line(output), num_passed=num_passed, failed=failed, was_stopped=was_stopped)
    machine.require(not failed, f"{failed[:1]}")
    machine.require(was_stopped or process.returncode == 0, f"status {process.returncode}: {last_line(output)}")
    machine.require(num_passed > 0, "no test has passed in the time that was left")
