from __future__ import annotations

import pytest

from tandem.evaluation.out_of_memory import says_out_of_memory


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 20.00 MiB",
        "CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED.",
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes",
        "OOM when allocating tensor with shape[8]",
    ],
)
def test_messages_of_the_libraries_are_known(message: str) -> None:
    assert says_out_of_memory(RuntimeError(message))


@pytest.mark.parametrize("message", ["", "cuDNN error: CUDNN_STATUS_BAD_PARAM", "shapes do not match"])
def test_other_messages_are_not(message: str) -> None:
    assert not says_out_of_memory(RuntimeError(message))
