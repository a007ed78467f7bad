"""Recognises that a device had too little memory, by the words of the libraries that compute."""

from __future__ import annotations

_MESSAGES = (
    # torch: CUDA's allocator, and the CPU's in its earlier and its present form
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    # TensorFlow; JAX, and XLA within TensorFlow
    "OOM when allocating",
    "RESOURCE_EXHAUSTED",
    # the CUDA driver, in any framework
    "CUDA_ERROR_OUT_OF_MEMORY",
    # cuBLAS and cuDNN, which allocate workspaces of their own; cuDNN's last three also mean "no algorithm fits"
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_SUPPORTED",
    "Unable to find a valid cuDNN algorithm",
    "No algorithm worked",
)


def says_out_of_memory(error: BaseException) -> bool:
    """True if an exception's message is one of those for too little memory of a CPU or a GPU.

    The caller checks the exception's type: any text may hold these words.
    """
    message = str(error)
    return any(words in message for words in _MESSAGES)
