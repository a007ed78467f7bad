from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import classification_report

from tandem.errors import UserError
from tandem.evaluation.imagenet import (
    NUM_OUTPUTS,
    explain_scores,
    imagenet_classes,
    mapped_logits,
    match_classes,
    scores_over_all_outputs,
)
from tandem.evaluation.predictions import softmax

IMAGENETTE = {  # well-known outputs, typed from the class list that is published with ImageNet
    "tench": 0,
    "English_springer": 217,
    "cassette_player": 482,
    "chain_saw": 491,
    "church": 497,
    "French_horn": 566,
    "garbage_truck": 569,
    "gas_pump": 571,
    "golf_ball": 574,
    "parachute": 701,
}


def test_classes_are_in_the_order_of_the_outputs() -> None:
    classes = imagenet_classes()
    assert len(classes) == NUM_OUTPUTS
    ids = [entry.wordnet_id for entry in classes]
    assert ids == sorted(set(ids))
    assert classes[0].names == ("tench", "Tinca tinca")
    assert (classes[281].names[0], classes[999].names[0]) == ("tabby", "toilet tissue")


def test_imagenettes_classes_are_found_by_name_and_by_id() -> None:
    expected = tuple((output,) for output in IMAGENETTE.values())
    assert match_classes(list(IMAGENETTE)) == expected
    assert match_classes([name.lower().replace("_", " ") for name in IMAGENETTE]) == expected
    assert match_classes([imagenet_classes()[output].wordnet_id for output in IMAGENETTE.values()]) == expected


def test_all_classes_without_a_match_are_named_together() -> None:
    with pytest.raises(UserError) as caught:
        match_classes(["tench", "unicorn", "parashute", "crane"])
    message = str(caught.value)
    assert "3 of 4 classes" in message
    assert ": unicorn; " in message
    assert "parashute (did you mean n03888257 parachute?)" in message
    assert "crane may be n02012849 crane or n03126707 crane" in message
    assert "tench" not in message
    assert "\n" not in message


def test_name_means_the_class_with_that_usual_name() -> None:
    # n04008634 is called projectile first and missile second
    assert match_classes(["missile", "projectile"]) == ((657,), (744,))


def test_a_mapping_file_gives_classes_names_ids_and_lists(tmp_path: Path) -> None:
    file = tmp_path / "classes.yaml"
    file.write_text("ants: ant\ndogs: [n02102040, Shih-Tzu]\n")
    assert match_classes(["ants", "dogs", "tench"], str(file)) == ((310,), (217, 155), (0,))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[ant]", "does not hold a mapping"),
        ("ants: [1]", r"gives ants \[1\]"),
        ("ants: []", r"gives ants \[\]"),
        ("cats: tabby", "has the class 'cats'; the classes are ants, tench"),
        ("{", "is not YAML"),
        ("ants: " + "[" * 21 + "]" * 21, "deeper than the 20 allowed"),
        ("#" * 2_000_001, "2,000,001 characters, allowed: at most 2,000,000"),
        ("ants: ant\nants: tench", "ants: given twice"),
        ("ants: unicorn", r"ants \(unicorn\)"),
        ("ants: Tinca tinca", "ants and tench both mean n01440764 tench"),
    ],
)
def test_wrong_mapping_is_reported_in_one_line(tmp_path: Path, content: str, expected: str) -> None:
    file = tmp_path / "classes.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=expected) as caught:
        match_classes(["ants", "tench"], str(file))
    assert "\n" not in str(caught.value)


def test_missing_mapping_file_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        match_classes(["ants", "tench"], str(tmp_path / "none.yaml"))


def test_mapped_probabilities_are_the_outputs_given_that_one_of_them_is_right() -> None:
    logits = np.random.default_rng(0).normal(size=(7, NUM_OUTPUTS)).astype(np.float32)
    outputs = ((3, 8), (999,), (0,))
    of_all = softmax(logits).astype(np.float64)
    wanted = np.stack([of_all[:, [3, 8]].sum(1), of_all[:, 999], of_all[:, 0]], axis=1)
    wanted /= wanted.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax(mapped_logits(logits, outputs)), wanted, rtol=1e-5)


def answers_to_logits(answers: list[int]) -> np.ndarray:
    logits = np.zeros((len(answers), NUM_OUTPUTS), np.float32)
    logits[np.arange(len(answers)), answers] = 1
    return logits


def test_averages_are_over_all_labels_that_occur() -> None:
    # two classes, outputs 10 and 20; two of eight predictions, 500 and 600, are outside of them
    truth = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    answers = [10, 10, 10, 500, 20, 20, 10, 600]
    found = scores_over_all_outputs(answers_to_logits(answers), truth, ((10,), (20,)))
    assert found["imagenet_accuracy"] == 5 / 8
    assert found["imagenet_num_labels"] == 4
    assert found["imagenet_outside"] == 2 / 8
    # by hand: precision 3/4 and 1, recall 3/4 and 1/2, two more labels of 0
    assert found["imagenet_precision_macro"] == pytest.approx((3 / 4 + 1) / 4)
    assert found["imagenet_recall_macro"] == pytest.approx((3 / 4 + 1 / 2) / 4)
    report = classification_report(np.array([10, 20])[truth], answers, output_dict=True, zero_division=0)
    assert found["imagenet_f1_macro"] == pytest.approx(report["macro avg"]["f1-score"])


def test_each_of_a_classs_outputs_is_a_right_answer() -> None:
    found = scores_over_all_outputs(answers_to_logits([10, 11, 20, 11]), np.array([0, 0, 1, 1]), ((10, 11), (20,)))
    assert found["imagenet_accuracy"] == 3 / 4
    assert found["imagenet_outside"] == 0
    assert found["imagenet_num_labels"] == 3


def test_the_explanation_holds_the_numbers() -> None:
    found = scores_over_all_outputs(answers_to_logits([10, 500]), np.array([0, 1]), ((10,), (20,)))
    text = explain_scores(0.75, found, 2)
    assert text.startswith("Accuracy is 0.7500 among the 2 classes and 0.5000 among all 1000 ImageNet outputs: for ")
    assert "for 0.5000 of the images the highest output belongs to none of the classes" in text
    assert "over the 3 labels" in text
    assert text.endswith("is 0.3333; labels that no test image has count as 0.")
    inside = scores_over_all_outputs(answers_to_logits([10, 20]), np.array([0, 1]), ((10,), (20,)))
    assert explain_scores(1.0, inside, 2).endswith("truth or prediction, macro precision is 1.0000.")
