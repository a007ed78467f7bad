from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tandem.errors import UserError
from tandem.grid.machines import ROOT, check_stores, code_hash, default_threads, variables_for_cells
from tests.grid.small_cells import make_cell


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "postgresql://me:secret@db/mlflow"])
def test_several_machines_need_a_server(uri: str) -> None:
    with pytest.raises(
        UserError, match=r"^tracking\.uri: received .*, but cells on several machines need an MLflow ser"
    ) as e:
        check_stores([make_cell(uri=uri)])
    assert "secret" not in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "http://localhost:5000", "http://[::1]:5000"])
def test_server_that_only_this_machine_reaches_is_refused(uri: str) -> None:
    with pytest.raises(UserError, match=r"which other machines cannot reach; start the server with --host"):
        check_stores([make_cell(uri="http://mlflow.lab:5000"), make_cell(uri=uri)])


def test_server_with_a_name_or_an_external_address_is_accepted() -> None:
    check_stores([make_cell(uri="http://mlflow.lab:5000"), make_cell(uri="https://192.0.2.7")])


def test_environment_that_decides_where_runs_go_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://files")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    variables = variables_for_cells()
    assert (variables["MLFLOW_TRACKING_USERNAME"], variables["KERAS_BACKEND"]) == ("me", "jax")
    assert variables["MLFLOW_S3_ENDPOINT_URL"] == "http://files"
    assert "OMP_NUM_THREADS" not in variables


@pytest.mark.parametrize(
    ("num_cores", "num_gpus", "gpus_per_cell", "threads"),
    [(64, 8, 1, 8), (64, 8, 2, 16), (64, 8, 0.5, 4), (4, 8, 1, 1), (16, 0, 0, 1), (16, 2, 0, 1), (16, 1, 4, 16)],
)
def test_cores_are_shared_out_in_proportion_to_gpus(
    num_cores: float, num_gpus: float, gpus_per_cell: float, threads: int
) -> None:
    assert default_threads(num_cores, num_gpus, gpus_per_cell) == threads


def test_hash_changes_with_the_training_code(tmp_path: Path) -> None:
    here = code_hash()
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "tandem", copy / "tandem", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train_torch.py", "train_keras.py"):
        shutil.copy(ROOT / name, copy / name)
    assert code_hash(copy) == here
    (copy / "tandem" / "notes.md").write_text("no code")
    assert code_hash(copy) == here
    with (copy / "train_keras.py").open("a") as script:
        script.write("# another\n")
    assert code_hash(copy) != here
