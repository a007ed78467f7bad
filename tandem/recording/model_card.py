"""The model card of a run, in the form of the Hugging Face Hub: metadata in YAML, then Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from tandem.data.prepare import PreparedData
from tandem.evaluation.intervals import score_intervals
from tandem.evaluation.metrics import per_class_table
from tandem.evaluation.predictions import Predictions
from tandem.evaluation.scored_rows import ScoredRows
from tandem.protocol.backbones import find_backbone
from tandem.protocol.frameworks import Framework
from tandem.protocol.settings import Settings, flatten
from tandem.rendering.tables import Column, Estimate, Table, format_value, render_markdown
from tandem.tracking import vocabulary

LIBRARIES: dict[Framework, str] = {"torch": "pytorch", "keras": "keras"}
"""The Hub's names of the frameworks."""

# Licences of published weights, in the Hub's words, by their trainer in the catalogue, where one names the weights
# themselves (Keras Applications' documentation). torchvision's and timm's code has a licence, but their authors grant
# none for weights: torchvision's documentation says that weights may have licences of their own.
LICENCES = {
    "He et al. (Caffe)": "mit",
    "Oxford's VGG group (Caffe)": "cc-by-4.0",
    "Google (TF-Slim)": "apache-2.0",
    "Google (TensorFlow)": "apache-2.0",
}

WORST_CLASSES = 10

SCORES = {
    "accuracy": "accuracy",
    "f1_macro": "macro F1",
    "balanced_accuracy": "balanced accuracy (macro recall)",
    "cohen_kappa": "Cohen's kappa",
    "matthews_correlation": "Matthews' correlation",
    "roc_auc_macro": "macro ROC-AUC, each class against the rest",
    "average_precision_macro": "macro average precision, each class against the rest",
    "f1_min": "lowest F1 of a class",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
}
"""Scores of the table, by the names of tandem.evaluation.metrics; the first two are in the metadata."""

_NOT_SHOWN = ("tracking.", "sweep.", "acceleration.")


def model_card(
    *,
    title: str,
    run_id: str,
    framework: Framework,
    settings: Settings,
    data: PreparedData,
    predictions: Predictions,
    costs: Mapping[str, float],
) -> str:
    """Describes a trained network: data, split, scores with intervals, worst classes, settings, licence.

    Args:
        title: Name of the model.
        run_id: The training run.
        framework: torch or keras.
        settings: Of the run.
        data: Images that it was trained and tested on.
        predictions: Of the trained network on the test images.
        costs: By the names of the vocabulary.
    """
    licence, about_licence = weights_licence(settings, framework)
    scores = _scores(predictions)
    metadata = _metadata(licence, framework, data, scores, title)
    sections = {
        "Data": _about_data(settings, data),
        "Scores on the test images": _scores_table(scores, len(predictions.keys)),
        "Worst classes": _worst_classes(predictions),
        "Cost": _costs(costs),
        "Licence": about_licence,
        "Use": _use(run_id, settings, data),
        "Settings": _settings_block(settings),
    }
    head = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    body = "\n\n".join(f"## {name}\n\n{text.strip()}" for name, text in sections.items())
    return f"---\n{head}---\n\n# {title}\n\n{_summary(settings, framework, data, scores)}\n\n{body}\n"


def weights_licence(settings: Settings, framework: Framework) -> tuple[str, str]:
    """The licence of the weights that training began with, in the Hub's words and in a sentence."""
    if settings.weights == "random":
        return "unknown", "Trained from random weights: the licence is for whoever trained it on this data to choose."
    if settings.weights != "imagenet":
        return "unknown", f"Training began with the weights of {settings.weights}, whose licence applies."
    build = find_backbone(settings.backbone, framework).builds[framework]
    trainer = build.trained_by
    licence = LICENCES.get((trainer or "").partition(" [")[0])
    begin = f"Training began with ImageNet weights of {build.package}, trained by {trainer or 'an unnamed author'}"
    terms = "ImageNet's images are for research and education only; whether that binds weights is disputed."
    if licence is None:
        return "unknown", f"{begin}; their licence is not known here: see the page of {build.package}. {terms}"
    return licence, f"{begin}, under {licence}. {terms}"


def _scores(predictions: Predictions) -> dict[str, Estimate | float]:
    intervals = score_intervals(ScoredRows([[predictions]]), 0)
    return {
        name: each.estimate
        if each.low is None or each.high is None
        else Estimate(value=each.estimate, low=each.low, high=each.high)
        for name in SCORES
        if (each := intervals.get(name)) is not None
    }


def _metadata(
    licence: str, framework: Framework, data: PreparedData, scores: Mapping[str, Estimate | float], title: str
) -> dict[str, Any]:
    names = [name for name in list(SCORES)[:2] if name in scores]
    return {
        "license": licence,
        "library_name": LIBRARIES[framework],
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "tandem"],
        "model-index": [
            {
                "name": title,
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"name": data.name, "type": data.name, "split": "test"},
                        "metrics": [
                            {
                                "type": {"accuracy": "accuracy", "f1_macro": "f1"}[name],
                                "name": SCORES[name],
                                "value": round(_number(scores[name]), 6),
                            }
                            for name in names
                        ],
                    }
                ],
            }
        ],
    }


def _summary(
    settings: Settings, framework: Framework, data: PreparedData, scores: Mapping[str, Estimate | float]
) -> str:
    return (
        f"An image classifier for {len(data.classes)} classes: {settings.backbone} in "
        f"{'PyTorch' if framework == 'torch' else 'Keras'}, trained on {data.name} ({settings.regime}). Accuracy on "
        f"{len(data.rows('test')):,} test images, with its 95 % interval: {format_value(scores['accuracy'], 'score')}."
    )


def _number(score: Estimate | float) -> float:
    return score.value if isinstance(score, Estimate) else score


def _about_data(settings: Settings, data: PreparedData) -> str:
    parts = ", ".join(f"{len(data.rows(part)):,} {part}" for part in vocabulary.NUM_IMAGES)
    _, height, width, _ = data.images.shape
    split = data.report["split"]
    lines = [
        f"- Data set: {data.name}",
        f"- Images: {parts}; split: {split['kind']}, hash `{data.split.hash}`",
        f"- Classes: {', '.join(data.classes)}",
        f"- Images are resized to {width} x {height} pixels ({settings.data.resize}), the network's input is "
        f"{settings.data.image_size} x {settings.data.image_size}",
    ]
    if data.bad_images:
        lines.append(f"- Unreadable files left out: {len(data.bad_images)}")
    return "\n".join(lines)


def _scores_table(scores: Mapping[str, Estimate | float], num_images: int) -> str:
    table = Table(
        name="scores",
        title="Scores",
        columns=(
            Column(key="score", heading="score"),
            Column(key="value", heading="value, 95 % interval", kind="score"),
        ),
        rows=tuple((SCORES[name], estimate) for name, estimate in scores.items()),
    )
    return f"{_without_heading(table)}\n\nIntervals are over {num_images:,} test images, for this one trained network."


def _worst_classes(predictions: Predictions) -> str:
    worst = per_class_table(predictions).sort_values("f1", kind="stable").head(WORST_CLASSES)
    names = ("precision", "recall", "f1")
    table = Table(
        name="worst_classes",
        title="Worst classes",
        columns=(
            Column(key="class", heading="class"),
            *(Column(key=name, heading=name, kind="score") for name in names),
            Column(key="support", heading="test images", kind="number"),
        ),
        rows=tuple(
            (row["class"], *(float(row[name]) for name in names), int(row["support"])) for _, row in worst.iterrows()
        ),
    )
    return _without_heading(table)


def _without_heading(table: Table) -> str:
    return render_markdown(table).partition("\n\n")[2].strip()


def _costs(costs: Mapping[str, float]) -> str:
    shown = {
        vocabulary.PARAMETERS: "parameters: {:,.0f}",
        vocabulary.MACS: "multiply-accumulates per image: {:,.0f}",
        vocabulary.TRAIN_SECONDS: "training: {:,.1f} s",
        vocabulary.LATENCY_MILLISECONDS: "latency: {:,.1f} ms per image",
    }
    return "\n".join(f"- {text.format(costs[name])}" for name, text in shown.items() if name in costs)


def _use(run_id: str, settings: Settings, data: PreparedData) -> str:
    limits = (
        f"The network chooses one of the {len(data.classes)} classes for every image, also for an image of none of "
        "them. Its scores hold for images like those of the test set."
    )
    if not settings.tracking.log_model:
        return limits
    return f"    python -m tandem.predict runs:/{run_id} FOLDER --output predictions.csv\n\n{limits}"


def _settings_block(settings: Settings) -> str:
    shown = {name: value for name, value in flatten(settings).items() if not name.startswith(_NOT_SHOWN)}
    return f"```yaml\n{yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)}```"
