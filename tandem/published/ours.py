"""Our runs in the form in which a document's claims are judged: entries made from the rows of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from mlflow.entities import Metric
from scipy import stats

from tandem.comparison.comparison import GroupComparison
from tandem.comparison.configurations import FIRST_PHASE, Configuration
from tandem.comparison.recorded_settings import NOT_APPLICABLE, costs_of
from tandem.comparison.rows import Row
from tandem.evaluation.intervals import LEVEL
from tandem.evaluation.metrics import per_class_table
from tandem.evaluation.predictions import Predictions
from tandem.published.departures import as_documented, departures
from tandem.published.documents import ClassScores, Document
from tandem.published.entries import Difference, Entry, Results, combined_difference
from tandem.rendering.tables import Estimate
from tandem.tracking import vocabulary
from tandem.tracking.reader import RunRecord

_REGIMES_WITH_ONE_PHASE = ("scratch", "frozen", "finetune")

History = Callable[[RunRecord, str], Sequence[Metric]]
"""Returns all values of a run's metric, in the order of its steps."""


def no_history(run: RunRecord, key: str) -> Sequence[Metric]:
    """For runs of which only the last values are known."""
    return ()


def our_results(document: Document, groups: Sequence[GroupComparison], history: History = no_history) -> Results:
    """Our entries on the document's data sets, or on all data sets if it names none.

    A two_stage row is also a frozen entry, by its first phase, unless there is a frozen row with the same backbone,
    framework and settings.

    Args:
        document: Its names of data sets are used.
        groups: Of the experiment.
        history: Reads the scores of the last epoch of a first phase.
    """
    entries: list[Entry] = []
    sources: dict[Entry, tuple[GroupComparison, Row]] = {}
    name_data = len(groups) > 1 or not document.data_sets
    # A setting in which the rows of one group differ tells them apart in all groups.
    names = tuple(dict.fromkeys(name for one in groups for name, _ in _first(one).settings))
    for compared in groups:
        rows = compared.analysis.rows
        first_phases = {pair.first: pair.second for pair in compared.analysis.thawing}
        frozen = {_twin(row.configuration) for row in rows if row.configuration.regime == "frozen"}
        for row in rows:
            tag = row.configuration.runs[0].tags.get(vocabulary.DATA_NAME, "")
            data = document.data_of(tag) if document.data_sets else compared.group.name
            if data is None:
                continue
            label = f"{compared.group.name}: {row.label}" if name_data else row.label
            entry = _entry(row, compared, document, data, label, names)
            entries.append(entry)
            sources[entry] = compared, row
            if row in first_phases and _twin(row.configuration) not in frozen:
                first_phase = _first_phase_entry(first_phases[row], entry, document, history)
                entries.append(first_phase)
                sources[first_phase] = compared, first_phases[row]

    def difference(first: Entry, second: Entry) -> Difference | None:
        (compared, one), (other, two) = sources[first], sources[second]
        # Not off the shelf: its accuracy here is over all ImageNet classes, the tested one is among its own classes.
        if compared is other and "off_the_shelf" not in (first.regime, second.regime):
            tested = compared.analysis.difference(one, two)
            if tested is not None:
                return Difference(value=tested.value, sure=tested.significant)
        if first.accuracy is None or second.accuracy is None:
            return None
        return combined_difference(first.accuracy, second.accuracy)

    return Results(document=document, published=False, entries=tuple(entries), difference=difference)


def _first(compared: GroupComparison) -> Configuration:
    return compared.group.configurations[0]


def _settings(configuration: Configuration, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Values of these settings: the group's own words for them, if its rows differ in them."""
    own = {**configuration.all_settings, **dict(configuration.settings)}
    return tuple((name, own.get(name, NOT_APPLICABLE)) for name in names)


def _entry(
    row: Row, compared: GroupComparison, document: Document, data: str, label: str, names: Sequence[str]
) -> Entry:
    """An entry of ours.

    Args:
        row: Its results.
        compared: The group of the row.
        document: The entry is compared with its experiment.
        data: The document's name of the data set.
        label: Name for people.
        names: Of the settings in which our rows differ.
    """
    configuration = row.configuration
    params = configuration.runs[0].params
    num_images = {
        part: number
        for part, name in vocabulary.NUM_IMAGES.items()
        if (number := _whole_number(params, name)) is not None
    }
    return Entry(
        data=data,
        backbone=configuration.backbone,
        regime=configuration.regime,
        framework=configuration.framework,
        test_set=compared.group.name,
        name=label,
        departures=departures(configuration, document, data if document.data_sets else None),
        as_documented=as_documented(configuration, document),
        weights_from_file=configuration.weights_kind == "file",
        **_scores(row, num_images.get("test")),
        minutes=_minutes(row, vocabulary.TRAIN_SECONDS),
        epoch_seconds=row.mean(vocabulary.SECONDS_PER_EPOCH),
        phase_2_minutes=_minutes(row, f"{vocabulary.phase_name(2)}/{vocabulary.TRAIN_SECONDS}"),
        evaluation_seconds=_evaluation_seconds(row, num_images.get("test")),
        milliseconds=row.mean(vocabulary.LATENCY_MILLISECONDS),
        images_per_second=row.mean(vocabulary.IMAGES_PER_SECOND),
        parameters=row.mean(vocabulary.PARAMETERS),
        trainable_parameters=row.mean(vocabulary.TRAINABLE_PARAMETERS),
        epochs=row.mean(vocabulary.EPOCHS),
        max_epochs=_whole_number(params, "max_epochs"),
        best_epoch=_best_epoch(configuration) if configuration.regime in _REGIMES_WITH_ONE_PHASE else None,
        train_accuracy=row.mean(vocabulary.TRAIN_ACCURACY),
        val_accuracy=row.mean(vocabulary.VAL_ACCURACY),
        train_loss=row.mean(vocabulary.TRAIN_LOSS),
        val_loss=row.mean(vocabulary.VAL_LOSS),
        image_size=_whole_number(params, "data.image_size"),
        costs=_costs(configuration),
        machine=_machine(configuration),
        split=params.get("data.split", ""),
        gpu=_gpu(configuration),
        num_images=num_images,
        classes=_class_scores(row.predictions),
        predictions=row.predictions,
        settings=_settings(configuration, names),
    )


def _scores(row: Row, num_images: int | None) -> dict[str, Estimate | float | None]:
    """Scores under the names of an entry's fields; of a network off the shelf those over all ImageNet classes.

    Documents report networks off the shelf over all ImageNet classes. A run keeps predictions among its own classes
    alone, so that the interval of this accuracy is the exact binomial one.
    """
    prefix = f"{vocabulary.TEST_PREFIX}imagenet_"
    averages = {name: f"{name}_macro" for name in ("precision", "recall", "f1")}
    over_all = row.mean(f"{prefix}accuracy")
    accuracy = row.score("accuracy") if over_all is None else over_all
    if over_all is not None and num_images is not None:
        limits = stats.binomtest(round(over_all * num_images), num_images).proportion_ci(LEVEL, method="exact")
        accuracy = Estimate(value=over_all, low=float(limits.low), high=float(limits.high))
    if row.configuration.regime == "off_the_shelf":
        return {"accuracy": accuracy, **{name: row.mean(prefix + score) for name, score in averages.items()}}
    others = {**averages, "test_loss": "log_loss", "recall_at_half": "recall_at_half"}
    return {"accuracy": accuracy, **{name: row.score(score) for name, score in others.items()}}


def _first_phase_entry(row: Row, whole: Entry, document: Document, history: History) -> Entry:
    """A frozen entry.

    The network is that of the whole run, and so are its parameters, latency and throughput.

    Args:
        row: The results after the first phase.
        whole: The entry of the whole run.
        document: The entry is compared with its experiment.
        history: All values of a metric.
    """

    def at_end(metric: str) -> float | None:
        return _at_end_of_first_phase(row.configuration, metric, history)

    configuration = replace(row.configuration, regime="frozen")
    return replace(
        whole,
        regime="frozen",
        name=f"{whole.name}, first phase",
        departures=departures(configuration, document, whole.data if document.data_sets else None),
        as_documented=as_documented(configuration, document),
        accuracy=row.score("accuracy"),
        precision=row.score("precision_macro"),
        recall=row.score("recall_macro"),
        recall_at_half=row.score("recall_at_half"),
        f1=row.score("f1_macro"),
        test_loss=row.score("log_loss"),
        minutes=_minutes(row, vocabulary.TRAIN_SECONDS),
        epoch_seconds=row.mean(vocabulary.SECONDS_PER_EPOCH),
        phase_2_minutes=None,
        trainable_parameters=row.mean(vocabulary.TRAINABLE_PARAMETERS),
        epochs=row.mean(vocabulary.EPOCHS),
        best_epoch=_best_epoch(row.configuration),
        train_accuracy=at_end(vocabulary.TRAIN_ACCURACY),
        val_accuracy=at_end(vocabulary.VAL_ACCURACY),
        train_loss=at_end(vocabulary.TRAIN_LOSS),
        val_loss=at_end(vocabulary.VAL_LOSS),
        classes=_class_scores(row.predictions),
        predictions=row.predictions,
        settings=tuple(
            (name, NOT_APPLICABLE if name == "thawed_rate_factor" else value) for name, value in whole.settings
        ),
    )


def _at_end_of_first_phase(configuration: Configuration, metric: str, history: History) -> float | None:
    """Mean over the runs; None unless all of them have the metric."""
    values = []
    for run in configuration.runs:
        last = run.metrics.get(FIRST_PHASE + vocabulary.EPOCHS, 0) - 1
        values += [one.value for one in history(run, metric) if one.step == last]
    return sum(values) / len(values) if len(values) == len(configuration.runs) else None


def _minutes(row: Row, metric: str) -> float | None:
    seconds = row.mean(metric)
    return None if seconds is None else seconds / 60


def _evaluation_seconds(row: Row, num_images: int | None) -> float | None:
    per_second = row.mean(vocabulary.IMAGES_PER_SECOND)
    return num_images / per_second if num_images and per_second else None


def _costs(configuration: Configuration) -> tuple[tuple[str, str], ...]:
    """All costs but cached features, which are a departure of their own."""
    return tuple((name, value) for name, value in costs_of(configuration.runs[0]).items() if name != "cache_features")


def _best_epoch(configuration: Configuration) -> float | None:
    from_zero = configuration.mean(FIRST_PHASE + vocabulary.BEST_EPOCH)
    return None if from_zero is None else from_zero + 1


def _whole_number(params: dict[str, str], name: str) -> int | None:
    return int(params[name]) if params.get(name, "").isdecimal() else None


def _class_scores(predictions: Sequence[Predictions]) -> dict[str, ClassScores]:
    """Means over the runs, by the name of the class."""
    if not predictions:
        return {}
    tables = [per_class_table(run).set_index("class") for run in predictions]
    mean = sum(tables[1:], start=tables[0]) / len(tables)
    return {
        str(name): ClassScores(precision=of.precision, recall=of.recall, f1=of.f1, support=int(of.support))
        for name, of in mean.iterrows()
    }


def _machine(configuration: Configuration) -> str:
    run = configuration.runs[0]
    words = run.tags.get(vocabulary.HARDWARE), run.tags.get(vocabulary.DEVICE), run.params.get("threads")
    return ", ".join(word for word in words if word)


def _gpu(configuration: Configuration) -> str:
    """The hardware if a GPU was used; the tag names the GPUs of a machine in any case."""
    tags = configuration.runs[0].tags
    return tags.get(vocabulary.HARDWARE, "") if tags.get(vocabulary.DEVICE) == "gpu" else ""


def _twin(configuration: Configuration) -> tuple:
    """Key that is equal for a frozen configuration and one of two_stage whose first phase is the same training."""
    settings = tuple(item for item in configuration.settings if item[0] != "thawed_rate_factor")
    return configuration.backbone, configuration.framework, settings, configuration.costs
