"""Numbers of a whole run in MLflow: what people chart, sort or filter by is a metric, all else is in tags.

MLflow draws a chart of each metric of a run in the order of their names, costs and scores before the losses. The other
numbers are JSON in a tag per phase, which arrives with the run itself: reading them needs no further request.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping

from mlflow.entities import Run as MlflowRun

from tandem.errors import UserError
from tandem.tracking import vocabulary
from tandem.tracking.journal import encode_values

_WHOLE_RUN = "run"  # heading of the column of numbers that belong to no phase


class Numbers:
    """Numbers that a run has logged."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        """By the names of the vocabulary."""

    def add(self, values: Mapping[str, float]) -> tuple[dict[str, float], dict[str, str]]:
        """Adds numbers; those that are known stay as they are.

        Returns:
            What MLflow has to be sent: metrics, and tags with the whole of their new content.
        """
        new = {name: float(value) for name, value in values.items() if name not in self.values}
        self.values |= new
        metrics = {name: value for name, value in new.items() if is_charted(name)}
        scopes = {_split(name)[0] for name in new if name not in metrics}
        return metrics, {tag: text for tag, text in _tags(self.values).items() if _scope(tag) in scopes}

    def restore(self, tags: Mapping[str, str], run_id: str) -> None:
        """Adds the numbers in tags that the run has set before."""
        self.values |= _numbers_in(tags, run_id)

    def table(self) -> str:
        """All numbers as CSV: one row per name, one column for the whole run and for each phase."""
        rows: dict[str, dict[str, float]] = {}
        for name, value in self.values.items():
            scope, rest = _split(name)
            rows.setdefault(rest, {})[scope or _WHOLE_RUN] = value
        found = {scope for row in rows.values() for scope in row}
        scopes = [_WHOLE_RUN, *sorted(found - {_WHOLE_RUN})]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("number", *scopes))
        writer.writerows((name, *(rows[name].get(scope) for scope in scopes)) for name in sorted(rows))
        return text.getvalue()


def is_charted(name: str) -> bool:
    """True if a number is a metric in MLflow, False if it is in a tag."""
    scope, rest = _split(name)
    if scope in vocabulary.STATISTICS:
        return rest in vocabulary.CHARTED
    return name in vocabulary.CHARTED


def read_numbers(run: MlflowRun) -> dict[str, float]:
    """All numbers of a run: the last value of each metric, and what it has in tags, which are newer.

    Runs of version 0.2.0 and earlier have metrics only.

    Raises:
        UserError: Somebody changed such a tag into something else.
    """
    return run.data.metrics | _numbers_in(run.data.tags, run.info.run_id)


def _numbers_in(tags: Mapping[str, str], run_id: str) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for tag, text in tags.items():
        if not tag.startswith(vocabulary.NUMBERS):
            continue
        prefix = f"{scope}/" if (scope := _scope(tag)) else ""
        try:
            numbers |= {f"{prefix}{name}": float(value) for name, value in json.loads(text).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"the tag {tag} of the run {run_id} is damaged: received {text[:80]!r}, expected a JSON object of "
                "numbers by name; remove the tag in the MLflow UI to read the run without these numbers"
            ) from error
    return numbers


def without_numbers(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that hold no numbers."""
    return {tag: text for tag, text in tags.items() if not tag.startswith(vocabulary.NUMBERS)}


def tags_with(run: MlflowRun, values: Mapping[str, float]) -> dict[str, str]:
    """The changed tags of a finished run that gets more numbers, in place of those of the same names."""
    before = run.data.tags
    tags = _tags(_numbers_in(before, run.info.run_id) | dict(values))
    return {tag: text for tag, text in tags.items() if before.get(tag) != text}


def _tags(values: Mapping[str, float]) -> dict[str, str]:
    contents: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        if not is_charted(name):
            scope, rest = _split(name)
            contents.setdefault(scope, {})[rest] = value
    return {
        f"{vocabulary.NUMBERS}.{scope}" if scope else vocabulary.NUMBERS: json.dumps(encode_values(content))
        for scope, content in contents.items()
    }


def _scope(tag: str) -> str:
    return tag.removeprefix(vocabulary.NUMBERS).removeprefix(".")


def _split(name: str) -> tuple[str, str]:
    """Scope and rest of a name: ("phase_1", "cost/epochs"), ("", "cost/epochs")."""
    scope, _, rest = name.partition("/")
    return (scope, rest) if "/" in rest else ("", name)
