from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tandem.errors import UserError
from tandem.protocol import gpus
from tandem.protocol.environment import (
    RECORDED_PREFIXES,
    REFUSED,
    check_environment,
    prepare_environment,
    recorded_environment,
)
from tandem.protocol.parser import read_settings
from tandem.protocol.settings import AccelerationSettings, Settings
from tests.made_nvml import Nvml


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty environment on a machine with four GPUs; the old one is restored afterwards."""
    monkeypatch.setattr(os, "environ", dict[str, str]())
    monkeypatch.setattr(gpus, "pynvml", Nvml(*["NVIDIA H100"] * 4))


def test_autotune_of_convolutions_is_left_to_the_frameworks() -> None:
    prepare_environment(Settings())
    assert not {"TF_CUDNN_USE_AUTOTUNE", "XLA_FLAGS"} & set(os.environ)


def test_autotune_of_convolutions_can_be_switched_off() -> None:
    os.environ["XLA_FLAGS"] = "--xla_dump_to=folder"
    prepare_environment(Settings(acceleration=AccelerationSettings(cudnn_autotune=False)))
    assert os.environ["TF_CUDNN_USE_AUTOTUNE"] == "0"
    assert os.environ["XLA_FLAGS"].split() == ["--xla_gpu_autotune_level=0", "--xla_dump_to=folder"]


def test_device_cpu_hides_gpus() -> None:
    prepare_environment(Settings(device="cpu", threads=3))
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["JAX_PLATFORMS"]) == ("", "cpu")
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_memory_of_a_gpu_is_allocated_as_needed() -> None:
    prepare_environment(Settings())
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


def test_memory_of_a_gpu_is_allocated_at_the_start_if_the_user_says_so() -> None:
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "true"
    prepare_environment(Settings())
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "true"


@pytest.mark.parametrize(
    ("num_devices", "given", "visible"),
    [
        (1, None, "0"),
        (2, None, "0,1"),
        (1, "3,2", "3"),
        (2, "GPU-222,GPU-111,GPU-000", "GPU-222,GPU-111"),
        (8, None, "0,1,2,3"),  # an error says later that these are too few
        (1, "", ""),
        ("auto", None, None),
        ("auto", "1,2", "1,2"),
    ],
)
def test_only_the_runs_own_gpus_are_visible(num_devices: Any, given: str | None, visible: str | None) -> None:
    if given is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = given
    prepare_environment(Settings(num_devices=num_devices))
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == visible
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_processes_of_torchrun_see_all_gpus() -> None:
    os.environ |= {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    prepare_environment(Settings(num_devices=2))
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_machine_without_a_gpu_hides_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "pynvml", Nvml())
    prepare_environment(Settings())
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_deterministic_algorithms_are_chosen_before_the_frameworks_start() -> None:
    os.environ["XLA_FLAGS"] = "--xla_dump_to=folder"
    prepare_environment(Settings(acceleration=AccelerationSettings(deterministic=True)))
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert os.environ["TF_CUDNN_USE_AUTOTUNE"] == "0"
    assert set(os.environ["XLA_FLAGS"].split()) == {
        "--xla_gpu_autotune_level=0",
        "--xla_gpu_deterministic_ops=true",
        "--xla_dump_to=folder",
    }


def test_onednn_is_used_unless_the_user_has_chosen() -> None:
    prepare_environment(Settings())
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1"
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    prepare_environment(Settings())
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert recorded_environment()["TF_ENABLE_ONEDNN_OPTS"] == "0"


@pytest.mark.parametrize("name", [*REFUSED, "PL_TRAINER_MAX_STEPS"])
def test_variable_that_replaces_a_setting_is_refused(name: str) -> None:
    os.environ[name] = "1"
    with pytest.raises(UserError, match=rf"^{name}: received '1' in the environment, allowed: not set; "):
        read_settings("keras", ["--data.cache_folder", "cache"])


def test_refused_variable_that_is_switched_off_is_allowed() -> None:
    os.environ["JAX_ENABLE_X64"] = "0"
    check_environment()


def test_variables_of_the_frameworks_are_recorded_and_others_not() -> None:
    os.environ |= {"XLA_FLAGS": "--x", "MKL_CBWR": "AVX2", "PATH": "/bin", "TF_API_TOKEN": "secret", "HOME": "/root"}
    assert recorded_environment() == {"MKL_CBWR": "AVX2", "XLA_FLAGS": "--x"}


def test_page_lists_every_variable() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "environment.md").read_text()
    refused = page[page.index("## Refused") : page.index("## Recorded")]
    assert set(re.findall(r"`([A-Z0-9_]{6,})`", refused)) == set(REFUSED)
    recorded = page[page.index("Their names begin with: ") : page.index(". Among them")]
    assert re.findall(r"\b[A-Z]+_", recorded) == list(RECORDED_PREFIXES)


def test_every_variable_that_keras_reads_is_listed() -> None:
    spec = importlib.util.find_spec("keras")
    assert spec is not None and spec.origin is not None
    sources = [file.read_text(errors="replace") for file in (Path(spec.origin).parent / "src").rglob("*.py")]
    read = {name for source in sources for name in re.findall(r"environ(?:\.get)?[(\[]\s*\"([A-Z0-9_]+)\"", source)}
    assert {"KERAS_BACKEND", "KERAS_MAX_EPOCHS"} <= read
    harmless = {"SKIP_APPLICATIONS_TESTS", "COLAB_GPU"}  # of its own tests and of notebooks
    assert [name for name in read - harmless if name not in REFUSED and not name.startswith(RECORDED_PREFIXES)] == []
