from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.scripts.kills import kill_runs


@pytest.mark.long
@pytest.mark.timeout(900)
def test_killed_runs_continue_to_the_same_predictions_and_curves(
    in_both: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    reports = in_both(lambda framework: kill_runs(framework, 5, seed=1, during="all", folder=tmp_path / framework))
    for report in reports.values():
        assert report.problems == []
        assert report.equal == report.runs > 0
