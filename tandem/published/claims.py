"""Claims of the documents, judged on their own numbers and on ours by the same code."""

from __future__ import annotations

from dataclasses import replace

from tandem.comparison.configurations import some
from tandem.published import (
    birds,
    cifar100_lightweight,
    eight_datasets,
    imagenette,
    mobilenet_vs_efficientnetv2,
)
from tandem.published.entries import Results
from tandem.published.judging import Claim, Judgement, undecided
from tandem.rendering.tables import Column, Table

CLAIMS: dict[str, tuple[Claim, ...]] = {
    "birds": birds.CLAIMS,
    "cifar100_lightweight": cifar100_lightweight.CLAIMS,
    "eight_datasets": eight_datasets.CLAIMS,
    "imagenette": imagenette.CLAIMS,
    "mobilenet_vs_efficientnetv2": mobilenet_vs_efficientnetv2.CLAIMS,
}

_RULES = (
    "On its numbers: as they are, because the documents give no intervals. On ours: with runs for everything that the "
    "claim names, by significant differences (the paired tests of the other tables or, without one, the combined 95 % "
    "intervals). Of several rows with the same backbone, regime and framework, those count whose settings are equal or "
    "differ least and, of these, the most accurate.",
    "Rows that differ from the document's experiment in classes, images, weights or a setting that is known of it do "
    "not decide a claim, unless the claim is about that; they are marked with what differs.",
    "Times are compared only on the same machine with the same settings of speed, and only of rows that ran the "
    "backbone in every epoch; times that differ by less than a tenth count as equal.",
    "With several sets of our test images, such as folds, each is judged by itself, or their mean.",
)
_FILE_RULE = "Weights from a file count as the published ones, because nothing says what they were trained on."


def claims_table(published: Results, ours: Results) -> Table:
    """Each claim of a document, judged on its numbers and on ours; empty for a document without claims."""
    rows = []
    for claim in CLAIMS.get(published.document.name, ()):
        theirs, here = claim.judge(published), judge_ours(claim, ours)
        rows.append((claim.words, theirs.verdict, theirs.because, here.verdict, here.because))
    return Table(
        name="published_claims",
        title=f"Published claims: {published.document.name}",
        columns=(
            Column(key="claim", heading="claim"),
            Column(key="published", heading="on its numbers"),
            Column(key="published_because", heading="because"),
            Column(key="ours", heading="on ours"),
            Column(key="ours_because", heading="because"),
        ),
        rows=tuple(rows),
        notes=(*_RULES, *([_FILE_RULE] if any(entry.weights_from_file for entry in ours.entries) else [])),
    )


def judge_ours(claim: Claim, ours: Results) -> Judgement:
    """Judges a claim on our results; where some are missing, names those that were left out and why."""
    deciding = ours.deciding(despite=claim.despite, about_time=claim.about_time)
    if not deciding.entries:
        return undecided(_why_nothing(ours))
    found = claim.judge(deciding)
    left_out = [entry for entry in ours.entries if entry not in deciding.entries]
    if not found.lacking or not left_out:
        return found
    names = some([entry.label for entry in left_out])
    return replace(found, because=f"{found.because}; left out: {names}")


def _why_nothing(ours: Results) -> str:
    data_sets = ours.document.data_sets
    data = data_sets[0] if len(data_sets) == 1 else "its data sets" if data_sets else "any data set"
    if not ours.entries:
        return f"no runs on {data}"
    reasons = dict.fromkeys(", ".join(one.words for one in entry.departures) for entry in ours.entries)
    return f"only stand-ins on {data}: {some(sorted(reasons))}"
