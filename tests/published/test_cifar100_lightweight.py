from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tandem.published.entries import Entry
from tests.compared import MakeRun
from tests.published.judged import FAILS, HOLDS, OPEN, claim, claims_of, documented, entry, published

# Of two GPUs that no list knows.
SLOW, FAST = "8 CPUs, 1 x NVIDIA GeForce RTX 4060", "8 CPUs, 1 x NVIDIA RTX 6000 Ada Generation"


def on_both(backbone: str, fast: float, **of_fast: Any) -> list[Entry]:
    """Training takes 10 minutes on the slow GPU, which predicts 100 images per second."""
    slow = entry(backbone, minutes=10, gpu=SLOW, images_per_second=100)
    return [replace(slow, minutes=fast, gpu=FAST, **{"images_per_second": 200, **of_fast}), slow]


@pytest.mark.parametrize(("fast", "does", "does_not"), [(5, HOLDS, FAILS), (9.5, FAILS, HOLDS), (11, FAILS, HOLDS)])
def test_faster_gpus(fast: float, does: str, does_not: str) -> None:
    of_both = published("cifar100_lightweight", *on_both("resnet50", fast), *on_both("alexnet", fast))
    assert claim("cifar100_lightweight", "ResNet-50 and AlexNet train faster")(of_both).verdict == does
    # The document's other claim is the opposite.
    contradiction = claim("cifar100_lightweight", "a slower GPU (T4) does not slow down")
    assert contradiction(of_both).verdict == does_not
    stays = claim("cifar100_lightweight", "a faster GPU does not")
    found = stays(published("cifar100_lightweight", *on_both("efficientnet_b0", fast)))
    assert found.verdict == does_not
    words = f"on NVIDIA RTX 6000 Ada Generation {fast / 10:.2f} times the training on NVIDIA GeForce RTX 4060"
    assert words in found.because
    one_gpu = published("cifar100_lightweight", *on_both("efficientnet_b0", fast)[:1])
    assert stays(one_gpu).verdict == OPEN


@pytest.mark.parametrize("values", [{"images_per_second": None}, {"images_per_second": 100}])
def test_gpu_that_nothing_shows_to_be_faster_decides_nothing(values: dict[str, Any]) -> None:
    stays = claim("cifar100_lightweight", "a faster GPU does not")
    entries = on_both("efficientnet_b0", 5, **values)
    found = stays(published("cifar100_lightweight", *entries))
    assert found.verdict == OPEN and "which of the two is faster" in found.because
    # The training of another network shows it.
    others = on_both("resnet50", 6, **values)
    assert stays(published("cifar100_lightweight", *entries, *others)).verdict == FAILS


@pytest.mark.parametrize("name", ["batch_size", "data.image_size", "learning_rate"])
def test_gpus_are_compared_with_equal_settings(name: str) -> None:
    one, two = on_both("efficientnet_b0", 5)
    unlike = replace(one, settings=((name, "1"),)), replace(two, settings=((name, "2"),))
    found = claim("cifar100_lightweight", "a faster GPU does not")(published("cifar100_lightweight", *unlike))
    assert found.verdict == OPEN and found.lacking


def test_times_on_a_cpu_do_not_count_for_the_gpu_of_its_machine(make_run: MakeRun) -> None:
    def judge(device: str) -> dict[str, Any]:
        runs = [
            make_run(
                regime="scratch",
                params=documented("cifar100_lightweight", "efficientnet_b0", "scratch"),
                metrics={"cost/train_seconds": seconds, "cost/inference_images_per_second": 1 / seconds},
                tags={"tandem.data": "cifar100", "tandem.hardware": f"8 CPUs, {name}", "tandem.device": device},
            )
            for name, seconds in (("Tesla T4", 600.0), ("NVIDIA A100-SXM4-40GB", 300.0))
        ]
        (found,) = [
            one
            for one in claims_of("cifar100_lightweight", runs)
            if one["claim"].startswith("a faster GPU does not shorten")
        ]
        return found

    assert judge("gpu")["ours"] == FAILS
    found = judge("cpu")
    assert found["ours"] == OPEN and "times of efficientnet_b0 on two GPUs" in found["ours_because"]


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
    ("resnet", "alexnet", "verdict"), [(0.8, 0.6, HOLDS), (0.8, 0.85, FAILS), (0.95, 0.6, FAILS), (0.8, None, OPEN)]
)
def test_second_in_accuracy(resnet: float, alexnet: float | None, verdict: str) -> None:
    of_all = [
        entry(backbone, accuracy=accuracy)
        for backbone, accuracy in (("efficientnet_b0", 0.9), ("resnet50", resnet), ("alexnet", alexnet))
    ]
    judge = claim("cifar100_lightweight", "ResNet-50 has the second")
    assert judge(published("cifar100_lightweight", *of_all)).verdict == verdict


@pytest.mark.parametrize(
    ("milliseconds", "verdict"), [(3, FAILS), (4.2, OPEN), (4.4, HOLDS), (6, HOLDS), (6.1, FAILS), (None, OPEN)]
)
def test_slightly_slower_is_up_to_half_more(milliseconds: float | None, verdict: str) -> None:
    of_both = [entry("efficientnet_b0", milliseconds=4), entry("resnet50", milliseconds=milliseconds)]
    judge = claim("cifar100_lightweight", "ResNet-50 predicts slightly slower")
    assert judge(published("cifar100_lightweight", *of_both)).verdict == verdict


@pytest.mark.parametrize(("trainable", "verdict"), [(0.4e6, HOLDS), (2.1e6, FAILS), (None, OPEN)])
def test_fewer_trainable_parameters(trainable: float | None, verdict: str) -> None:
    of_both = [
        entry("efficientnet_b0", trainable_parameters=4e6),
        entry("efficientnet_b0", "frozen", trainable_parameters=trainable),
    ]
    judge = claim("cifar100_lightweight", "the pretrained EfficientNet-B0 has significantly")
    assert judge(published("cifar100_lightweight", *of_both)).verdict == verdict


def test_training_times_are_compared_in_the_same_regime() -> None:
    """The frozen EfficientNet-B0 is the more accurate one, and AlexNet was trained from scratch."""
    entries = [
        entry("efficientnet_b0", accuracy=0.6, minutes=300),
        entry("efficientnet_b0", "frozen", accuracy=0.9, minutes=50),
        entry("resnet50", "frozen", accuracy=0.8, minutes=20),
        entry("alexnet", accuracy=0.5, minutes=60),
    ]
    ours = replace(published("cifar100_lightweight", *entries), published=False)
    found = claim("cifar100_lightweight", "EfficientNet-B0 trains slowest")(ours)
    assert found.verdict == HOLDS
    assert "training: 2.50 times that of resnet50; training: 5.00 times that of alexnet" in found.because
    only_frozen = replace(ours, entries=tuple(entries[1:]))
    found = claim("cifar100_lightweight", "EfficientNet-B0 trains slowest")(only_frozen)
    assert found.because.endswith("training: 0.83 times that of alexnet (frozen and scratch)")


@pytest.mark.parametrize("epochs", ["25", "50"])
def test_longer_training_than_the_documents_decides_only_what_is_about_it(make_run: MakeRun, epochs: str) -> None:
    params = documented("cifar100_lightweight", "alexnet", "scratch", max_epochs=epochs)
    metrics = {"cost/epochs": float(epochs), "phase_1/cost/best_epoch": float(epochs) - 2}
    run = make_run(regime="scratch", params=params, metrics=metrics, tags={"tandem.data": "cifar100"})
    found = {one["claim"]: one for one in claims_of("cifar100_lightweight", [run])}
    needs = found["AlexNet needs more than 25 epochs"]
    assert needs["ours"] == (HOLDS if epochs == "50" else OPEN)
    first = found["EfficientNet-B0 has the highest accuracy"]["ours_because"]
    assert first.startswith("only stand-ins on CIFAR-100: 50 epochs instead of 25") == (epochs == "50")


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
