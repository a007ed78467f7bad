from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torchvision
from safetensors.numpy import load_file
from torch import nn

from tandem.errors import UserError
from tandem.on_torch.export_weights import main


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A network that stands for the published one."""
    network = torchvision.models.alexnet(weights=None)
    monkeypatch.setattr(torchvision.models.AlexNet_Weights, "get_state_dict", lambda *_, **__: network.state_dict())
    return network


def test_weights_with_their_head_are_written_in_one_step(published: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "weights" / "alexnet.safetensors"
    main(["alexnet", str(file)])
    written = load_file(file)
    assert set(written) == set(published.state_dict()) and written["classifier.6.bias"].shape == (1000,)
    for name, value in published.state_dict().items():
        assert np.array_equal(written[name], value.numpy())
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("backbone", ["resnet50_v2", "alexnt"])
def test_other_names_than_torchvision_s_are_refused(backbone: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^backbone: received '{backbone}', allowed: alexnet, "):
        main([backbone, str(tmp_path / "file.safetensors")])
    assert list(tmp_path.iterdir()) == []
