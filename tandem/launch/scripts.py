"""Where the training scripts are, for the programs that start them in processes of their own."""

from __future__ import annotations

from pathlib import Path


def training_script(framework: str) -> Path:
    """The script of torch or keras, at the top of the repository."""
    return Path(__file__).resolve().parents[2] / f"train_{framework}.py"
