from __future__ import annotations

import numpy as np

from tandem.evaluation.agreement import agreement


def test_images_that_all_or_all_but_one_get_wrong_by_hand() -> None:
    truth = np.array([0, 1, 2, 0, 1])
    found = agreement(truth, [np.array([0, 1, 0, 1, 2]), np.array([0, 2, 0, 1, 1]), np.array([0, 0, 1, 0, 1])])
    assert found.all_wrong.tolist() == [2]
    assert [own.tolist() for own in found.only_right] == [[1], [], [3]]


def test_images_agree_with_a_loop_over_them() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 200)
    predicted = [random.integers(0, 3, 200) for _ in range(4)]
    all_wrong: list[int] = []
    only_right: list[list[int]] = [[], [], [], []]
    for image in range(200):
        right = [run for run in range(4) if predicted[run][image] == truth[image]]
        if not right:
            all_wrong.append(image)
        elif len(right) == 1:
            only_right[right[0]].append(image)
    found = agreement(truth, predicted)
    assert found.all_wrong.tolist() == all_wrong
    assert [own.tolist() for own in found.only_right] == only_right
    assert all_wrong
    assert all(only_right)


def test_single_run_is_alone_right_on_all_that_it_gets_right() -> None:
    found = agreement(np.array([0, 1, 1]), [np.array([0, 0, 1])])
    assert found.all_wrong.tolist() == [1]
    assert found.only_right[0].tolist() == [0, 2]
