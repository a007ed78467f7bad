"""Published results and those of our runs in one form, so that the same code judges both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mlflow.entities import Metric
from scipy import stats

from tandem.comparison.cells import ACCURACY, FIRST_PHASE, NOT_APPLICABLE, Cell, began_at_random
from tandem.comparison.comparison import GroupComparison
from tandem.comparison.group_tables import score_of, to_estimate
from tandem.evaluation.intervals import LEVEL
from tandem.evaluation.metrics import per_class_table
from tandem.evaluation.predictions import Predictions
from tandem.evaluation.significance import PairedTest
from tandem.published.documents import ClassScores, Document, PublishedResult
from tandem.rendering.tables import Estimate, format_value, number_of
from tandem.tracking import vocabulary
from tandem.tracking.reader import RunRecord

# Settings that take part of a data set; null where they take all of it.
_LIMITS_OF_IMAGES = ("data.classes", "data.images_per_class", "data.train_images_per_class")


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """What one network came to, in a document or in our runs; None is what is not known.

    Args:
        data: the data set, by the document's name where it has one.
        test_set: ours are on the same images where these are equal; empty for a published one.
        framework: torch, keras, or keras with its backend.
        name: by which our row is found in the other tables; empty for a published one.
        stand_in: why our row stands for less than it is named after, such as "small budget"; it decides nothing.
        accuracy: on the test images, 0..1.
        precision: ours the mean over the classes, as is the published one where it does not say otherwise.
        recall: the same.
        f1: the same.
        test_loss: cross entropy on the test images.
        minutes: of training, evaluation apart.
        milliseconds: to classify one image.
        parameters: of the whole network.
        epochs: how many were trained.
        max_epochs: how many may be trained in a phase.
        best_epoch: the one with the lowest validation loss, counted from 1.
        train_accuracy: of the last epoch, 0..1.
        val_accuracy: the same.
        train_loss: cross entropy of the last epoch.
        val_loss: the same.
        image_size: height and width in pixels.
        machine: times of rows are compared where these are equal.
        gpu: what names the hardware, if it is a GPU of it that has computed; empty otherwise and for a published one.
        num_images: of train and val.
        classes: by their names.
        predictions: on the test images, one a run; none for a published one.
        settings: in which our rows of one backbone, regime and framework differ.
    """

    data: str | None
    backbone: str
    regime: str | None
    framework: str | None
    test_set: str = ""
    name: str = ""
    stand_in: str = ""
    accuracy: Estimate | float | None = None
    precision: Estimate | float | None = None
    recall: Estimate | float | None = None
    f1: Estimate | float | None = None
    test_loss: Estimate | float | None = None
    minutes: float | None = None
    milliseconds: float | None = None
    parameters: float | None = None
    epochs: float | None = None
    max_epochs: int | None = None
    best_epoch: float | None = None
    train_accuracy: float | None = None
    val_accuracy: float | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    image_size: int | None = None
    machine: str = ""
    gpu: str = ""
    num_images: Mapping[str, int] = field(default_factory=dict)
    classes: Mapping[str, ClassScores] = field(default_factory=dict)
    predictions: tuple[Predictions, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """The name, and why the row stands for less than that."""
        return f"{self.name} ({self.stand_in})" if self.stand_in else self.name

    @property
    def variant(self) -> str:
        """What tells our rows of one data set, backbone and regime apart."""
        settings = [f"{name} {value}" for name, value in self.settings if value not in ("", NOT_APPLICABLE)]
        inner = ", ".join(filter(None, (self.stand_in, *settings)))
        return f"{self.framework} ({inner})" if inner else str(self.framework)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A difference of two accuracies.

    Args:
        value: the first minus the second, with its interval where there is one.
        sure: whether it is more than chance.
    """

    value: Estimate | float
    sure: bool

    @property
    def number(self) -> float:
        """The value without its interval."""
        return self.value.value if isinstance(self.value, Estimate) else self.value

    @property
    def written(self) -> str:
        """The value for people."""
        return format_value(self.value, "difference")


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """What claims are judged by.

    Args:
        document: whose claims they are.
        published: whether the rows are the document's own. Its numbers are taken as they stand: it gives no intervals.
        rows: of its data sets.
        difference: of the accuracies of two rows, None where one has none.
    """

    document: Document
    published: bool
    rows: tuple[Row, ...]
    difference: Callable[[Row, Row], Difference | None]

    @property
    def without_stand_ins(self) -> Results:
        """What can decide a claim."""
        return replace(self, rows=tuple(row for row in self.rows if not row.stand_in))

    def of(self, **wanted: str | None) -> tuple[Row, ...]:
        """The rows that have these values."""
        return tuple(row for row in self.rows if all(getattr(row, name) == value for name, value in wanted.items()))


def published_results(document: Document) -> Results:
    """The document's own rows."""
    return Results(
        document=document,
        published=True,
        rows=tuple(_published_row(result, document) for result in document.results),
        difference=_plain_difference,
    )


History = Callable[[RunRecord, str], Sequence[Metric]]


def no_history(run: RunRecord, key: str) -> Sequence[Metric]:
    """Of runs of which the last values alone are known."""
    return ()


def our_results(document: Document, groups: Sequence[GroupComparison], history: History = no_history) -> Results:
    """Our rows of the document's data sets; of all data sets where the document does not name its own.

    A run of two_stage is also a row of frozen, after its first phase, where there is no run of frozen with the same
    backbone, framework and settings.

    Args:
        document: whose data sets they are.
        groups: of the experiment.
        history: gives all values of a run's metric by its name; it is asked for what first phases ended with.
    """
    rows: list[Row] = []
    sources: dict[Row, tuple[GroupComparison, Cell]] = {}
    name_data = len(groups) > 1 or not document.data_sets
    for compared in groups:
        cells = compared.group.cells
        frozen = {_twin(cell) for cell in cells if cell.regime == "frozen"}
        for cell in cells:
            tag = cell.runs[0].tags.get(vocabulary.DATA_NAME, "")
            data = document.data_of(tag) if document.data_sets else compared.group.name
            if data is None:
                continue
            found = [_our_row(cell, compared, data, name_data=name_data)]
            first_phase = cell.regime == "two_stage" and cell.mean(FIRST_PHASE + ACCURACY) is not None
            if first_phase and _twin(cell) not in frozen:
                found.append(_first_phase_row(cell, compared, found[0], history))
            rows += found
            sources |= dict.fromkeys(found, (compared, cell))

    def difference(first: Row, second: Row) -> Difference | None:
        (compared, one), (other, two) = sources[first], sources[second]
        if compared is other:
            test = _test(first, second, one, two, compared)
            if test is not None:
                return test
        return _unpaired_difference(first, second)

    return Results(document=document, published=False, rows=tuple(rows), difference=difference)


def matching(result: PublishedResult, ours: Results) -> list[Row]:
    """Our rows with the result's backbone, and its data set, regime and framework where the document names them."""
    of_result = {"data": result.data, "regime": result.regime}
    wanted = {name: value for name, value in of_result.items() if value is not None}
    return [
        row
        for row in ours.of(backbone=result.backbone, **wanted)
        if result.framework in (None, _framework_alone(row.framework))
    ]


def accuracy_of(row: Row) -> float:
    """What rows are ordered by: the accuracy, 0 where it is not known."""
    return number_of(row.accuracy) or 0.0


def combined_difference(first: Estimate | float, second: Estimate | float) -> Difference:
    """The difference of two scores as if they had been measured on different images.

    The ends of the interval are as far from it as the root of the sum of the squares of the two scores' own distances.
    Of scores on the same images, which rise and fall together, it is too wide rather than too narrow.
    """
    if not isinstance(first, Estimate) or not isinstance(second, Estimate):
        one, two = (score.value if isinstance(score, Estimate) else score for score in (first, second))
        return Difference(value=one - two, sure=False)
    middle = first.value - second.value
    low = middle - math.hypot(first.value - first.low, second.high - second.value)
    high = middle + math.hypot(first.high - first.value, second.value - second.low)
    return Difference(value=Estimate(value=middle, low=low, high=high), sure=low > 0 or high < 0)


def _published_row(result: PublishedResult, document: Document) -> Row:
    return Row(
        data=result.data,
        backbone=result.backbone,
        regime=result.regime,
        framework=result.framework,
        accuracy=result.accuracy,
        precision=result.precision,
        recall=result.recall,
        f1=result.f1,
        test_loss=result.test_loss,
        minutes=result.train_minutes,
        parameters=result.parameters,
        epochs=result.epochs,
        best_epoch=result.best_epoch,
        train_accuracy=result.train_accuracy,
        val_accuracy=result.val_accuracy,
        train_loss=result.train_loss,
        val_loss=result.val_loss,
        image_size=document.image_size,
        classes=result.classes,
    )


def _plain_difference(first: Row, second: Row) -> Difference | None:
    one, two = number_of(first.accuracy), number_of(second.accuracy)
    return None if one is None or two is None else Difference(value=one - two, sure=one != two)


def _our_row(cell: Cell, compared: GroupComparison, data: str, *, name_data: bool) -> Row:
    seconds, params = cell.mean(vocabulary.TRAIN_SECONDS), cell.runs[0].params
    image_size, max_epochs = params.get("data.image_size", ""), params.get("max_epochs", "")
    tested = params.get(vocabulary.NUM_IMAGES["test"], "")
    num_test_images = int(tested) if tested.isdecimal() else None
    last_phase = _best_epoch(cell) if cell.regime in ("scratch", "frozen", "finetune") else None
    predictions = compared.analysis.predictions.get(cell.label, ())
    return Row(
        data=data,
        backbone=cell.backbone,
        regime=cell.regime,
        framework=cell.framework,
        test_set=compared.group.name,
        name=f"{compared.group.name}: {cell.label}" if name_data else cell.label,
        stand_in=_stand_in(cell),
        accuracy=_over_all_outputs(cell, num_test_images) or score_of(cell, compared.analysis, "accuracy"),
        **_other_scores(cell, compared),
        minutes=None if seconds is None else seconds / 60,
        milliseconds=cell.mean(vocabulary.LATENCY_MILLISECONDS),
        parameters=cell.mean(vocabulary.PARAMETERS),
        epochs=cell.mean(vocabulary.EPOCHS),
        max_epochs=int(max_epochs) if max_epochs.isdecimal() else None,
        best_epoch=last_phase,
        train_accuracy=cell.mean(vocabulary.TRAIN_ACCURACY),
        val_accuracy=cell.mean(vocabulary.VAL_ACCURACY),
        train_loss=cell.mean(vocabulary.TRAIN_LOSS),
        val_loss=cell.mean(vocabulary.VAL_LOSS),
        image_size=int(image_size) if image_size.isdecimal() else None,
        machine=_machine(cell),
        gpu=_gpu(cell),
        num_images={
            part: int(params[name]) for part, name in vocabulary.NUM_IMAGES.items() if params.get(name, "").isdecimal()
        },
        classes=_class_scores(predictions),
        predictions=predictions,
        settings=cell.settings,
    )


def _over_all_outputs(cell: Cell, num_images: int | None) -> Estimate | float | None:
    """Of a network off the shelf the accuracy over all ImageNet outputs, which is how documents report it.

    With the exact binomial interval, since a run keeps predictions among its classes alone.
    """
    accuracy = cell.mean(vocabulary.TEST_PREFIX + "imagenet_accuracy")
    if accuracy is None or num_images is None:
        return accuracy
    limits = stats.binomtest(round(accuracy * num_images), num_images).proportion_ci(LEVEL, method="exact")
    return Estimate(value=accuracy, low=float(limits.low), high=float(limits.high))


def _other_scores(cell: Cell, compared: GroupComparison) -> dict[str, Estimate | float | None]:
    """Beside the accuracy, by the names of a row's fields; of a network off the shelf over all ImageNet outputs too."""
    if cell.regime == "off_the_shelf":
        return {
            name: cell.mean(f"{vocabulary.TEST_PREFIX}imagenet_{name}_macro") for name in ("precision", "recall", "f1")
        }
    metrics = {"precision": "precision_macro", "recall": "recall_macro", "f1": "f1_macro", "test_loss": "log_loss"}
    return {name: score_of(cell, compared.analysis, metric) for name, metric in metrics.items()}


def _first_phase_row(cell: Cell, compared: GroupComparison, whole: Row, history: History) -> Row:
    seconds = cell.mean(FIRST_PHASE + vocabulary.TRAIN_SECONDS)
    interval = compared.analysis.before_thawing.get(cell.label)
    of_test = FIRST_PHASE + vocabulary.TEST_PREFIX
    return Row(
        data=whole.data,
        backbone=whole.backbone,
        regime="frozen",
        framework=whole.framework,
        test_set=whole.test_set,
        name=f"{whole.name}, first phase",
        stand_in=whole.stand_in,
        accuracy=cell.mean(FIRST_PHASE + ACCURACY) if interval is None else to_estimate(interval),
        precision=cell.mean(of_test + "precision_macro"),
        recall=cell.mean(of_test + "recall_macro"),
        f1=cell.mean(of_test + "f1_macro"),
        test_loss=cell.mean(of_test + "log_loss"),
        minutes=None if seconds is None else seconds / 60,
        epochs=cell.mean(FIRST_PHASE + vocabulary.EPOCHS),
        best_epoch=_best_epoch(cell),
        train_accuracy=_at_end_of_first_phase(cell, vocabulary.TRAIN_ACCURACY, history),
        val_accuracy=_at_end_of_first_phase(cell, vocabulary.VAL_ACCURACY, history),
        train_loss=_at_end_of_first_phase(cell, vocabulary.TRAIN_LOSS, history),
        val_loss=_at_end_of_first_phase(cell, vocabulary.VAL_LOSS, history),
        image_size=whole.image_size,
        machine=whole.machine,
        gpu=whole.gpu,
        num_images=whole.num_images,
        settings=whole.settings,
    )


def _at_end_of_first_phase(cell: Cell, metric: str, history: History) -> float | None:
    """The mean over the runs; None unless all of them have the metric."""
    values = []
    for run in cell.runs:
        last = run.metrics.get(FIRST_PHASE + vocabulary.EPOCHS, 0) - 1
        values += [one.value for one in history(run, metric) if one.step == last]
    return sum(values) / len(values) if len(values) == len(cell.runs) else None


def _best_epoch(cell: Cell) -> float | None:
    from_zero = cell.mean(FIRST_PHASE + vocabulary.BEST_EPOCH)
    return None if from_zero is None else from_zero + 1


def _class_scores(predictions: Sequence[Predictions]) -> dict[str, ClassScores]:
    """The means over the runs."""
    if not predictions:
        return {}
    tables = [per_class_table(run).set_index("class") for run in predictions]
    mean = sum(tables[1:], start=tables[0]) / len(tables)
    return {
        str(name): ClassScores(precision=of.precision, recall=of.recall, f1=of.f1, support=int(of.support))
        for name, of in mean.iterrows()
    }


def _stand_in(cell: Cell) -> str:
    reasons = []
    if any(run.tags.get(vocabulary.BUDGET) == "small" for run in cell.runs):
        reasons.append("small budget")  # that it takes part of the images need not be said
    elif any(run.params.get(name, "null") != "null" for run in cell.runs for name in _LIMITS_OF_IMAGES):
        reasons.append("part of the images")
    if began_at_random(cell):
        reasons.append("random weights")
    if cell.regime != "scratch" and any(run.params.get("weights", "").startswith("runs:/") for run in cell.runs):
        reasons.append("weights of an earlier run")
    return ", ".join(reasons)


def _machine(cell: Cell) -> str:
    run = cell.runs[0]
    words = run.tags.get(vocabulary.HARDWARE), run.tags.get(vocabulary.DEVICE), run.params.get("threads")
    return ", ".join(word for word in words if word)


def _gpu(cell: Cell) -> str:
    """The hardware's words name a GPU of the machine, whether it has computed or not."""
    tags = cell.runs[0].tags
    return tags.get(vocabulary.HARDWARE, "") if tags.get(vocabulary.DEVICE) == "gpu" else ""


def _twin(cell: Cell) -> tuple:
    """Equal for a cell of frozen and one of two_stage whose first phase is the same training."""
    settings = tuple(item for item in cell.settings if item[0] != "thawed_rate_factor")
    return cell.backbone, cell.framework, settings, cell.costs


def _framework_alone(framework: str | None) -> str | None:
    """Without the backend."""
    return None if framework is None else framework.split(" ")[0]


def _test(first: Row, second: Row, one: Cell, two: Cell, compared: GroupComparison) -> Difference | None:
    """The paired test of two rows on the same images; None where there is none."""
    analysis = compared.analysis
    if one is two:
        # two_stage against its own first phase: the rows are of one cell.
        thawing = analysis.thawing.get("accuracy", {}).get(one.label)
        if thawing is None or first is second:
            return None
        return _of_test(thawing, turned=first.regime == "frozen")
    if "off_the_shelf" in (first.regime, second.regime):
        return None  # its accuracy is that over all ImageNet outputs, and the tests are of those among the classes
    if first.regime != one.regime or second.regime != two.regime:
        return None  # a first phase: its predictions are compared with those of its own run alone
    if (one.label, two.label) in analysis.transfer:
        return _of_test(analysis.transfer[one.label, two.label], turned=False)
    if (two.label, one.label) in analysis.transfer:
        return _of_test(analysis.transfer[two.label, one.label], turned=True)
    labels = analysis.labels
    for test in analysis.tests.get("accuracy", ()):
        pair = labels[test.first], labels[test.second]
        if set(pair) == {one.label, two.label}:
            return _of_test(test, turned=pair[0] == two.label)
    return None


def _of_test(test: PairedTest, *, turned: bool) -> Difference:
    value = to_estimate(test.difference)
    if turned:
        value = Estimate(value=-value.value, low=-value.high, high=-value.low)
    return Difference(value=value, sure=test.significant)


def _unpaired_difference(first: Row, second: Row) -> Difference | None:
    if first.accuracy is None or second.accuracy is None:
        return None
    return combined_difference(first.accuracy, second.accuracy)
