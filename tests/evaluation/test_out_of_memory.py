from __future__ import annotations

import pytest

from tandem.errors import says_out_of_memory
from tandem.evaluation.out_of_memory import does_not_fit
from tandem.protocol import gpus
from tandem.protocol.settings import Settings
from tests.made_nvml import Nvml


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 20.00 MiB",
        "CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED.",
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes",
        "OOM when allocating tensor with shape[8]",
        "FIND was unable to find an engine to execute this computation",
        # of torch's kernels, at 2^31 elements: 512 images of 256 x 256 pixels in VGG's first layers
        "Expected canUse32BitIndexMath(input) && canUse32BitIndexMath(output) to be true, but got false.",
        "input tensor must fit into 32-bit index math",
        "upsample_nearest_nhwc only supports output tensors with less than INT_MAX elements, but got [512, 64, 256]",
    ],
)
def test_messages_of_the_libraries_are_known(message: str) -> None:
    assert says_out_of_memory(RuntimeError(message))


@pytest.mark.parametrize("message", ["", "cuDNN error: CUDNN_STATUS_BAD_PARAM", "shapes do not match"])
def test_other_messages_are_not(message: str) -> None:
    assert not says_out_of_memory(RuntimeError(message))


def test_error_says_what_does_not_fit_where_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpus, "pynvml", Nvml("NVIDIA T4"))
    assert str(does_not_fit(Settings(batch_size=64, backbone="vgg16"), gpu=True)) == (
        "batch_size: received 64, but vgg16 with such batches does not fit into the GPU memory of 8.0 GB; allowed: "
        "what fits, with --accumulate 2 (the same steps in half the memory), a smaller batch_size, such as 32, "
        "--precision bfloat16, a smaller data.image_size (now 224) or a smaller backbone"
    )
    line = str(does_not_fit(Settings(batch_size=2, precision="float16"), gpu=False))
    assert "main memory of" in line and "smaller batch_size" not in line and "bfloat16" not in line
