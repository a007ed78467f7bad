"""What the documents claim, judged on their own numbers and on ours by the same code."""

from __future__ import annotations

from tandem.published import (
    birds,
    cifar100_lightweight,
    eight_datasets,
    imagenette,
    mobilenet_vs_efficientnetv2,
)
from tandem.published.judging import Claim, undecided
from tandem.published.rows import Results
from tandem.rendering.tables import Column, Table

CLAIMS: dict[str, tuple[Claim, ...]] = {
    "birds": birds.CLAIMS,
    "cifar100_lightweight": cifar100_lightweight.CLAIMS,
    "eight_datasets": eight_datasets.CLAIMS,
    "imagenette": imagenette.CLAIMS,
    "mobilenet_vs_efficientnetv2": mobilenet_vs_efficientnetv2.CLAIMS,
}

_RULES = (
    "On its numbers: as they stand, since the documents give no intervals. On ours: with runs of all that the claim "
    "names, and by differences that are significant (the paired tests of the other tables; without one, the 95 % "
    "intervals combined). Of our rows with the same backbone, regime and framework the most accurate counts.",
    "Runs of a small budget or of part of the images, and those that began with random weights or an earlier run's in "
    "place of pretrained ones, decide nothing.",
    "Times are compared on the same machine only; such as differ by less than a tenth count as equal.",
    "Of several sets of our test images, such as folds, each is judged by itself, or the mean over them.",
)


def claims_table(published: Results, ours: Results) -> Table:
    """Each claim of a document, judged on its numbers and on ours; no rows where no claims of it are known."""
    nothing = None if ours.without_stand_ins.rows else undecided(_why_nothing(ours))
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
    if ours.rows:
        return f"only stand-ins on {data}: {'; '.join(sorted({row.stand_in for row in ours.rows}))}"
    return f"no runs on {data}"
