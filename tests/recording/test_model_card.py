from __future__ import annotations

import re

import numpy as np
import pytest
import yaml

from tandem.data.prepare import PreparedData
from tandem.evaluation.metrics import scores
from tandem.evaluation.predictions import Predictions
from tandem.protocol.settings import Settings
from tandem.recording.model_card import model_card, weights_licence
from tandem.recording.run import predictions_of_test
from tests.small_runs import small_data, small_settings


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return small_data(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def predictions(data: PreparedData) -> Predictions:
    """Three wrong answers of fifteen, all on images of class 3."""
    truth = data.labels[data.rows("test")]
    logits = 3.0 * np.eye(5)[np.where(truth == 3, 1, truth)]
    return predictions_of_test(data, logits)


@pytest.fixture(scope="module")
def card(data: PreparedData, predictions: Predictions) -> str:
    return model_card(
        title="mobilenet_v2, two_stage, digits",
        run_id="0123",
        framework="torch",
        settings=small_settings(),
        data=data,
        predictions=predictions,
        costs={"cost/parameters": 2_230_277, "cost/train_seconds": 12.34},
    )


def test_metadata_have_the_hub_s_form(card: str, predictions: Predictions) -> None:
    _, head, body = re.split(r"^---$", card, maxsplit=2, flags=re.MULTILINE)
    metadata = yaml.safe_load(head)
    assert (metadata["library_name"], metadata["pipeline_tag"]) == ("pytorch", "image-classification")
    (result,) = metadata["model-index"][0]["results"]
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    expected = scores(predictions)
    assert values == {"accuracy": pytest.approx(0.8), "f1": pytest.approx(expected["f1_macro"], abs=1e-6)}
    assert body.startswith("\n\n# mobilenet_v2, two_stage, digits\n")


def test_card_states_scores_data_and_worst_classes(card: str, data: PreparedData) -> None:
    assert re.search(r"\| accuracy +\| +0\.8000 \[[01]\.\d+, [01]\.\d+\] \|", card)
    # The four other classes have recalls of 1; 12 of 15 are right, where 3 of 15 would be by chance.
    assert re.search(r"\| balanced accuracy \(macro recall\) +\| +0\.8000 ", card)
    assert re.search(r"\| Cohen's kappa +\| +0\.7500 \[-?[01]\.\d+, [01]\.\d+\] \|", card)
    assert "30 train, 15 val, 15 test" in card and data.split.hash in card
    worst = card.partition("## Worst classes")[2].partition("##")[0]
    assert re.findall(r"^\| (\w+) ", worst, flags=re.MULTILINE)[:3] == ["class", "3", "1"]
    assert "- parameters: 2,230,277" in card and "- training: 12.3 s" in card
    assert "python -m tandem.predict runs:/0123 FOLDER" in card
    settings = yaml.safe_load(card.partition("```yaml\n")[2].partition("```")[0])
    assert settings["backbone"] == "mobilenet_v2" and settings["data.resize"] == "squash"
    assert not any(name.startswith("tracking.") for name in settings)


@pytest.mark.parametrize(
    ("settings", "framework", "licence", "words"),
    [
        (
            Settings(backbone="resnet50", weights="imagenet"),
            "torch",
            "unknown",
            "torchvision, trained by torchvision; their licence is not known here: see the page of torchvision",
        ),
        (Settings(backbone="resnet50", weights="imagenet"), "keras", "mit", "He et al."),
        (Settings(backbone="vgg16", weights="imagenet"), "keras", "cc-by-4.0", "Oxford's VGG group"),
        (Settings(backbone="efficientnet_v2_b0", weights="imagenet"), "torch", "apache-2.0", "timm"),
        (Settings(backbone="timm:convnext_tiny", weights="imagenet"), "torch", "unknown", "not known here"),
        (Settings(weights="random"), "torch", "unknown", "random weights"),
        (Settings(weights="runs:/4567"), "keras", "unknown", "the weights of runs:/4567, whose licence applies"),
    ],
)
def test_licence_is_that_of_the_first_weights(settings: Settings, framework, licence: str, words: str) -> None:
    received, sentence = weights_licence(settings, framework)
    assert received == licence and words in sentence
