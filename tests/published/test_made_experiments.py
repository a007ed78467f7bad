"""Five made experiments: every sentence of the recommendation and every verdict against tables written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tandem.comparison.comparison import Comparison
from tests.compared import MakePredictions, MakeRun
from tests.published.judged import FAILS, HOLDS, OPEN
from tests.published.made_experiments import Made, class_predictions, compare, plain

IMAGENETTE = (
    *("tench", "English_springer", "cassette_player", "chain_saw", "church"),
    *("French_horn", "garbage_truck", "gas_pump", "golf_ball", "parachute"),
)
PARAMETERS = {"resnet50": 25.6e6, "efficientnet_v2_b0": 7.2e6, "resnet50_v2": 25.6e6, "mobilenet_v2": 3.5e6}
SAME_LATENCY = "No row equivalent to it predicts faster: 4.0 ms."
ADD_SEEDS = "With one run per row, tests compare two trained networks, not two methods: add seeds."


@pytest.fixture
def compared(make_run: MakeRun, make_predictions: MakePredictions) -> Any:
    def run(document: str, data: str | None, made: Sequence[Made]) -> tuple[Comparison, dict[str, str]]:
        return compare(document, data, made, make_run, make_predictions)

    return run


def birds(framework: str, backbone: str, regime: str, accuracy: float, minutes: float, **values: Any) -> Made:
    """A network of the document on birds: 70 seconds per epoch of the head, 180 of the whole network."""
    epoch = {"cost/seconds_per_epoch": 70.0 if regime == "frozen" else 180.0}
    metrics = {**epoch, "phase_1/cost/seconds_per_epoch": 70.0, "cost/parameters": PARAMETERS[backbone]}
    metrics |= values.pop("metrics", {})
    return Made(
        framework=framework,
        backbone=backbone,
        regime=regime,
        accuracy=accuracy,
        minutes=minutes,
        metrics=metrics,
        **values,
    )


def sentences_of(comparison: Comparison, group: int = 0) -> list[str]:
    return plain(comparison.groups[group].recommendation)


def disagreement(share: str, images: str, pairs: str, runs: str = "1 run") -> str:
    return (
        f"The two most accurate rows disagree on {share} of the {images} test images: a difference in accuracy between "
        f"them must be at least x to be found in four of five such test sets (with {runs} each, corrected over "
        f"{pairs})."
    )


def avoid(worse: str, better: str, accuracies: tuple[str, str], times: tuple[str, str]) -> str:
    return (
        f"Avoid {worse}: {better} is significantly more accurate ({accuracies[0]} against {accuracies[1]}) after "
        f"{times[0]} of training, no more than its {times[1]}."
    )


BIRDS_CLAIMS = (
    "two_stage is the most accurate, frozen at most 1 % behind it, then finetune, then scratch",
    "frozen takes about 3 times less time than two_stage",
    "finetune takes much less time than two_stage",
    "an epoch of the frozen ResNet-50 takes 70 seconds, one of the whole network 3 minutes, 2.6 times more",
    "freezing all layers but the last helps against overfitting",
    "EfficientNet is more efficient than its best-known analogues",
    "ResNet-50 and EfficientNetV2-B0 have about as many parameters",
    "a network should be given images of its recommended size (224 pixels)",
    "a 70/10/20 split learns better than the publisher's",
    "the accuracy of ResNet-50 differs by 0.1 between TensorFlow and PyTorch",
    "this may be due to different versions of the network",
)


def test_two_frameworks(compared: Any) -> None:
    """Thawing gives ResNet-50 nothing in PyTorch and harms it in Keras; PyTorch is better in each regime."""
    resnet, efficientnet = "resnet50", "efficientnet_v2_b0"
    comparison, verdicts = compared(
        "birds",
        "birds300",
        [
            birds("torch", resnet, "two_stage", 0.87, 90, first=(0.8695, 30)),
            birds("torch", resnet, "finetune", 0.80, 40),
            birds("torch", resnet, "scratch", 0.40, 60),
            birds("keras", resnet, "two_stage", 0.70, 90, first=(0.82, 30)),
            birds("keras", resnet, "finetune", 0.77, 40),
            birds("keras", resnet, "scratch", 0.30, 60),
            birds("torch", efficientnet, "two_stage", 0.84, 90, first=(0.8395, 30)),
            birds("torch", efficientnet, "finetune", 0.74, 40),
            birds("torch", efficientnet, "scratch", 0.50, 100),
        ],
    )
    assert sentences_of(comparison) == [
        "The most accurate is resnet50 two_stage torch: 0.8700 (95 % interval); all others are significantly less "
        "accurate.",
        "Do not thaw resnet50 two_stage keras: it became significantly less accurate (0.8200 after the first phase, "
        "0.7000 at the end, corrected p; 30.0 min of training against 90.0 min).",
        "Stop efficientnet_v2_b0 two_stage torch after the first phase: equivalent within one point (0.8395 after "
        "the first phase, 0.8400 at the end), 3.0 times cheaper (30.0 min of training against 90.0 min).",
        "Stop resnet50 two_stage torch after the first phase: equivalent within one point (0.8695 after the first "
        "phase, 0.8700 at the end), 3.0 times cheaper (30.0 min of training against 90.0 min).",
        avoid(
            "efficientnet_v2_b0 scratch torch",
            "resnet50 two_stage torch",
            ("0.8700", "0.5000"),
            ("90.0 min", "100 min"),
        ),
        avoid(
            "efficientnet_v2_b0 two_stage torch",
            "resnet50 two_stage torch",
            ("0.8700", "0.8400"),
            ("90.0 min", "90.0 min"),
        ),
        avoid(
            "efficientnet_v2_b0 finetune torch",
            "resnet50 finetune torch",
            ("0.8000", "0.7400"),
            ("40.0 min", "40.0 min"),
        ),
        avoid("resnet50 scratch torch", "resnet50 finetune torch", ("0.8000", "0.4000"), ("40.0 min", "60.0 min")),
        avoid("resnet50 scratch keras", "resnet50 finetune torch", ("0.8000", "0.3000"), ("40.0 min", "60.0 min")),
        "Avoid, for the same reason: resnet50 two_stage keras, resnet50 finetune keras.",
        "Accuracy of 3 pairs of Keras and PyTorch: Keras is significantly better in 0, PyTorch in 3; equivalent within "
        "one point 0, undecided 0. "
        "Besides the framework, these differ: the random numbers in the backbone's initial weights (scratch); a "
        "block's stride is on its 3x3 convolution in torchvision, on its first 1x1 in Keras; Keras's convolutions have "
        "biases (26,560 parameters more); batch-norm epsilon is 1e-5 in torchvision, 1.001e-5 in Keras; published "
        "weights were trained separately, by torchvision for PyTorch, He et al. (Caffe) for Keras, with different "
        "pixel scalings (two_stage, finetune).",
        ADD_SEEDS,
        disagreement("3.0%", "4,000", "36 pairs"),
    ]
    # The accuracies of the frameworks differ by 0.17, 0.03, 0.1 and, frozen, by 0.0495. In Keras two_stage is the last.
    by_hand = (FAILS, HOLDS, HOLDS, HOLDS, OPEN, FAILS, FAILS, OPEN, OPEN, FAILS, OPEN)
    assert verdicts == dict(zip(BIRDS_CLAIMS, by_hand, strict=True))


def test_seeds(compared: Any) -> None:
    """EfficientNetV2 and ResNet50V2 have the same mean; their seeds differ more than they do."""
    comparison, verdicts = compared(
        "mobilenet_vs_efficientnetv2",
        None,
        [
            Made(
                framework="keras",
                backbone=backbone,
                regime="frozen",
                accuracy=accuracy,
                minutes=minutes,
                seed=seed,
                start=50 * seed,
                metrics={"cost/parameters": PARAMETERS[backbone]},
            )
            for backbone, minutes, of_seeds in (
                ("efficientnet_v2_b0", 10, (0.91, 0.89, 0.90)),
                ("mobilenet_v2", 5, (0.71, 0.69, 0.70)),
                ("resnet50_v2", 20, (0.89, 0.91, 0.90)),
            )
            for seed, accuracy in enumerate(of_seeds)
        ],
    )
    # MobileNetV2 is less accurate, but trained fastest.
    assert sentences_of(comparison) == [
        "The most accurate is efficientnet_v2_b0 frozen keras: 0.9000 (95 % interval, which does not allow for the "
        "choice of the best of 2 candidates).",
        "These images cannot tell whether it is more accurate than resnet50_v2 frozen keras. More images alone would "
        "not settle this for resnet50_v2 frozen keras: add seeds.",
        "Accuracy of 3 pairs of rows: significantly different 2, equivalent within one point 0, undecided 1.",
        disagreement("2.7%", "4,000", "3 pairs", "3 runs"),
    ]
    assert verdicts == {
        "EfficientNetV2 is more accurate than MobileNetV2": HOLDS,
        "EfficientNetV2 is more accurate than ResNet50V2": OPEN,
        "EfficientNetV2 has a quarter of the parameters of ResNet50V2": HOLDS,
    }


def test_cached_and_uncached(compared: Any) -> None:
    """Uncached, frozen takes a third of the time of two_stage; cached, a sixtieth."""
    made = []
    for backbone, lower in (("resnet50", 0.0), ("efficientnet_v2_b0", 0.1)):
        for cached, two_stage, frozen, epoch in (("false", 90, 30, 70.0), ("true", 61, 1, 2.0)):
            params, seconds = {"cache_features": cached}, {"cost/feature_seconds": 50.0 if cached == "true" else 0.0}
            made += [
                birds("torch", backbone, "two_stage", 0.9 - lower, two_stage, params=params, metrics=seconds),
                birds(
                    *("torch", backbone, "frozen", 0.8995 - lower, frozen),
                    params=params,
                    metrics={**seconds, "cost/seconds_per_epoch": epoch},
                ),
            ]
        made.append(birds("torch", backbone, "finetune", 0.75 - lower, 40))
    comparison, verdicts = compared("birds", "birds300", made)
    plainly, cached = "(cache_features false)", "(cache_features true)"
    assert sentences_of(comparison) == [
        f"The most accurate is resnet50 two_stage torch {plainly}: 0.9000 (95 % interval, which allows for the choice "
        "of the best of 4 candidates).",
        f"Equivalent to it within one point of accuracy: resnet50 two_stage torch {cached}, resnet50 frozen torch "
        f"{plainly}, resnet50 frozen torch {cached}.",
        f"resnet50 frozen torch {plainly} is equivalent within one point and trains 3.0 times faster: 30.0 min against "
        "90.0 min.",
        SAME_LATENCY,
        *(
            avoid(f"efficientnet_v2_b0 {regime} torch {how}", f"resnet50 {regime} torch {how}", scores, (time, time))
            for regime, how, scores, time in (
                ("frozen", plainly, ("0.8995", "0.7995"), "30.0 min"),
                ("frozen", cached, ("0.8995", "0.7995"), "60.0 s"),
                ("two_stage", plainly, ("0.9000", "0.8000"), "90.0 min"),
                ("two_stage", cached, ("0.9000", "0.8000"), "61.0 min"),
            )
        ),
        avoid(
            "efficientnet_v2_b0 finetune torch",
            f"resnet50 frozen torch {plainly}",
            ("0.8995", "0.6500"),
            ("30.0 min", "40.0 min"),
        ),
        "Avoid, for the same reason: resnet50 finetune torch.",
        # four rows of each backbone are near each other, the others are not
        "Accuracy of 45 pairs of rows: significantly different 33, equivalent within one point 12, undecided 0.",
        ADD_SEEDS,
        "The two most accurate rows are right on the same test images: these 4,000 images show no disagreement, and so "
        "no smallest difference that they could find.",
    ]
    by_hand = (OPEN, HOLDS, HOLDS, HOLDS, OPEN, FAILS, FAILS, OPEN, OPEN, OPEN, OPEN)
    assert verdicts == dict(zip(BIRDS_CLAIMS, by_hand, strict=True))


def test_two_sizes(compared: Any) -> None:
    """Frozen at 128 pixels is the more accurate one, by chance, and takes a ninth of the time of two_stage at 224."""
    made = []
    for backbone, lower in (("resnet50", 0.0), ("efficientnet_v2_b0", 0.1)):
        small = {"data.image_size": "128"}
        made += [
            birds("torch", backbone, "two_stage", 0.9 - lower, 87),
            birds("torch", backbone, "frozen", 0.899 - lower, 30),
            birds("torch", backbone, "two_stage", 0.85 - lower, 27, params=small),
            birds("torch", backbone, "frozen", 0.8995 - lower, 10, params=small),
        ]
    comparison, verdicts = compared("birds", "birds300", made)
    small, large = "(data.image_size 128)", "(data.image_size 224)"
    best, fastest = f"resnet50 two_stage torch {large}", f"resnet50 frozen torch {small}"
    assert sentences_of(comparison) == [
        f"The most accurate is {best}: 0.9000 (95 % interval, which allows for the choice of the best of 3 "
        "candidates).",
        f"Equivalent to it within one point of accuracy: {fastest}, resnet50 frozen torch {large}.",
        f"{fastest} is equivalent within one point and trains 8.7 times faster: 10.0 min against 87.0 min.",
        SAME_LATENCY,
        *(
            avoid(f"efficientnet_v2_b0 {row}", better, scores, times)
            for row, better, scores, times in (
                (f"frozen torch {small}", fastest, ("0.8995", "0.7995"), ("10.0 min", "10.0 min")),
                (f"frozen torch {large}", fastest, ("0.8995", "0.7990"), ("10.0 min", "30.0 min")),
                (f"two_stage torch {small}", fastest, ("0.8995", "0.7500"), ("10.0 min", "27.0 min")),
                (f"two_stage torch {large}", best, ("0.9000", "0.8000"), ("87.0 min", "87.0 min")),
            )
        ),
        avoid(f"resnet50 two_stage torch {small}", fastest, ("0.8995", "0.8500"), ("10.0 min", "27.0 min")),
        # three rows of each backbone are near each other, the others are not
        "Accuracy of 28 pairs of rows: significantly different 22, equivalent within one point 6, undecided 0.",
        ADD_SEEDS,
        disagreement("0.1%", "4,000", "28 pairs"),
    ]
    # The size: two_stage is better at 224 pixels, frozen may be by chance.
    by_hand = (OPEN, HOLDS, OPEN, OPEN, OPEN, FAILS, FAILS, OPEN, OPEN, OPEN, OPEN)
    assert verdicts == dict(zip(BIRDS_CLAIMS, by_hand, strict=True))


IMAGENETTE_CLAIMS = (
    "fine-tuning (frozen) beats training from scratch and the pretrained network as it is",
    "gas_pump and chain_saw are the hardest classes",
    "gas_pump and chain_saw are taken for cassette_player and garbage_truck",
    "fine-tuning raises F1 of chain_saw (0.58 to 0.83) and of gas_pump (0.59 to 0.87)",
    "fine-tuning is significantly better in all classes",
    "from scratch it overfits: training accuracy near 1, validation accuracy far below",
    "from scratch the validation loss rises from early on, after epoch 5 of 40",
    "the fine-tuned network overfits less (training minus validation accuracy 0.065 against 0.25)",
    "the fine-tuned network has the lower training and validation loss",
)


def on_imagenette(
    regime: str,
    accuracy: float,
    minutes: float,
    wrong: dict[str, tuple[int, str]],
    curves: tuple[float, float, float, float, float],
    *,
    part: bool = False,
) -> Made:
    """EfficientNet-B0 in Keras on all ten classes, or on five of them with 12 test images each.

    Args:
        regime: Of the run.
        accuracy: On the test images.
        minutes: Of training.
        wrong: As class_predictions takes it.
        curves: Training and validation accuracy, training and validation loss, and the best epoch, from 0.
        part: True for five classes.
    """
    names = ("train/accuracy", "val/accuracy", "train/loss", "val/loss", "phase_1/cost/best_epoch")
    params = {"max_epochs": "40", "head.hidden": "[]", "head.batch_norm": "true"}
    counts = {"num_classes": "5", "num_train_images": "240", "num_val_images": "60", "num_test_images": "60"}
    return Made(
        framework="keras",
        backbone="efficientnet_b0",
        regime=regime,
        accuracy=accuracy,
        minutes=minutes,
        params={**params, **(counts if part else {})},
        tags={"tandem.test_hash": "part"} if part else {},
        predictions=class_predictions(IMAGENETTE[:5] if part else IMAGENETTE, wrong, images=12 if part else 200),
        metrics={"cost/epochs": 40.0, **dict(zip(names, curves, strict=True))},
    )


def test_part_of_the_classes(compared: Any) -> None:
    """On all classes every claim is true; on five classes everything is the other way around."""
    parts = [
        on_imagenette("scratch", 0.9, 1, {"tench": (6, "church")}, (0.5, 0.5, 1.0, 1.0, 39.0), part=True),
        on_imagenette(
            "frozen",
            *(0.2, 1),
            {name: (12, "tench") for name in IMAGENETTE[1:5]},
            (0.9, 0.5, 1.0, 2.0, 39.0),
            part=True,
        ),
    ]
    hard = {"gas_pump": (120, "cassette_player"), "chain_saw": (120, "garbage_truck")}
    easy = {"gas_pump": (80, "cassette_player"), "chain_saw": (80, "garbage_truck")}
    others = {name: (20, "church" if name != "church" else "tench") for name in IMAGENETTE}
    whole = [
        on_imagenette("scratch", 0.80, 60, others | hard, (0.99, 0.80, 0.01, 1.0, 4.0)),
        on_imagenette("frozen", 0.92, 20, easy, (0.99, 0.97, 0.005, 0.1, 30.0)),
        Made(
            framework="keras",
            backbone="resnet50",
            regime="off_the_shelf",
            accuracy=0.85,
            minutes=0,
            predictions=class_predictions(IMAGENETTE, {"church": (150, "tench"), "tench": (150, "church")}),
            metrics={"test/imagenet_accuracy": 0.83},
        ),
    ]
    alone, of_parts = compared("imagenette", "imagenette", parts)
    comparison, verdicts = compared("imagenette", "imagenette", [*parts, *whole])
    on_five = [
        "The most accurate is scratch keras: 0.90 (95 % interval); all others are significantly less accurate.",
        "Avoid frozen keras: despite its pretrained weights it is significantly less accurate than scratch keras "
        "(-0.70, 95 % interval).",
        ADD_SEEDS,
        disagreement("90.0%", "60", "1 pair"),
    ]
    assert sentences_of(alone) == on_five == sentences_of(comparison, 1)
    frozen, scratch = (
        f"efficientnet_b0 {regime} keras (head.hidden [], head.batch_norm true)" for regime in ("frozen", "scratch")
    )
    assert sentences_of(comparison) == [
        f"The most accurate is {frozen}: 0.9200 (95 % interval); all others are significantly less accurate.",
        avoid(scratch, frozen, ("0.9200", "0.8000"), ("20.0 min", "60.0 min")),
        ADD_SEEDS,
        disagreement("23.0%", "2,000", "3 pairs"),
    ]
    assert verdicts == dict.fromkeys(IMAGENETTE_CLAIMS, HOLDS)
    assert of_parts == dict.fromkeys(IMAGENETTE_CLAIMS, OPEN)
