from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.scripts.kills import kill_runs
from tests.scripts.server_kills import kill_servers
from tests.scripts.write_kills import kill_writers
from tests.scripts.writers import KINDS


@pytest.mark.long
@pytest.mark.timeout(900)
def test_killed_runs_continue_to_the_same_predictions_and_curves(
    in_both: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    reports = in_both(lambda framework: kill_runs(framework, 5, seed=1, during="all", folder=tmp_path / framework))
    for report in reports.values():
        assert report.problems == []
        assert report.equal == report.runs > 0


@pytest.mark.long
@pytest.mark.timeout(600)
def test_files_of_killed_writers_are_written_again_with_the_same_content(tmp_path: Path) -> None:
    for kind in KINDS:
        report = kill_writers(kind, 2, seed=1, folder=tmp_path / kind)
        assert report.problems == []
        assert report.equal == report.kills == 2


@pytest.mark.long
@pytest.mark.timeout(600)
def test_points_and_files_arrive_once_on_a_server_that_is_killed_three_times(tmp_path: Path) -> None:
    report = kill_servers(tmp_path, tmp_path / "cache", 3, seed=1, curves=None, kills_per_run=3)
    assert report.problems == []
    assert report.kills == 3 and report.points > 300 and report.files > 10
