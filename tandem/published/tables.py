"""Tables of a document's published results with ours beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter

from tandem.comparison.comparison import GroupComparison
from tandem.evaluation.imagenet import letters_and_digits
from tandem.published.claims import claims_table
from tandem.published.documents import ClassScores, Document, PublishedResult
from tandem.published.entries import Entry, Results, matching, published_results
from tandem.published.ours import History, no_history, our_results
from tandem.published.summaries import (
    backbones_with_mean,
    best_accuracy,
    families_of,
    mean_accuracy,
    transfer_mark,
    transfer_pairs,
)
from tandem.rendering.tables import Column, Field, Table, Value, number_of

# Each measure that a document has becomes two columns, published and ours.
_Measure = Field[Entry]
_OUTCOMES: tuple[_Measure, ...] = (
    (Column(key="precision", heading="precision", kind="score"), attrgetter("precision")),
    (Column(key="recall", heading="recall", kind="score"), attrgetter("recall")),
    (Column(key="f1", heading="F1", kind="score"), attrgetter("f1")),
    (Column(key="test_loss", heading="test loss", kind="score"), attrgetter("test_loss")),
    (
        Column(key="train_seconds", heading="training", kind="seconds"),
        lambda entry: None if entry.minutes is None else entry.minutes * 60,
    ),
    (Column(key="epoch_seconds", heading="training per epoch", kind="seconds"), attrgetter("epoch_seconds")),
    (
        Column(key="phase_2_seconds", heading="training of phase 2", kind="seconds"),
        lambda entry: None if entry.phase_2_minutes is None else entry.phase_2_minutes * 60,
    ),
    (Column(key="evaluation_seconds", heading="evaluation", kind="seconds"), attrgetter("evaluation_seconds")),
)
_RECALL_AT_HALF: _Measure = (
    Column(key="recall_at_half", heading="our recall at 0.5", kind="score"),
    attrgetter("recall_at_half"),
)
_TRAINING: tuple[_Measure, ...] = (
    (Column(key="epochs", heading="epochs", kind="number"), attrgetter("epochs")),
    (Column(key="best_epoch", heading="best epoch", kind="number"), attrgetter("best_epoch")),
    (Column(key="train_accuracy", heading="training accuracy", kind="score"), attrgetter("train_accuracy")),
    (Column(key="val_accuracy", heading="validation accuracy", kind="score"), attrgetter("val_accuracy")),
    (Column(key="train_loss", heading="training loss", kind="score"), attrgetter("train_loss")),
    (Column(key="val_loss", heading="validation loss", kind="score"), attrgetter("val_loss")),
    (Column(key="parameters", heading="parameters", kind="amount"), attrgetter("parameters")),
)

_NOTES = (
    "Rows are matched by backbone, and by data set, regime and framework if the document names them; in names of data "
    "sets only letters and digits count, in any case.",
    "Protocol and images differ, so a difference (ours minus published) compares two studies and does not show its "
    "cause; intervals are for our scores only.",
)
_OPEN_REGIME_NOTE = (
    "Where the document does not name the regime, its result is shown beside each regime that we ran; our row names it."
)
_OPEN_DATA_NOTE = (
    "Where the document does not name the data set, its result is shown beside ours on each of our data sets; the "
    "images are different ones, so no difference is given."
)
_AVERAGES_NOTE = (
    "Our precision, recall and F1 are means over the classes; for a network off the shelf, over all labels that "
    "occur as truth or prediction."
)
_STAND_IN_NOTE = (
    "In brackets behind the name of our row: how it differs from the document's experiment. Such rows are stand-ins: "
    "they decide no claim, unless the claim is about that, and are in no mean; cached features matter to claims about "
    "time alone."
)
_EVALUATION_NOTE = "Our evaluation: the number of test images divided by the images per second of prediction."


def published_tables(
    document: Document, groups: Sequence[GroupComparison], history: History = no_history
) -> tuple[Table, ...]:
    """All tables of a document.

    Args:
        document: Its results are shown.
        groups: Of the experiment; none if it has no runs.
        history: Reads all values of a run's metric.

    Returns:
        Judged claims, single results, and if the document has them: data sets by backbones, means of families of
        backbones, pairs of scratch and frozen, classification reports, and how the networks were trained; all with ours
        beside them. Also numbers and sizes of its images if it has them.
    """
    theirs, ours = published_results(document), our_results(document, groups, history)
    made = (
        claims_table(theirs, ours),
        _family_table(theirs, ours),
        _transfer_table(theirs, ours),
        _matrix(theirs, ours),
        *_class_tables(document, ours),
        _result_table(theirs, ours),
        _training_table(theirs, ours),
        _image_table(document),
    )
    return tuple(table for table in made if table.rows)


def _result_table(theirs: Results, ours: Results) -> Table:
    """One row for each of our entries that matches a result, or one without ours; those with ours come first."""
    document, results = theirs.document, theirs.document.results
    names = _name_columns(results)
    measures = _filled(_OUTCOMES, theirs)
    ours_alone = [_RECALL_AT_HALF] if document.recall_at_half else []
    columns = (
        *(column for column, _ in names),
        Column(key="accuracy_published", heading="published accuracy", kind="score"),
        Column(key="row", heading="our row"),
        Column(key="accuracy", heading="our accuracy", kind="score"),
        Column(key="accuracy_difference", heading="difference", kind="difference"),
        *_pairs(measures),
        *(column for column, _ in ours_alone),
    )
    rows: list[tuple[Value, ...]] = []
    pairs = _paired(theirs, ours)
    for published, entry in pairs:
        value = None if entry is None else number_of(entry.accuracy)
        of_theirs = number_of(published.accuracy)
        difference = None
        if value is not None and of_theirs is not None and published.data is not None:
            difference = value - of_theirs
        label, accuracy = (None, None) if entry is None else (entry.label, entry.accuracy)
        start = *(name(published) for _, name in names), published.accuracy
        alone = [None if entry is None else value_of(entry) for _, value_of in ours_alone]
        rows.append((*start, label, accuracy, difference, *_values(measures, published, entry), *alone))
    of_results = [f"{_words(result)}: {result.note}." for result in results if result.note]
    return Table(
        name="published",
        title=f"Published against ours: {document.name}",
        columns=columns,
        rows=tuple(rows),
        notes=(
            document.source,
            *_NOTES,
            *([_AVERAGES_NOTE] if any(column.key in ("precision", "recall", "f1") for column in columns) else []),
            *([_OPEN_REGIME_NOTE] if any(result.regime is None for result in results) else []),
            *([_OPEN_DATA_NOTE] if any(result.data is None for result in results) else []),
            *([_STAND_IN_NOTE] if any(entry is not None and entry.departures for _, entry in pairs) else []),
            *([_EVALUATION_NOTE] if any(column.key == "evaluation_seconds" for column in columns) else []),
            *document.notes,
            *of_results,
        ),
    )


def _training_table(theirs: Results, ours: Results) -> Table:
    """Training of the networks, with the same rows as the table of results."""
    document = theirs.document
    names, measures = _name_columns(document.results), _filled(_TRAINING, theirs)
    return Table(
        name="published_training",
        title=f"Published training against ours: {document.name}",
        columns=(*(column for column, _ in names), Column(key="row", heading="our row"), *_pairs(measures)),
        rows=tuple(
            (
                *(name(published) for _, name in names),
                None if entry is None else entry.label,
                *_values(measures, published, entry),
            )
            for published, entry in _paired(theirs, ours)
        )
        if measures
        else (),
        notes=("Accuracies and losses are from the last epoch; the best epoch has the lowest validation loss.",),
    )


def _name_columns(results: Sequence[PublishedResult]) -> list[_Measure]:
    """Columns that identify a published result."""
    columns = [
        Column(key="data", heading="data set"),
        Column(key="backbone", heading="backbone"),
        Column(key="regime", heading="regime"),
        *([Column(key="framework", heading="framework")] if any(result.framework for result in results) else []),
    ]
    return [(column, attrgetter(column.key)) for column in columns]


def _paired(theirs: Results, ours: Results) -> list[tuple[Entry, Entry | None]]:
    """Each published entry with each of ours that matches it, then the published ones without a match."""
    matched: list[tuple[Entry, Entry | None]] = []
    unmatched: list[tuple[Entry, Entry | None]] = []
    for result, published in zip(theirs.document.results, theirs.entries, strict=True):
        found = matching(result, ours)
        matched += [(published, entry) for entry in found]
        if not found:
            unmatched.append((published, None))
    return matched + unmatched


def _filled(measures: Sequence[_Measure], theirs: Results) -> list[_Measure]:
    return [(column, of) for column, of in measures if any(of(entry) is not None for entry in theirs.entries)]


def _pairs(measures: Sequence[_Measure]) -> list[Column]:
    return [
        of_one
        for column, _ in measures
        for of_one in (
            replace(column, key=f"{column.key}_published", heading=f"published {column.heading}"),
            replace(column, heading=f"our {column.heading}"),
        )
    ]


def _values(measures: Sequence[_Measure], published: Entry, entry: Entry | None) -> list[Value]:
    return [value for _, of in measures for value in (of(published), None if entry is None else of(entry))]


def _image_table(document: Document) -> Table:
    """Numbers of images and sizes of files, in the form of our report of a data set."""
    quartiles = {"min": "min", "25_percent": "25 %", "50_percent": "50 %", "75_percent": "75 %", "max": "max"}
    return Table(
        name="published_images",
        title=f"Published images: {document.name}",
        columns=(
            Column(key="class", heading="class"),
            Column(key="train", heading="training images", kind="number"),
            Column(key="val", heading="validation images", kind="number"),
            Column(key="files", heading="training files", kind="number"),
            *(
                Column(key=f"{key}_bytes", heading=heading, kind="number")
                for key, heading in ({"mean": "mean", "std": "std"} | quartiles).items()
            ),
        ),
        rows=tuple(
            (name, of.train, of.val, of.file_count, of.mean_bytes, of.std_bytes, *of.quartiles_bytes)
            for name, of in document.images.items()
        ),
        notes=("Sizes in bytes. For ours: python -m tandem.data_report.",),
    )


def _words(result: PublishedResult) -> str:
    return " ".join(filter(None, (result.data, result.backbone, result.regime)))


def _matrix(theirs: Results, ours: Results) -> Table:
    """Accuracy by backbone and data set, for a document with several data sets; ours below each of its rows."""
    document = theirs.document
    data_sets = document.data_sets
    rows: list[tuple[Value, ...]] = []
    if len(data_sets) > 1:
        for regime, backbone in dict.fromkeys((result.regime, result.backbone) for result in document.results):
            found = {"published": theirs.of(regime=regime, backbone=backbone)}
            for entry in ours.of(regime=regime, backbone=backbone):
                words = f"ours, {entry.framework}" + (f" ({entry.stand_in})" if entry.stand_in else "")
                found[words] = (*found.get(words, ()), entry)
            for words, entries in found.items():
                values = [number_of(best_accuracy([one for one in entries if one.data == data])) for data in data_sets]
                known = [value for value in values if value is not None]
                complete = len(known) == len(data_sets) and not any(entry.stand_in for entry in entries)
                mean = sum(known) / len(known) if complete else None
                rows.append((regime, backbone, words, *values, mean))
    return Table(
        name="published_data_sets",
        title=f"Published backbones and data sets: {document.name}",
        columns=(
            Column(key="regime", heading="regime"),
            Column(key="backbone", heading="backbone"),
            Column(key="whose", heading="whose"),
            *(Column(key=data, heading=data, kind="score") for data in data_sets),
            Column(key="mean", heading="mean", kind="score"),
        ),
        rows=tuple(rows),
        notes=(
            "Accuracy on the test images; for ours with the best of several settings, and as the mean over several "
            "sets of test images, such as folds. Means only for rows with a result on each data set, and not for ours "
            "that differ from the document's experiment as named in brackets.",
        ),
    )


def _family_table(theirs: Results, ours: Results) -> Table:
    """Mean accuracy of each family of backbones over all data sets, beside the mean that the document states."""
    document = theirs.document
    full = ours.without_stand_ins
    frameworks = list(dict.fromkeys(entry.framework for entry in full.of(regime="frozen")))
    rows: list[tuple[Value, ...]] = []
    sentences = []
    if document.stated_means:
        for family, members in families_of(document, "frozen").items():
            stated = document.stated_means.get(family)
            mean = mean_accuracy(theirs, members, regime="frozen", framework=None)
            alone = [] if stated is None else backbones_with_mean(theirs, members, stated, regime="frozen")
            means = [mean_accuracy(full, members, regime="frozen", framework=one) for one in frameworks]
            rows.append((family, ", ".join(members), mean, stated, ", ".join(alone) or None, *means))
            value = number_of(mean)
            if stated is not None and value is not None:
                of_one = f", the mean of {', '.join(alone)} alone" if alone else ""
                sentences.append(f"{family}: {value:.2%} over the family; the document states {stated:.2%}{of_one}.")
    return Table(
        name="published_families",
        title=f"Published means of families of backbones: {document.name}",
        columns=(
            Column(key="family", heading="family"),
            Column(key="backbones", heading="backbones"),
            Column(key="accuracy_published", heading="mean of its rows", kind="score", better="higher"),
            Column(key="accuracy_stated", heading="stated", kind="score"),
            Column(key="stated_is", heading="is the mean of"),
            *(
                Column(key=f"accuracy_{one}", heading=f"ours, {one}", kind="score", better="higher")
                for one in frameworks
            ),
        ),
        rows=tuple(rows),
        notes=(
            *(sentence.replace("%", " %") for sentence in sentences),
            f"Frozen, over all {len(document.data_sets)} data sets; for ours only with runs on each of them.",
        ),
    )


def _transfer_table(theirs: Results, ours: Results) -> Table:
    """Pairs of scratch and frozen, most negative first, beside our pairs."""
    document = theirs.document
    ours_by_place: dict[tuple[str | None, str], list[tuple[Entry, Entry]]] = {}
    for scratch, frozen in transfer_pairs(ours):
        ours_by_place.setdefault((frozen.data, frozen.backbone), []).append((scratch, frozen))
    found = [
        (difference, scratch, frozen)
        for scratch, frozen in transfer_pairs(theirs)
        if (difference := theirs.difference(frozen, scratch)) is not None
    ]
    rows: list[tuple[Value, ...]] = []
    marks = []
    for difference, scratch, frozen in sorted(found, key=lambda one: one[0].number):
        marks.append(transfer_mark(theirs, scratch, frozen))
        start = scratch.data, scratch.backbone, scratch.accuracy, frozen.accuracy, difference.value, marks[-1]
        beside: list[tuple[Value, ...]] = []
        for our_scratch, our_frozen in ours_by_place.get((scratch.data, scratch.backbone), []):
            accuracies = number_of(our_scratch.accuracy), number_of(our_frozen.accuracy)
            own = ours.difference(our_frozen, our_scratch)
            mark = transfer_mark(ours, our_scratch, our_frozen)
            if our_frozen.stand_in or our_scratch.stand_in:
                mark = None
            beside.append((our_frozen.variant, *accuracies, None if own is None else own.value, mark))
        rows += [(*start, *own) for own in beside or [(None,) * 5]]
    negative, ties = marks.count("negative"), marks.count("tie")
    return Table(
        name="published_transfer",
        title=f"Published transfer, frozen minus scratch: {document.name}",
        columns=(
            Column(key="data", heading="data set"),
            Column(key="backbone", heading="backbone"),
            Column(key="scratch_published", heading="published scratch", kind="score"),
            Column(key="frozen_published", heading="published frozen", kind="score"),
            Column(key="difference_published", heading="difference", kind="difference"),
            Column(key="mark_published", heading="transfer"),
            Column(key="row", heading="ours"),
            Column(key="scratch", heading="our scratch", kind="score"),
            Column(key="frozen", heading="our frozen", kind="score"),
            Column(key="difference", heading="our difference", kind="difference"),
            Column(key="mark", heading="our transfer"),
        ),
        rows=tuple(rows) if len(document.data_sets) > 1 else (),
        notes=(
            f"Of {len(found)} published pairs {negative} {'is' if negative == 1 else 'are'} negative and {ties} "
            f"{'is a tie' if ties == 1 else 'are ties'}.",
            "Ours: same backbone, data set and framework; a tie is a difference that is not significant (paired "
            "tests), and nothing is said without saved predictions, or of rows that differ from the document's "
            "experiment as named in brackets.",
        ),
    )


def _class_tables(document: Document, ours: Results) -> list[Table]:
    """The document's classification reports, one table for each of our entries that matches."""
    tables: list[Table] = []
    for result in document.results:
        if not result.classes:
            continue
        entries: list[Entry | None] = [entry for entry in matching(result, ours) if entry.classes]
        for number, entry in enumerate(entries or [None], start=1):
            tables.append(_class_table(result, entry, "" if number == 1 else f"_{number}"))
    return tables


def _class_table(result: PublishedResult, entry: Entry | None, suffix: str) -> Table:
    own = {} if entry is None else {letters_and_digits(name): scores for name, scores in entry.classes.items()}
    lines: dict[str, tuple[ClassScores, ClassScores | None]] = {
        name: (scores, own.get(letters_and_digits(name))) for name, scores in result.classes.items()
    }
    complete = entry is not None and all(scores is not None for _, scores in lines.values())
    for words, average in (("macro average", False), ("weighted average", True)):
        lines[words] = (
            _average(result.classes, weighted=average),
            _average(entry.classes, weighted=average) if entry is not None and complete else None,
        )
    parts = ("precision", "recall", "f1", "support")

    def values(scores: ClassScores | None) -> tuple[Value, ...]:
        return tuple(None if scores is None else getattr(scores, part) for part in parts)

    def columns(key_suffix: str, whose: str) -> tuple[Column, ...]:
        heads = {"precision": "precision", "recall": "recall", "f1": "F1", "support": "support"}
        return tuple(
            Column(
                key=f"{part}{key_suffix}",
                heading=f"{whose} {heads[part]}",
                kind="number" if part == "support" else "score",
            )
            for part in parts
        )

    lacking = [name for name in result.classes if entry is not None and letters_and_digits(name) not in own]
    notes = ["The weighted average of recall is the accuracy; published averages are those of the rounded rows."]
    if entry is not None:
        notes.append(f"Ours: {entry.label}.")
        if lacking:
            notes.append(f"No averages of ours, because our classes lack {', '.join(lacking)}.")
    return Table(
        name=f"published_classes_{result.backbone}_{result.regime}{suffix}",
        title=f"Published classification report: {_words(result)}" + (f", and {entry.label}" if entry else ""),
        columns=(
            Column(key="class", heading="class"),
            *columns("_published", "published"),
            *(columns("", "our") if entry is not None else ()),
        ),
        rows=tuple(
            (name, *values(theirs), *(values(mine) if entry is not None else ()))
            for name, (theirs, mine) in lines.items()
        ),
        notes=tuple(notes),
    )


def _average(classes: Mapping[str, ClassScores], *, weighted: bool) -> ClassScores:
    total = sum(scores.support for scores in classes.values())
    weights = {name: scores.support / total if weighted else 1 / len(classes) for name, scores in classes.items()}

    def mean(part: str) -> float:
        return sum(weight * getattr(classes[name], part) for name, weight in weights.items())

    return ClassScores(precision=mean("precision"), recall=mean("recall"), f1=mean("f1"), support=total)
