"""The two kinds of scores of a pretrained network with its ImageNet head, side by side."""

from __future__ import annotations

from tandem.comparison.analysis import Analysis
from tandem.comparison.cells import Group
from tandem.comparison.group_tables import score_of
from tandem.rendering.tables import Column, Table
from tandem.tracking import vocabulary


def off_the_shelf_table(group: Group, analysis: Analysis) -> Table:
    """Both kinds of scores of each network off the shelf; no rows where there is none."""
    metrics = {
        "imagenet_accuracy": Column(key="imagenet_accuracy", heading="over all 1000", kind="score"),
        "imagenet_precision_macro": Column(key="imagenet_precision_macro", heading="its macro precision", kind="score"),
        "imagenet_recall_macro": Column(key="imagenet_recall_macro", heading="recall", kind="score"),
        "imagenet_f1_macro": Column(key="imagenet_f1_macro", heading="F1", kind="score"),
        "imagenet_num_labels": Column(key="imagenet_num_labels", heading="labels", kind="number"),
        "imagenet_outside": Column(key="imagenet_outside", heading="answered outside", kind="score"),
    }
    cells = [cell for cell in group.cells if cell.mean(vocabulary.TEST_PREFIX + "imagenet_accuracy") is not None]
    return Table(
        name="off_the_shelf",
        title="Pretrained networks as they are",
        columns=(
            Column(key="row", heading="row"),
            Column(key="accuracy", heading="accuracy among the classes", kind="score"),
            *metrics.values(),
        ),
        rows=tuple(
            (
                cell.label,
                score_of(cell, analysis, "accuracy"),
                *(cell.mean(vocabulary.TEST_PREFIX + name) for name in metrics),
            )
            for cell in cells
        ),
        notes=(
            "Among the classes: the highest of the outputs that mean one of them. Over all 1000: the highest of all "
            "ImageNet outputs, which may be none of the classes. Its macro averages go over every label that occurs as "
            "truth or answer (labels); those that no test image has count as 0, which is why they can be near 0.",
        ),
    )
