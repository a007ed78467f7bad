"""Records a comparison beside the runs that it compares, and in the description of their experiment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mlflow.tracking import MlflowClient

from tandem.comparison.comparison import Comparison
from tandem.errors import UserError, one_line
from tandem.output import warn
from tandem.tracking import vocabulary
from tandem.tracking.auxiliary import auxiliary_run
from tandem.tracking.mlflow_store import explained, find_or_create_experiment
from tandem.tracking.reader import RunRecord

LONGEST_DESCRIPTION = 4000  # characters; MLflow stores 5,000 in a tag of an experiment

_BEGIN, _END = "### Recommendation of compare.py", "*End of the recommendation of compare.py*"
_HEADLINE_END = "<!-- from compare.py -->"  # of the first line; Markdown does not show it
_EARLIER_HEADLINE = re.compile(rf"^.*{re.escape(_HEADLINE_END)}\n*", re.MULTILINE)
_CLAUSE_END = re.compile(r", which |; |\. |: (?=train )")


def describe_experiment(comparison: Comparison, runs: Sequence[RunRecord], experiment: str) -> None:
    """Writes the recommendation into the experiment's description, which the MLflow UI shows above its runs.

    The UI shows its first line and, after a click, the rest. Text that a person wrote there stays. A store that cannot
    be written is a warning.

    Args:
        comparison: Of the experiment.
        runs: Of the experiment, at least one.
        experiment: Its name.
    """
    client = MlflowClient(tracking_uri=runs[0].uri)
    try:
        with explained(client.tracking_uri):
            found = client.get_experiment_by_name(experiment)
            if found is None:
                raise UserError(f"there is no experiment {experiment!r}")
            before = found.tags.get(vocabulary.DESCRIPTION, "")
            text = with_recommendation(before, headline(comparison), recommendation_text(comparison))
            if text != before:
                client.set_experiment_tag(found.experiment_id, vocabulary.DESCRIPTION, text)
    except (UserError, OSError) as error:
        warn(f"the description of the experiment {experiment} was not updated: {one_line(error)}")


def headline(comparison: Comparison) -> str:
    """The first recommendation, shortened to its first clause: the UI shows one line of about 90 characters."""
    if not comparison.groups:
        return ""
    first = comparison.groups[0]
    clause = _CLAUSE_END.split(first.recommendation[0], maxsplit=1)[0].rstrip(".")
    clause += ")" if clause.count("(") > clause.count(")") else ""
    more = len(comparison.groups) - 1
    of_group = f"{first.group.name}: " if more else ""
    others = f" {more} more below." if more else ""
    return f"{of_group}{clause}.{others}"


def recommendation_text(comparison: Comparison) -> str:
    """The recommendations of a comparison in Markdown, between the marks by which the next comparison finds them."""
    text = f"{_BEGIN}\n"
    for compared in comparison.groups:
        for sentence in (f"**{compared.group.title}**", *(f"- {one}" for one in compared.recommendation)):
            if len(text) + len(sentence) + len(_END) > LONGEST_DESCRIPTION:
                break
            text += f"\n{sentence}\n" if sentence.startswith("**") else f"{sentence}\n"
    return f"{text}\n{_END}"


def with_recommendation(description: str, first_line: str, recommendation: str) -> str:
    """A description in which the recommendation of an earlier comparison is replaced, or to which one is added.

    Args:
        description: With or without an earlier recommendation.
        first_line: Comes first.
        recommendation: Between its marks.
    """
    own = _EARLIER_HEADLINE.sub("", description)
    return f"{first_line} {_HEADLINE_END}\n\n{_with_block(own, recommendation)}"


def _with_block(description: str, recommendation: str) -> str:
    before, begin, rest = description.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        before, after = description, ""
    if before.strip():
        before = f"{before.rstrip()}\n\n"
    return before + recommendation + after


def record_comparison(runs: Sequence[RunRecord], experiment: str, page: Path) -> str:
    """Logs a comparison's page as an artifact of an auxiliary run, which the MLflow UI shows.

    Args:
        runs: The compared runs, at least one.
        experiment: The name of the experiment.
        page: The HTML file.

    Returns:
        The run's id.

    Raises:
        UserError: MLflow does not answer, or the page cannot be written there.
    """
    client = MlflowClient(tracking_uri=runs[0].uri)
    experiment_id = find_or_create_experiment(client, experiment).experiment_id
    tags = {vocabulary.COMPARISON: f"{len(runs)} runs"}
    with auxiliary_run(client, experiment_id, name="comparison", tags=tags) as run:
        run.log_artifacts([page])
    return run.id
