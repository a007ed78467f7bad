from __future__ import annotations

import pytest

from tandem.protocol.parser import read_settings
from tandem.protocol.repeats import Repeat, repeats_of

FOLDS = ["--data.split", "folds", "--data.folds", "3"]


@pytest.mark.parametrize("words", [[], ["--seed", "3"], [*FOLDS, "--data.fold", "2"]])
def test_settings_of_a_single_run_have_no_repeats(words: list[str]) -> None:
    assert repeats_of(read_settings("torch", words)) == ()


def test_there_is_one_run_per_seed() -> None:
    repeats = repeats_of(read_settings("torch", ["--seeds", "[5, 0]"]))
    assert repeats == (Repeat(seed=5, fold=None), Repeat(seed=0, fold=None))


@pytest.mark.parametrize("split", ["folds", "publisher_folds"])
def test_there_is_one_run_per_fold(split: str) -> None:
    repeats = repeats_of(read_settings("keras", ["--data.split", split, "--data.folds", "3", "--seed", "7"]))
    assert repeats == tuple(Repeat(seed=7, fold=fold) for fold in range(3))


def test_there_is_one_run_per_seed_on_one_fold() -> None:
    repeats = repeats_of(read_settings("keras", [*FOLDS, "--data.fold", "1", "--seeds", "[0, 1]"]))
    assert repeats == (Repeat(seed=0, fold=1), Repeat(seed=1, fold=1))


def test_there_is_one_run_per_seed_and_fold() -> None:
    words = [*FOLDS, "--seeds", "[0, 1]"]
    repeats = repeats_of(read_settings("torch", words))
    assert {(repeat.seed, repeat.fold) for repeat in repeats} == {(s, f) for s in (0, 1) for f in (0, 1, 2)}
    assert len(repeats) == 6


def test_the_options_make_a_single_run_of_the_settings() -> None:
    words = [*FOLDS, "--seeds", "[4, 1]", "--batch_size", "8"]
    for repeat in repeats_of(read_settings("torch", words)):
        single = read_settings("torch", [*words, *repeat.options])
        assert repeats_of(single) == ()
        assert (single.seed, single.data.fold, single.batch_size) == (repeat.seed, repeat.fold, 8)
