"""Claims of the documents, judged on their own numbers and on ours by the same code."""

from __future__ import annotations

from tandem.published import (
    birds,
    cifar100_lightweight,
    eight_datasets,
    imagenette,
    mobilenet_vs_efficientnetv2,
)
from tandem.published.entries import Results
from tandem.published.judging import Claim, undecided
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
    "intervals). Of our rows with the same backbone, regime and framework, the most accurate counts.",
    "Runs with a small budget or part of the images, and runs that started from random weights or those of an earlier "
    "run instead of pretrained ones, do not decide a claim.",
    "Times are compared only on the same machine; times that differ by less than a tenth count as equal.",
    "With several sets of our test images, such as folds, each is judged by itself, or their mean.",
)


def claims_table(published: Results, ours: Results) -> Table:
    """Each claim of a document, judged on its numbers and on ours; empty for a document without claims."""
    nothing = None if ours.without_stand_ins.entries else undecided(_why_nothing(ours))
    rows = []
    for claim in CLAIMS.get(published.document.name, ()):
        theirs = claim.judge(published)
        here = nothing or claim.judge(ours.without_stand_ins)
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
        notes=_RULES,
    )


def _why_nothing(ours: Results) -> str:
    data_sets = ours.document.data_sets
    data = data_sets[0] if len(data_sets) == 1 else "its data sets" if data_sets else "any data set"
    if ours.entries:
        return f"only stand-ins on {data}: {'; '.join(sorted({entry.stand_in for entry in ours.entries}))}"
    return f"no runs on {data}"
