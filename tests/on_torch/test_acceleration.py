from __future__ import annotations

import dataclasses
import functools
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as lightning
import torch
from torch._dynamo.testing import CompileCounter

from tandem import on_torch
from tandem.data.prepare import PreparedData
from tandem.errors import UserError
from tandem.experiment.evaluation import logits_of_test
from tandem.on_torch.acceleration import (
    check_device,
    forward_of,
    is_out_of_memory,
    set_flags,
    to_device,
    uses_channels_last,
    uses_fused_optimizer,
    warm_up,
)
from tandem.on_torch.distributed import Share
from tandem.on_torch.networks import Classifier, build_classifier
from tandem.on_torch.streams import open_streams
from tandem.on_torch.weights import hash_weights
from tandem.protocol import gpus
from tandem.protocol.regimes import Phase, phases_of
from tandem.protocol.settings import (
    AccelerationSettings,
    EarlyStoppingSettings,
    HeadSettings,
    OptimizerSettings,
    Settings,
)
from tandem.tracking import vocabulary
from tandem.tracking.curves import Curves
from tests.made_nvml import Nvml
from tests.small_runs import (
    NUM_CLASSES,
    RecordingRun,
    assert_same_outputs,
    random_images,
    small_settings,
    tell_images_apart,
)
from train_torch import FRAMEWORK, freeze_or_thaw, predict_batch, train_phase

PHASE = Phase(number=1, trainable="all", learning_rate=1e-3, max_epochs=2)


@pytest.fixture(autouse=True)
def flags() -> Iterator[None]:
    """Restores torch's own flags after the test."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic
    yield
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before
    torch.use_deterministic_algorithms(False)


def build(settings: Settings) -> Classifier:
    lightning.seed_everything(settings.seed, verbose=False)
    return build_classifier(settings, NUM_CLASSES)


def accelerated(**changes: bool) -> Settings:
    return small_settings(
        head=HeadSettings(dropout=0.5),
        early_stopping=EarlyStoppingSettings(patience=None),
        acceleration=AccelerationSettings(**changes),
    )


@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_is_set_for_products_and_convolutions(tf32: bool) -> None:
    on_cpu = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    set_flags(AccelerationSettings(tf32=tf32))
    assert torch.backends.cuda.matmul.allow_tf32 is tf32
    assert torch.backends.cudnn.allow_tf32 is tf32
    assert torch.backends.mkldnn.matmul.fp32_precision == on_cpu  # type: ignore[attr-defined]


@pytest.mark.parametrize("autotune", [False, True])
def test_cudnn_autotune_is_set(autotune: bool) -> None:
    set_flags(AccelerationSettings(cudnn_autotune=autotune))
    assert torch.backends.cudnn.benchmark is autotune


@pytest.mark.parametrize("deterministic", [False, True])
def test_deterministic_algorithms_are_set(deterministic: bool, data: PreparedData) -> None:
    settings = small_settings(acceleration=AccelerationSettings(deterministic=deterministic))
    set_flags(settings.acceleration)
    phase = dataclasses.replace(PHASE, trainable="head", max_epochs=1)
    train_phase(build(settings), phase, settings, data, Curves(RecordingRun()))  # type: ignore[arg-type]
    assert torch.are_deterministic_algorithms_enabled() is deterministic  # Lightning leaves it as it is
    assert torch.backends.cudnn.deterministic is deterministic
    assert torch.backends.cudnn.benchmark is not deterministic  # it would choose other algorithms in each run
    torch.use_deterministic_algorithms(True)
    set_flags(AccelerationSettings())
    assert not torch.are_deterministic_algorithms_enabled()


def test_compiling_without_a_compiler_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"acceleration\.compile: received True, .* install one, or set it to false$"):
        set_flags(AccelerationSettings(compile=True))
    set_flags(AccelerationSettings())


# Allocates and frees a few large tensors again and again, as training steps do, and prints its page faults.
STEPS = """
import resource, sys
import torch
from tandem.on_torch.acceleration import set_flags
from tandem.protocol.settings import AccelerationSettings

set_flags(AccelerationSettings(keep_memory=sys.argv[1] == "True"))

def step():
    tensors = [torch.ones(2_000_000) for _ in range(8)]

for _ in range(5):  # until each tensor has a place in the heap
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_kept_for_the_next_step_if_set() -> None:
    faults = {}
    # glibc's own decision depends on the places of the blocks
    returned = {"MALLOC_MMAP_THRESHOLD_": "100000", "MALLOC_TRIM_THRESHOLD_": "100000"}
    for keep in (True, False):
        command = [sys.executable, "-c", STEPS, str(keep)]
        environment = {**os.environ, **returned, "PYTHONPATH": os.pathsep.join(sys.path)}
        output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        faults[keep] = int(output)
    pages = 5 * 8 * 8_000_000 // 4096
    assert faults[True] < 0.05 * pages
    assert faults[False] > 0.9 * pages


def test_channels_last_changes_logits_only_by_rounding() -> None:
    images = random_images(4, shape=(64, 64, 3))
    network = tell_images_apart(build(small_settings(image_size=64)))
    convolution = next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    logits, strides, hashes = [], [], []
    for channels_last in (False, True):
        to_device(network, small_settings(acceleration=AccelerationSettings(channels_last=channels_last))).eval()
        logits.append(predict_batch(network, small_settings(), images))
        strides.append(convolution.weight.stride())
        hashes.append(hash_weights(network))
    assert strides[0] != strides[1] and strides[1][1] == 1
    assert hashes[0] == hashes[1]
    assert_same_outputs(logits[1], logits[0], atol=1e-4)


@pytest.mark.parametrize(
    ("gpu", "precision", "given", "used"),
    [
        (False, "float32", None, True),
        (True, "float32", None, False),
        (True, "bfloat16", None, True),
        (True, "float16", None, True),
        (True, "float32", True, True),
        (True, "bfloat16", False, False),
    ],
)
def test_channels_last_is_left_out_for_float32_on_a_gpu(
    gpu: bool, precision: str, given: bool | None, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    acceleration = AccelerationSettings(channels_last=given)
    assert uses_channels_last(small_settings(device="auto", precision=precision, acceleration=acceleration)) is used


@pytest.mark.parametrize(
    ("changes", "used"),
    [
        ({}, True),
        ({"precision": "float16"}, True),
        ({"optimizer": OptimizerSettings(clip_norm=1.0)}, True),
        ({"precision": "float16", "optimizer": OptimizerSettings(clip_norm=1.0)}, False),
        ({"precision": "float16", "ema_decay": 0.9}, False),
        ({"acceleration": AccelerationSettings(fused_optimizer=False)}, False),
    ],
)
def test_fused_optimizer_is_left_out_where_it_would_hide_the_loss_scale(changes: dict[str, Any], used: bool) -> None:
    assert uses_fused_optimizer(small_settings(**changes)) is used


@pytest.mark.parametrize("compiled", [False, True])
def test_forward_pass_does_not_register_the_network_twice(compiled: bool) -> None:
    class Steps(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = build(small_settings())
            self.forward_pass = forward_of(self.network, AccelerationSettings(compile=compiled))

    assert all(name.startswith("network.") for name in Steps().state_dict())


def test_warm_up_takes_no_step_without_compilation(data: PreparedData) -> None:
    settings = accelerated()
    network = build(settings)
    training, validation = open_streams(settings, data, PHASE)

    def forward_pass(images: torch.Tensor) -> torch.Tensor:
        raise AssertionError("there is no need for a step")

    assert warm_up(network, forward_pass, settings, training.stream, validation.stream) == 0


def test_warm_up_changes_nothing(data: PreparedData) -> None:
    settings = accelerated(compile=True)
    network = build(settings)
    freeze_or_thaw(network, PHASE, [[network.backbone]])
    network.train()
    training, validation = open_streams(settings, data, PHASE)
    before, random = hash_weights(network), torch.random.get_rng_state()
    sizes: list[tuple[int, bool]] = []

    def forward_pass(images: torch.Tensor) -> torch.Tensor:
        sizes.append((len(images), network.training))
        return network(images)

    assert warm_up(network, forward_pass, settings, training.stream, validation.stream) > 0
    assert sizes == [(8, True), (6, True), (8, False), (7, False)]
    assert hash_weights(network) == before
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(weight.grad is None for weight in network.parameters())
    assert network.training and network.backbone.training
    assert training.stream.first_epoch_hash is None and training.epoch == 0


def test_warm_up_of_a_run_on_several_devices_takes_this_process_s_shares(data: PreparedData) -> None:
    settings = dataclasses.replace(accelerated(compile=True), num_devices=2)
    network = build(settings)
    loaders = open_streams(settings, data, PHASE)
    shares = [Share(loader.stream, pin_memory=False, rank=1, num_processes=2) for loader in loaders]
    sizes: list[int] = []

    def forward_pass(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return network(images)

    assert warm_up(network, forward_pass, settings, *shares) > 0
    assert sizes == [4, 3, 4, 4]  # of training batches of 8 and 6 images, and validation batches of 8 and 7


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_warm_up_compiles_everything_that_the_epochs_need(
    precision: str, data: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = CompileCounter()  # counts, and compiles nothing
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=compiled))
    after_warm_up: list[int] = []

    def counted_warm_up(*arguments: Any) -> float:
        seconds = warm_up(*arguments)
        after_warm_up.append(compiled.frame_count)
        return seconds

    monkeypatch.setattr(on_torch, "warm_up", counted_warm_up)
    settings = dataclasses.replace(accelerated(compile=True), backbone="timm:resnet10t", precision=precision)
    outcome = train_phase(build(settings), PHASE, settings, data, Curves(RecordingRun()))  # type: ignore[arg-type]
    assert outcome.epochs == 2
    assert after_warm_up == [compiled.frame_count] and compiled.frame_count > 0


@pytest.mark.parametrize("size", [1, 4, 15, 64])
def test_logits_do_not_depend_on_the_batch_they_are_computed_in(data: PreparedData, size: int) -> None:
    network = tell_images_apart(build(small_settings()))
    expected = predict_batch(network, small_settings(), np.asarray(data.images[data.rows("test")]))
    received = logits_of_test(FRAMEWORK, network, small_settings(eval_batch_size=size), data)
    assert received.shape == (15, NUM_CLASSES)
    assert_same_outputs(received, expected, atol=1e-4)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        torch.OutOfMemoryError("HIP: hipErrorMemoryAllocation"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if"),
        RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("Expected canUse32BitIndexMath(input) to be true, but got false."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: not enough memory: you tried to"),
        MemoryError(),
    ],
    ids=lambda error: str(error)[:40],
)
def test_too_little_memory_is_recognised(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"),
        UserError("out of memory is no excuse"),
        OSError("[Errno 28] No space left on device"),
    ],
    ids=str,
)
def test_other_errors_are_not_taken_for_too_little_memory(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def test_allocation_that_no_machine_can_make_is_too_little_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("name", "built_for", "allowed"),
    [
        ("NVIDIA H100", ["sm_75", "sm_80", "sm_90a", "sm_120"], True),
        ("NVIDIA H100", ["sm_75", "sm_80", "compute_80"], True),  # from PTX
        ("NVIDIA H100", ["sm_75", "sm_80", "sm_120", "compute_120"], False),
        ("NVIDIA V100", ["sm_75", "sm_80"], False),
        ("NVIDIA V100", ["sm_70", "sm_80"], True),
        ("NVIDIA T4", ["sm_70", "sm_80"], True),
        ("NVIDIA T4", [], True),  # unknown
    ],
)
def test_card_that_torch_has_no_code_for_is_refused(
    name: str, built_for: list[str], allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(gpus, "pynvml", Nvml(name))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built_for)
    check_device(small_settings())  # device: cpu
    if allowed:
        return check_device(small_settings(device="auto"))
    with pytest.raises(UserError, match=rf"^device: torch .* has no code for {name} .* or give --device cpu$"):
        check_device(small_settings(device="auto"))


@pytest.mark.long
def test_compiled_steps_give_the_same_losses(data: PreparedData) -> None:
    losses = []
    for compiled in (False, True):
        # few kernels, since each takes seconds to compile, and no dropout, whose masks differ when compiled
        settings = dataclasses.replace(accelerated(compile=compiled), head=HeadSettings(), max_epochs=2)
        settings = dataclasses.replace(settings, backbone="timm:resnet10t")
        curves = Curves(RecordingRun())  # type: ignore[arg-type]
        (phase,) = phases_of(dataclasses.replace(settings, regime="finetune"))
        outcome = train_phase(build(settings), phase, settings, data, curves)
        assert (outcome.compile_seconds > 0) == compiled
        losses.append([[row[vocabulary.TRAIN_LOSS], row[vocabulary.VAL_LOSS]] for row in curves.rows])
    assert np.array(losses[1]) == pytest.approx(np.array(losses[0]), rel=5e-3)
    assert losses[1][0][0] == pytest.approx(losses[0][0][0], rel=1e-3)
