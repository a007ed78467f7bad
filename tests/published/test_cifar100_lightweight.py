from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tandem.published.entries import Entry
from tests.compared import MakeRun
from tests.published.judged import FAILS, HOLDS, OPEN, claim, claims_of, entry, published


@pytest.mark.parametrize(("fast", "does", "does_not"), [(5, HOLDS, FAILS), (9.5, FAILS, HOLDS), (11, FAILS, HOLDS)])
def test_faster_gpus(fast: float, does: str, does_not: str) -> None:
    def on_both(backbone: str) -> list[Entry]:
        slow = entry(backbone, minutes=10, gpu="8 CPUs, Tesla T4")
        return [replace(slow, minutes=fast, gpu="8 CPUs, NVIDIA A100-SXM4-40GB"), slow]

    shortens = claim("cifar100_lightweight", "ResNet-50 and AlexNet train faster")
    of_both = published("cifar100_lightweight", *on_both("resnet50"), *on_both("alexnet"))
    assert shortens(of_both).verdict == does
    stays = claim("cifar100_lightweight", "a faster GPU does not")
    assert stays(published("cifar100_lightweight", *on_both("efficientnet_b0"))).verdict == does_not
    one_gpu = published("cifar100_lightweight", *on_both("efficientnet_b0")[:1])
    assert stays(one_gpu).verdict == OPEN


def test_times_on_a_cpu_do_not_count_for_the_gpu_of_its_machine(make_run: MakeRun) -> None:
    def judge(device: str) -> dict[str, Any]:
        runs = [
            make_run(
                regime="scratch",
                params={"backbone": "efficientnet_b0"},
                metrics={"cost/train_seconds": seconds},
                tags={"tandem.data": "cifar100", "tandem.hardware": f"8 CPUs, {name}", "tandem.device": device},
            )
            for name, seconds in (("Tesla T4", 600.0), ("NVIDIA A100-SXM4-40GB", 300.0))
        ]
        return claims_of("cifar100_lightweight", runs)[3]

    assert judge("gpu")["ours"] == FAILS
    found = judge("cpu")
    assert found["ours"] == OPEN and "times on two of T4" in found["ours_because"]


@pytest.mark.parametrize(("times", "verdict"), [(0.5, FAILS), (0.95, HOLDS), (1.5, HOLDS)])
def test_pretrained_weights_and_training_time(times: float, verdict: str) -> None:
    of_both = [entry("efficientnet_b0", minutes=100), entry("efficientnet_b0", "finetune", minutes=100 * times)]
    judge = claim("cifar100_lightweight", "pretrained weights do not")
    assert judge(published("cifar100_lightweight", *of_both)).verdict == verdict


@pytest.mark.parametrize(
    ("milliseconds", "verdict"), [(2, HOLDS), (3.6, HOLDS), (3.9, OPEN), (4.3, OPEN), (4.4, FAILS), (6, FAILS)]
)
def test_inference_time(milliseconds: float, verdict: str) -> None:
    of_all = [entry("efficientnet_b0", milliseconds=milliseconds)]
    of_all += [entry(backbone, milliseconds=4) for backbone in ("resnet50", "alexnet")]
    judge = claim("cifar100_lightweight", "EfficientNet-B0 has the shortest")
    assert judge(published("cifar100_lightweight", *of_all)).verdict == verdict


@pytest.mark.parametrize(
    ("best", "epochs", "verdict"),
    [
        (12, 25, FAILS),
        (22, 25, FAILS),
        (9, 10, FAILS),
        # Within a tenth of the epochs, and at the end of a run, nothing is decided.
        (24, 25, OPEN),
        (25, 25, OPEN),
        (10, 10, OPEN),
        (24, 40, OPEN),
        (27, 40, OPEN),
        (30, 40, HOLDS),
        (None, 25, OPEN),
    ],
)
def test_needing_more_epochs(best: float | None, epochs: float, verdict: str) -> None:
    judge = claim("cifar100_lightweight", "AlexNet needs more")
    of_one = entry("alexnet", best_epoch=best, epochs=epochs)
    assert judge(published("cifar100_lightweight", of_one)).verdict == verdict
