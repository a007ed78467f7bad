"""What a check needs to know about the machine, and helpers that several checks use; imports no framework."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Skipped(Exception):
    """The check cannot run here; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where and how the checks run."""

    folder: Path
    """For everything that checks write."""
    pretend: bool
    """Run on the CPU with small sizes, to find faults of the checks; limits of time and memory are not checked."""
    seconds: float = 120.0
    """Limit for the check."""
    details: dict[str, Any] = field(default_factory=dict)
    """Measurements of the check, for its line and the JSON file."""

    @property
    def device(self) -> str:
        """The name of torch's device."""
        return "cpu" if self.pretend else "cuda"

    @property
    def device_setting(self) -> str:
        """The setting `device`."""
        return "cpu" if self.pretend else "gpu"

    def note(self, **details: Any) -> None:
        """Keeps measurements."""
        self.details.update(details)

    def require(self, condition: bool, what: str) -> None:
        """Fails the check unless the condition holds."""
        if not condition:
            raise AssertionError(what)

    def require_on_gpu(self, condition: bool, what: str) -> None:
        """Fails the check on a GPU only: limits of time and memory, and the arithmetic of GPUs."""
        if not self.pretend:
            self.require(condition, what)


def needs(*packages: str) -> None:
    """Skips the check if a package is not installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise Skipped(f"not installed: {', '.join(missing)}")


def run_python(words: Sequence[str], machine: Machine, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with these words in the machine's folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    if machine.pretend:
        environment |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, *words], cwd=machine.folder, env=environment, capture_output=True, text=True, check=False
    )


def options(machine: Machine, experiment: str, *words: str) -> list[str]:
    """Command-line options of a short training on digits."""
    return [
        *("--data.source", "digits", "--data.image_size", "32", "--weights", "random", "--batch_size", "32"),
        *("--data.images_per_class", "10" if machine.pretend else "100"),
        *("--data.cache_folder", str(machine.folder / "cache"), "--device", machine.device_setting),
        *("--max_epochs", "2", "--tracking.experiment", experiment, "--tracking.data_report", "false"),
        # the model and Grad-CAM have checks of their own
        *("--tracking.log_model", "false", "--tracking.log_weights", "false", "--tracking.grad_cam_images", "0"),
        *words,
    ]


STEADY = (
    *("--backbone", "timm:convnext_atto", "--optimizer.name", "sgd", "--learning_rate", "0.01"),
    *("--head.hidden", "[16]", "--head.batch_norm", "true"),
)
"""Options of a training whose losses can be compared between devices.

Training a random network with batch norm in each block amplifies rounding to some percent of the losses within an
epoch. Its frozen backbone gives all images the same features, and a loss that nothing changes.
"""


def train(machine: Machine, framework: str, experiment: str, *words: str, **variables: str) -> dict[str, Any]:
    """Runs a training script.

    Returns:
        Its tags, its metrics, and `history`: the values per epoch of the losses.
    """
    needs("mlflow", "torch" if framework == "torch" else "keras")
    done = run_python(
        [str(ROOT / f"train_{framework}.py"), *options(machine, experiment, *words)], machine, **variables
    )
    machine.require(done.returncode == 0, f"train_{framework}.py {' '.join(words)}: {last_line(done.stderr)}")
    return newest_run(machine, experiment)


def newest_run(machine: Machine, experiment: str) -> dict[str, Any]:
    """Tags, metrics and histories of the newest run of an experiment."""
    from mlflow.tracking import MlflowClient

    from tandem.tracking.numbers import read_numbers

    client = MlflowClient(tracking_uri=f"sqlite:///{machine.folder / 'mlflow.db'}")
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    run = client.search_runs([found.experiment_id], order_by=["attributes.start_time DESC"], max_results=1)[0]
    history = {
        name: [metric.value for metric in client.get_metric_history(run.info.run_id, name)]
        for name in ("train/loss", "val/loss", "epoch/seconds")
    }
    return {"tags": run.data.tags, "metrics": read_numbers(run), "history": history}


def last_line(text: str) -> str:
    """Last line of a text that is not blank."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def last_json(done: subprocess.CompletedProcess[str]) -> Any:
    """The JSON object that a program printed as its last line."""
    if done.returncode or not re.match(r"[\[{]", last_line(done.stdout)):
        raise AssertionError(last_line(done.stderr))
    return json.loads(last_line(done.stdout))
