from __future__ import annotations

import pytest

from tandem.comparison.configurations import group_runs
from tandem.comparison.differences import differences_sentence, other_differences
from tandem.comparison.pairing import framework_pairs
from tandem.comparison.rows import Pair, Row
from tandem.tracking.reader import RunRecord
from tests.compared import MakeRun

NETWORKS = [
    "stride-2 convolutions pad both sides in torchvision, right and bottom only in Keras",
    "batch-norm epsilon is 1e-5 in torchvision, 1e-3 in Keras",
]


def pairs_of(*runs: RunRecord) -> list[Pair]:
    (group,), _ = group_runs(runs)
    rows = [Row(configuration=one) for one in group.configurations]
    return [Pair(first=keras, second=torch) for keras, torch in framework_pairs(rows)]


@pytest.mark.parametrize(
    ("regime", "of_torch", "of_keras", "clause"),
    [
        (
            "finetune",
            {"params": {"weights": "/w/a.pth"}, "tags": {"tandem.weights_origin": "sha256:1"}},
            {"params": {"weights": "/w/b.h5"}, "tags": {"tandem.weights_origin": "sha256:2"}},
            "the pretrained weights (b.h5 in keras, a.pth in torch)",
        ),
        (
            "finetune",
            {"params": {"weights": "runs:/a"}},
            {"params": {"weights": "runs:/b"}},
            "the pretrained weights (each framework has those of its own earlier runs)",
        ),
        (
            "finetune",
            {},
            {},
            "published weights were trained separately, by torchvision for PyTorch, Google (TF-Slim) for Keras, with "
            "different pixel scalings",
        ),
        ("scratch", {}, {}, "the random numbers in the backbone's initial weights"),
        ("frozen", {"seed": 0}, {"seed": 3}, "the seeds (3 and 0)"),
        ("frozen", {}, {"tags": {"tandem.hardware": "H200"}}, "hardware (H200 and 2 cores)"),
        ("frozen", {"params": {"threads": "1"}}, {"params": {"threads": "2"}}, "threads (2 and 1)"),
        ("frozen", {}, {"params": {"cache_features": "true"}}, "cache_features (true and false)"),
    ],
)
def test_everything_that_differs_besides_the_framework_is_named(
    make_run: MakeRun, regime: str, of_torch: dict, of_keras: dict, clause: str
) -> None:
    (pair,) = pairs_of(make_run("torch", regime, **of_torch), make_run("keras", regime, **of_keras))
    found = other_differences(pair)
    assert clause in found
    assert found[-2:] == NETWORKS


def test_equal_weights_are_no_difference(make_run: MakeRun) -> None:
    same = {"params": {"weights": "/w/a.bin"}, "tags": {"tandem.weights_origin": "sha256:1"}}
    (pair,) = pairs_of(make_run("torch", **same), make_run("keras", **same))
    assert other_differences(pair) == NETWORKS


def test_momentum_is_a_difference_only_where_each_network_keeps_its_own(make_run: MakeRun) -> None:
    def clauses(momentum: str) -> list[str]:
        params = {"batch_norm_momentum": momentum}
        (pair,) = pairs_of(make_run("torch", "scratch", params=params), make_run("keras", "scratch", params=params))
        return [clause for clause in other_differences(pair) if "batch-norm momentum" in clause]

    assert clauses("0.9") == []
    assert clauses("null") != []


def test_network_outside_the_catalogue_and_equal_in_everything_is_said_to_be(make_run: MakeRun) -> None:
    params = {"backbone": "small"}
    assert differences_sentence(pairs_of(make_run("torch", params=params), make_run("keras", params=params))) == (
        "Besides the framework, nothing that is recorded differs."
    )


def test_clause_of_some_pairs_names_them(make_run: MakeRun) -> None:
    params = {"backbone": "small"}
    runs = [make_run(framework, "frozen", params=params) for framework in ("torch", "keras")]
    runs += [make_run("torch", params=params), make_run("keras", params=params, seed=1)]
    assert (
        differences_sentence(pairs_of(*runs)) == "Besides the framework, these differ: the seeds (1 and 0) (finetune)."
    )


def test_long_sentence_is_cut_and_says_so(make_run: MakeRun) -> None:
    pairs = pairs_of(make_run("torch", "scratch"), make_run("keras", "scratch"))
    assert differences_sentence(pairs, most=1) == (
        "Besides the framework, these differ: the random numbers in the backbone's initial weights; and 2 more, which "
        "the table of frameworks names."
    )
