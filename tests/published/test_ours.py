from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest
from mlflow.entities import Metric
from statsmodels.stats.contingency_tables import mcnemar

from tandem.comparison.comparison import GroupComparison, compare_runs
from tandem.comparison.predictions import SavedPredictions
from tandem.evaluation.predictions import Predictions
from tandem.published.documents import Document, PublishedResult, read_document
from tandem.published.entries import Results
from tandem.published.ours import our_results
from tandem.rendering.tables import Estimate
from tandem.tracking.reader import RunRecord
from tests.compared import MakePredictions, MakeRun, right_images

IMAGES = 200
MNIST = {"tandem.data": "mnist"}
right = partial(right_images, images=IMAGES)


def document(data: str | None = "MNIST") -> Document:
    results = (PublishedResult(data=data, backbone="mobilenet_v2", regime="finetune", accuracy=0.5),)
    return Document(name="study", source="A study.", notes=(), results=results)


def groups(
    runs: Sequence[RunRecord],
    final: dict[str, Predictions] | None = None,
    first_phase: dict[str, Predictions] | None = None,
) -> tuple[GroupComparison, ...]:
    saved = SavedPredictions(final=final or {}, first_phase=first_phase or {})
    return compare_runs(runs, lambda _: saved).groups


def two_stage(make_run: MakeRun) -> RunRecord:
    phase_1 = {"test/accuracy": 0.5, "cost/train_seconds": 20.0, "cost/epochs": 3.0, "cost/best_epoch": 1.0}
    phase_1 |= {"test/precision_macro": 0.45, "test/log_loss": 0.7}
    return make_run(
        regime="two_stage", tags=MNIST, metrics={f"phase_1/{name}": value for name, value in phase_1.items()}
    )


def test_first_phase_of_two_stage_is_a_frozen_entry(make_run: MakeRun) -> None:
    asked = []

    def history(run: RunRecord, key: str) -> list[Metric]:
        asked.append(key)
        return [Metric(key, 0.1 * step, 0, step) for step in range(5)]

    whole, first = our_results(document(), groups([two_stage(make_run)]), history).entries
    assert (whole.regime, whole.accuracy, whole.minutes) == ("two_stage", 0.9, 1.0)
    assert (first.regime, first.accuracy, first.minutes) == ("frozen", 0.5, pytest.approx(1 / 3))
    assert first.name == "two_stage torch, first phase"
    assert (first.epochs, first.best_epoch) == (3, 2)  # the second, counted from 1
    assert first.train_accuracy == first.val_accuracy == pytest.approx(0.2)  # of the third epoch
    assert first.train_loss == first.val_loss == pytest.approx(0.2)
    assert (first.precision, first.test_loss) == (0.45, 0.7)
    assert asked == ["train/accuracy", "val/accuracy", "train/loss", "val/loss"]


def test_first_phase_has_the_network_and_the_classes_of_its_run(
    make_run: MakeRun, make_predictions: MakePredictions
) -> None:
    run = two_stage(make_run)
    run = replace(run, metrics={**run.metrics, "cost/inference_images_per_second": 90.0})
    final, first = {run.run_id: make_predictions(right(0.9))}, {run.run_id: make_predictions(right(0.5))}
    _, before = our_results(document(), groups([run], final, first)).entries
    assert (before.parameters, before.milliseconds, before.images_per_second) == (2_200_000.0, 4.0, 90.0)
    assert before.evaluation_seconds == 180 / 90
    assert before.predictions[0] is not None and before.predictions[0].hashes == first[run.run_id].hashes
    # Images are right in turn, so that each class has about half of its images right.
    assert list(before.classes) == [f"class {number}" for number in range(4)]
    assert all(0.4 < scores.recall < 0.6 for scores in before.classes.values())


def test_first_phase_is_left_out_if_there_is_a_frozen_run(make_run: MakeRun) -> None:
    runs = [two_stage(make_run), make_run(regime="frozen", tags=MNIST)]
    assert [entry.name for entry in our_results(document(), groups(runs)).entries] == [
        "frozen torch",
        "two_stage torch",
    ]


def test_network_off_the_shelf_counts_by_its_accuracy_over_all_imagenet_classes(
    make_run: MakeRun, make_predictions: MakePredictions
) -> None:
    metrics = {"test/imagenet_accuracy": 0.75}
    params = {"num_test_images": str(IMAGES)}
    shelf = make_run(regime="off_the_shelf", accuracy=0.98, tags=MNIST, metrics=metrics, params=params)
    frozen = make_run(regime="frozen", accuracy=0.9, tags=MNIST, params=params)
    final = {shelf.run_id: make_predictions(right(0.98)), frozen.run_id: make_predictions(right(0.9))}
    ours = our_results(document(), groups([shelf, frozen], final))
    one, two = sorted(ours.entries, key=lambda entry: entry.regime or "", reverse=True)
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
def test_stand_in_names_its_reason(make_run: MakeRun, regime: str, tags: dict[str, str], stand_in: str) -> None:
    ours = our_results(document(), groups([make_run(regime=regime, tags=MNIST | tags)]))
    (entry,) = ours.entries
    assert entry.stand_in == stand_in
    assert entry.label == (f"{entry.name} ({stand_in})" if stand_in else f"{regime} torch")
    assert (entry in ours.without_stand_ins.entries) == (not stand_in)


@pytest.mark.parametrize(
    ("regime", "params", "stand_in"),
    [
        ("finetune", {"weights": "imagenet", "data.classes": "null", "data.images_per_class": "null"}, ""),
        ("finetune", {"data.classes": '["0", "1"]'}, "part of the images"),
        ("scratch", {"data.images_per_class": "20"}, "part of the images"),
        ("finetune", {"data.train_images_per_class": "20"}, "part of the images"),
        ("finetune", {"weights": "runs:/abc"}, "weights of an earlier run"),
        ("scratch", {"weights": "runs:/abc"}, ""),  # which scratch does not use
        ("frozen", {"weights": "runs:/abc", "data.classes": '["0"]'}, "part of the images, weights of an earlier run"),
    ],
)
def test_entry_with_other_images_or_weights_is_a_stand_in(
    make_run: MakeRun, regime: str, params: dict[str, str], stand_in: str
) -> None:
    ours = our_results(document(), groups([make_run(regime=regime, params=params, tags=MNIST)]))
    assert [entry.stand_in for entry in ours.entries] == [stand_in]
    assert bool(ours.without_stand_ins.entries) == (not stand_in)


def test_small_budget_implies_part_of_the_images(make_run: MakeRun) -> None:
    run = make_run(params={"data.images_per_class": "20"}, tags=MNIST | {"tandem.budget": "small"})
    assert our_results(document(), groups([run])).entries[0].stand_in == "small budget"


@pytest.mark.parametrize(("device", "gpu"), [("gpu", "8 CPUs, NVIDIA H200"), ("cpu", "")])
def test_entry_names_its_gpu_only_if_it_was_used(make_run: MakeRun, device: str, gpu: str) -> None:
    tags = MNIST | {"tandem.hardware": "8 CPUs, NVIDIA H200", "tandem.device": device}
    (entry,) = our_results(document(), groups([make_run(tags=tags)])).entries
    assert (entry.machine, entry.gpu) == (f"8 CPUs, NVIDIA H200, {device}", gpu)


def test_entries_are_on_the_data_sets_of_the_document(make_run: MakeRun) -> None:
    runs = [
        make_run(tags={"tandem.data": name, "tandem.test_hash": name}) for name in ("mnist", "digits", "vegetables")
    ]
    found = {entry.name: entry.data for entry in our_results(document(), groups(runs)).entries}
    assert found == {"mnist: finetune torch": "MNIST"}
    found = {entry.name: entry.data for entry in our_results(read_document("eight_datasets"), groups(runs)).entries}
    assert found == {
        "mnist: finetune torch": "MNIST",
        "vegetables: finetune torch": "Vegetable Image Dataset",
    }


def test_document_without_a_data_set_takes_all_of_ours(make_run: MakeRun) -> None:
    runs = [make_run(tags={"tandem.data": name, "tandem.test_hash": name}) for name in ("mnist", "digits")]
    assert {entry.data for entry in our_results(document(None), groups(runs)).entries} == {"mnist", "digits"}


@pytest.fixture
def tested(make_run: MakeRun, make_predictions: MakePredictions) -> Results:
    """Entries of four regimes, with significant and other differences."""
    shares = {"scratch": right(0.7), "frozen": right(0.9), "finetune": right(0.715), "two_stage": right(0.95)}
    runs = {
        regime: make_run(regime=regime, accuracy=sum(those) / IMAGES, tags=MNIST) for regime, those in shares.items()
    }
    final = {runs[regime].run_id: make_predictions(those) for regime, those in shares.items()}
    return our_results(document(), groups(list(runs.values()), final))


@pytest.mark.parametrize(("first", "second", "value"), [("frozen", "scratch", 0.2), ("scratch", "frozen", -0.2)])
def test_difference_is_that_of_the_paired_test(tested: Results, first: str, second: str, value: float) -> None:
    by_regime = {entry.regime: entry for entry in tested.entries}
    difference = tested.difference(by_regime[first], by_regime[second])
    assert difference is not None and difference.sure and isinstance(difference.value, Estimate)
    assert difference.number == pytest.approx(value)
    assert difference.value.low < value < difference.value.high
    assert difference.value.low * difference.value.high > 0


def test_difference_within_chance_is_not_sure(tested: Results) -> None:
    by_regime = {entry.regime: entry for entry in tested.entries}
    difference = tested.difference(by_regime["finetune"], by_regime["scratch"])
    assert difference is not None and not difference.sure
    runs = [by_regime[regime].predictions[0] for regime in ("finetune", "scratch")]
    correct = [run.predicted == run.truth for run in runs]
    table = [[0, (correct[0] & ~correct[1]).sum()], [(~correct[0] & correct[1]).sum(), 0]]
    assert mcnemar(table, exact=False, correction=False).pvalue > 0.05
    assert difference.number == pytest.approx(0.015)


def test_difference_to_the_first_phase_is_tested(make_run: MakeRun, make_predictions: MakePredictions) -> None:
    run = two_stage(make_run)
    final, first = {run.run_id: make_predictions(right(0.9))}, {run.run_id: make_predictions(right(0.5))}
    (group,) = groups([run], final, first)
    ours = our_results(document(), [group])
    after, before = ours.entries
    (thawing,) = group.analysis.thawing
    tested = thawing.tested["accuracy"]
    for pair, expected in (((after, before), tested), ((before, after), tested.reversed)):
        difference = ours.difference(*pair)
        assert difference is not None and difference.sure
        assert difference.value == expected.value
    assert tested.value.value == pytest.approx(0.4)


def test_difference_without_predictions_is_never_sure(make_run: MakeRun) -> None:
    ours = our_results(
        document(), groups([make_run(accuracy=0.1, tags=MNIST), make_run("keras", accuracy=0.9, tags=MNIST)])
    )
    difference = ours.difference(ours.entries[1], ours.entries[0])
    assert difference is not None and not difference.sure
    assert difference.value == pytest.approx(0.8)
