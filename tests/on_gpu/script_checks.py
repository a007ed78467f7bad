"""Checks that start programs: the training scripts, the grid, benchmarks and tests. They import no framework."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from typing import Any

import numpy as np

from tests.on_gpu.machine import ROOT, Machine, Skipped, last_json, last_line, needs, run_python, train

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
    """train_torch.py trains in each precision, on the same batches and with the same first losses as on a CPU."""
    losses: dict[str, list[float]] = {}
    exact = ("--acceleration.tf32", "false", "--acceleration.cudnn_autotune", "false")
    on_cpu = train(machine, "torch", "cpu", "--regime", "finetune", "--device", "cpu", *exact)
    precisions = ("float32", "bfloat16") if machine.pretend else ("float32", "bfloat16", "float16")
    for precision in precisions:
        for regime in ("two_stage", "finetune"):
            run = train(machine, "torch", precision + regime, "--regime", regime, "--precision", precision, *exact)
            case = f"{regime} in {precision}"
            device = run["tags"]["tandem.device"]
            machine.require(device == ("cpu" if machine.pretend else "gpu"), f"{case} ran on the {device}")
            for tag in ("tandem.split_hash", *["tandem.batches_hash"] * (regime == "finetune")):
                machine.require(run["tags"][tag] == on_cpu["tags"][tag], f"{case}: {tag} differs from the CPU's")
            losses[case] = run["history"]["train/loss"]
            machine.require(bool(np.isfinite(losses[case]).all()), f"{case}: losses {losses[case]}")
            machine.require_on_gpu(losses[case][-1] < losses[case][0], f"{case}: losses {losses[case]} do not fall")
    again = train(machine, "torch", "again", "--regime", "finetune", *exact)["history"]["train/loss"]
    deterministic = [
        train(machine, "torch", name, "--regime", "finetune", "--acceleration.deterministic", "true")["history"]
        for name in ("deterministic 1", "deterministic 2")
    ]
    machine.note(
        losses=losses,
        same_bits_when_repeated=again == losses["finetune in float32"],
        same_bits_when_deterministic=deterministic[0]["train/loss"] == deterministic[1]["train/loss"],
    )
    first, expected = losses["finetune in float32"][0], on_cpu["history"]["train/loss"][0]
    # a random network in training mode amplifies rounding
    machine.require(abs(first - expected) < 1e-2 * expected, f"first loss {first}, on the CPU {expected}")
    same = deterministic[0]["train/loss"] == deterministic[1]["train/loss"]
    machine.require(same, "deterministic runs differ")


def check_speed(machine: Machine) -> None:
    """channels_last by default only where it is not slower; the script is as fast as a bare loop; the GPU is busy."""
    needs("torch")
    size, batch_size, epochs = ("32", "8", "1") if machine.pretend else ("224", "128", "2")
    found: dict[str, dict[str, float]] = {}
    backbones = ("mobilenet_v2",) if machine.pretend else ("mobilenet_v2", "efficientnet_b0", "resnet50")
    for backbone in backbones:
        words = ["--backbone", backbone, "--size", size, "--batch_size", batch_size, "--epochs", epochs]
        for variant in ("float32, channels_first", "float32, channels_last", "bfloat16, defaults"):
            if machine.pretend and variant.startswith("bfloat16"):
                continue
            command = ["-m", "benchmarks.throughput", "--framework", "torch", "--variant", variant, "--json", *words]
            found[f"{backbone}, {variant}"] = last_json(run_python(command, machine))
    stream = ["-m", "benchmarks.gpu", "--only", "stream", "--output", str(machine.folder / "stream")]
    done = run_python([*stream, *["--pretend"] * machine.pretend], machine)
    machine.require(done.returncode == 0, last_line(done.stderr))
    streams = json.loads((machine.folder / "stream.json").read_text())["stream"]
    busy = max(numbers["busy_percent"] for numbers in streams.values())
    machine.note(images_per_second=found, busy_percent=busy)
    for case, numbers in found.items():
        ratio = numbers["ratio"]
        machine.require_on_gpu(ratio >= 0.97, f"{case}: the script has {ratio:.3f} of the bare loop's speed")
    for backbone in backbones:
        first, last = (found[f"{backbone}, float32, channels_{place}"]["script"] for place in ("first", "last"))
        machine.require_on_gpu(first >= 0.95 * last, f"{backbone}: the default, channels_first, is slower in float32")
    machine.require_on_gpu(busy >= 90, f"the GPU is busy for {busy:.0f} % at most")


HOLD = """
import sys, torch
block = torch.zeros(2**28, device=sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
"""


def check_keras(machine: Machine) -> None:
    """train_keras.py trains on torch and on JAX beside a process of torch, and takes only the memory that it needs."""
    needs("keras", "mlflow")
    other = None if machine.pretend else _process_that_holds_memory(machine)
    found: dict[str, Any] = {}
    try:
        for backend in ("torch", "jax", "tensorflow"):
            try:
                needs(backend)
            except Skipped:
                continue
            for precision in ("float32",) if machine.pretend else ("float32", "bfloat16"):
                name = f"{backend} {precision}"
                words = ("--regime", "two_stage", "--precision", precision, "--tracking.system_interval", "1")
                run = train(machine, "keras", name, *words, KERAS_BACKEND=backend)
                found[name] = {
                    "first loss": run["history"]["train/loss"][0],
                    "peak": run["metrics"]["cost/peak_gpu_memory_megabytes"],
                    "memory of the card": run["metrics"].get("system/gpu_0_memory_megabytes"),
                }
                device = run["tags"]["tandem.device"]
                machine.require_on_gpu(device == "gpu" or backend == "tensorflow", f"{name} ran on the {device}")
                machine.require_on_gpu(
                    found[name]["peak"] > 0 or device == "cpu", f"{name}: the peak of the GPU's memory is 0"
                )
    finally:
        if other is not None:
            other.kill()
            other.wait()
    machine.note(runs=found)
    if not found:
        raise Skipped("no backend of Keras is installed")


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
    needs("torch", "pytest", "mlflow")
    seconds = max(20, int(os.environ.get("TANDEM_CHECK_SECONDS", "120")) - 15)
    places = ["tests/protocol"] if machine.pretend else ["tests/protocol", "tests/evaluation", "tests/on_torch"]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not long", *places]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        output, _ = process.communicate()
        machine.note(stopped_after_seconds=seconds)
    failed = re.findall(r"^(?:FAILED|ERROR) (.+)$", output, re.MULTILINE)
    machine.note(line=last_line(output), failed=failed)
    machine.require(not failed, f"{failed[:1]}")
