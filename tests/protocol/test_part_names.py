from __future__ import annotations

import pytest

from tandem.errors import UserError
from tandem.protocol.part_names import SEVERAL, UNLABELLED, assign_parts, kind_of, suggestion

NAMES = {
    "train": "train Train TRAIN training Training_set training-data trainset TrainData seg_train train_images "
    "img_train train2017 1_train trn train-00000-of-00004 trains Trainingsdaten pets_train_v2 learning",
    "val": "val valid Validate validation validation_set VAL dev devset development eval Evaluation vld 2-val val_imgs",
    "test": "test Testing test_set tests TEST testset holdout hold_out HeldOut tst testimages final-test",
    UNLABELLED: "pred seg_pred predictions unlabeled unlabelled test_unlabeled submission",
    SEVERAL: "trainval train_val test_dev testdev train-test-split valtest",
    None: "cat dog batch1 fold_2 images data archive terrain strain contest validator protest evaluator trainer attest "
    "devil trailer medieval retraining_ground pretrained color part1 2017",
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in NAMES.items() for name in names.split()])
def test_words_of_parts_are_recognised_and_no_others(kind: str | None, name: str) -> None:
    assert kind_of(name) == kind


def test_names_are_assigned_to_parts() -> None:
    parts, notes = assign_parts(["Training", "dev", "holdout", "unlabeled"], None, of="splits of pets")
    assert parts == {"Training": "train", "dev": "val", "holdout": "test"}
    assert notes == ("unlabeled has no labels by its name and is not used",)


def test_only_held_out_part_is_tested_on() -> None:
    parts, notes = assign_parts(["train", "validation"], None, of="splits of pets")
    assert parts == {"train": "train", "validation": "test"}
    assert notes == ("validation is used as test, since there is no other held-out part; data.parts says otherwise",)
    given = {"train": "train", "val": "validation"}
    assert assign_parts(["train", "validation"], given, of="splits of pets")[0] == {
        "train": "train",
        "validation": "val",
    }


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ["train", "extra"],
            r"splits of pets are train, extra, and extra is not understood; .*\{train: train, test: extra\}",
        ),
        (["a", "b"], r"a, b is not understood; .*\{train: a, test: b\}"),
        (["train", "valid", "dev"], "valid, dev stand for one part"),
        (["trainval", "test"], r"trainval is not understood; .*\{train: trainval, test: test\}"),
    ],
)
def test_names_that_are_not_understood_are_refused(names: list[str], words: str) -> None:
    with pytest.raises(UserError, match=rf"data\.source: .*{words}"):
        assign_parts(names, None, of="splits of pets")


def test_given_names_are_taken_and_others_left_out() -> None:
    parts, notes = assign_parts(["a", "b", "c"], {"train": "a", "test": "c"}, of="splits of pets")
    assert parts == {"a": "train", "c": "test"}
    assert notes == ("splits of pets that data.parts does not name are not used: b",)
    with pytest.raises(UserError, match=r"data\.parts: received \{test: d\}, but splits of pets are a, b, c"):
        assign_parts(["a", "b", "c"], {"train": "a", "test": "d"}, of="splits of pets")


def test_suggestion_uses_the_names_of_the_source() -> None:
    assert suggestion(["Testing", "Training", "val"]) == "{train: Training, test: Testing}"
    assert suggestion(["one"]) == "{train: one, test: NAME}"
