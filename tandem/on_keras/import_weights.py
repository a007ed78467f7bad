"""torchvision's weights for the Keras networks that no Keras library has weights for."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

import tandem
from tandem.errors import UserError, WeightsNotDownloaded
from tandem.on_keras.densenet161 import DENSE_LAYERS

_ALEXNET = {
    **{f"conv{number}": f"features.{place}" for number, place in enumerate((0, 3, 6, 8, 10), start=1)},
    "fc1": "classifier.1",
    "fc2": "classifier.4",
    "predictions": "classifier.6",
}


def fetch_imagenet_weights(name: str) -> Path:
    """The file of torchvision's ImageNet weights for that backbone, written at the first call by a process with torch.

    It is kept in $XDG_CACHE_HOME/tandem/weights, by default in ~/.cache/tandem/weights.

    Raises:
        WeightsNotDownloaded: The weights could not be downloaded, or torch is not installed here.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    file = (cache / "tandem" / "weights" / f"{name}_imagenet.safetensors").absolute()
    if not file.exists():
        if importlib.util.find_spec("torch") is None:
            raise WeightsNotDownloaded(
                f"weights: imagenet of {name} is published for torch only, and torch is not installed here; where it "
                f"is, run python -m tandem.on_torch.export_weights {name} {name}.safetensors, and give that file with "
                "--weights"
            )
        done = subprocess.run(
            [sys.executable, "-m", "tandem.on_torch.export_weights", name, str(file)],
            cwd=Path(tandem.__file__).parents[1],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            reason = lines[-1].removeprefix("export_weights: error: ")
            if not reason.startswith("weights: "):
                reason = f"weights: imagenet could not be downloaded and converted for {name} ({reason})"
            raise WeightsNotDownloaded(reason)
    return file


def load_torch_weights(network: keras.Model, file: Path) -> None:
    """Loads AlexNet or DenseNet-161, with or without its head, from a torchvision state dict in safetensors format.

    Kernels change from torch's (out, in, height, width) to Keras's (height, width, in, out), dense ones from (out, in)
    to (in, out), and the first one after the flattened map from channels first to channels last.

    Raises:
        UserError: The file is not a safetensors file, or it or the network is of another architecture.
    """
    if network.name not in ("alexnet", "densenet161"):
        raise UserError(
            f"weights: {file} holds torch's weights, which train_keras.py reads for alexnet and densenet161 only; "
            f"give a file that ends in .h5 for {network.name}"
        )
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"weights: {file} cannot be read as safetensors ({error})") from None
    names = _ALEXNET if network.name == "alexnet" else dict(_densenet_names())
    for layer in network.layers:
        if not layer.weights:
            continue
        tensors = [f"{names[layer.name]}.{weight}" for weight in _torch_names(layer)]
        if lacking := [tensor for tensor in tensors if tensor not in state]:
            raise UserError(f"weights: {file} is not a weight file of {network.name}: it lacks {lacking[0]}")
        values = [state[tensor] for tensor in tensors]
        values[0] = _turned(network, layer, values[0])
        for tensor, value, weight in zip(tensors, values, layer.weights, strict=True):
            if value.shape != weight.shape:
                raise UserError(f"weights: {file} is not a weight file of {network.name}: {tensor} has another shape")
        layer.set_weights(values)


def _torch_names(layer: keras.layers.Layer) -> list[str]:
    if isinstance(layer, keras.layers.BatchNormalization):
        return ["weight", "bias", "running_mean", "running_var"]
    return ["weight", "bias"] if layer.use_bias else ["weight"]


def _turned(network: keras.Model, layer: keras.layers.Layer, weight: np.ndarray) -> np.ndarray:
    if weight.ndim == 4:
        return weight.transpose(2, 3, 1, 0)
    if weight.ndim == 2:
        if layer.name == "fc1":
            _, rows, columns, channels = network.get_layer("flatten").input.shape
            weight = weight.reshape(-1, channels, rows, columns).transpose(0, 2, 3, 1).reshape(len(weight), -1)
        return weight.T
    return weight


def _densenet_names() -> Iterator[tuple[str, str]]:
    yield from (("conv1_conv", "features.conv0"), ("conv1_bn", "features.norm0"))
    for stage, layers in enumerate(DENSE_LAYERS, start=1):
        for number in range(1, layers + 1):
            ours, theirs = f"conv{stage + 1}_block{number}", f"features.denseblock{stage}.denselayer{number}"
            yield from ((f"{ours}_0_bn", f"{theirs}.norm1"), (f"{ours}_1_conv", f"{theirs}.conv1"))
            yield from ((f"{ours}_1_bn", f"{theirs}.norm2"), (f"{ours}_2_conv", f"{theirs}.conv2"))
        ours, theirs = f"pool{stage + 1}", f"features.transition{stage}"
        yield from ((f"{ours}_bn", f"{theirs}.norm"), (f"{ours}_conv", f"{theirs}.conv"))
    yield from (("bn", "features.norm5"), ("predictions", "classifier"))
