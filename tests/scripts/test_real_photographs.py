from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


@pytest.mark.long
@pytest.mark.timeout(600)
def test_pretrained_backbone_tells_photographs_apart(
    real_data: Path, new_store: Callable[[], Any], train: Callable[..., Any], in_both: Callable[..., dict[str, Any]]
) -> None:
    store = new_store()
    words = ["--config", "settings.yaml", "--regime", "frozen", "--max_epochs", "2"]
    # six batches an epoch, which have to be enough
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
