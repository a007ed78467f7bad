from __future__ import annotations

import numpy as np

from tandem.evaluation.predictions import Predictions
from tandem.protocol.settings import Settings
from tandem.recording.description import describe_run


class FourImages:
    """The part of PreparedData that a description reads."""

    name = "my_pets <b>"
    classes = ("cat", "lion", "wild_dog")

    def rows(self, part: str) -> list[int]:
        return list(range({"train": 1200, "val": 3, "test": 4}[part]))


def test_description_has_five_lines_and_the_worst_class_with_test_images() -> None:
    # two cats right, one wild dog right, one taken for a cat; no lion
    predictions = Predictions(
        keys=("a", "b", "c", "d"),
        hashes=("1", "2", "3", "4"),
        truth=np.array([0, 0, 2, 2]),
        probabilities=np.array([[1, 0, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0]], np.float32),
        classes=FourImages.classes,
    )
    text = describe_run(
        result="Accuracy 0.75.",
        framework="keras",
        settings=Settings(backbone="timm:vit_tiny", regime="frozen", seed=3),
        data=FourImages(),  # type: ignore[arg-type]
        predictions=predictions,
        scores={"f1_macro": 0.7333, "f1_min": 2 / 3},
        costs={"cost/parameters": 3_504_872, "cost/latency_milliseconds": 12.34},
    )
    assert text.split("  \n") == [
        "**Accuracy 0.75.**",
        "Macro F1 0.73; worst-class F1 0.67 (wild\\_dog).",
        "Network: timm:vit\\_tiny in Keras, frozen, seed 3.",
        "Images: my\\_pets \\<b\\>, 3 classes (1,200 train, 3 val, 4 test).",
        "Cost: 3.5M parameters, latency 12.3 ms per image. Figures: run.html under Artifacts.",
    ]
