from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from tandem.comparison.analysis import Analysis, Best, Undecided, analyse
from tandem.comparison.configurations import group_runs
from tandem.comparison.predictions import SavedPredictions
from tandem.comparison.recommendation import recommend, thawing_sentence
from tandem.comparison.rows import Pair
from tandem.evaluation.predictions import Predictions
from tandem.rendering.tables import Estimate
from tests.compared import MakePredictions, MakeRun, right_images
from tests.comparison.made_rows import difference, pair, row

Sentences = tuple[str, ...]

right = partial(right_images, images=400)
many = partial(right_images, images=4000)  # enough to show that two rows are as good as each other
ESTIMATE = Estimate(value=0.5, low=0.4, high=0.6)
PREDICTIONS = Predictions(
    keys=("a",),
    hashes=("a",),
    truth=np.zeros(1, np.int64),
    probabilities=np.ones((1, 1), np.float32),
    classes=("a",),
)


@pytest.fixture
def recommended(make_run: MakeRun, make_predictions: MakePredictions) -> Callable[..., Sentences]:
    """Recommends from framework, regime, share of right images, seconds, milliseconds and other values of a run."""

    def run(*made: tuple, unread: int = 0, margin: float = 0.01, images: int = 400) -> Sentences:
        records, saved = [], {}
        for number, (framework, regime, share, seconds, milliseconds, *more) in enumerate(made):
            costs = {"cost/train_seconds": seconds, "cost/latency_milliseconds": milliseconds}
            records.append(make_run(framework, regime, share, **{"metrics": costs, **(more[0] if more else {})}))
            if number >= unread:
                saved[records[-1].run_id] = make_predictions(right_images(share, images=images))
        (group,), _ = group_runs(records)
        return recommend(analyse(group.configurations, SavedPredictions(final=saved), margin))

    return run


def starting(sentences: Sentences, start: str) -> list[str]:
    return [sentence for sentence in sentences if sentence.startswith(start)]


def test_best_row_alone(recommended: Callable[..., Sentences]) -> None:
    sentences = recommended(("torch", "finetune", 0.9, 60.0, 4.0), ("torch", "frozen", 0.5, 20.0, 4.0))
    assert sentences[0].startswith("The most accurate is finetune torch: 0.900 (95 % interval 0.8")
    assert sentences[0].endswith("; all others are significantly less accurate.")
    assert "quivalent to it" not in " ".join(sentences) and not starting(sentences, "These images cannot tell")


def test_cheaper_row_that_is_equivalent(recommended: Callable[..., Sentences]) -> None:
    made = (("torch", "finetune", 0.9, 60.0, 4.0), ("torch", "frozen", 0.899, 8.0, 5.0))
    sentences = recommended(*made, images=4000)
    # Both get right what the slower one gets right, but for 4 images, p = 2 * 0.0228 = 0.0455.
    assert sentences[0].endswith("); all others are significantly less accurate.")
    assert sentences[1:4] == (
        "Equivalent to it within one point of accuracy: frozen torch.",
        "frozen torch is equivalent within one point and trains 7.5 times faster: 8.0 s against 60.0 s.",
        "No row equivalent to it predicts faster: 4.0 ms.",
    )
    assert not starting(sentences, "Avoid")


def test_cheaper_row_that_may_be_worse_is_not_called_as_good(recommended: Callable[..., Sentences]) -> None:
    made = (("torch", "finetune", 0.9, 60.0, 4.0), ("torch", "frozen", 0.8925, 8.0, 1.0))
    sentences = recommended(*made)
    # 3 of 400 images that only one row gets right: z = 1.7, and Tango's lower limit is 0.0075 + 0.014.
    assert sentences[0].endswith(", which allows for the choice of the best of 2 candidates).")
    assert sentences[1].startswith("These images cannot tell whether it is more accurate than frozen torch. About ")
    assert sentences[1].endswith(" test images would find a difference of one point in four of five test sets.")
    assert "equivalent to it" not in " ".join(sentences).lower() and "faster" not in " ".join(sentences)
    # With a margin of 3 points it is equivalent.
    wide = recommended(*made, margin=0.03)
    assert wide[1] == "Equivalent to it within 3 points of accuracy: frozen torch."
    assert wide[2].startswith("frozen torch is equivalent within 3 points and trains 7.5 times faster")


def test_rows_right_on_the_same_images_show_no_disagreement(recommended: Callable[..., Sentences]) -> None:
    made = (("torch", "finetune", 0.9, 60.0, 4.0), ("torch", "frozen", 0.9, 8.0, 1.0))
    sentences = recommended(*made, images=200)
    assert starting(sentences, "These images cannot tell") == [
        "These images cannot tell whether it is more accurate than finetune torch. These images show no "
        "disagreement between the best row and finetune torch."
    ]
    (sentence,) = starting(sentences, "The two most accurate rows are right on the same test images: these 200 images")
    assert "0.0000" not in sentence and "show no disagreement" in sentence


def made_rows_of(best: Best, verdicts: Sequence[str]) -> Analysis:
    """An analysis of a row `best`, and of others with these verdicts against it."""
    rows = tuple(
        replace(
            row(label, accuracy=ESTIMATE, seconds=10),
            predictions=(PREDICTIONS,),
            intervals={"accuracy": ESTIMATE},
            against_best=verdict,
        )
        for label, verdict in zip(("best", *"abc"), ("best", *verdicts), strict=False)
    )
    undecided = {one: of for one, of in zip(rows[1:], best.undecided.values(), strict=False)}
    return Analysis(rows=rows, ranking=rows, num_images=400, best=replace(best, undecided=undecided))


def test_number_of_images_is_the_largest_that_a_row_needs() -> None:
    found = [
        Undecided(disagreement=0.1, images_needed=12_345),
        Undecided(disagreement=0.2, images_needed=2_000),
        Undecided(disagreement=0.2, images_needed=None),
    ]
    best = Best(
        num_candidates=4,
        interval=None,
        disagreement=0.1,
        detectable=0.05,
        undecided={row(str(number)): one for number, one in enumerate(found)},
    )
    sentences = recommend(made_rows_of(best, ["undecided"] * 3))
    assert sentences[0] == (
        "The most accurate is best: 0.50 (95 % interval 0.40 to 0.60, which does not allow for the choice of the "
        "best of 4 candidates)."
    )
    assert sentences[1] == (
        "These images cannot tell whether it is more accurate than a, b, c. About 12,000 test images would find a "
        "difference of one point in four of five test sets. More images alone would not settle this for c: add seeds."
    )


def test_times_on_different_hardware_are_not_compared(recommended: Callable[..., Sentences]) -> None:
    other = {"tags": {"tandem.hardware": "H200"}}
    sentences = recommended(
        ("torch", "finetune", 0.9, 60.0, 4.0),
        ("torch", "frozen", 0.8925, 20.0, 1.0, other),
        ("torch", "two_stage", 0.5, 90.0, 1.0, other),
        margin=0.03,
    )
    assert "Equivalent to it within 3 points of accuracy: frozen torch (hardware H200)." in sentences
    assert "faster" not in " ".join(sentences)
    # The frozen row ran on the same machine.
    (avoided,) = starting(sentences, "Avoid")
    assert avoided.startswith("Avoid two_stage torch (hardware H200): frozen torch (hardware H200) is significantly")


def test_slower_and_significantly_worse_row_is_avoided(recommended: Callable[..., Sentences]) -> None:
    sentences = recommended(("torch", "finetune", 0.9, 60.0, 4.0), ("torch", "two_stage", 0.7, 80.0, 4.0))
    assert starting(sentences, "Avoid") == [
        "Avoid two_stage torch: finetune torch is significantly more accurate (0.900 against 0.700) after 60.0 s of "
        "training, no more than its 80.0 s."
    ]


def test_faster_and_significantly_worse_row_is_not_avoided(recommended: Callable[..., Sentences]) -> None:
    sentences = recommended(("torch", "finetune", 0.9, 60.0, 4.0), ("torch", "frozen", 0.7, 20.0, 4.0))
    assert not starting(sentences, "Avoid")


def test_sixth_dominated_row_is_only_named(recommended: Callable[..., Sentences]) -> None:
    worse = [("torch", "frozen", 0.1, 80.0, 4.0, {"params": {"learning_rate": str(number)}}) for number in range(7)]
    sentences = recommended(("torch", "finetune", 0.9, 60.0, 4.0), *worse)
    assert len(starting(sentences, "Avoid frozen")) == 5
    assert starting(sentences, "Avoid, for") == [
        "Avoid, for the same reason: frozen torch (learning_rate 5), frozen torch (learning_rate 6)."
    ]


@pytest.mark.parametrize("accuracies", [(0.3, 0.1 + 0.2), (0.1 + 0.2, 0.3)])
def test_row_that_dominates_is_the_first_of_a_tie_whatever_the_last_bit(accuracies: tuple[float, float]) -> None:
    first, second = (row(name, accuracy=one, seconds=10) for name, one in zip("ab", accuracies, strict=True))
    worst = row("c", accuracy=0.1, seconds=20)
    rows = tuple(
        replace(one, predictions=(PREDICTIONS,), intervals={"accuracy": ESTIMATE}) for one in (first, second, worst)
    )
    pairs = tuple(pair(better, rows[2], difference(0.2, significant=True)) for better in rows[:2])
    best = Best(num_candidates=2, interval=None, disagreement=0.1, detectable=None, undecided={})
    (sentence,) = starting(recommend(Analysis(rows=rows, ranking=rows, pairs=pairs, best=best)), "Avoid")
    assert sentence.startswith("Avoid c: a is significantly more accurate")


def test_negative_transfer_is_avoided(recommended: Callable[..., Sentences]) -> None:
    sentences = recommended(("torch", "scratch", 0.8, 60.0, 4.0), ("torch", "frozen", 0.6, 20.0, 4.0))
    (sentence,) = starting(sentences, "Avoid")
    assert sentence.startswith(
        "Avoid frozen torch: despite its pretrained weights it is significantly less accurate than scratch torch "
    )


def test_row_is_avoided_for_one_reason(recommended: Callable[..., Sentences]) -> None:
    sentences = recommended(
        ("torch", "scratch", 0.8, 60.0, 4.0),
        ("torch", "finetune", 0.9, 60.0, 4.0),
        ("torch", "two_stage", 0.6, 80.0, 4.0),
    )
    (sentence,) = starting(sentences, "Avoid two_stage torch")
    assert "despite its pretrained weights" in sentence


def test_transfer_that_may_be_chance_is_not_called_negative(recommended: Callable[..., Sentences]) -> None:
    sentences = recommended(("torch", "scratch", 0.80, 60.0, 4.0), ("torch", "frozen", 0.795, 20.0, 4.0))
    assert not starting(sentences, "Avoid")


def test_different_frameworks_are_counted(recommended: Callable[..., Sentences]) -> None:
    sentences = recommended(
        ("torch", "finetune", 0.9, 60.0, 4.0),
        ("keras", "finetune", 0.7, 60.0, 4.0),
        ("torch", "frozen", 0.8, 60.0, 4.0),
        ("keras", "frozen", 0.8, 60.0, 4.0),
    )
    # 400 images without disagreement are enough for one pair, but not for one of two: 0.0444 * 2 > 0.05.
    (sentence,) = starting(sentences, "Accuracy of 2 pairs of Keras and PyTorch")
    assert sentence.startswith(
        "Accuracy of 2 pairs of Keras and PyTorch: Keras is significantly better in 0, PyTorch in 1; equivalent within "
        "one point 0, undecided 1. Besides the framework, these differ: published weights were trained separately, by "
        "torchvision for PyTorch, Google (TF-Slim) for Keras, with different pixel scalings; "
    )


def test_undecided_questions_are_named(recommended: Callable[..., Sentences]) -> None:
    sentences = recommended(
        ("torch", "finetune", 0.90, 60.0, 4.0),
        ("torch", "two_stage", 0.8925, 60.0, 4.0),
        ("torch", "frozen", 0.50, 20.0, 4.0),
    )
    assert (
        "Accuracy of 3 pairs of rows: significantly different 2, equivalent within one point 0, undecided 1."
        in sentences
    )
    assert "With one run per row, tests compare two trained networks, not two methods: add seeds." in sentences
    (sentence,) = starting(sentences, "The two most accurate")
    assert sentence.startswith("The two most accurate rows disagree on 0.8% of the 400 test images: a difference in ")
    assert sentence.endswith(" to be found in four of five such test sets (with 1 run each, corrected over 3 pairs).")


def test_smallest_difference_that_can_be_found(recommended: Callable[..., Sentences]) -> None:
    sentences = recommended(("torch", "finetune", 0.90, 60.0, 4.0), ("torch", "two_stage", 0.87, 60.0, 4.0))
    (sentence,) = starting(sentences, "The two most accurate")
    found = re.fullmatch(
        r"The two most accurate rows disagree on 3\.0% of the 400 test images: a difference in accuracy between them "
        r"must be at least (0\.\d{3}) to be found in four of five such test sets "
        r"\(with 1 run each, corrected over 1 pair\)\.",
        sentence,
    )
    assert found is not None
    # 400 d^2 = (1.96 sqrt(0.03) + 0.8416 sqrt(0.03 - d^2))^2 for d = 0.0242, by hand: a normal approximation with this
    # disagreement. The exact test needs a little more, and rows further apart than these disagree on more images.
    assert 0.024 < float(found[1]) <= 0.030


def test_seeds_are_asked_for_only_with_one_run_per_row(recommended: Callable[..., Sentences]) -> None:
    sentences = recommended(
        *(("torch", "finetune", 0.9, 60.0, 4.0, {"seed": seed}) for seed in (0, 1)),
        ("torch", "frozen", 0.5, 20.0, 4.0),
    )
    assert not starting(sentences, "With one run per row")


def test_rows_without_predictions_are_counted(recommended: Callable[..., Sentences]) -> None:
    sentences = recommended(
        ("torch", "scratch", 0.95, 60.0, 4.0),
        ("torch", "finetune", 0.9, 60.0, 4.0),
        ("torch", "frozen", 0.5, 20.0, 4.0),
        unread=1,
    )
    assert sentences[0].startswith("The most accurate is finetune torch")
    assert (
        sentences[-1] == "1 row has no saved predictions and is not considered here, although its accuracy is higher."
    )


def test_several_rows_without_predictions_are_counted(recommended: Callable[..., Sentences]) -> None:
    made = [("torch", regime, share, 60.0, 4.0) for regime, share in (("scratch", 0.95), ("frozen", 0.3))]
    known = [("keras", regime, share, 60.0, 4.0) for regime, share in (("scratch", 0.9), ("frozen", 0.5))]
    assert recommended(*made, *known, unread=2)[-1] == (
        "2 rows have no saved predictions and are not considered here, although 1 of them has a higher accuracy."
    )


def test_without_predictions_the_best_may_be_chance(recommended: Callable[..., Sentences]) -> None:
    made = (("torch", "finetune", 0.9, 60.0, 4.0), ("torch", "frozen", 0.5, 20.0, 4.0))
    assert recommended(*made, unread=2) == (
        "finetune torch has the highest accuracy: 0.9000. This may be chance: tests need the saved predictions of at "
        "least two rows.",
    )


def test_single_row_is_not_compared(recommended: Callable[..., Sentences]) -> None:
    assert recommended(("torch", "finetune", 0.9, 60.0, 4.0)) == (
        "Nothing to compare finetune torch with: train another backbone, regime or framework.",
    )


@pytest.fixture
def thawed(make_run: MakeRun) -> Callable[..., list[Pair]]:
    def make(
        *pairs: tuple[float, float, float, float],
        final: Sequence[Predictions] = (),
        first_phase: Sequence[Predictions] = (),
    ) -> list[Pair]:
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
        saved = SavedPredictions(
            final=dict(zip((run.run_id for run in runs), final, strict=False)),
            first_phase=dict(zip((run.run_id for run in runs), first_phase, strict=False)),
        )
        return list(analyse(group.configurations, saved).thawing)

    return make


def test_thawing_sentence_has_gains_and_times(thawed: Callable[..., list[Pair]]) -> None:
    pairs = thawed((0.80, 0.805, 10.0, 30.0), (0.70, 0.90, 10.0, 12.0))
    assert thawing_sentence(pairs) == (
        "Thawing changed accuracy by +0.0050 to +0.2000 for 1.2 to 3.0 times the training time: within 1 % in 1 of 2."
    )


@pytest.mark.parametrize(("after", "within"), [(0.57, 0), (0.5699, 1), (0.55, 0), (0.5501, 1)])
def test_gain_of_one_image_in_a_hundred_is_not_within_one_per_cent(after: float, within: int) -> None:
    """0.57 - 0.56 is 0.00999999999999990 and 0.56 - 0.55 is 0.01000000000000001: neither is below 0.01."""
    thawed = pair(row(accuracy=after), row(accuracy=0.56, after_first_phase=True))
    assert f"within 1 % in {within} of 1" in thawing_sentence([thawed])


def test_thawing_sentence_counts_significant_changes(
    thawed: Callable[..., list[Pair]], make_predictions: MakePredictions
) -> None:
    half, most = make_predictions(right(0.5)), make_predictions(right(0.9))
    pairs = thawed((0.50, 0.90, 10.0, 30.0), (0.9, 0.5, 10.0, 30.0), final=(most, half), first_phase=(half, most))
    assert thawing_sentence(pairs) == (
        "Thawing changed accuracy by -0.400 to +0.400 for 3.0 times the training time: within 1 % in 0 of 2; "
        "significantly better in 1, significantly worse in 1, equivalent in 0, undecided in 0."
    )


@pytest.fixture
def phases(make_run: MakeRun, make_predictions: MakePredictions) -> Callable[..., Sentences]:
    """Recommends from framework, regime, share of right images and seconds; of two_stage both also after phase 1."""

    def run(*made: tuple) -> Sentences:
        records, saved = [], SavedPredictions()
        for framework, regime, share, seconds, *first in made:
            metrics = {"cost/train_seconds": seconds}
            if first:
                metrics |= {"phase_1/test/accuracy": first[0], "phase_1/cost/train_seconds": first[1]}
            one = make_run(framework, regime, share, metrics=metrics)
            records.append(one)
            saved.final[one.run_id] = make_predictions(many(share))
            if first:
                saved.first_phase[one.run_id] = make_predictions(many(first[0]))
        (group,), _ = group_runs(records)
        return recommend(analyse(group.configurations, saved))

    return run


def test_first_phase_that_is_tied_with_its_thawed_network_is_enough(phases: Callable[..., Sentences]) -> None:
    sentences = phases(("torch", "two_stage", 0.87, 40.0, 0.8695, 5.4), ("torch", "scratch", 0.4, 60.0))
    assert sentences[1] == (
        "Stop two_stage torch after the first phase: equivalent within one point (0.8695 after the first phase, 0.8700 "
        "at the end), 7.4 times cheaper (5.4 s of training against 40.0 s)."
    )


def test_first_phase_that_may_be_worse_is_not_advised(phases: Callable[..., Sentences]) -> None:
    """22 of 2,000 images are the difference, 0.011, which is more than the margin."""
    sentences = phases(("torch", "two_stage", 0.87, 40.0, 0.859, 5.4), ("torch", "scratch", 0.4, 60.0))
    assert not starting(sentences, "Stop") and "quivalent to it" not in " ".join(sentences)


def test_network_that_thawing_makes_significantly_worse_is_not_thawed(phases: Callable[..., Sentences]) -> None:
    sentences = phases(("keras", "two_stage", 0.70, 40.0, 0.82, 5.4), ("keras", "finetune", 0.9, 60.0))
    (sentence,) = starting(sentences, "Do not thaw")
    assert sentence.startswith(
        "Do not thaw two_stage keras: it became significantly less accurate (0.8200 after the first phase, 0.7000 at "
        "the end, corrected p "
    )
    assert sentence.endswith("; 5.4 s of training against 40.0 s).") and not starting(sentences, "Stop")


def test_thawing_that_pays_is_not_advised_against(phases: Callable[..., Sentences]) -> None:
    sentences = phases(("torch", "two_stage", 0.87, 40.0, 0.6, 5.4), ("torch", "scratch", 0.4, 60.0))
    assert not starting(sentences, "Stop") and not starting(sentences, "Do not")
    assert "first phase" not in " ".join(sentences)


def test_first_phase_of_another_row_is_the_cheapest_of_the_tied(phases: Callable[..., Sentences]) -> None:
    sentences = phases(("torch", "finetune", 0.88, 60.0), ("torch", "two_stage", 0.87, 40.0, 0.8795, 5.4))
    assert sentences[1:3] == (
        "Equivalent to it within one point of accuracy: two_stage torch after its first phase.",
        "two_stage torch after its first phase is equivalent within one point and trains 11.1 times faster: 5.4 s "
        "against 60.0 s.",
    )


def test_first_phase_that_is_significantly_worse_than_the_best_is_not_the_cheapest(
    phases: Callable[..., Sentences],
) -> None:
    """It is tied with its own thawed network, which is significantly worse than the best as well."""
    sentences = phases(("torch", "finetune", 0.95, 60.0), ("torch", "two_stage", 0.80, 40.0, 0.80, 5.4))
    assert sentences[0].endswith("all others are significantly less accurate.")
    assert "trains fastest" not in " ".join(sentences) and len(starting(sentences, "Stop two_stage torch")) == 1


@pytest.mark.parametrize(
    ("share", "words"), [(0.8805, "though not significantly, more accurate"), (0.99, "significantly more accurate")]
)
def test_first_phase_can_be_more_accurate_than_every_row(
    phases: Callable[..., Sentences], share: float, words: str
) -> None:
    sentences = phases(("torch", "finetune", 0.88, 60.0), ("torch", "two_stage", 0.70, 40.0, share, 5.4))
    assert sentences[1] == f"two_stage torch after its first phase is {words} than it: {share:.4f}."


def test_phases_of_a_single_row_are_compared(phases: Callable[..., Sentences]) -> None:
    sentences = phases(("torch", "two_stage", 0.87, 40.0, 0.8695, 5.4))
    assert sentences[0].startswith("Nothing to compare two_stage torch with")
    assert len(starting(sentences, "Stop two_stage torch after the first phase")) == 1


def test_first_phases_without_predictions_are_no_candidates(recommended: Callable[..., Sentences]) -> None:
    first_phase = {"phase_1/test/accuracy": 0.89, "phase_1/cost/train_seconds": 1.0}
    sentences = recommended(
        ("torch", "two_stage", 0.9, 60.0, 4.0, {"metrics": {"cost/train_seconds": 60.0, **first_phase}}),
        ("torch", "scratch", 0.4, 60.0, 4.0),
    )
    assert "first phase" not in " ".join(sentences)
