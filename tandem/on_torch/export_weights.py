"""Writes torchvision's ImageNet weights of a backbone to a file that can be read without torch.

    python -m tandem.on_torch.export_weights alexnet alexnet.safetensors

train_keras.py starts this in a process of its own for backbones whose weights are published for torch only, since the
two frameworks cannot share a process. The file can also be the `weights` of train_keras.py on a machine without torch.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from safetensors.torch import save_file

from tandem.errors import UserError, run_program
from tandem.on_torch.backbones import build_torchvision
from tandem.protocol.backbones import CATALOGUE


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="export_weights", description="Writes torchvision's ImageNet weights, head included, as safetensors."
    )
    parser.add_argument("backbone", help="a torchvision backbone of the catalogue")
    parser.add_argument("file", type=Path, help="the file to write; its name ends in .safetensors")
    arguments = parser.parse_args(argv)
    names = [name for name, entry in CATALOGUE.items() if entry.builds["torch"].package == "torchvision"]
    if arguments.backbone not in names:
        raise UserError(f"backbone: received {arguments.backbone!r}, allowed: {', '.join(names)}")
    export_weights(arguments.backbone, arguments.file)


def export_weights(backbone: str, file: Path) -> None:
    """Writes the state dict of the whole torchvision network, under torchvision's names.

    Raises:
        UserError: The weights could not be downloaded.
    """
    network = build_torchvision(CATALOGUE[backbone], pretrained=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    # renamed at the end, since another process may look for the file at the same time
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, unfinished)
    unfinished.replace(file)


if __name__ == "__main__":
    run_program("export_weights", main)
