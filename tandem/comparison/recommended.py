"""The run that a comparison recommends."""

from __future__ import annotations

from collections.abc import Sequence

from tandem.comparison.comparison import Comparison, GroupComparison
from tandem.comparison.rows import Row
from tandem.errors import UserError
from tandem.evaluation.ties import highest
from tandem.tracking.reader import RunRecord


def recommended_row(group: GroupComparison) -> Row:
    """The row that the first sentence of a group's recommendation names: the most accurate one."""
    analysis = group.analysis
    if len(analysis.tested) >= 2:
        return analysis.ranking[0]
    best = highest(analysis.rows, lambda row: row.accuracy)
    assert best is not None
    return best


def recommended_run(comparison: Comparison, experiment: str) -> tuple[GroupComparison, RunRecord]:
    """The first run, in the order of the seeds, of the recommended row.

    Its test scores do not decide among the runs of the row, since the best of several is best by chance, too.

    Raises:
        UserError: There are no results, or results on several sets of test images.
    """
    if not comparison.groups:
        raise UserError(f"experiment {experiment!r} has no finished run with results on test images")
    if len(comparison.groups) > 1:
        raise UserError(
            f"experiment {experiment!r} has runs on {len(comparison.groups)} sets of test images, each with a "
            f"recommendation of its own; give one of these: {_best_of_each(comparison.groups)}"
        )
    group = comparison.groups[0]
    return group, recommended_row(group).configuration.runs[0]


def _best_of_each(groups: Sequence[GroupComparison]) -> str:
    return ", ".join(
        f"runs:/{recommended_row(each).configuration.runs[0].run_id} ({each.group.name})" for each in groups
    )
