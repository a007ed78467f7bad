from __future__ import annotations

import pytorch_lightning
import timm
import torch
import torchvision

from tandem.on_torch.versions import backend, versions


def test_versions_are_those_of_the_installed_packages() -> None:
    packages = (torch, torchvision, timm, pytorch_lightning)
    assert versions() == {package.__name__: package.__version__ for package in packages}
    assert backend() == "torch"
