from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image

from tandem.data.prepare import PreparedData, prepare
from tandem.evaluation.predictions import Predictions
from tandem.protocol.settings import DataSettings
from tandem.tracking.reader import RunRecord


@pytest.fixture
def make_run() -> Callable[..., RunRecord]:
    """Makes finished runs, each later than the one before."""
    numbers = itertools.count()

    def make(
        framework: str = "torch",
        regime: str = "finetune",
        accuracy: float | None = 0.9,
        *,
        backend: str | None = None,
        seed: int = 0,
        params: dict[str, str] | None = None,
        metrics: dict[str, float] | None = None,
        tags: dict[str, str] | None = None,
        status: str = "FINISHED",
        run_id: str | None = None,
    ) -> RunRecord:
        number = next(numbers)
        scores = {} if accuracy is None else {"test/accuracy": accuracy, "test/f1_macro": accuracy - 0.01}
        return RunRecord(
            uri="sqlite:///mlflow.db",
            artifact_uri="artifacts",
            run_id=run_id or f"id{number}",
            name=f"mobilenet_v2-{regime}-{framework}",
            status=status,
            start_time=number,
            params={
                "regime": regime,
                "backbone": "mobilenet_v2",
                "weights": "imagenet",
                "learning_rate": "0.001",
                "thawed_rate_factor": "0.1",
                "seed": str(seed),
                "device": "auto",
                "data.source": "digits",
                "data.image_size": "32",
                "tracking.experiment": "demo",
                "num_classes": "5",
                "num_test_images": "180",
                **(params or {}),
            },
            metrics={
                **scores,
                "test/f1_min": 0.5,
                "cost/train_seconds": 60.0,
                "cost/seconds_per_epoch": 3.0,
                "cost/parameters": 2_200_000.0,
                "cost/latency_milliseconds": 4.0,
                **(metrics or {}),
            },
            tags={
                "tandem.framework": framework,
                "tandem.backend": backend or {"torch": "torch", "keras": "tensorflow"}[framework],
                "tandem.test_hash": "test",
                "tandem.split_hash": "split",
                "tandem.data": "digits 5-9",
                "tandem.hardware": "2 cores",
                **(tags or {}),
            },
        )

    return make


@pytest.fixture
def make_predictions() -> Callable[..., Predictions]:
    """Makes predictions of the same images from which of them are right; a wrong one names the next class."""

    def make(right: Sequence[bool], *, num_classes: int = 4) -> Predictions:
        images = len(right)
        truth = np.arange(images, dtype=np.int64) % num_classes
        predicted = np.where(right, truth, (truth + 1) % num_classes)
        probabilities = np.full((images, num_classes), 0.1 / (num_classes - 1), dtype=np.float32)
        probabilities[np.arange(images), predicted] = 0.9
        return Predictions(
            keys=tuple(f"{index}.png" for index in range(images)),
            hashes=tuple(f"{index:05d}" for index in range(images)),
            truth=truth,
            probabilities=probabilities,
            classes=tuple(f"class {index}" for index in range(num_classes)),
        )

    return make


@pytest.fixture(scope="session")
def messy_data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """13 owls and 6 emus, among them an exact copy, a grey one in another part and a blank; and two broken files."""
    folder = tmp_path_factory.mktemp("messy")
    birds = folder / "birds"
    names = {"train/owl": range(9), "train/emu": range(3), "test/owl": range(2), "test/emu": range(2)}
    scenes: dict[str, Image.Image] = {}
    for seed, name in enumerate(f"{of_class}/{number}" for of_class, numbers in names.items() for number in numbers):
        # large soft spots of colour, which like a photograph have most of their detail at low frequencies
        spots = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
        scenes[name] = Image.fromarray(spots).resize((64 + 4 * seed, 60), Image.Resampling.BICUBIC)
        (birds / name).parent.mkdir(parents=True, exist_ok=True)
        scenes[name].save(birds / f"{name}.png")
    (birds / "train/owl/copy.png").write_bytes((birds / "train/owl/0.png").read_bytes())
    scenes["test/owl/1"].convert("L").save(birds / "train/owl/compressed.jpg", quality=80)
    Image.new("RGB", (64, 60), (9, 9, 9)).save(birds / "test/emu/blank.png")
    (birds / "train/emu/text.jpg").write_text("this is a text")
    (birds / "train/emu/empty.jpg").touch()
    settings = DataSettings(
        source=str(birds),
        image_size=48,
        split="publisher",
        fractions=[0.6, 0.2, 0.2],
        on_bad_image="skip",
        cache_folder=str(folder / "cache"),
    )
    return prepare(settings, quiet=True)


@pytest.fixture(scope="session")
def plain_data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """scikit-learn's digits: no files, no near duplicates, one size."""
    return prepare(DataSettings(cache_folder=str(tmp_path_factory.mktemp("cache"))), quiet=True)
