"""Time of the frozen phase with cached features, with the backbone in every step, and of a bare trainer.

    python -m benchmarks.frozen_phase --framework torch
    python -m benchmarks.frozen_phase --framework keras --photographs FOLDER

One process runs in rounds: the pass of the backbone over all images with an empty cache; the framework's own trainer
(Trainer.fit, or fit) for all epochs on features in memory; the whole phase as the script trains it with an empty cache,
and again with a full cache; and the phase with the backbone in every step, of which a few epochs are measured and
scaled up. Times are elapsed seconds; the table has the median, least and most over the rounds. docs/performance.md has
results.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tandem.data.features import FEATURES_FILE
from tandem.data.prepare import PreparedData, prepare
from tandem.experiment import Framework, first_network
from tandem.protocol.regimes import phases_of
from tandem.protocol.settings import DataSettings, EarlyStoppingSettings, Settings
from tandem.tracking.curves import Curves
from tandem.tracking.system import describe_hardware

NUM_CLASSES, NUM_MADE = 5, 500


class NoRun:
    """Stand-in for a run that records nothing."""

    def log_metrics(self, values: Any, step: int = 0) -> None:
        pass


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measures the frozen phase with and without cached features.")
    parser.add_argument("--framework", choices=("torch", "keras"), default="torch")
    parser.add_argument("--photographs", help="folder of class folders (default: generated images)")
    parser.add_argument("--weights", default="random", help="as in the setting of the scripts (default: %(default)s)")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--image_size", type=int, default=160)
    parser.add_argument("--num_images", type=int, default=NUM_MADE, help="maximum for training and validation together")
    parser.add_argument("--epochs", type=int, default=100, help="of the head (default: %(default)s)")
    parser.add_argument("--uncached_epochs", type=int, default=1, help="measured and scaled up (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="tandem-benchmark-") as folder:
        settings, data = prepared(arguments, Path(folder))
        num_images = sum(len(data.rows(part)) for part in ("train", "val"))
        script = importlib.import_module(f"train_{arguments.framework}")
        framework = script.FRAMEWORK
        framework.set_up(settings)
        device = "GPU" if framework.package.uses_gpu(settings) else "CPU"
        print(f"{describe_hardware()}; {arguments.framework} on the {device}")
        print(f"{settings.backbone}, {settings.data.image_size} pixels, {num_images} images, {arguments.epochs} epochs")
        report(measure(framework, settings, data, Path(folder), arguments), arguments)


def prepared(arguments: argparse.Namespace, folder: Path) -> tuple[Settings, PreparedData]:
    """Settings of the frozen phase, and its images."""
    source = arguments.photographs or str(made_pictures(folder / "pictures"))
    settings = Settings(
        regime="frozen",
        weights=arguments.weights,
        backbone=arguments.backbone,
        max_epochs=arguments.epochs,
        early_stopping=EarlyStoppingSettings(patience=None),
        data=DataSettings(
            source=source,
            image_size=arguments.image_size,
            fractions=[0.8, 0.1, 0.1],
            cache_folder=str(folder / "cache"),
        ),
    )
    num_classes = sum(path.is_dir() for path in Path(source).iterdir())
    per_class = -(-arguments.num_images * 10 // 9 // num_classes)
    settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, images_per_class=per_class))
    return settings, prepare(settings.data, quiet=True)


def made_pictures(folder: Path) -> Path:
    """Smooth images of random colours."""
    random = np.random.default_rng(0)
    for number in range(NUM_MADE * 10 // 9 + NUM_CLASSES):
        path = folder / f"class_{number % NUM_CLASSES}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        few = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        few.resize((200, 200), Image.Resampling.BICUBIC).save(path, quality=90)
    return folder


def measure(
    framework: Framework, settings: Settings, data: PreparedData, folder: Path, arguments: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds of each variant, one number per round."""
    network = first_network(framework, settings, data, _NoTags())  # type: ignore[arg-type]
    (phase,) = phases_of(settings)
    few = dataclasses.replace(phase, max_epochs=1 + arguments.uncached_epochs)
    uncached = dataclasses.replace(settings, cache_features=False)
    features_folder = folder / "cache" / "features"

    def train(settings: Settings, phase: Any) -> Any:
        return framework.train_phase(network, phase, settings, data, Curves(NoRun()))  # type: ignore[arg-type]

    one_epoch = dataclasses.replace(few, max_epochs=1)
    train(uncached, one_epoch)  # excludes the cost of the framework's first use
    train(settings, one_epoch)
    seconds: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        seconds.setdefault(name, []).append(value)
        print(f"  {name}: {value:.2f} s", flush=True)

    for _ in range(arguments.rounds):
        shutil.rmtree(features_folder)
        start = time.perf_counter()
        outcome = train(settings, phase)
        add("phase, nothing cached", time.perf_counter() - start)
        add("pass", outcome.feature_seconds)
        start = time.perf_counter()
        train(settings, phase)
        add("phase, all cached", time.perf_counter() - start)
        (features,) = features_folder.glob(f"*/{FEATURES_FILE}")
        add("bare trainer", BARE[arguments.framework](framework, settings, data, np.load(features)))
        curves = Curves(NoRun())  # type: ignore[arg-type]
        framework.train_phase(network, few, uncached, data, curves)
        # without the first epoch, in which TensorFlow traces the network
        add("phase, backbone in every step", arguments.epochs * statistics.median(curves.seconds_of(few)[1:]))
    return seconds


class _NoTags:
    def set_tags(self, tags: Any) -> None:
        pass


def bare_torch(framework: Framework, settings: Settings, data: PreparedData, features: np.ndarray) -> float:
    """Seconds of Lightning's Trainer with DataLoaders of tensors in memory, and a module that logs once an epoch."""
    import pytorch_lightning as lightning
    import torch
    from torch.nn import functional
    from torch.utils.data import DataLoader, TensorDataset

    class Head(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(features.shape[1], len(data.classes))

        def loss_of(self, batch: Any, name: str) -> Any:
            logits = self.head(batch[0])
            loss = functional.cross_entropy(logits, batch[1])
            self.log(f"{name}/loss", loss, on_step=False, on_epoch=True)
            self.log(
                f"{name}/accuracy", (logits.argmax(dim=1) == batch[1]).float().mean(), on_step=False, on_epoch=True
            )
            return loss

        def training_step(self, batch: Any, _: int) -> Any:
            return self.loss_of(batch, "train")

        def validation_step(self, batch: Any, _: int) -> None:
            self.loss_of(batch, "val")

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), settings.learning_rate)

    loaders = []
    for part in ("train", "val"):
        rows = data.rows(part)
        tensors = TensorDataset(torch.from_numpy(features[rows]), torch.from_numpy(data.labels[rows]))
        loaders.append(DataLoader(tensors, settings.batch_size, shuffle=part == "train"))
    trainer = lightning.Trainer(
        max_epochs=settings.max_epochs,
        accelerator="gpu" if framework.package.uses_gpu(settings) else "cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    start = time.perf_counter()
    trainer.fit(Head(), *loaders)
    return time.perf_counter() - start


def bare_keras(framework: Framework, settings: Settings, data: PreparedData, features: np.ndarray) -> float:
    """Seconds of fit on arrays in memory."""
    import keras

    from tandem.on_keras import jit_compile

    head = keras.Sequential([keras.Input((features.shape[1],)), keras.layers.Dense(len(data.classes))])
    head.compile(
        optimizer=keras.optimizers.Adam(settings.learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=jit_compile(settings),
    )
    training, validation = ((features[data.rows(part)], data.labels[data.rows(part)]) for part in ("train", "val"))
    start = time.perf_counter()
    head.fit(
        *training,
        validation_data=validation,
        batch_size=settings.batch_size,
        epochs=settings.max_epochs,
        verbose=0,
    )
    return time.perf_counter() - start


BARE: dict[str, Callable[[Framework, Settings, PreparedData, np.ndarray], float]] = {
    "torch": bare_torch,
    "keras": bare_keras,
}


def report(seconds: dict[str, list[float]], arguments: argparse.Namespace) -> None:
    print(f"\n{'seconds, median':>16} {'least':>8} {'most':>8}")
    for name, values in seconds.items():
        note = f" ({arguments.uncached_epochs} epochs measured, scaled up)" if "every step" in name else ""
        print(f"{statistics.median(values):16.2f} {min(values):8.2f} {max(values):8.2f}  {name}{note}")

    def ratios(over: Callable[[int], float], under: str) -> list[float]:
        return [over(number) / value for number, value in enumerate(seconds[under])]

    print(f"\n{'ratio, median':>16} {'least':>8} {'most':>8}")
    slow, parts = seconds["phase, backbone in every step"], (seconds["pass"], seconds["bare trainer"])
    own = [one + other for one, other in zip(*parts, strict=True)]
    for name, values in {
        "backbone in every step / phase, nothing cached": ratios(lambda n: slow[n], "phase, nothing cached"),
        "backbone in every step / phase, all cached": ratios(lambda n: slow[n], "phase, all cached"),
        "phase, nothing cached / (pass + bare trainer)": [
            phase / sum_ for phase, sum_ in zip(seconds["phase, nothing cached"], own, strict=True)
        ],
    }.items():
        print(f"{statistics.median(values):16.2f} {min(values):8.2f} {max(values):8.2f}  {name}")


if __name__ == "__main__":
    main()
