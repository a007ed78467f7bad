from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from torch import Tensor
from torch.nn import functional

from tandem.data.prepare import PreparedData
from tandem.data.stream import Augmentation, Stream
from tandem.errors import UserError
from tandem.on_torch.distributed import (
    Share,
    let_others_begin,
    share_out,
    weigh_by_share,
)
from tandem.on_torch.feed import StreamLoader
from tandem.on_torch.synchronized_batch_norm import synchronized_batch_norm
from tandem.protocol.settings import AugmentationSettings
from tandem.tracking.checkpoints import read_state
from tests.small_runs import assert_same_outputs, small_settings

ROOT = Path(__file__).resolve().parents[2]
BATCH_SIZE = 8

# --------------------------------------------------------------------------------------------------------------- shares


def stream_of(data: PreparedData, num_images: int, *, shuffle: bool = True) -> Stream:
    rows = data.rows("train")[:num_images]
    flips = Augmentation(settings=AugmentationSettings(horizontal_flip=True, crop_padding=1))
    return Stream(data.images, data.labels, rows, batch_size=BATCH_SIZE, seed=(3,), shuffle=shuffle, augmentation=flips)


def loader_of(data: PreparedData, num_images: int) -> StreamLoader:
    return StreamLoader(stream_of(data, num_images), pin_memory=False)


def shares_of(data: PreparedData, num_images: int, num_processes: int, *, shuffle: bool = True) -> list[Share]:
    return [
        Share(stream_of(data, num_images, shuffle=shuffle), pin_memory=False, rank=rank, num_processes=num_processes)
        for rank in range(num_processes)
    ]


@pytest.mark.parametrize(("rank", "made_in_epoch_0"), [(0, [8, 8, 8, 6]), (1, [4, 4, 4, 3])])
def test_only_the_first_process_makes_whole_batches_for_the_hash(
    rank: int, made_in_epoch_0: list[int], data: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = stream_of(data, 30)
    made: list[int] = []
    serve = stream._served
    monkeypatch.setattr(stream, "_served", lambda epoch, places: made.append(len(places)) or serve(epoch, places))
    share = Share(stream, pin_memory=False, rank=rank, num_processes=2)
    first, second = [[labels.tolist() for _, labels in share] for _ in range(2)]
    assert made == [*made_in_epoch_0, 4, 4, 4, 3]
    assert [len(labels) for labels in first] == [len(labels) for labels in second] == [4, 4, 4, 3]
    assert (stream.first_epoch_hash is not None) == (rank == 0)


def test_warm_up_has_the_sizes_of_the_process_s_shares(data: PreparedData) -> None:
    stream = stream_of(data, 30)  # 8, 8, 8, 6
    share = Share(stream, pin_memory=False, rank=1, num_processes=4)
    assert [(images.shape, len(labels)) for images, labels in share.batch_of_each_size()] == [
        ((2, 8, 8, 3), 2),
        ((2, 8, 8, 3), 2),
    ]
    assert stream.first_epoch_hash is None
    few = Share(stream_of(data, 26), pin_memory=False, rank=0, num_processes=4)
    assert [len(labels) for _, labels in few.batch_of_each_size()] == [2]  # of 8 and 2 images


@pytest.mark.parametrize("num_processes", [1, 2, 4])
@pytest.mark.parametrize("num_images", [24, 25, 29, 30])
def test_shares_together_are_the_batches(num_images: int, num_processes: int, data: PreparedData) -> None:
    loader, shares = loader_of(data, num_images), shares_of(data, num_images, num_processes)
    for _ in range(2):  # in the first epoch whole batches are made, for their hash
        whole = list(loader)
        assert [len(share) for share in shares] == [len(whole)] * num_processes
        for parts, batch in zip(zip(*shares, strict=True), whole, strict=True):
            for position in range(2):
                together = torch.cat([part[position] for part in parts])
                assert torch.equal(together, batch[position])
            sizes = [len(labels) for _, labels in parts]
            assert max(sizes) - min(sizes) <= 1


def test_process_makes_only_its_own_images(data: PreparedData, monkeypatch: pytest.MonkeyPatch) -> None:
    (share, _) = shares_of(data, 24, 2)
    list(share)
    made = []
    changed = Stream._changed
    monkeypatch.setattr(
        Stream, "_changed", lambda self, rows, *rest: made.append(len(rows)) or changed(self, rows, *rest)
    )
    list(share)
    assert made == [4, 4, 4]


def test_first_share_has_the_hash_of_the_whole_batches(data: PreparedData) -> None:
    loader = loader_of(data, 29)
    list(loader)
    first, second = shares_of(data, 29, 2)
    for share in (first, second):
        list(share)
    assert first.stream.first_epoch_hash == loader.stream.first_epoch_hash is not None
    assert second.stream.first_epoch_hash is None  # nobody reads it


def test_each_validation_image_is_in_one_share_even_of_small_batches(data: PreparedData) -> None:
    shares = shares_of(data, 18, 4, shuffle=False)  # 8, 8 and 2 images
    assert [len(share) for share in shares] == [2, 3, 2, 3]
    served = [list(share) for share in shares]
    assert [len(batches) for batches in served] == [2, 3, 2, 3]
    assert sum(len(labels) for batches in served for _, labels in batches) == 18


def test_gradients_averaged_over_weighted_shares_are_those_of_the_whole_batch(data: PreparedData) -> None:
    torch.manual_seed(0)
    weights = torch.randn(8 * 8 * 3, 5, dtype=torch.float64)

    def gradient(images: Tensor, labels: Tensor, share: Share | None, index: int) -> Tensor:
        kernel = weights.clone().requires_grad_()
        loss = functional.cross_entropy(images.flatten(1).double() / 255 @ kernel, labels)
        (weigh_by_share(loss, share, index) if share else loss).backward()
        assert kernel.grad is not None
        return kernel.grad

    shares = shares_of(data, 29, 4)  # the last batch: 1, 1, 1 and 2 of 5 images
    for index, (images, labels) in enumerate(loader_of(data, 29)):
        averaged = torch.stack([gradient(*list(share)[index], share, index) for share in shares_of(data, 29, 4)]).mean(
            0
        )
        torch.testing.assert_close(averaged, gradient(images, labels, None, index), rtol=1e-12, atol=0)
    assert [share.weight(0) for share in shares] == [1, 1, 1, 1]
    assert [share.weight(3) for share in shares] == pytest.approx([0.8, 0.8, 0.8, 1.6])


def test_single_process_gets_the_loader_itself(data: PreparedData) -> None:
    loader = share_out(stream_of(data, 24), pin_memory=False)
    assert type(loader) is StreamLoader
    loss = torch.tensor(2.0)
    assert weigh_by_share(loss, loader, 0) is loss
    with synchronized_batch_norm() as mode:
        assert mode is None


@pytest.mark.parametrize(
    ("num_devices", "batch_size", "told"),
    [(8, 8, "allowed: at most 6, the images in the last batch of the 30 training"), (16, 32, "at most 15, the valid")],
)
def test_more_processes_than_images_in_a_batch_are_refused(
    num_devices: int, batch_size: int, told: str, data: PreparedData
) -> None:
    with pytest.raises(UserError, match=f"num_devices: received {num_devices}, .*{told}"):
        let_others_begin(small_settings(num_devices=num_devices, batch_size=batch_size), data)


# ----------------------------------------------------------------------------------------------------------- whole runs

# 35 training images: the last batch has 15, seven for one process and eight for the other. A backbone with layer norm:
# with batch norm on so few small images, rounding decides about the training even in one process.
SETTINGS = """
regime: two_stage
backbone: timm:convnext_atto
weights: random
learning_rate: 1.0e-2
thawed_rate_factor: 0.1
batch_size: 20
max_epochs: 2
threads: 1
device: cpu
optimizer: {name: sgd, momentum: 0.9}
head: {hidden: [16], batch_norm: true}
augmentation: {horizontal_flip: true, crop_padding: 1}
mixing: {mixup_alpha: 0.4, cutmix_alpha: 1.0}
loss: {label_smoothing: 0.1, class_weights: {"0": 3.0}}
sampling: balanced
early_stopping: {restore: last}
data:
  source: digits
  classes: ["0", "1", "2", "3", "4"]
  image_size: 32
  images_per_class: 14
  fractions: [0.5, 0.25, 0.25]
  cache_folder: cache
tracking: {experiment: shares, log_model: false, log_weights: false, grad_cam_images: 0, data_report: false}
"""
STARTED = {
    "one process": ["python"],
    "two by itself": ["python", "--num_devices", "2"],
    "two by torchrun": ["torchrun", "--num_devices", "auto"],
}
LOSSES = ("train/loss", "val/loss", "train/accuracy", "val/accuracy")


def command(program: str, *words: str) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"] if program == "torchrun" else []
    return [sys.executable, *launcher, str(ROOT / "train_torch.py"), "--config", "settings.yaml", *words]


@contextlib.contextmanager
def started(folder: Path, program: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Starts a run in a folder, and ends it at the end of the with block."""
    foreign = ("MLFLOW_TRACKING_URI", "PYTHONWARNINGS")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    process = subprocess.Popen(
        command(program, *words),
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def runs_of(folder: Path) -> list[Run]:
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("shares")
    assert experiment is not None
    return client.search_runs([experiment.experiment_id])


def history(folder: Path, name: str) -> list[float]:
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = runs_of(folder)
    return [metric.value for metric in sorted(client.get_metric_history(run.info.run_id, name), key=lambda m: m.step)]


def predictions(folder: Path) -> pd.DataFrame:
    (file,) = (folder / "runs").glob("*/*/final/predictions.parquet")
    return pd.read_parquet(file)


def folder_with_settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "settings.yaml").write_text(SETTINGS)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of the same run, started in each of three ways."""
    folders = {}
    for way, words in STARTED.items():
        folders[way] = folder_with_settings(tmp_path_factory)
        with started(folders[way], *words) as process:
            output, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        assert output.count("Files of the run") == 1
        assert errors.count("digits: 901 images") == 1 and "Traceback" not in errors, errors
    return folders


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("way", ["two by itself", "two by torchrun"])
def test_two_processes_train_like_one(way: str, trained: dict[str, Path]) -> None:
    alone, shared = trained["one process"], trained[way]
    for name in LOSSES:
        assert len(history(alone, name)) == 4
        assert history(shared, name) == pytest.approx(history(alone, name), rel=1e-4 if "loss" in name else 1e-6), name
    one, two = predictions(alone), predictions(shared)
    assert list(one["hash"]) == list(two["hash"]) and len(set(two["key"])) == len(two) == 18
    columns = [name for name in one if name.startswith("probability:")]
    assert_same_outputs(two[columns], one[columns], atol=2e-3, margin=10)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("way", ["two by itself", "two by torchrun"])
def test_two_processes_record_one_run_with_the_same_batches(way: str, trained: dict[str, Path]) -> None:
    (alone,), (shared,) = runs_of(trained["one process"]), runs_of(trained[way])
    assert shared.info.status == "FINISHED"
    for tag in ("batches_hash", "settings_hash", "split_hash", "phase_1.backbone_before"):
        assert shared.data.tags[f"tandem.{tag}"] == alone.data.tags[f"tandem.{tag}"]
    tags = shared.data.tags
    assert tags["tandem.phase_1.backbone_after"] == tags["tandem.phase_1.backbone_before"]
    assert tags["tandem.phase_2.backbone_after"] != tags["tandem.phase_2.backbone_before"]
    assert (alone.data.params["num_devices"], shared.data.params["num_devices"]) == ("1", "2")
    assert len(list((trained[way] / "runs").glob("*/*/journal.jsonl"))) == 1


@pytest.mark.long
@pytest.mark.timeout(600)
def test_killed_run_continues_with_all_its_processes(
    trained: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = folder_with_settings(tmp_path_factory)
    shutil.copytree(trained["two by itself"] / "cache", folder / "cache")
    words = STARTED["two by itself"]
    with started(folder, *words) as process:
        while not (
            any(folder.glob("runs/*/*/checkpoint/epoch.npz")) and any(folder.glob("runs/*/*/checkpoint/phase.npz"))
        ):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        others = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.communicate()
    assert others and leaves_nothing_running(others)
    (killed,) = (folder / "runs").glob("*/*/checkpoint")
    assert read_state(killed / "epoch.npz")["phase"] == 2  # type: ignore[index]
    with started(folder, *words) as process:
        _, errors = process.communicate(timeout=500)
    assert process.returncode == 0 and "Continuing the run" in errors, errors
    for name in LOSSES:
        assert history(folder, name) == history(trained["two by itself"], name), name
    columns = [name for name in predictions(folder) if name.startswith("probability:")]
    assert predictions(folder)[columns].equals(predictions(trained["two by itself"])[columns])
    (run,) = runs_of(folder)
    assert run.info.status == "FINISHED" and run.data.tags["tandem.resumed"] == "1"
    batches_hash = runs_of(trained["two by itself"])[0].data.tags["tandem.batches_hash"]
    assert run.data.tags["tandem.batches_hash"] == batches_hash


def leaves_nothing_running(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=30)
    return alive == []


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("program", ["python", "torchrun"])
def test_diverging_loss_ends_all_processes_with_one_line(
    program: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = folder_with_settings(tmp_path_factory)
    words = ["--num_devices", "2", "--regime", "frozen", "--learning_rate", "10", "--batch_size", "4"]
    # decoupled weight decay: each step multiplies the weights by 1 - 10 * 1, so that float32 overflows in 40 steps
    words += ["--optimizer.name", "adamw", "--optimizer.weight_decay", "1", "--max_epochs", "20"]
    words += ["--early_stopping.patience", "null"]
    with started(folder, program, *words) as process:
        _, errors = process.communicate(timeout=500)
    assert process.returncode == (2 if program == "python" else 1), errors
    assert errors.count("training diverged") == 1, errors
    (run,) = runs_of(folder)
    assert run.info.status == "FAILED"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_interrupted_run_ends_its_other_processes(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = folder_with_settings(tmp_path_factory)
    words = ["--num_devices", "2", "--max_epochs", "1000", "--early_stopping.patience", "null"]
    with started(folder, "python", *words) as process:
        journal: list[Path] = []
        while not (journal and "train/loss" in journal[0].read_text()):
            assert process.poll() is None, process.communicate()
            journal = list(folder.glob("runs/*/*/journal.jsonl"))
            time.sleep(0.2)
        others = psutil.Process(process.pid).children(recursive=True)
        assert others
        process.terminate()
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 143 and "train_torch.py: interrupted by SIGTERM\n" in errors, errors
    assert "Traceback" not in errors
    assert leaves_nothing_running(others)
    (run,) = runs_of(folder)
    assert run.info.status == "KILLED"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_process_that_dies_fails_the_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = folder_with_settings(tmp_path_factory)
    words = ["--num_devices", "2", "--max_epochs", "1000", "--early_stopping.patience", "null"]
    with started(folder, "python", *words) as process:
        journal: list[Path] = []
        while not (journal and "train/loss" in journal[0].read_text()):
            assert process.poll() is None, process.communicate()
            journal = list(folder.glob("runs/*/*/journal.jsonl"))
        (other,) = psutil.Process(process.pid).children()
        other.kill()
        process.communicate(timeout=120)
    assert process.returncode == 1
    (run,) = runs_of(folder)
    assert run.info.status == "FAILED"
