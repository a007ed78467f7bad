"""train_torch.py whose processes all use the first GPU, with gloo in NCCL's place: NCCL refuses two on one GPU.

python tests/on_gpu/two_on_one.py --num_devices 2 ...
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
from pytorch_lightning.strategies import DDPStrategy
from torch import distributed

import train_torch

if torch.cuda.is_available():
    init_process_group = distributed.init_process_group

    def with_gloo(backend: str, *, device_id: Any = None, **options: Any) -> None:
        init_process_group("gloo", **options)

    distributed.init_process_group = with_gloo
    torch.cuda.device_count = lambda: 2
    torch.cuda.set_device = lambda device: None
    DDPStrategy.root_device = property(lambda strategy: torch.device("cuda", 0))  # type: ignore[assignment]

if __name__ == "__main__":
    run_script("torch", train_torch.main, SETTINGS)
