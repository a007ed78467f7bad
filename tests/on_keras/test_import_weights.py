from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from tandem.errors import UserError, WeightsNotDownloaded
from tandem.on_keras.backbones import build_backbone, build_with_imagenet_head, load_weights
from tandem.on_keras.import_weights import fetch_imagenet_weights
from tandem.on_keras.weights import hash_weights
from tandem.protocol.backbones import CATALOGUE
from tests.small_runs import assert_same_outputs

# Random weights of a torchvision network, and its logits of some pixels.
EXPORT = """
import sys
import numpy as np
import torch
import torchvision
from safetensors.torch import save_file

name, folder = sys.argv[1:]
torch.manual_seed(3)
network = torchvision.models.get_model(name)
for module in network.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
        for values in (module.weight, module.bias, module.running_mean, module.running_var):
            torch.nn.init.uniform_(values, 0.5, 1.5)
save_file(network.state_dict(), f"{folder}/weights.safetensors")
network.eval()
for size in (64, 96, 224):
    pixels = np.load(f"{folder}/pixels_{size}.npy")
    with torch.inference_mode():
        np.save(f"{folder}/logits_{size}.npy", network(torch.from_numpy(pixels).permute(0, 3, 1, 2)).numpy())
"""


@pytest.mark.parametrize("name", ["alexnet", pytest.param("densenet161", marks=pytest.mark.long)])
def test_torch_s_weights_give_torch_s_logits(name: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for size in (64, 96, 224):
        np.save(tmp_path / f"pixels_{size}.npy", generator.normal(size=(3, size, size, 3)).astype(np.float32))
    done = subprocess.run([sys.executable, "-c", EXPORT, name, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for size in (64, 96, 224):
        built, head = build_with_imagenet_head(
            CATALOGUE[name], size, pretrained=False, weights_file=tmp_path / "weights.safetensors"
        )
        pixels = np.load(tmp_path / f"pixels_{size}.npy")
        received = keras.ops.convert_to_numpy(head(built.network(pixels, training=False)))
        expected = np.load(tmp_path / f"logits_{size}.npy")
        assert_same_outputs(received, expected, atol=5e-6 * np.abs(expected).max())


def test_unsuitable_torch_weights_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({"features.0.weight": np.zeros((64, 3, 11, 11), np.float32)}, file)
    alexnet = build_backbone(CATALOGUE["alexnet"], 64, pretrained=False).network
    with pytest.raises(UserError, match=r"is not a weight file of alexnet: it lacks features\.0\.bias$"):
        load_weights(alexnet, file)
    save_file({"features.0.weight": np.zeros((2, 3, 11, 11), np.float32), "features.0.bias": np.zeros(64)}, file)
    with pytest.raises(UserError, match=r"is not a weight file of alexnet: features\.0\.weight has another shape$"):
        load_weights(alexnet, file)
    file.write_bytes(b"no tensors")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        load_weights(alexnet, file)
    other = build_backbone(CATALOGUE["mobilenet_v2"], 64, pretrained=False).network
    with pytest.raises(UserError, match=r"which train_keras\.py reads for alexnet and densenet161 only"):
        load_weights(other, file)


@pytest.mark.long
@pytest.mark.usefixtures("no_network")
def test_failed_download_by_torch_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(UserError, match=r"^weights: imagenet could not be downloaded .*alexnet-owt-\w+\.pth") as caught:
        build_backbone(CATALOGUE["alexnet"], 64, pretrained=True)
    assert time.monotonic() - start < 60
    assert "\n" not in str(caught.value)


@pytest.mark.long
def test_converted_weights_are_taken_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code = EXPORT.split("network.eval()")[0]
    folder = tmp_path / "tandem" / "weights"
    folder.mkdir(parents=True)
    subprocess.run([sys.executable, "-c", code, "alexnet", str(folder)], check=True, env={**os.environ})
    (folder / "weights.safetensors").rename(folder / "alexnet_imagenet.safetensors")
    first, second = (build_backbone(CATALOGUE["alexnet"], size, pretrained=True).network for size in (64, 96))
    assert hash_weights(first) == hash_weights(second)


def test_missing_torch_is_one_line_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        WeightsNotDownloaded, match=r"^weights: imagenet of alexnet is published for torch only"
    ) as caught:
        fetch_imagenet_weights("alexnet")
    assert "python -m tandem.on_torch.export_weights alexnet alexnet.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)
