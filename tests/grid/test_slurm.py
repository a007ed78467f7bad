from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests
from mlflow.tracking import MlflowClient

from tandem.errors import UserError
from tandem.grid.__main__ import main, parse_arguments
from tandem.grid.slurm import array_script, ranges, write_script
from tests.grid.small_cells import make_cell

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "KERAS_BACKEND"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("numbers", "text"), [([1, 2, 3], "1-3"), ([4], "4"), ([1, 2, 5, 7, 8, 9], "1-2,5,7-9"), ([3, 5], "3,5")]
)
def test_numbers_of_cells_are_written_as_ranges(numbers: list[int], text: str) -> None:
    assert ranges(numbers) == text


def script(words: list[str], jobs: int | None = None, cpus: int = 4, gpus: int = 1) -> str:
    cells = [make_cell(number=number, experiment="my birds") for number in (1, 2, 5)]
    return array_script(cells, words, jobs=jobs, cpus=cpus, gpus=gpus)


def directives(text: str) -> list[str]:
    """Directives that Slurm reads: those before the first command."""
    return re.findall(r"^#SBATCH (.*)$", text.partition("set -euo")[0], re.MULTILINE)


def test_directives_request_the_cells_and_their_resources() -> None:
    assert directives(script(["birds.yaml"], jobs=2, cpus=8, gpus=2)) == [
        "--job-name=my_birds",
        "--array=1-2,5%2",
        "--ntasks=1",
        "--cpus-per-task=8",
        "--gres=gpu:2",
        "--output=grid/my_birds/slurm-%A_%a.log",
        "--requeue",
        "--signal=B:USR1@120",
    ]
    without = directives(script(["birds.yaml"], gpus=0))
    assert "--array=1-2,5" in without and not [line for line in without if "gres" in line]


def test_cells_with_high_numbers_have_indices_below_slurms_limit(tmp_path: Path) -> None:
    cells = [make_cell(number=number, experiment="my birds") for number in (1200, 1201, 1950)]
    text = array_script(cells, ["birds.yaml"], jobs=None, cpus=1, gpus=0)
    assert "--array=0-1,750" in directives(text)
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\necho "$@"\n')
    fake.chmod(0o755)
    text = re.sub(r"^PYTHON=.*$", f"PYTHON={fake}", text, flags=re.MULTILINE)
    environment = {"PATH": os.environ["PATH"], "SLURM_ARRAY_TASK_ID": "750"}
    done = subprocess.run(["bash"], input=text, env=environment, capture_output=True, text=True)
    assert done.stdout == "-m tandem.grid birds.yaml --cell 1950 --cpus_per_cell 1 --requeue\n"


@pytest.mark.parametrize(("highest", "indices"), [(1000, "1-2,1000"), (1001, "0-1,1000")])
def test_highest_index_is_below_slurms_limit(highest: int, indices: str) -> None:
    cells = [make_cell(number=number) for number in (1, 2, highest)]
    assert f"--array={indices}" in directives(array_script(cells, ["birds.yaml"], jobs=None, cpus=1, gpus=0))


def test_lines_for_the_user_are_marked() -> None:
    lines = script(["birds.yaml"]).splitlines()
    marked = [number for number, line in enumerate(lines) if line.startswith("# Yours:")]
    assert len(marked) == 2
    assert lines[marked[0] + 1].startswith("##SBATCH") and f"PYTHON={sys.executable}" in lines[marked[1] :]


def test_bash_passes_each_argument_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "it's mine"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://lab:5000")
    words = ["my birds.yaml", "--budget", "small", "--", "--data.source", "~/a $HOME 'b'"]
    text = script(words, cpus=3)
    checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    # stands for Python and prints its arguments
    shown = "import os, sys; print([os.getcwd(), os.environ['KERAS_BACKEND'], os.environ['MLFLOW_TRACKING_URI']])"
    fake = tmp_path / "python"
    fake.write_text(f"#!{sys.executable}\n{shown}; print(sys.argv[1:])\n")
    fake.chmod(0o755)
    text = re.sub(r"^PYTHON=.*$", f"PYTHON={fake}", text, flags=re.MULTILINE)
    for cpus, variables in (("3", {}), ("6", {"SLURM_CPUS_PER_TASK": "6"})):
        environment = {"PATH": os.environ["PATH"], "SLURM_ARRAY_TASK_ID": "5", **variables}
        done = subprocess.run(["bash"], input=text, env=environment, capture_output=True, text=True)
        place, argv = done.stdout.splitlines()
        assert place == str([str(folder), "jax", "http://lab:5000"])
        options = ["--cell", "5", "--cpus_per_cell", cpus, "--requeue"]
        assert argv == str(["-m", "tandem.grid", *words[:3], *options, *words[3:]])
        assert parse_arguments([*words[:3], *options])[0].cell == 5


def test_passwords_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@lab:5000")
    with pytest.raises(
        UserError, match=r"password would be readable in the script; .*MLFLOW_TRACKING_PASSWORD"
    ) as raised:
        script(["birds.yaml"])
    assert "secret" not in str(raised.value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(UserError, match=r"password would be readable in the script"):
        script(["birds.yaml", "--tracking.uri", "http://me:secret@lab:5000"])


def test_existing_script_is_not_overwritten(tmp_path: Path) -> None:
    write_script(tmp_path / "job.sh", "mine\n")
    with pytest.raises(UserError, match=r"^--slurm: received .*job\.sh', which exists"):
        write_script(tmp_path / "job.sh", "new\n")
    assert (tmp_path / "job.sh").read_text() == "mine\n"
    with pytest.raises(UserError, match=r"which cannot be written: No such file"):
        write_script(tmp_path / "lacking" / "job.sh", "new\n")


TINY = """
experiment: tiny
settings:
  data: {source: digits, classes: ["0", "1"], image_size: 32, images_per_class: 12, cache_folder: cache}
  regime: scratch
  batch_size: 8
  max_epochs: 1
  device: cpu
  tracking: {data_report: false}
cells:
  - frameworks: [torch]
    vary: {seed: [0, 1]}
"""


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """MLflow server on this machine's external address, as used by other machines."""
    host = next(
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET and not entry.address.startswith("127.")
    )
    with socket.socket() as probe:
        probe.bind((host, 0))
        address = f"{host}:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--workers", "1", "--allowed-hosts", address]
    command += ["--host", host, "--port", address.rpartition(":")[2]]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 200
            while True:
                assert server.poll() is None and time.monotonic() < deadline
                with contextlib.suppress(requests.ConnectionError):
                    if requests.get(f"http://{address}/health", timeout=5).ok:
                        break
                time.sleep(0.2)
            yield f"http://{address}"
        finally:
            server.terminate()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_task_of_the_array_job_runs_its_cell_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    (tmp_path / "tiny.yaml").write_text(TINY)
    with mlflow_server(tmp_path) as uri:
        main(["tiny.yaml", "--slurm", "job.sh", "--jobs", "2", "--cpus_per_cell", "1", "--tracking.uri", uri])
        assert capsys.readouterr().out == "job.sh: 2 cells; edit the lines marked as yours, then: sbatch job.sh\n"
        assert "--array=1-2%2" in directives((tmp_path / "job.sh").read_text())
        assert (tmp_path / "grid" / "tiny").is_dir()  # Slurm does not create it
        environment = {**os.environ, "SLURM_ARRAY_TASK_ID": "2", "SLURM_CPUS_PER_TASK": "1"}
        first, second = (
            subprocess.run(["bash", "job.sh"], env=environment, capture_output=True, text=True) for _ in range(2)
        )
        assert first.returncode == 0, first.stdout + first.stderr
        assert "2 mobilenet_v2 scratch torch seed-1: finished after" in first.stdout
        assert (second.returncode, second.stdout) == (0, "1 of 1 cells are finished and skipped\n")
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name("tiny")
        assert experiment is not None
        (run,) = client.search_runs([experiment.experiment_id])
        assert (run.info.status, run.data.params["seed"], run.data.params["threads"]) == ("FINISHED", "1", "1")

        main(["tiny.yaml", "--slurm", "rest.sh", "--tracking.uri", uri])
        assert "--array=1" in directives((tmp_path / "rest.sh").read_text())


def test_local_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    with pytest.raises(UserError, match=r"^tracking\.uri: received sqlite:///.*need an MLflow server"):
        main(["tiny.yaml", "--slurm", "job.sh"])
    assert not (tmp_path / "job.sh").exists()
