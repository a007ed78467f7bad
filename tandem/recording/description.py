"""The description of a run, which the MLflow UI shows above everything else on the run's page."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tandem.data.prepare import PreparedData
from tandem.evaluation.metrics import per_class_table
from tandem.evaluation.predictions import Predictions
from tandem.protocol.frameworks import LIBRARIES, Framework
from tandem.protocol.settings import Settings
from tandem.rendering.tables import format_value, supported_decimals
from tandem.tracking import vocabulary


def describe_run(
    *,
    result: str,
    framework: Framework,
    settings: Settings,
    data: PreparedData,
    predictions: Predictions,
    scores: Mapping[str, float],
    costs: Mapping[str, float],
) -> str:
    """Five lines of Markdown: result, classes, network, images, costs.

    Args:
        result: The result in one line.
        framework: That of the run.
        settings: Of the run.
        data: The images.
        predictions: Of the trained network on the test images.
        scores: Under the names of tandem.evaluation.metrics.
        costs: Under the names of the vocabulary.
    """
    table = per_class_table(predictions)
    tested = table[table["support"] > 0]
    worst = str(tested["class"].iloc[int(tested["f1"].to_numpy().argmin())])
    decimals = supported_decimals(len(predictions.keys))
    macro, lowest = (format_value(scores[name], "score", decimals) for name in ("f1_macro", "f1_min"))
    parts = ", ".join(f"{len(data.rows(part)):,} {part}" for part in vocabulary.NUM_IMAGES)
    parameters = format_value(costs[vocabulary.PARAMETERS], "amount")
    latency = format_value(costs[vocabulary.LATENCY_MILLISECONDS], "milliseconds")
    lines = (
        f"**{result}**",
        f"Macro F1 {macro}; worst-class F1 {lowest} ({_plain(worst)}).",
        f"Network: {_plain(settings.backbone)} in {LIBRARIES[framework]}, {settings.regime}, seed {settings.seed}.",
        f"Images: {_plain(data.name)}, {len(data.classes)} classes ({parts}).",
        f"Cost: {parameters} parameters, latency {latency} per image. Figures: {vocabulary.RUN_PAGE_FILE} under "
        "Artifacts.",
    )
    # two spaces end a line in Markdown
    return "  \n".join(lines)


def _plain(name: str) -> str:
    """A name in which Markdown finds no emphasis, link or HTML."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", " ".join(name.split()))
