from __future__ import annotations

import pytest

from tandem.launch.repeats import what_is_missing

LOST = (
    "1 of 3 runs ended well but are not finished in MLflow, so the mean does not include them; their warnings above "
    "say how to send the rest"
)


@pytest.mark.parametrize(
    ("failed", "num_recorded", "told"),
    [
        ([], 3, ""),
        (["seed 1"], 2, "1 of 3 runs failed, see their messages above: seed 1"),
        (["seed 1"], 3, "1 of 3 runs failed, see their messages above: seed 1"),  # it failed after the end of its run
        ([], 2, LOST),
        (["seed 1", "seed 2"], 0, f"2 of 3 runs failed, see their messages above: seed 1; seed 2; {LOST}"),
    ],
)
def test_runs_that_the_mean_does_not_include_are_named(failed: list[str], num_recorded: int, told: str) -> None:
    assert what_is_missing(3, failed, num_recorded) == told
