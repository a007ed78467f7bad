from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
from mlflow.entities import Metric
from statsmodels.stats.contingency_tables import mcnemar

from tandem.comparison.comparison import GroupComparison, compare_runs
from tandem.comparison.predictions import SavedPredictions
from tandem.evaluation.predictions import Predictions
from tandem.published.documents import Document, PublishedResult, read_document
from tandem.published.rows import Results, combined_difference, our_results
from tandem.rendering.tables import Estimate
from tandem.tracking.reader import RunRecord

MakeRun = Callable[..., RunRecord]
MakePredictions = Callable[..., Predictions]

IMAGES = 200
MNIST = {"tandem.data": "mnist"}


def document(data: str | None = "MNIST") -> Document:
    results = (PublishedResult(data=data, backbone="mobilenet_v2", regime="finetune", accuracy=0.5),)
    return Document(name="study", source="A study.", notes=(), results=results)


def groups(
    runs: Sequence[RunRecord],
    final: dict[str, Predictions] | None = None,
    first_phase: dict[str, Predictions] | None = None,
) -> tuple[GroupComparison, ...]:
    saved = SavedPredictions(final=final or {}, first_phase=first_phase or {})
    return compare_runs(runs, lambda cells: saved).groups


def right(share: float, start: int = 0) -> list[bool]:
    return [(index - start) % IMAGES < share * IMAGES for index in range(IMAGES)]


def two_stage(make_run: MakeRun) -> RunRecord:
    phase_1 = {"test/accuracy": 0.5, "cost/train_seconds": 20.0, "cost/epochs": 3.0, "cost/best_epoch": 1.0}
    phase_1 |= {"test/precision_macro": 0.45, "test/log_loss": 0.7}
    return make_run(
        regime="two_stage", tags=MNIST, metrics={f"phase_1/{name}": value for name, value in phase_1.items()}
    )


def test_first_phase_of_two_stage_is_a_row_of_frozen(make_run: MakeRun) -> None:
    asked = []

    def history(run: RunRecord, key: str) -> list[Metric]:
        asked.append(key)
        return [Metric(key, 0.1 * step, 0, step) for step in range(5)]

    whole, first = our_results(document(), groups([two_stage(make_run)]), history).rows
    assert (whole.regime, whole.accuracy, whole.minutes) == ("two_stage", 0.9, 1.0)
    assert (first.regime, first.accuracy, first.minutes) == ("frozen", 0.5, pytest.approx(1 / 3))
    assert first.name == "two_stage torch, first phase"
    assert (first.epochs, first.best_epoch) == (3, 2)  # the second, counted from 1
    assert first.train_accuracy == first.val_accuracy == pytest.approx(0.2)  # of the third epoch
    assert first.train_loss == first.val_loss == pytest.approx(0.2)
    assert (first.precision, first.test_loss) == (0.45, 0.7)
    assert asked == ["train/accuracy", "val/accuracy", "train/loss", "val/loss"]


def test_first_phase_is_left_out_beside_a_run_of_frozen(make_run: MakeRun) -> None:
    runs = [two_stage(make_run), make_run(regime="frozen", tags=MNIST)]
    assert [row.name for row in our_results(document(), groups(runs)).rows] == ["frozen torch", "two_stage torch"]


def test_network_off_the_shelf_counts_by_its_accuracy_over_all_outputs(
    make_run: MakeRun, make_predictions: MakePredictions
) -> None:
    metrics = {"test/imagenet_accuracy": 0.75}
    params = {"num_test_images": str(IMAGES)}
    shelf = make_run(regime="off_the_shelf", accuracy=0.98, tags=MNIST, metrics=metrics, params=params)
    frozen = make_run(regime="frozen", accuracy=0.9, tags=MNIST, params=params)
    final = {shelf.run_id: make_predictions(right(0.98)), frozen.run_id: make_predictions(right(0.9))}
    ours = our_results(document(), groups([shelf, frozen], final))
    one, two = sorted(ours.rows, key=lambda row: row.regime or "", reverse=True)
    # statsmodels: proportion_confint(150, 200, method="beta")
    assert one.accuracy == Estimate(
        value=0.75, low=pytest.approx(0.68408, abs=1e-4), high=pytest.approx(0.80842, abs=1e-4)
    )
    found = ours.difference(two, one)
    assert found is not None and isinstance(found.value, Estimate)
    assert found.value.value == pytest.approx(0.15)
    assert found.sure


@pytest.mark.parametrize(
    ("regime", "tags", "stand_in"),
    [
        ("finetune", {}, ""),
        ("finetune", {"tandem.budget": "full", "tandem.weights_origin": "imagenet"}, ""),
        ("finetune", {"tandem.budget": "small"}, "small budget"),
        ("finetune", {"tandem.weights_origin": "random"}, "random weights"),
        ("finetune", {"tandem.weights_origin": "random (imagenet could not be downloaded)"}, "random weights"),
        ("scratch", {"tandem.weights_origin": "random"}, ""),
        ("frozen", {"tandem.budget": "small", "tandem.weights_origin": "random"}, "small budget, random weights"),
    ],
)
def test_row_that_stands_for_less_than_its_name_says_so(
    make_run: MakeRun, regime: str, tags: dict[str, str], stand_in: str
) -> None:
    ours = our_results(document(), groups([make_run(regime=regime, tags=MNIST | tags)]))
    (row,) = ours.rows
    assert row.stand_in == stand_in
    assert row.label == (f"{row.name} ({stand_in})" if stand_in else f"{regime} torch")
    assert (row in ours.without_stand_ins.rows) == (not stand_in)


@pytest.mark.parametrize(
    ("regime", "params", "stand_in"),
    [
        ("finetune", {"weights": "imagenet", "data.classes": "null", "data.images_per_class": "null"}, ""),
        ("finetune", {"data.classes": '["0", "1"]'}, "part of the images"),
        ("scratch", {"data.images_per_class": "20"}, "part of the images"),
        ("finetune", {"data.train_images_per_class": "20"}, "part of the images"),
        ("finetune", {"weights": "runs:/abc"}, "weights of an earlier run"),
        ("scratch", {"weights": "runs:/abc"}, ""),  # which are not read
        ("frozen", {"weights": "runs:/abc", "data.classes": '["0"]'}, "part of the images, weights of an earlier run"),
    ],
)
def test_row_of_other_images_or_weights_than_the_documents_is_a_stand_in(
    make_run: MakeRun, regime: str, params: dict[str, str], stand_in: str
) -> None:
    ours = our_results(document(), groups([make_run(regime=regime, params=params, tags=MNIST)]))
    assert [row.stand_in for row in ours.rows] == [stand_in]
    assert bool(ours.without_stand_ins.rows) == (not stand_in)


def test_small_budget_says_enough_of_its_images(make_run: MakeRun) -> None:
    run = make_run(params={"data.images_per_class": "20"}, tags=MNIST | {"tandem.budget": "small"})
    assert our_results(document(), groups([run])).rows[0].stand_in == "small budget"


@pytest.mark.parametrize(("device", "gpu"), [("gpu", "8 CPUs, NVIDIA H200"), ("cpu", "")])
def test_row_names_a_gpu_that_has_computed(make_run: MakeRun, device: str, gpu: str) -> None:
    tags = MNIST | {"tandem.hardware": "8 CPUs, NVIDIA H200", "tandem.device": device}
    (row,) = our_results(document(), groups([make_run(tags=tags)])).rows
    assert (row.machine, row.gpu) == (f"8 CPUs, NVIDIA H200, {device}", gpu)


def test_rows_are_of_the_documents_data_sets(make_run: MakeRun) -> None:
    runs = [
        make_run(tags={"tandem.data": name, "tandem.test_hash": name}) for name in ("mnist", "digits", "vegetables")
    ]
    found = {row.name: row.data for row in our_results(document(), groups(runs)).rows}
    assert found == {"mnist: finetune torch": "MNIST"}
    found = {row.name: row.data for row in our_results(read_document("eight_datasets"), groups(runs)).rows}
    assert found == {
        "mnist: finetune torch": "MNIST",
        "vegetables: finetune torch": "Vegetable Image Dataset",
    }


def test_of_a_document_that_names_no_data_set_all_count(make_run: MakeRun) -> None:
    runs = [make_run(tags={"tandem.data": name, "tandem.test_hash": name}) for name in ("mnist", "digits")]
    assert {row.data for row in our_results(document(None), groups(runs)).rows} == {"mnist", "digits"}


@pytest.fixture
def tested(make_run: MakeRun, make_predictions: MakePredictions) -> Results:
    """scratch, frozen, finetune and two_stage, of which the second half of the images tells the first two apart."""
    shares = {"scratch": right(0.7), "frozen": right(0.9), "finetune": right(0.715), "two_stage": right(0.95)}
    runs = {
        regime: make_run(regime=regime, accuracy=sum(those) / IMAGES, tags=MNIST) for regime, those in shares.items()
    }
    final = {runs[regime].run_id: make_predictions(those) for regime, those in shares.items()}
    return our_results(document(), groups(list(runs.values()), final))


@pytest.mark.parametrize(("first", "second", "value"), [("frozen", "scratch", 0.2), ("scratch", "frozen", -0.2)])
def test_difference_is_that_of_the_paired_test(tested: Results, first: str, second: str, value: float) -> None:
    rows = {row.regime: row for row in tested.rows}
    difference = tested.difference(rows[first], rows[second])
    assert difference is not None and difference.sure and isinstance(difference.value, Estimate)
    assert difference.number == pytest.approx(value)
    assert difference.value.low < value < difference.value.high
    assert difference.value.low * difference.value.high > 0


def test_difference_within_chance_is_not_sure(tested: Results) -> None:
    rows = {row.regime: row for row in tested.rows}
    difference = tested.difference(rows["finetune"], rows["scratch"])
    assert difference is not None and not difference.sure
    correct = [row.predictions[0].predicted == row.predictions[0].truth for row in (rows["finetune"], rows["scratch"])]
    table = [[0, (correct[0] & ~correct[1]).sum()], [(~correct[0] & correct[1]).sum(), 0]]
    assert mcnemar(table, exact=False, correction=False).pvalue > 0.05
    assert difference.number == pytest.approx(0.015)


def test_what_thawing_changed_is_a_paired_test_too(make_run: MakeRun, make_predictions: MakePredictions) -> None:
    run = two_stage(make_run)
    final, first = {run.run_id: make_predictions(right(0.9))}, {run.run_id: make_predictions(right(0.5))}
    ours = our_results(document(), groups([run], final, first))
    after, before = ours.rows
    for pair, value in (((after, before), 0.4), ((before, after), -0.4)):
        difference = ours.difference(*pair)
        assert difference is not None and difference.sure
        assert difference.number == pytest.approx(value)


def test_difference_without_predictions_is_never_sure(make_run: MakeRun) -> None:
    ours = our_results(
        document(), groups([make_run(accuracy=0.1, tags=MNIST), make_run("keras", accuracy=0.9, tags=MNIST)])
    )
    difference = ours.difference(ours.rows[1], ours.rows[0])
    assert difference is not None and not difference.sure
    assert difference.value == pytest.approx(0.8)


def test_intervals_of_independent_scores_combine_as_a_hypotenuse() -> None:
    first, second = Estimate(value=0.9, low=0.87, high=0.92), Estimate(value=0.8, low=0.79, high=0.84)
    difference = combined_difference(first, second)
    assert isinstance(difference.value, Estimate)
    assert difference.number == pytest.approx(0.1)
    assert difference.value.low == pytest.approx(0.1 - 0.05)  # 3-4-5
    assert difference.value.high == pytest.approx(0.1 + math.sqrt(0.02**2 + 0.01**2))
    assert difference.sure
    assert not combined_difference(first, Estimate(value=0.88, low=0.79, high=0.9)).sure
