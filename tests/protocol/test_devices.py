from __future__ import annotations

import pytest

from tandem.errors import UserError
from tandem.protocol import gpus
from tandem.protocol.devices import check_gpu, device_line
from tandem.protocol.settings import Settings
from tests.made_nvml import Nvml


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs of one kind."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpus, "pynvml", Nvml("NVIDIA H100", "NVIDIA H100"))


def test_line_names_the_gpu_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_line(uses_gpu=True, backend="jax", version="0.11") == "jax 0.11 computes on 2 x NVIDIA H100"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert device_line(uses_gpu=True, backend="torch", version="2.15") == "torch 2.15 computes on NVIDIA H100"
    monkeypatch.setattr(gpus, "pynvml", Nvml())
    assert device_line(uses_gpu=True, backend="torch", version="2.15") == "torch 2.15 computes on a GPU"


@pytest.mark.parametrize(
    ("backend", "cure"),
    [
        ("torch", "update the driver, or install torch for an older CUDA"),
        ("tensorflow", "pip install 'tensorflow[and-cuda]'"),
        ("jax", "pip install 'jax[cuda13]'"),
    ],
)
def test_line_says_why_a_gpu_of_the_machine_is_not_used(backend: str, cure: str) -> None:
    line = device_line(uses_gpu=False, backend=backend, version="1.2")
    assert line.startswith(
        f"{backend} 1.2 computes on the CPU. It finds no GPU, but this machine has 2 x NVIDIA H100 with driver "
        "580.82.07"
    )
    assert cure in line and line.endswith("(docs/gpu.md)")


@pytest.mark.parametrize("hidden", [True, False])
def test_line_is_short_where_there_is_no_gpu_to_use(hidden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if hidden:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # as with device: cpu
    else:
        monkeypatch.setattr(gpus, "pynvml", Nvml())
    assert device_line(uses_gpu=False, backend="torch", version="2.15") == "torch 2.15 computes on the CPU"


@pytest.mark.parametrize(
    ("settings", "begins"),
    [
        (Settings(device="gpu"), "device: received 'gpu', but tensorflow finds no GPU here; allowed: cpu or auto. It "),
        (
            Settings(precision="float16"),
            "precision: received 'float16', but tensorflow finds no GPU here; allowed: float32 or bfloat16. It ",
        ),
    ],
)
def test_refused_settings_say_why_there_is_no_gpu(settings: Settings, begins: str) -> None:
    check_gpu(settings, has_gpu=True, backend="tensorflow")
    with pytest.raises(UserError) as caught:
        check_gpu(settings, has_gpu=False, backend="tensorflow")
    assert str(caught.value).startswith(begins) and "tensorflow[and-cuda]" in str(caught.value)
