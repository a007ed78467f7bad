from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tandem.comparison.analysis import Analysis, analyse
from tandem.comparison.cells import Cell, group_runs
from tandem.comparison.predictions import SavedPredictions
from tandem.comparison.recommendation import recommend, thawing_sentence
from tandem.evaluation.predictions import Predictions
from tandem.tracking.reader import RunRecord

MakeRun = Callable[..., RunRecord]
Sentences = tuple[str, ...]

IMAGES = 400


def right(share: float, start: int = 0) -> list[bool]:
    return [(index - start) % IMAGES < share * IMAGES for index in range(IMAGES)]


@pytest.fixture
def recommended(make_run: MakeRun, make_predictions: Callable[..., Predictions]) -> Callable[..., Sentences]:
    """What is said of runs: framework, regime, share of right images, seconds, milliseconds, other things of a run."""

    def run(*made: tuple, unread: int = 0) -> Sentences:
        records, saved = [], {}
        for number, (framework, regime, share, seconds, milliseconds, *more) in enumerate(made):
            costs = {"cost/train_seconds": seconds, "cost/latency_milliseconds": milliseconds}
            records.append(make_run(framework, regime, share, metrics=costs, **(more[0] if more else {})))
            if number >= unread:
                saved[records[-1].run_id] = make_predictions(right(share))
        (group,), _ = group_runs(records)
        return recommend(group.cells, analyse(group.cells, SavedPredictions(final=saved)))

    return run


def starting(sentences: Sentences, start: str) -> list[str]:
    return [sentence for sentence in sentences if sentence.startswith(start)]


def test_best_alone(recommended: Callable[..., Sentences]) -> None:
    sentences = recommended(("torch", "finetune", 0.9, 60.0, 4.0), ("torch", "frozen", 0.5, 20.0, 4.0))
    assert sentences[0].startswith("The most accurate is finetune torch: 0.9000 (95 % interval 0.8")
    assert sentences[0].endswith("; all others are significantly less accurate.")
    assert not starting(sentences, "As good") + starting(sentences, "None of")


def test_best_with_a_cheaper_one_tied(recommended: Callable[..., Sentences]) -> None:
    sentences = recommended(("torch", "finetune", 0.9, 60.0, 4.0), ("torch", "frozen", 0.8925, 20.0, 5.0))
    assert sentences[0].endswith("; statistically tied with it: frozen torch.")
    assert sentences[1:3] == (
        "As good, as far as these images can tell, and the fastest to train is frozen torch: 20.0 s against 60.0 s.",
        "None of those tied with it is faster to predict one image: 4.0 ms.",
    )


def test_times_of_unlike_hardware_are_not_compared(recommended: Callable[..., Sentences]) -> None:
    other = {"tags": {"tandem.hardware": "H200"}}
    sentences = recommended(
        ("torch", "finetune", 0.9, 60.0, 4.0),
        ("torch", "frozen", 0.8925, 20.0, 1.0, other),
        ("torch", "two_stage", 0.5, 90.0, 1.0, other),
    )
    assert "statistically tied with it: frozen torch (hardware H200)" in sentences[0]
    assert not starting(sentences, "As good") + starting(sentences, "None of")
    # The frozen one, on the same machine, is what the third is worse than.
    (avoided,) = starting(sentences, "Avoid")
    assert avoided.startswith("Avoid two_stage torch (hardware H200): frozen torch (hardware H200) is significantly")


def test_slower_and_significantly_worse_is_to_be_avoided(recommended: Callable[..., Sentences]) -> None:
    sentences = recommended(("torch", "finetune", 0.9, 60.0, 4.0), ("torch", "two_stage", 0.7, 80.0, 4.0))
    assert starting(sentences, "Avoid") == [
        "Avoid two_stage torch: finetune torch is significantly more accurate (0.9000 against 0.7000) after 60.0 s of "
        "training, no more than its 80.0 s."
    ]


def test_faster_and_significantly_worse_is_a_choice(recommended: Callable[..., Sentences]) -> None:
    sentences = recommended(("torch", "finetune", 0.9, 60.0, 4.0), ("torch", "frozen", 0.7, 20.0, 4.0))
    assert not starting(sentences, "Avoid")


def test_negative_transfer_is_to_be_avoided(recommended: Callable[..., Sentences]) -> None:
    sentences = recommended(("torch", "scratch", 0.8, 60.0, 4.0), ("torch", "frozen", 0.6, 20.0, 4.0))
    (sentence,) = starting(sentences, "Avoid")
    assert sentence.startswith(
        "Avoid frozen torch: pretraining made it significantly worse than scratch torch (-0.2000, "
    )


def test_transfer_that_may_be_chance_is_not_called_negative(recommended: Callable[..., Sentences]) -> None:
    sentences = recommended(("torch", "scratch", 0.80, 60.0, 4.0), ("torch", "frozen", 0.795, 20.0, 4.0))
    assert not starting(sentences, "Avoid")


def test_frameworks_that_differ_are_counted(recommended: Callable[..., Sentences]) -> None:
    sentences = recommended(
        ("torch", "finetune", 0.9, 60.0, 4.0),
        ("keras", "finetune", 0.7, 60.0, 4.0),
        ("torch", "frozen", 0.8, 60.0, 4.0),
        ("keras", "frozen", 0.8, 60.0, 4.0),
    )
    assert starting(sentences, "Keras and PyTorch") == [
        "Keras and PyTorch differ significantly in accuracy in 1 of 2 pairs: Keras is better in 0, PyTorch in 1."
    ]


def test_what_the_data_cannot_tell(recommended: Callable[..., Sentences]) -> None:
    sentences = recommended(
        ("torch", "finetune", 0.90, 60.0, 4.0),
        ("torch", "two_stage", 0.8925, 60.0, 4.0),
        ("torch", "frozen", 0.50, 20.0, 4.0),
    )
    assert "These test images cannot tell 1 of 3 pairs apart." in sentences
    assert "Tests with one run a row speak of two trained networks, not of two methods: add seeds." in sentences
    # 3 images: even if one run were right on all of them, p would be above 0.05.
    assert starting(sentences, "With 400 test images") == [
        "With 400 test images, of which the two best rows disagree on 0.8%, no difference between the two could be "
        "relied on to be found."
    ]


def test_smallest_difference_that_can_be_found(recommended: Callable[..., Sentences]) -> None:
    sentences = recommended(("torch", "finetune", 0.90, 60.0, 4.0), ("torch", "two_stage", 0.87, 60.0, 4.0))
    # 400 d^2 = (1.96 sqrt(0.03) + 0.8416 sqrt(0.03 - d^2))^2 for d = 0.0242, by hand
    assert starting(sentences, "With 400 test images") == [
        "With 400 test images, of which the two best rows disagree on 3.0%, a difference in accuracy has to be 0.0242 "
        "to be found in four of five such test sets, and larger where many rows are compared."
    ]


def test_several_seeds_are_not_asked_for_seeds(recommended: Callable[..., Sentences]) -> None:
    sentences = recommended(
        *(("torch", "finetune", 0.9, 60.0, 4.0, {"seed": seed}) for seed in (0, 1)),
        ("torch", "frozen", 0.5, 20.0, 4.0),
    )
    assert not starting(sentences, "Tests with one run")


def test_rows_without_predictions_are_counted(recommended: Callable[..., Sentences]) -> None:
    sentences = recommended(
        ("torch", "scratch", 0.95, 60.0, 4.0),
        ("torch", "finetune", 0.9, 60.0, 4.0),
        ("torch", "frozen", 0.5, 20.0, 4.0),
        unread=1,
    )
    assert sentences[0].startswith("The most accurate is finetune torch")
    assert sentences[-1] == "Nothing of this speaks of 1 rows without intervals, 1 of which have a higher accuracy."


def test_without_predictions_the_best_may_be_chance(recommended: Callable[..., Sentences]) -> None:
    made = (("torch", "finetune", 0.9, 60.0, 4.0), ("torch", "frozen", 0.5, 20.0, 4.0))
    assert recommended(*made, unread=2) == (
        "The highest accuracy has finetune torch: 0.9000. Without predictions of two or more rows it cannot be said "
        "whether that is chance.",
    )


def test_one_row_is_compared_with_nothing(recommended: Callable[..., Sentences]) -> None:
    assert recommended(("torch", "finetune", 0.9, 60.0, 4.0)) == (
        "There is nothing to compare finetune torch with: train another backbone, regime or framework.",
    )


@pytest.fixture
def thawed(make_run: MakeRun) -> Callable[..., list[Cell]]:
    def make(*pairs: tuple[float, float, float, float]) -> list[Cell]:
        runs = [
            make_run(
                framework,
                "two_stage",
                after,
                metrics={
                    "phase_1/test/accuracy": before,
                    "phase_1/cost/train_seconds": first,
                    "cost/train_seconds": seconds,
                },
            )
            for framework, (before, after, first, seconds) in zip(("torch", "keras"), pairs, strict=False)
        ]
        (group,), _ = group_runs(runs)
        return list(group.cells)

    return make


def test_thawing_says_how_much_and_how_long(thawed: Callable[..., list[Cell]]) -> None:
    cells = thawed((0.80, 0.805, 10.0, 30.0), (0.70, 0.90, 10.0, 12.0))
    assert thawing_sentence(cells, Analysis()) == (
        "Thawing changed accuracy by +0.0050 to +0.2000 for 1.2 to 3.0 times the training time: within 1 % in 1 of 2."
    )


def test_thawing_says_what_is_significant(
    thawed: Callable[..., list[Cell]], make_predictions: Callable[..., Predictions]
) -> None:
    cells = thawed((0.50, 0.90, 10.0, 30.0), (0.9, 0.5, 10.0, 30.0))
    before, after = np.array(right(0.5)), np.array(right(0.9))
    ids = [cell.runs[0].run_id for cell in cells]
    saved = SavedPredictions(
        final={ids[0]: make_predictions(after), ids[1]: make_predictions(before)},
        first_phase={ids[0]: make_predictions(before), ids[1]: make_predictions(after)},
    )
    assert thawing_sentence(cells, analyse(cells, saved)) == (
        "Thawing changed accuracy by -0.4000 to +0.4000 for 3.0 times the training time: within 1 % in 0 of 2, "
        "significantly better in 1, significantly worse in 1."
    )
