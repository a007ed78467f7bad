from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

FRAMEWORKS = ("torch", "keras")
WEIGHTS = {
    "torch": "torch_mobilenet_v2_imagenet1k_from_qnnpack.pth",
    "keras": "keras_mobilenet_v2_1.0_224_imagenet_from_tflite_notop.weights.h5",
}


@pytest.fixture(scope="module")
def real_data() -> Path:
    """The folder with photographs and pretrained weights."""
    if "TANDEM_REAL_DATA" not in os.environ:
        pytest.skip("TANDEM_REAL_DATA names no folder with data/imagenette and weights/")
    folder = Path(os.environ["TANDEM_REAL_DATA"]).expanduser().resolve()
    lacking = [path for path in ("data/imagenette", *(f"weights/{name}" for name in WEIGHTS.values()))]
    lacking = [path for path in lacking if not (folder / path).exists()]
    if lacking:
        pytest.skip(f"TANDEM_REAL_DATA is {folder}, which lacks {', '.join(lacking)}")
    return folder


WHOLE_NETWORKS = {
    "torch": "torch_mobilenet_v2_imagenet1k_from_qnnpack.pth",
    "keras": "keras_mobilenet_v2_1.0_224_imagenet_from_tflite.weights.h5",
}


@pytest.mark.long
@pytest.mark.timeout(600)
def test_off_the_shelf_network_is_accurate_among_the_classes_and_often_outside_of_them(
    real_data: Path, new_store: Callable[[], Any], train: Callable[..., Any], in_both: Callable[..., dict[str, Any]]
) -> None:
    store = new_store()
    words = ["--regime", "off_the_shelf", "--data.source", str(real_data / "data" / "imagenette")]
    words += ["--data.images_per_class", "60", "--threads", "1", "--data.cache_folder", "cache"]
    words += ["--tracking.experiment", "shelf", "--tracking.system_interval", "1", "--tracking.data_report", "false"]

    def classify(framework: str) -> Any:
        return train(
            framework, *words, "--weights", real_data / "weights" / WHOLE_NETWORKS[framework], cwd=store.folder
        )

    runs = {
        framework: store.only_run("shelf", done, framework=framework) for framework, done in in_both(classify).items()
    }
    for run in runs.values():
        assert run.run.info.status == "FINISHED"
        # 120 test images; ten classes are easy, a thousand are not
        assert run.metrics["test/accuracy"] > 0.95
        assert 0.6 < run.metrics["test/imagenet_accuracy"] < 0.9
        assert run.metrics["test/imagenet_accuracy"] + run.metrics["test/imagenet_outside"] <= 1
        assert run.metrics["test/imagenet_num_labels"] > 20
        # only ten of many labels have images, so the averages over all labels are low
        assert run.metrics["test/imagenet_precision_macro"] < 0.5
        assert run.metrics["cost/trainable_parameters"] == run.metrics["cost/epochs"] == 0
        assert run.metrics["cost/parameters"] == 3_504_872
        answers = pd.read_csv(run.artifacts / "final" / "imagenet_answers.csv")
        assert len(answers) == 120
        assert (answers["wordnet_id"] == "n03888257").sum() >= 6  # parachutes, of twelve
        num_labels = round(run.metrics["test/imagenet_num_labels"])
        assert f"over the {num_labels} labels that occur as truth or prediction" in run.process.stderr
    assert runs["torch"].tags["tandem.test_hash"] == runs["keras"].tags["tandem.test_hash"]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_pretrained_backbone_classifies_photographs(
    real_data: Path, new_store: Callable[[], Any], train: Callable[..., Any], in_both: Callable[..., dict[str, Any]]
) -> None:
    store = new_store()
    words = ["--config", "settings.yaml", "--regime", "frozen", "--max_epochs", "2"]
    # only six batches per epoch
    words += ["--learning_rate", "3e-3", "--batch_size", "8"]
    words += [
        "--data.source",
        str(real_data / "data" / "imagenette"),
        "--data.classes",
        "['english_springer', 'golf_ball']",
    ]
    words += ["--data.image_size", "160", "--data.images_per_class", "30", "--head.dropout", "0"]

    def classify(framework: str) -> Any:
        return train(framework, *words, "--weights", real_data / "weights" / WEIGHTS[framework], cwd=store.folder)

    for framework, done in in_both(classify).items():
        assert done.returncode == 0, done.stderr
        run = store.only_run("pair", done, framework=framework)
        # 12 test images: one of them may be wrong
        assert run.metrics["test/accuracy"] > 0.9
        assert run.tags["tandem.phase_1.backbone_before"] == run.tags["tandem.phase_1.backbone_after"]
