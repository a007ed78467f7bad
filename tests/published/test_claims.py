from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tandem.comparison.comparison import compare_runs
from tandem.comparison.predictions import SavedPredictions
from tandem.evaluation.predictions import Predictions
from tandem.published.claims import CLAIMS, claims_table
from tandem.published.documents import read_document
from tandem.published.judging import Judgement, all_of, judged, undecided
from tandem.published.rows import Results, Row, our_results, published_results
from tandem.rendering.tables import Table
from tandem.tracking.reader import RunRecord
from tests.published.numbers import FAMILIES, FROZEN

MakeRun = Callable[..., RunRecord]
MakePredictions = Callable[..., Predictions]

HOLDS, FAILS, OPEN = "holds", "does not hold", "can't tell"
IMAGES = 300


def rows(table: Table) -> list[dict[str, Any]]:
    keys = [column.key for column in table.columns]
    return [dict(zip(keys, row, strict=True)) for row in table.rows]


def table_of(name: str, runs: Sequence[RunRecord] = (), final: dict[str, Predictions] | None = None) -> Table:
    document = read_document(name)
    groups = compare_runs(runs, lambda cells: SavedPredictions(final=final or {})).groups
    return claims_table(published_results(document), our_results(document, groups))


def claim(name: str, start: str) -> Callable[[Results], Judgement]:
    """What judges the one claim of a document that begins like this."""
    (found,) = [one for one in CLAIMS[name] if one.words.startswith(start)]
    return found.judge


def results(name: str, *of: Row) -> Results:
    """Rows that are taken as they stand, as if the document had published them."""
    return replace(published_results(read_document(name)), rows=of)


def row(backbone: str, regime: str | None = "scratch", **values: Any) -> Row:
    return Row(**{"data": "a data set", "framework": "torch", "backbone": backbone, "regime": regime, **values})


def right(share: float, start: int = 0) -> list[bool]:
    return [(index - start) % IMAGES < share * IMAGES for index in range(IMAGES)]


# Judged by hand from the documents.
@pytest.mark.parametrize(
    ("name", "verdicts"),
    [
        ("birds", [OPEN, FAILS, OPEN, OPEN, OPEN, OPEN, OPEN]),
        ("cifar100_lightweight", [HOLDS, OPEN, HOLDS, OPEN, OPEN, OPEN, OPEN]),
        ("eight_datasets", [FAILS, FAILS, OPEN, OPEN, HOLDS]),
        ("imagenette", [HOLDS, HOLDS, OPEN, HOLDS, HOLDS]),
        ("mobilenet_vs_efficientnetv2", [HOLDS, HOLDS, HOLDS]),
    ],
)
def test_claims_on_the_published_numbers(name: str, verdicts: list[str]) -> None:
    found = rows(table_of(name))
    assert [one["published"] for one in found] == verdicts
    assert all(one["ours"] == OPEN and one["ours_because"].startswith("no runs on ") for one in found)
    assert all(one["published_because"] for one in found)


@pytest.mark.parametrize(
    ("name", "start", "because"),
    [
        ("birds", "frozen takes about 3 times less", "resnet50: 37.0 min of 53.0 min, 1.4 times less"),
        ("birds", "two_stage", "resnet50, efficientnet_v2_b0: not published: the accuracies"),
        ("cifar100_lightweight", "EfficientNet-B0 trains", "training: 7.45 times that of resnet50; training: 5.69"),
        ("eight_datasets", "there is negative", "8 of 24 pairs, a tie in 1 (alexnet on Caltech 101)"),
        ("eight_datasets", "the average", "densenet 88.32 %, stated 89.91 %, which is densenet161 alone"),
        (
            "imagenette",
            "gas_pump and chain_saw are the",
            "frozen: lowest F1 chain_saw 0.83, gas_pump 0.87, French_horn",
        ),
        ("mobilenet_vs_efficientnetv2", "EfficientNetV2 has a quarter", "7.2M of 25.6M, 0.28"),
    ],
)
def test_verdicts_name_the_numbers_that_decide(name: str, start: str, because: str) -> None:
    (found,) = [one for one in rows(table_of(name)) if one["claim"].startswith(start)]
    assert because in found["published_because"]


def test_best_families_are_compared_by_their_means() -> None:
    (found,) = [one for one in rows(table_of("eight_datasets")) if one["claim"].startswith("ResNet and DenseNet")]
    means = {family: np.mean([FROZEN[member] for member in members]) for family, members in FAMILIES.items()}
    assert means["densenet"] > means["alexnet"] > means["resnet"] > means["vgg"]
    best = {family: max(FROZEN[member].mean() for member in members) for family, members in FAMILIES.items()}
    assert found["published_because"] == (
        f"resnet {means['resnet']:.2%}, alexnet {means['alexnet']:.2%} "
        f"(the best of each {best['resnet']:.2%} and {best['alexnet']:.2%})"
    ).replace("%", " %")


def test_all_of_several_judgements() -> None:
    yes, no, open_ = judged(True, "a"), judged(False, "b"), undecided("c")
    assert all_of([yes, yes]) == yes
    assert all_of([yes, open_]) == open_
    assert all_of([open_, no, yes]) == no
    assert all_of([judged(True, str(number)) for number in range(6)]).because == "0; 1; 2; 3; and 2 more"


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [
        ((0.95, 0.945, 0.9, 0.5), HOLDS),
        ((0.95, 0.93, 0.9, 0.5), FAILS),  # frozen too far behind
        ((0.95, 0.955, 0.9, 0.5), FAILS),  # frozen first
        ((0.95, 0.945, 0.5, 0.9), FAILS),
        ((0.95, 0.945, 0.9, None), OPEN),
    ],
)
def test_order_of_regimes(accuracies: Sequence[float | None], verdict: str) -> None:
    of_one = {
        regime: row("resnet50", regime, accuracy=accuracy)
        for regime, accuracy in zip(("two_stage", "frozen", "finetune", "scratch"), accuracies, strict=True)
    }
    of_other = [replace(one, backbone="efficientnet_v2_b0") for one in of_one.values()]
    judge = claim("birds", "two_stage is the most accurate")
    assert judge(results("birds", *of_one.values(), *of_other)).verdict == verdict
    # Both backbones are spoken of.
    assert judge(results("birds", *of_one.values())).verdict == (FAILS if verdict == FAILS else OPEN)


@pytest.mark.parametrize(("minutes", "verdict"), [(26, HOLDS), (34, HOLDS), (24, FAILS), (36, FAILS), (None, OPEN)])
def test_three_times_less_is_to_the_next_whole_number(minutes: float | None, verdict: str) -> None:
    of_both = [
        row(backbone, regime, minutes=value)
        for backbone in ("resnet50", "efficientnet_v2_b0")
        for regime, value in (("frozen", 10), ("two_stage", minutes))
    ]
    assert claim("birds", "frozen takes about")(results("birds", *of_both)).verdict == verdict


def test_times_of_two_machines_are_not_compared() -> None:
    of_both = [
        row(backbone, regime, minutes=minutes, machine=regime)
        for backbone in ("resnet50", "efficientnet_v2_b0")
        for regime, minutes in (("frozen", 10), ("two_stage", 30))
    ]
    assert claim("birds", "frozen takes about")(results("birds", *of_both)).verdict == OPEN


@pytest.mark.parametrize(
    ("minutes", "accuracy", "verdict"),
    [
        (5, 0.9, HOLDS),
        (5, 0.8, HOLDS),  # as accurate in less time
        (10.5, 0.9, HOLDS),
        (5, 0.7, OPEN),
        (20, 0.9, OPEN),
        (10.5, 0.8, OPEN),
        (20, 0.8, FAILS),
        (20, 0.7, FAILS),
    ],
)
def test_efficiency_is_being_ahead_in_one_and_behind_in_none(minutes: float, accuracy: float, verdict: str) -> None:
    of_all = [
        one
        for regime in ("scratch", "two_stage", "finetune")
        for one in (
            row("resnet50", regime, minutes=10, accuracy=0.8),
            row("efficientnet_v2_b0", regime, minutes=minutes, accuracy=accuracy),
        )
    ]
    assert claim("birds", "EfficientNet is more")(results("birds", *of_all)).verdict == verdict


@pytest.mark.parametrize(("keras", "verdict"), [(0.7, HOLDS), (0.87, HOLDS), (0.79, FAILS), (0.6, FAILS), (None, OPEN)])
def test_difference_of_frameworks(keras: float | None, verdict: str) -> None:
    of_both = [row("resnet50", accuracy=0.8), row("resnet50", accuracy=keras, framework="keras")]
    assert claim("birds", "the accuracy of ResNet-50")(results("birds", *of_both)).verdict == verdict


def test_image_sizes() -> None:
    judge = claim("birds", "a network should be given")
    large = [row(backbone, accuracy=0.9, image_size=224) for backbone in ("resnet50", "efficientnet_v2_b0")]
    assert judge(results("birds", *large)).verdict == OPEN
    for accuracy, verdict in ((0.8, HOLDS), (0.95, FAILS)):
        small = [replace(one, accuracy=accuracy, image_size=96) for one in large]
        assert judge(results("birds", *large, *small)).verdict == verdict


@pytest.mark.parametrize(("frozen", "verdict"), [(0.88, HOLDS), (0.5, FAILS), (None, OPEN)])
def test_overfitting_is_the_gap_of_accuracies(frozen: float | None, verdict: str) -> None:
    images = {"train": 10_000, "val": 2_000}
    of_both = [
        row(backbone, regime, train_accuracy=0.9, val_accuracy=accuracy, num_images=images)
        for backbone in ("resnet50", "efficientnet_v2_b0")
        for regime, accuracy in (("finetune", 0.7), ("frozen", frozen))
    ]
    assert claim("birds", "freezing all layers")(results("birds", *of_both)).verdict == verdict


def test_gap_within_chance_decides_nothing() -> None:
    images = {"train": 100, "val": 40}
    of_both = [
        row(backbone, regime, train_accuracy=0.9, val_accuracy=accuracy, num_images=images)
        for backbone in ("resnet50", "efficientnet_v2_b0")
        for regime, accuracy in (("finetune", 0.8), ("frozen", 0.85))
    ]
    found = claim("birds", "freezing all layers")(results("birds", *of_both))
    assert found.verdict == OPEN and "not significant" in found.because


@pytest.mark.parametrize(("fast", "does", "does_not"), [(5, HOLDS, FAILS), (9.5, FAILS, HOLDS), (11, FAILS, HOLDS)])
def test_faster_gpus(fast: float, does: str, does_not: str) -> None:
    def on_both(backbone: str) -> list[Row]:
        slow = row(backbone, minutes=10, gpu="8 CPUs, Tesla T4")
        return [replace(slow, minutes=fast, gpu="8 CPUs, NVIDIA A100-SXM4-40GB"), slow]

    shortens = claim("cifar100_lightweight", "ResNet-50 and AlexNet train faster")
    of_both = results("cifar100_lightweight", *on_both("resnet50"), *on_both("alexnet"))
    assert shortens(of_both).verdict == does
    stays = claim("cifar100_lightweight", "a faster GPU does not")
    assert stays(results("cifar100_lightweight", *on_both("efficientnet_b0"))).verdict == does_not
    one_gpu = results("cifar100_lightweight", *on_both("efficientnet_b0")[:1])
    assert stays(one_gpu).verdict == OPEN


def test_cpus_beside_gpus_say_nothing_of_gpus(make_run: MakeRun) -> None:
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
        return rows(table_of("cifar100_lightweight", runs))[3]

    assert judge("gpu")["ours"] == FAILS
    found = judge("cpu")
    assert found["ours"] == OPEN and "times on two of T4" in found["ours_because"]


@pytest.mark.parametrize(("times", "verdict"), [(0.5, FAILS), (0.95, HOLDS), (1.5, HOLDS)])
def test_pretrained_weights_and_training_time(times: float, verdict: str) -> None:
    of_both = [row("efficientnet_b0", minutes=100), row("efficientnet_b0", "finetune", minutes=100 * times)]
    judge = claim("cifar100_lightweight", "pretrained weights do not")
    assert judge(results("cifar100_lightweight", *of_both)).verdict == verdict


@pytest.mark.parametrize(("milliseconds", "verdict"), [(2, HOLDS), (3.9, OPEN), (6, FAILS)])
def test_inference_time(milliseconds: float, verdict: str) -> None:
    of_all = [row("efficientnet_b0", milliseconds=milliseconds)]
    of_all += [row(backbone, milliseconds=4) for backbone in ("resnet50", "alexnet")]
    judge = claim("cifar100_lightweight", "EfficientNet-B0 has the shortest")
    assert judge(results("cifar100_lightweight", *of_all)).verdict == verdict


@pytest.mark.parametrize(
    ("best", "epochs", "verdict"),
    [
        (12, 25, FAILS),
        (22, 25, FAILS),
        (9, 10, FAILS),
        # A single epoch of the last tenth decides nothing, nor does the end of the run.
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
    of_one = row("alexnet", best_epoch=best, epochs=epochs)
    assert judge(results("cifar100_lightweight", of_one)).verdict == verdict


@pytest.mark.parametrize(("val", "verdict"), [(0.6, HOLDS), (0.95, FAILS)])
def test_overfitting_from_scratch(val: float, verdict: str) -> None:
    of_one = row("efficientnet_b0", train_accuracy=0.99, val_accuracy=val, num_images={"train": 9000, "val": 900})
    assert claim("imagenette", "from scratch it overfits")(results("imagenette", of_one)).verdict == verdict


@pytest.mark.parametrize(
    ("best", "epochs", "max_epochs", "verdict"),
    [
        (5, 40, 40, HOLDS),
        (30, 40, 40, FAILS),
        (5, 40, None, HOLDS),  # published
        (5, 8, 40, OPEN),
        (2, 5, 40, OPEN),
    ],
)
def test_loss_that_rises_early_is_seen_in_runs_of_all_epochs(
    best: float, epochs: float, max_epochs: int | None, verdict: str
) -> None:
    of_one = row("efficientnet_b0", best_epoch=best, epochs=epochs, max_epochs=max_epochs)
    found = claim("imagenette", "from scratch the validation loss")(results("imagenette", of_one))
    assert found.verdict == verdict
    assert ("stopped early" in found.because) == (verdict == OPEN)


def test_our_differences_decide_where_they_are_significant(
    make_run: MakeRun, make_predictions: MakePredictions
) -> None:
    def judge(frozen: list[bool]) -> dict[str, Any]:
        outcomes = {
            ("efficientnet_b0", "scratch"): right(0.6),
            ("efficientnet_b0", "frozen"): frozen,
            ("resnet50", "off_the_shelf"): right(0.8),
        }
        runs = {
            key: make_run(
                regime=key[1],
                accuracy=float(np.mean(outcome)),
                params={"backbone": key[0]},
                tags={"tandem.data": "imagenette"},
            )
            for key, outcome in outcomes.items()
        }
        final = {runs[key].run_id: make_predictions(outcome) for key, outcome in outcomes.items()}
        return rows(table_of("imagenette", list(runs.values()), final))[0]

    better = judge(right(0.95))
    assert better["ours"] == HOLDS
    assert better["ours_because"].startswith("torch: frozen minus scratch +0.3500 [")
    assert judge(right(0.65))["ours"] == FAILS
    near = judge(right(0.82, start=50))
    assert near["ours"] == OPEN and near["ours_because"].endswith(", not significant")


@pytest.mark.parametrize(
    ("tags", "because"),
    [
        ({"tandem.budget": "small"}, "only stand-ins on Imagenette: small budget"),
        ({"tandem.weights_origin": "random"}, "only stand-ins on Imagenette: random weights"),
    ],
)
def test_stand_ins_decide_no_claim(make_run: MakeRun, tags: dict[str, str], because: str) -> None:
    runs = [
        make_run(regime="frozen", params={"backbone": "efficientnet_b0"}, tags={"tandem.data": "imagenette", **tags})
    ]
    found = rows(table_of("imagenette", runs))
    assert {(one["ours"], one["ours_because"]) for one in found} == {(OPEN, because)}


def test_what_is_lacking_of_ours_is_named(make_run: MakeRun) -> None:
    runs = [make_run(regime="frozen", params={"backbone": "efficientnet_b0"}, tags={"tandem.data": "imagenette"})]
    found = rows(table_of("imagenette", runs))[0]
    assert (found["ours"], found["ours_because"]) == (
        OPEN,
        "not in our runs: accuracy of scratch; not in our runs: accuracy of off_the_shelf",
    )


def eight_runs(make_run: MakeRun, make_predictions: MakePredictions, pairs: dict[str, tuple[float, float]]) -> Table:
    """The claims with runs of scratch and frozen by (data set, backbone): their accuracies."""
    runs, final = [], {}
    for data, accuracies in pairs.items():
        for regime, accuracy in zip(("scratch", "frozen"), accuracies, strict=True):
            tags = {"tandem.data": data, "tandem.test_hash": data}
            run = make_run(regime=regime, accuracy=accuracy, params={"backbone": "vgg16"}, tags=tags)
            final[run.run_id] = make_predictions(right(accuracy))
            runs.append(run)
    return table_of("eight_datasets", runs, final)


@pytest.mark.parametrize(
    ("pairs", "verdict", "because"),
    [
        ({"mnist": (0.9, 0.6), "cifar10": (0.5, 0.8)}, HOLDS, "frozen below scratch in 1 of 2 pairs"),
        # The others of the document's pairs have not been run.
        ({"mnist": (0.6, 0.9)}, OPEN, "frozen below scratch in 0 of 1 pairs"),
        ({"mnist": (0.6, 0.61)}, OPEN, "frozen below scratch in 0 of 1 pairs, a tie in 1 (not significant)"),
    ],
)
def test_one_significant_pair_is_enough_for_negative_transfer(
    make_run: MakeRun, make_predictions: MakePredictions, pairs: dict, verdict: str, because: str
) -> None:
    found = rows(eight_runs(make_run, make_predictions, pairs))[4]
    assert (found["ours"], found["ours_because"]) == (verdict, because)


def test_rows_of_other_test_images_are_judged_apart() -> None:
    """Of two folds, the most accurate row of one is not set against those of the other."""
    first, second = (
        [
            row(backbone, "frozen", accuracy=accuracy, test_set=fold)
            for backbone, accuracy in zip(("efficientnet_v2_b0", "mobilenet_v2"), accuracies, strict=True)
        ]
        for fold, accuracies in (("fold 0", (0.9, 0.8)), ("fold 1", (0.7, 0.75)))
    )
    ours = replace(results("mobilenet_vs_efficientnetv2", *first, *second), published=False)
    judge = claim("mobilenet_vs_efficientnetv2", "EfficientNetV2 is more accurate than MobileNetV2")
    found = judge(ours)
    assert found.verdict == FAILS and found.because.startswith("fold 1 torch: ")
    assert judge(replace(ours, rows=tuple(first))).verdict == HOLDS


@pytest.mark.parametrize(("frameworks", "start"), [(("torch", "keras"), ""), (("torch", "torch"), "torch: ")])
def test_frameworks_are_judged_together_where_none_has_all_backbones(
    make_run: MakeRun, make_predictions: MakePredictions, frameworks: Sequence[str], start: str
) -> None:
    runs, final = [], {}
    for backbone, framework, share in zip(("resnet50", "efficientnet_v2_b0"), frameworks, (0.6, 0.9), strict=True):
        for regime in ("scratch", "two_stage", "finetune"):
            tags = {"tandem.data": "birds300"}
            runs.append(make_run(framework, regime, share, params={"backbone": backbone}, tags=tags))
            final[runs[-1].run_id] = make_predictions(right(share))
    found = rows(table_of("birds", runs, final))[3]
    assert found["ours"] == HOLDS
    assert found["ours_because"].startswith(f"{start}scratch: 1.00 times the training, accuracy +0.3000 [")


def test_framework_that_lacks_a_regime_leaves_the_verdict_to_the_other() -> None:
    of_torch = [
        row(backbone, regime, minutes=minutes)
        for backbone in ("resnet50", "efficientnet_v2_b0")
        for regime, minutes in (("frozen", 10), ("two_stage", 30))
    ]
    more = row("resnet50", "frozen", minutes=5, framework="keras")
    ours = replace(results("birds", *of_torch, more), published=False)
    assert claim("birds", "frozen takes about")(ours).verdict == HOLDS


def test_article_without_data_is_judged_on_each_of_ours(make_run: MakeRun, make_predictions: MakePredictions) -> None:
    runs, final = [], {}
    for data, accuracies in {"flowers": (0.95, 0.7), "leaves": (0.6, 0.9)}.items():
        for backbone, accuracy in zip(("efficientnet_v2_b0", "mobilenet_v2"), accuracies, strict=True):
            tags = {"tandem.data": data, "tandem.test_hash": data}
            runs.append(make_run(regime="frozen", accuracy=accuracy, params={"backbone": backbone}, tags=tags))
            final[runs[-1].run_id] = make_predictions(right(accuracy))
    found = rows(table_of("mobilenet_vs_efficientnetv2", runs, final))[0]
    assert found["ours"] == FAILS and found["ours_because"].startswith("leaves torch: efficientnet_v2_b0 minus")
    found = rows(table_of("mobilenet_vs_efficientnetv2", runs[:2], final))[0]
    assert found["ours"] == HOLDS and found["ours_because"].startswith("torch: ")


CLASSES = ("tench", "cassette player", "chain saw", "garbage truck", "gas pump")


def imagenette(errors: dict[str, dict[str, int]], images_per_class: int = 100) -> Predictions:
    """Predictions with so many images of a class taken for another one."""
    truth = np.repeat(np.arange(len(CLASSES)), images_per_class)
    predicted = truth.copy()
    for name, taken in errors.items():
        start = CLASSES.index(name) * images_per_class
        for other, number in taken.items():
            predicted[start : start + number] = CLASSES.index(other)
            start += number
    return Predictions(
        keys=tuple(f"{index}.png" for index in range(len(truth))),
        hashes=tuple(f"{index:05d}" for index in range(len(truth))),
        truth=truth.astype(np.int64),
        probabilities=np.eye(len(CLASSES), dtype=np.float32)[predicted],
        classes=CLASSES,
    )


@pytest.mark.parametrize(
    ("errors", "images", "hardest", "taken"),
    [
        ({"gas pump": {"garbage truck": 40}, "chain saw": {"cassette player": 40}}, 100, HOLDS, HOLDS),
        ({"gas pump": {"tench": 40}, "chain saw": {"cassette player": 40}}, 100, HOLDS, FAILS),
        ({"tench": {"garbage truck": 60, "gas pump": 10}}, 100, FAILS, FAILS),
        # 4 errors against 3: as good as chance.
        (
            {"gas pump": {"garbage truck": 4, "tench": 3}, "chain saw": {"cassette player": 4, "tench": 3}},
            20,
            OPEN,
            OPEN,
        ),
    ],
)
def test_hard_classes_of_ours_are_judged_by_resamples(
    make_run: MakeRun, errors: dict[str, dict[str, int]], images: int, hardest: str, taken: str
) -> None:
    predictions = imagenette(errors, images)
    run = make_run(
        regime="scratch",
        accuracy=float(np.mean(predictions.predicted == predictions.truth)),
        params={"backbone": "efficientnet_b0"},
        tags={"tandem.data": "imagenette"},
    )
    found = rows(table_of("imagenette", [run], {run.run_id: predictions}))
    assert (found[1]["ours"], found[2]["ours"]) == (hardest, taken)
    assert "% of resamples" in found[1]["ours_because"]


def test_hard_classes_are_judged_over_all_seeds(make_run: MakeRun) -> None:
    """Of two runs, the first alone would have gas pump and chain saw hardest, and taken for the two others."""
    by_seed = [
        imagenette({"gas pump": {"garbage truck": 40}, "chain saw": {"cassette player": 40}}),
        imagenette({"tench": {"gas pump": 90}, "gas pump": {"tench": 60}, "chain saw": {"cassette player": 5}}),
    ]
    runs = [
        make_run(
            regime="scratch", seed=seed, params={"backbone": "efficientnet_b0"}, tags={"tandem.data": "imagenette"}
        )
        for seed in range(len(by_seed))
    ]
    alone = rows(table_of("imagenette", runs[:1], {runs[0].run_id: by_seed[0]}))
    assert (alone[1]["ours"], alone[2]["ours"]) == (HOLDS, HOLDS)
    final = {run.run_id: predictions for run, predictions in zip(runs, by_seed, strict=True)}
    both = rows(table_of("imagenette", runs, final))
    assert (both[1]["ours"], both[2]["ours"]) == (FAILS, FAILS)
    # 40 + 60 errors of gas pump, 40 + 5 of chain saw.
    assert "gas pump for tench in 60 of 100 errors" in both[2]["ours_because"]
    assert "chain saw for cassette player in 45 of 45 errors" in both[2]["ours_because"]


def test_frameworks_are_compared_on_the_same_test_images() -> None:
    """torch 0.8 and 0.6 on two folds, keras 0.7 and 0.5: the same difference of 0.1 on each."""
    of_folds = [
        row("resnet50", accuracy=accuracy, framework=framework, test_set=fold)
        for fold, accuracies in (("fold 0", (0.8, 0.7)), ("fold 1", (0.6, 0.5)))
        for framework, accuracy in zip(("torch", "keras"), accuracies, strict=True)
    ]
    found = claim("birds", "the accuracy of ResNet-50")(results("birds", *of_folds))
    assert found.verdict == HOLDS
