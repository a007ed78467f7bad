from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from tandem.on_keras.distributed import bring_together, join_devices, share_out
from tandem.on_keras.weights import BACKBONE_FILE
from tests.small_runs import assert_same_outputs, small_settings

ROOT = Path(__file__).resolve().parents[2]


def run_python(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    foreign = ("MLFLOW_TRACKING_URI", "PYTHONWARNINGS", "XLA_FLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={**environment, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_single_device_gets_batches_unchanged() -> None:
    assert join_devices(small_settings()).num_devices == 1
    assert join_devices(small_settings(num_devices="auto")).num_devices == 1
    batch = np.zeros((3, 2))
    assert share_out(batch) is batch and bring_together(batch) is batch


# MobileNetV2 in training mode on seven images, on one device and on two: logits and batch-norm statistics. The large
# epsilon keeps rounding errors from growing through 52 layers, at 1 x 1 pixels and seven images.
ONE_STEP = """
import json
import jax, keras, numpy as np
from tandem.on_keras.backbones import leaf_layers
from tandem.on_keras.distributed import join_devices
from tandem.on_keras.networks import build_classifier
from tests.small_runs import assert_same_outputs, small_settings

images = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
settings = small_settings(threads=None, num_devices=2)
keras.config.disable_traceback_filtering()
jax.config.update("jax_num_cpu_devices", 2)

def train_on_seven():
    keras.utils.set_random_seed(0)
    network = build_classifier(settings, 5)
    for layer in leaf_layers(network.backbone):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.epsilon = 0.1
    network.trainable = True
    states = [variable.value for variable in network.trainable_variables]
    others = [variable.value for variable in network.non_trainable_variables]
    step = jax.jit(lambda states, others, images: network.stateless_call(states, others, images, training=True))
    compiled = step.lower(states, others, images).compile()
    logits, others = compiled(states, others, images)
    reduced = sum(word in compiled.as_text() for word in ("all-reduce", "all-gather"))
    return np.asarray(logits), [np.asarray(value) for value in others], reduced, len(logits.sharding.device_set)

one = train_on_seven()
join_devices(settings)
two = train_on_seven()
differences = [float(abs(a - b).max()) for a, b in zip(one[1], two[1], strict=True) if a.dtype == np.float32]
print(json.dumps({
    "logits": [one[0].tolist(), two[0].tolist()],
    "statistics": max(differences),
    "num_statistics": len(differences),
    "collectives": [one[2], two[2]],
    "devices": [one[3], two[3]],
}))
"""


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_devices_normalise_with_a_whole_batch_of_unequal_parts(tmp_path: Path) -> None:
    found = json.loads(run_python("-c", ONE_STEP, cwd=tmp_path).stdout.splitlines()[-1])
    one, two = found["logits"]
    assert_same_outputs(two, one, atol=1e-5)
    assert found["num_statistics"] == 2 * 52 and found["statistics"] < 1e-4
    assert found["devices"] == [1, 2]
    assert found["collectives"][0] == 0 < found["collectives"][1]  # the devices share the work


# 35 training images: the last of five batches has three images.
SETTINGS = """
regime: frozen
backbone: mobilenet_v2
learning_rate: 1.0e-2
batch_size: 8
max_epochs: 2
device: cpu
optimizer: {name: sgd, momentum: 0.9}
head: {hidden: [16], batch_norm: true, dropout: 0.2}
augmentation: {horizontal_flip: true, crop_padding: 1}
early_stopping: {restore: last}
data:
  source: digits
  classes: ["0", "1", "2", "3", "4"]
  image_size: 32
  images_per_class: 14
  fractions: [0.5, 0.25, 0.25]
  cache_folder: cache
tracking: {experiment: shares, log_model: false, log_weights: false, grad_cam_images: 2, data_report: false}
"""


def only_run(folder: Path) -> tuple[MlflowClient, Run]:
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("shares")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return client, run


def history(folder: Path, name: str) -> list[float]:
    client, run = only_run(folder)
    return [metric.value for metric in sorted(client.get_metric_history(run.info.run_id, name), key=lambda m: m.step)]


def predictions(folder: Path) -> Any:
    (file,) = (folder / "runs").glob("*/*/final/predictions.parquet")
    return pd.read_parquet(file)


# A frozen random backbone gives all images the same features; this one is fitted to images before.
FITTED_WEIGHTS = """
from pathlib import Path
import numpy as np
from tandem.on_keras.networks import build_classifier
from tandem.on_keras.weights import save_weights
from tests.small_runs import small_settings, tell_images_apart

images = np.random.default_rng(5).integers(0, 256, (32, 8, 8, 3), dtype=np.uint8)
folder = Path("weights")
folder.mkdir()
network = build_classifier(small_settings(backbone="mobilenet_v2", image_size=32), 5)
save_weights(tell_images_apart(network, images), folder)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of the same run on one device and on two."""
    source = tmp_path_factory.mktemp("source")
    run_python("-c", FITTED_WEIGHTS, cwd=source)
    folders = []
    for num_devices in ("1", "2"):
        folders.append(tmp_path_factory.mktemp("run"))
        (folders[-1] / "settings.yaml").write_text(SETTINGS)
        weights = str(source / "weights" / BACKBONE_FILE)
        words = ("--config", "settings.yaml", "--num_devices", num_devices, "--weights", weights)
        run_python(str(ROOT / "train_keras.py"), *words, cwd=folders[-1])
    return folders


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_two_devices_train_like_one(trained: list[Path]) -> None:
    alone, shared = trained
    for name in ("train/loss", "val/loss", "train/accuracy", "val/accuracy"):
        assert len(history(alone, name)) == 2
        assert history(shared, name) == pytest.approx(history(alone, name), rel=1e-4 if "loss" in name else 1e-6), name
    one, two = predictions(alone), predictions(shared)
    assert list(one["hash"]) == list(two["hash"]) and len(set(two["key"])) == len(two) == 18
    columns = [name for name in one if name.startswith("probability:")]
    assert_same_outputs(two[columns], one[columns], atol=1e-3, margin=10)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_two_devices_record_one_run_with_the_same_batches(trained: list[Path]) -> None:
    (_, alone), (_, shared) = map(only_run, trained)
    assert shared.info.status == "FINISHED"
    for tag in ("batches_hash", "settings_hash", "split_hash", "phase_1.backbone_before"):
        assert shared.data.tags[f"tandem.{tag}"] == alone.data.tags[f"tandem.{tag}"]
    assert (alone.data.params["num_devices"], shared.data.params["num_devices"]) == ("1", "2")
