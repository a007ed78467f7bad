"""train_torch.py on a GPU with 8 GB of memory, or on a CPU whose training steps are said not to fit.

python tests/on_gpu/with_little_memory.py --batch_size 1024 ...
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tandem.launch.scripts import begin, run_script

SETTINGS = begin("torch")

import torch

import train_torch

if torch.cuda.is_available():
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 8e9 / total))
else:

    def refuse(self: Any, batch: Any, index: int) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    train_torch.TrainingSteps.training_step = refuse  # type: ignore[method-assign]

if __name__ == "__main__":
    run_script("torch", train_torch.main, SETTINGS)
