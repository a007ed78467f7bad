"""Results that documents publish, beside those of an experiment's runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tandem.errors import UserError
from tandem.report.analysis import Analysis
from tandem.report.cells import Cell
from tandem.report.comparison import GroupComparison
from tandem.report.group_tables import score_of
from tandem.report.tables import Column, Table, Value, number_of
from tandem.tracking import vocabulary

DOCUMENTS_FILE = Path(__file__).with_name("published.yaml")

_SCORES = {"precision": "published precision", "recall": "published recall", "f1": "published F1"}

_NOTES = (
    "Matched by data set, backbone and regime, and by framework where the document names it; of the data set's name "
    "letters and digits count, whatever their case. A published result that leaves one of the three open matches none.",
    "Protocol and images differ, so a difference (ours minus published) is one of two studies, and no measure of what "
    "caused it; intervals are of our accuracy alone.",
)


@dataclass(frozen=True, kw_only=True)
class PublishedResult:
    """One network of a document; None is what the document does not say or what was lost.

    Args:
        data: the data set's name.
        backbone: as in Tandem's catalogue where it is there.
        regime: as in Tandem's settings where it is one of them.
        framework: torch or keras.
        accuracy: on the document's test images, 0..1.
        precision: over all classes, as the document averages it, 0..1.
        recall: the same.
        f1: the same.
        train_minutes: of all phases.
        note: what else one has to know.
    """

    backbone: str
    data: str | None = None
    regime: str | None = None
    framework: str | None = None
    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    train_minutes: float | None = None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Document:
    """What a document publishes.

    Args:
        source: who or what it is, in one sentence.
        notes: sentences on what is lost of it and where it contradicts itself.
        results: in the document's order.
    """

    name: str
    source: str
    notes: tuple[str, ...]
    results: tuple[PublishedResult, ...]


def read_document(name: str) -> Document:
    """The document of that name; raises UserError, which names them all, where there is none."""
    documents = yaml.safe_load(DOCUMENTS_FILE.read_text(encoding="utf-8"))
    if name not in documents:
        raise UserError(f"--published: received {name!r}, allowed: {', '.join(documents)}")
    found = documents[name]
    return Document(
        name=name,
        source=found["source"],
        notes=tuple(found["notes"]),
        results=tuple(PublishedResult(**result) for result in found["results"]),
    )


def published_table(document: Document, groups: Sequence[GroupComparison]) -> Table:
    """Each published result beside our cells of the same data set, backbone, regime and, if it is known, framework.

    Args:
        document: whose results these are.
        groups: of the experiment; none where it has no runs.

    Returns:
        A row for each of our cells that match a result, so that nothing unlike is averaged and none is picked; one row
        with gaps where none does. Rows with ours come first.
    """
    results = document.results
    with_framework = any(result.framework for result in results)
    scores = [name for name in _SCORES if any(getattr(result, name) is not None for result in results)]
    with_time = any(result.train_minutes is not None for result in results)
    columns = [
        Column(key="data", heading="data set"),
        Column(key="backbone", heading="backbone"),
        Column(key="regime", heading="regime"),
        *([Column(key="framework", heading="framework")] if with_framework else []),
        Column(key="accuracy_published", heading="published accuracy", kind="score"),
        *(Column(key=f"{name}_published", heading=_SCORES[name], kind="score") for name in scores),
        Column(key="row", heading="our row"),
        Column(key="accuracy", heading="our accuracy", kind="score"),
        Column(key="accuracy_difference", heading="difference", kind="difference"),
    ]
    if with_time:
        columns += [
            Column(key="train_seconds_published", heading="published training", kind="seconds"),
            Column(key="train_seconds", heading="our training", kind="seconds"),
        ]

    matched: list[tuple[Value, ...]] = []
    unmatched: list[tuple[Value, ...]] = []
    for result in results:
        start = (
            *(result.data, result.backbone, result.regime),
            *([result.framework] if with_framework else []),
            *(result.accuracy, *(getattr(result, name) for name in scores)),
        )
        seconds = None if result.train_minutes is None else result.train_minutes * 60
        ours = list(_matching(result, groups))
        for name, cell, analysis in ours:
            accuracy = score_of(cell, analysis, "accuracy")
            value = number_of(accuracy)
            difference = None if value is None or result.accuracy is None else value - result.accuracy
            times = (seconds, cell.mean(vocabulary.TRAIN_SECONDS)) if with_time else ()
            matched.append((*start, name, accuracy, difference, *times))
        if not ours:
            unmatched.append((*start, None, None, None, *((seconds, None) if with_time else ())))
    of_results = [
        f"{' '.join(filter(None, (result.data, result.backbone, result.regime)))}: {result.note}."
        for result in results
        if result.note
    ]
    return Table(
        name="published",
        title=f"Published against ours: {document.name}",
        columns=tuple(columns),
        rows=(*matched, *unmatched),
        notes=(document.source, *_NOTES, *document.notes, *of_results),
    )


def _matching(result: PublishedResult, groups: Sequence[GroupComparison]) -> Iterator[tuple[str, Cell, Analysis]]:
    """Our cells that match, with the names by which they are found in the other tables."""
    if result.data is None or result.regime is None:
        return
    for compared in groups:
        for cell in compared.group.cells:
            tags = cell.runs[0].tags
            if (
                (cell.backbone, cell.regime) == (result.backbone, result.regime)
                and _letters_and_digits(tags.get(vocabulary.DATA_NAME, "")) == _letters_and_digits(result.data)
                and result.framework in (None, tags.get(vocabulary.FRAMEWORK))
            ):
                name = cell.label if len(groups) == 1 else f"{compared.group.name}: {cell.label}"
                yield name, cell, compared.analysis


def _letters_and_digits(name: str) -> str:
    """CIFAR-10, cifar10 and "Cifar 10" are one data set."""
    return "".join(character for character in name.casefold() if character.isalnum())
