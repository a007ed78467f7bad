"""Weights and statistics in each process of a run on several devices, with a pretrained backbone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tandem.on_torch.networks import build_classifier
from tandem.on_torch.weights import BACKBONE_FILE, save_weights
from tests.small_runs import NUM_CLASSES, small_settings, tell_images_apart

ROOT = Path(__file__).resolve().parents[2]

# train_torch.py, with two hooks of Lightning: each process saves its network when training begins and ends.
SCRIPT = """
from tandem.launch.scripts import begin, run_script

SETTINGS = begin("torch")

import torch
import train_torch


class Steps(train_torch.TrainingSteps):
    def keep(self, moment):
        torch.save(self.network.state_dict(), f"{moment}-{self.phase.number}-{torch.distributed.get_rank()}.pt")

    def on_train_start(self):
        self.keep("begin")

    def on_train_end(self):
        self.keep("end")


train_torch.TrainingSteps = Steps
run_script("torch", train_torch.main, SETTINGS)
"""

WORDS = (
    *(
        "--num_devices",
        "2",
        "--backbone_batch_norm",
        "frozen",
        "--regime",
        "two_stage",
        "--weights",
        BACKBONE_FILE,
        "--head.batch_norm",
        "true",
    ),
    *("--max_epochs", "2", "--batch_size", "8", "--device", "cpu", "--threads", "1", "--learning_rate", "0.01"),
    *("--data.classes", '["0", "1", "2", "3", "4"]', "--data.images_per_class", "12", "--data.image_size", "32"),
    *("--data.fractions", "[0.5, 0.25, 0.25]", "--data.cache_folder", "cache", "--tracking.grad_cam_images", "0"),
    *("--tracking.log_model", "false", "--tracking.log_weights", "false", "--tracking.data_report", "false"),
)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_all_processes_have_the_weights_and_statistics_of_the_first(tmp_path: Path) -> None:
    network = tell_images_apart(build_classifier(small_settings(), NUM_CLASSES))
    save_weights(network, tmp_path)
    (tmp_path / "script.py").write_text(SCRIPT)
    foreign = ("MLFLOW_TRACKING_URI", "PYTHONWARNINGS")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    done = subprocess.run(
        [sys.executable, "script.py", *WORDS],
        cwd=tmp_path,
        env={**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    pretrained = {f"backbone.{name}": value for name, value in network.backbone.state_dict().items()}
    trained = {name for name in pretrained if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert len(pretrained) - len(trained) == 3 * 52
    for phase in (1, 2):
        for moment in ("begin", "end"):
            first, second = (torch.load(tmp_path / f"{moment}-{phase}-{rank}.pt") for rank in range(2))
            different = {name for name, value in first.items() if not torch.equal(value, second[name])}
            assert not different, f"{moment} of phase {phase}: {len(different)} arrays, such as {min(different)}"
            moved = {name for name, value in pretrained.items() if not torch.equal(value, first[name])}
            assert moved == (trained if (phase, moment) == (2, "end") else set())
            head_has_learned = first["head.0.running_mean"].any()
            assert head_has_learned == ((phase, moment) != (1, "begin"))
