"""Real clusters of two nodes on this machine, and real cells."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from ray.cluster_utils import Cluster

from tandem.errors import UserError
from tandem.grid.machines import code_hash
from tandem.grid.ray_cluster import Site, _check_here, _connect, _num_that_fit, check_reach
from tandem.tracking import vocabulary
from tests.grid.small_cells import make_cell

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:", "http://head:6379", ":6379"])
def test_address_without_host_and_port_is_refused(address: str) -> None:
    with pytest.raises(UserError, match=r"^--ray: received .*, allowed: auto, or HOST:PORT"):
        _connect(address)


def test_missing_cluster_is_reported_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        start = time.monotonic()
        with pytest.raises(UserError, match=r"^--ray: no Ray cluster answers at 127\.0\.0\.1:\d+ .*: start one with"):
            _connect(f"127.0.0.1:{unused.getsockname()[1]}")
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus", "number"),
    [
        ({"CPU": 16.0, "GPU": 4.0}, 4, 1, 4),
        ({"CPU": 6.0, "GPU": 4.0}, 4, 1, 1),
        ({"CPU": 64.0, "GPU": 2.0}, 4, 0.5, 4),
        ({"CPU": 64.0, "GPU": 3.0}, 4, 2, 1),
        ({"CPU": 2.0}, 1, 0, 2),
        ({"CPU": 2.0}, 1, 1, 0),
    ],
)
def test_number_of_cells_that_fit_is_limited_by_cpus_and_gpus(
    resources: dict[str, float], cpus: float, gpus: float, number: int
) -> None:
    assert _num_that_fit(resources, cpus, gpus) == number


def test_sqlite_is_refused_with_nodes_on_other_machines() -> None:
    cells = [make_cell(uri="sqlite:///mlflow.db")]
    check_reach({"127.0.0.1"}, cells)
    with pytest.raises(UserError, match=r"need an MLflow server"):
        check_reach({"127.0.0.1", "203.0.113.7"}, cells)


def test_machine_without_the_folder_or_with_other_code_is_refused(tmp_path: Path) -> None:
    site = {"variables": {}, "since": 0}
    _check_here(Site(folder=str(tmp_path), code_hash=code_hash(), **site))
    with pytest.raises(UserError, match=r"^cannot write to .*lacking, the folder in which the grid was started"):
        _check_here(Site(folder=str(tmp_path / "lacking"), code_hash=code_hash(), **site))
    with pytest.raises(UserError, match=r"^the code in .* differs from that of the machine that started the grid"):
        _check_here(Site(folder=str(tmp_path), code_hash="0" * 64, **site))


# ------------------------------------------------------------------------------------------------------- a real cluster

GRID = """
experiment: tiny
settings:
  data: {{source: digits, classes: ["0", "1"], image_size: 32, images_per_class: 12, cache_folder: cache}}
  regime: scratch
  batch_size: 8
  max_epochs: {max_epochs}
  early_stopping: {{patience: null}}
  device: cpu
  tracking: {{data_report: false}}
cells:
  - frameworks: [torch]
    vary: {{seed: {seeds}}}
"""


@pytest.fixture(autouse=True)
def folder_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restores the current folder, which a cell changes in this process."""
    monkeypatch.chdir(Path.cwd())


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cluster]:
    """Two nodes of one CPU each, and an empty folder for the grid."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "KERAS_BACKEND", "PYTHONWARNINGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    nodes = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        nodes.add_node(**node)
        yield nodes
    finally:
        nodes.shutdown()


@contextlib.contextmanager
def started_grid(cluster: Cluster, *, seeds: list[int], max_epochs: int) -> Iterator[subprocess.Popen[str]]:
    """Grid on the cluster when each node is training a cell."""
    Path("tiny.yaml").write_text(GRID.format(seeds=seeds, max_epochs=max_epochs))
    command = [sys.executable, "-m", "tandem.grid", "tiny.yaml", "--ray", cluster.address]
    grid = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 900
        while sum("train/loss" in file.read_text() for file in Path().glob("runs/**/journal.jsonl")) < 2:
            if grid.poll() is not None or time.monotonic() > deadline:
                grid.kill()
                pytest.fail(f"the cells did not come to train: {grid.communicate()}")
            time.sleep(0.2)
        yield grid
    finally:
        grid.kill()


def recorded_runs() -> list[Run]:
    client = MlflowClient(tracking_uri=f"sqlite:///{Path('mlflow.db').absolute()}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def scripts_here() -> list[psutil.Process]:
    """Processes of training scripts in the current folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == os.getcwd() and any("train_torch.py" in word for word in process.cmdline()):
                found.append(process)
    return found


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_every_cell_finishes_exactly_once_when_a_node_is_killed_half_way(cluster: Cluster) -> None:
    lost = cluster.list_all_nodes()[1]
    with started_grid(cluster, seeds=[0, 1, 2], max_epochs=40) as grid:
        cluster.remove_node(lost, allow_graceful=False)
        output, errors = grid.communicate(timeout=600)
    assert grid.returncode == 0, output + errors
    assert "Ray: 2 nodes, 2 cells at once, each with 1 CPUs and 0 GPUs" in output
    assert "3 cells finished in " in output and ", 0 failed, 0 left" in output
    runs = recorded_runs()
    finished = Counter(run.data.params["seed"] for run in runs if run.info.status == "FINISHED")
    assert finished == {"0": 1, "1": 1, "2": 1}
    # the run of the lost node was continued on the other one
    (continued,) = [run for run in runs if vocabulary.RESUMED in run.data.tags]
    assert continued.data.tags[vocabulary.RESUMED] == "1"
    assert {run.data.params["threads"] for run in runs} == {"1"}
    assert scripts_here() == []

    again = subprocess.run(
        [sys.executable, "-m", "tandem.grid", "tiny.yaml", "--ray", cluster.address], capture_output=True, text=True
    )
    assert again.stdout == "3 of 3 cells are finished and skipped\n", again.stderr


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_interrupted_grid_ends_its_cells_on_all_nodes(cluster: Cluster) -> None:
    with started_grid(cluster, seeds=[0, 1, 2], max_epochs=100_000) as grid:
        grid.send_signal(signal.SIGTERM)
        output, errors = grid.communicate(timeout=300)
    assert grid.returncode == 143, output + errors
    assert "0 failed, 3 left" in output and errors.splitlines()[-1] == "tandem.grid: interrupted by SIGTERM"
    assert [run.info.status for run in recorded_runs()] == ["KILLED"] * 2
    assert scripts_here() == []
    assert not ray.is_initialized()  # only the grid was a driver
