from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import pytest

from tandem.errors import UserError
from tandem.protocol.environment import (
    RECORDED_PREFIXES,
    REFUSED,
    check_environment,
    prepare_environment,
    recorded_environment,
)
from tandem.protocol.parser import read_settings
from tandem.protocol.settings import AccelerationSettings, Settings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty environment; the old one is restored afterwards."""
    monkeypatch.setattr(os, "environ", dict[str, str]())


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
