from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from timm.layers import BatchNormAct2d
from torch import Tensor, distributed, nn
from torch.nn import functional

from tandem.on_torch.distributed import sum_over_processes
from tandem.on_torch.synchronized_batch_norm import synchronized_batch_norm

SHAPES = {"maps": (7, 3, 4, 5), "features": (7, 6)}
PARTS = (slice(0, 3), slice(3, 7))


def values_of(shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * 3 + 2


def layers() -> dict[str, nn.Module]:
    torch.manual_seed(2)
    found = {"maps": BatchNormAct2d(3), "features": nn.BatchNorm1d(6, momentum=0.3)}
    for layer in found.values():
        nn.init.uniform_(layer.weight)
        nn.init.uniform_(layer.bias)
    return {name: layer.double() for name, layer in found.items()}


def normalize(layer: nn.Module, values: Tensor) -> dict[str, Tensor]:
    """The layer's output, and the gradients of the sum of its fourth powers."""
    values = values.clone().requires_grad_()
    output = layer(values)
    output.pow(4).sum().backward()
    return {
        "output": output.detach(),
        "gradient": values.grad,
        "of weight": layer.weight.grad,
        "of bias": layer.bias.grad,
        "mean": layer.running_mean,
        "var": layer.running_var,
    }


def gradients_of_a_network(part: slice) -> Tensor:
    """ResNet-18's gradients, one after another, of the share of some of seven images in their mean loss."""
    torch.manual_seed(4)
    network = torchvision.models.resnet18(num_classes=5).double()
    images, labels = values_of((7, 3, 32, 32))[part], torch.arange(7)[part] % 5
    (functional.cross_entropy(network(images), labels, reduction="sum") / 7).backward()
    return torch.cat([weight.grad.flatten() for weight in network.parameters() if weight.grad is not None])


def normalize_a_part(rank: int, folder: str) -> None:
    """Runs batch norm, a network and a sum in one of two processes."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found: dict[str, Any] = {}
    with synchronized_batch_norm():
        for name, layer in layers().items():
            found[name] = normalize(layer, values_of(SHAPES[name])[PARTS[rank]])
        layer = layers()["maps"].eval()
        found["eval"] = layer(values_of(SHAPES["maps"])[PARTS[rank]]).detach()
        found["eval mean"] = layer.running_mean
        found["bfloat16"] = nn.BatchNorm2d(3)(values_of(SHAPES["maps"])[PARTS[rank]].bfloat16()).dtype
        found["network"] = gradients_of_a_network(PARTS[rank])
    found["sum"] = sum_over_processes(torch.tensor([1.0, rank]))
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def normalized(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of the first and the second process."""
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(normalize_a_part, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", SHAPES)
def test_batch_norm_of_parts_equals_that_of_the_whole_batch(name: str, normalized: list[dict[str, Any]]) -> None:
    expected = normalize(layers()[name], values_of(SHAPES[name]))
    for rank, part in enumerate(PARTS):
        found = normalized[rank][name]
        for kind in ("output", "gradient"):
            torch.testing.assert_close(found[kind], expected[kind][part], rtol=1e-10, atol=1e-10)
        for kind in ("mean", "var"):
            torch.testing.assert_close(found[kind], expected[kind], rtol=1e-10, atol=1e-10)
    for kind in ("of weight", "of bias"):  # DDP adds these up
        together = normalized[0][name][kind] + normalized[1][name][kind]
        torch.testing.assert_close(together, expected[kind], rtol=1e-10, atol=1e-10)


def test_gradients_of_parts_add_up_to_those_of_the_whole_batch(
    normalized: list[dict[str, Any]],
) -> None:
    expected = gradients_of_a_network(slice(None))
    together = normalized[0]["network"] + normalized[1]["network"]
    assert torch.linalg.norm(together - expected) < 1e-9 * torch.linalg.norm(expected)


def test_batch_norm_in_inference_mode_is_unchanged(normalized: list[dict[str, Any]]) -> None:
    layer = layers()["maps"].eval()
    expected = layer(values_of(SHAPES["maps"])).detach()
    assert torch.equal(torch.cat([normalized[rank]["eval"] for rank in range(2)]), expected)
    assert all(torch.equal(normalized[rank]["eval mean"], torch.zeros(3).double()) for rank in range(2))


def test_batch_norm_keeps_the_precision_of_its_input(normalized: list[dict[str, Any]]) -> None:
    assert [normalized[rank]["bfloat16"] for rank in range(2)] == [torch.bfloat16] * 2


def test_sums_include_all_processes(normalized: list[dict[str, Any]]) -> None:
    assert [normalized[rank]["sum"].tolist() for rank in range(2)] == [[2.0, 1.0]] * 2
