"""Time that train_torch.py and train_keras.py add to a training step, compared with the bare frameworks.

    python -m benchmarks.overhead
    python -m benchmarks.overhead --framework torch --backbone resnet50 --size 224 --batch_size 256 --precision bfloat16

Trains the same network on the same images with train_phase of each script and with the usual code: in torch a loop over
tensors in memory, in Keras model.fit on arrays in memory. Both take turns epoch by epoch in one process, each epoch
with its validation, and each pair of epochs gives a ratio, so that other work on the machine affects both. Long steps
are those of a thawed backbone, short ones those of a convolution and a dense layer. docs/performance.md has results.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tandem.data.console import num_cores
from tandem.protocol.environment import prepare_environment
from tandem.protocol.regimes import Phase
from tandem.protocol.settings import AccelerationSettings, DataSettings, EarlyStoppingSettings, Settings
from tandem.tracking.checkpoints import Checkpoints, PhaseCheckpoints

NUM_CLASSES = 10
FRAMEWORKS = ("torch", "keras")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measures the time that the training scripts add to a step.")
    parser.add_argument("--framework", choices=FRAMEWORKS, help="one framework (default: both, one after the other)")
    parser.add_argument("--steps", choices=("long", "short"), help="one kind (default: both)")
    parser.add_argument("--backbone", default="mobilenet_v2", help="of the long steps (default: %(default)s)")
    parser.add_argument("--size", type=int, default=96, help="pixels of the long steps (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=32, help="of the long steps (default: %(default)s)")
    parser.add_argument("--precision", default="float32", help="of the arithmetic (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=8, help="compared pairs (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: the framework's)")
    arguments = parser.parse_args(argv)
    if arguments.framework is None:
        print(
            f"{num_cores()} cores; milliseconds per step: median (quartiles) of {arguments.epochs} epochs", flush=True
        )
        print(f"{'':25} {'bare':>26}{'script':>26} {'bare / script':>23} {'added':>9}", flush=True)
        words = sys.argv[1:] if argv is None else argv
        for framework in FRAMEWORKS:  # a process each: the frameworks cannot share one
            subprocess.run([sys.executable, "-m", __spec__.name, "--framework", framework, *words], check=True)
        return
    measure = {"torch": measure_torch, "keras": measure_keras}[arguments.framework]
    for kind in [arguments.steps] if arguments.steps else ["long", "short"]:
        case = Case.of(kind, arguments)
        prepare_environment(case.settings(arguments.framework))
        case.report(f"{arguments.framework}, {kind}", *measure(case))


@dataclass(frozen=True, kw_only=True)
class Case:
    """Network, images and number of epochs."""

    kind: str
    backbone: str
    size: int
    batch_size: int
    num_batches: int
    precision: Any
    epochs: int
    threads: int | None
    acceleration: AccelerationSettings = field(default_factory=AccelerationSettings)
    data_on_device: bool = False
    """True if the bare loop in torch keeps its images on the GPU."""

    @classmethod
    def of(cls, kind: str, arguments: argparse.Namespace) -> Case:
        """Case for the command line; an epoch has many short steps."""
        common = {"precision": arguments.precision, "epochs": arguments.epochs, "threads": arguments.threads}
        if kind == "short":
            return cls(kind=kind, backbone="", size=32, batch_size=32, num_batches=200, **common)
        own = {"backbone": arguments.backbone, "size": arguments.size, "batch_size": arguments.batch_size}
        return cls(kind=kind, num_batches=5, **own, **common)

    @property
    def phase(self) -> Phase:
        # the first epoch of each side is not compared
        return Phase(number=1, trainable="all", learning_rate=1e-3, max_epochs=self.epochs + 1)

    def settings(self, framework: str) -> Settings:
        """Settings for the scripts, without early stopping; all others have their defaults."""
        package = "timm" if framework == "torch" else "keras"
        return Settings(
            backbone=self.backbone or f"{package}:made_here",
            weights="random",
            batch_size=self.batch_size,
            precision=self.precision,
            threads=self.threads,
            data=DataSettings(image_size=self.size),
            early_stopping=EarlyStoppingSettings(patience=None),
            acceleration=self.acceleration,
        )

    def report(self, name: str, bare: list[Seconds], script: list[Seconds]) -> None:
        """Prints a line for elapsed time and one for processor time, which other work affects less."""
        for kind in ("clock", "processors"):
            steps = [[1000 * getattr(epoch, kind) / self.num_batches for epoch in epochs] for epochs in (bare, script)]
            ratios = [one / other for one, other in zip(*steps, strict=True)]
            on_top = [other - one for one, other in zip(*steps, strict=True)]
            words = "".join(f"{statistics.median(v):9.2f} {quartiles(v, '.2f'):>17}" for v in steps)
            ratio = f"{statistics.median(ratios):9.3f} {quartiles(ratios, '.3f'):>13}"
            print(f"{name:14} {kind:10} {words} {ratio} {statistics.median(on_top):9.2f}", flush=True)


def quartiles(values: list[float], spec: str) -> str:
    """First and third quartile."""
    first, _, third = statistics.quantiles(values, n=4)
    return f"{first:{spec}}-{third:{spec}}"


@dataclass(frozen=True)
class Seconds:
    """Seconds of an epoch: elapsed, and of the processor for all threads of the process."""

    clock: float
    processors: float

    @classmethod
    def now(cls) -> Seconds:
        return cls(time.perf_counter(), time.process_time())

    def since(self, start: Seconds) -> Seconds:
        return Seconds(self.clock - start.clock, self.processors - start.processors)


class MadeImages:
    """Random images in memory, in the form of a PreparedData that a phase reads; one validation batch."""

    def __init__(self, case: Case) -> None:
        random = np.random.default_rng(0)
        num_images = case.batch_size * (case.num_batches + 1)
        self.images = random.integers(0, 256, (num_images, case.size, case.size, 3), dtype=np.uint8)
        self.training_images = self.images
        self.labels = random.integers(0, NUM_CLASSES, num_images)
        self.num_training = case.batch_size * case.num_batches
        self.classes = tuple(f"class {number}" for number in range(NUM_CLASSES))

    def rows(self, part: str) -> np.ndarray:
        """Rows of a part; the last batch has the validation images."""
        parts = slice(self.num_training) if part == "train" else slice(self.num_training, None)
        return np.arange(len(self.images))[parts]


class Turns:
    """Stand-in for the curves of a script, which gives the bare framework its turn after each epoch.

    Attributes:
        seconds: Seconds of each epoch of the script.
    """

    def __init__(self, bare_turn: Callable[[], None]) -> None:
        self.bare_turn = bare_turn
        self.seconds: list[Seconds] = []
        self.rows: list[dict[str, float]] = []
        self.feature_seconds = 0.0
        self.start: Seconds | None = None

    def add(self, phase: Phase, **numbers: float) -> None:
        if self.start is not None:
            self.seconds.append(Seconds.now().since(self.start))
        self.bare_turn()
        self.start = Seconds.now()

    def checkpoints_of(self, phase: Phase) -> PhaseCheckpoints:
        return PhaseCheckpoints(Checkpoints(None), phase.number, [])


def measure_torch(case: Case) -> tuple[list[Seconds], list[Seconds]]:
    """Seconds of each epoch: bare loop, and train_torch.py."""
    import torch
    from torch import nn
    from torch.nn import functional

    import train_torch
    from tandem.on_torch import Classifier, build_classifier, device_of, forward_of, to_device
    from tandem.on_torch.networks import Pixels

    settings, data = case.settings("torch"), MadeImages(case)
    train_torch.set_up_framework(settings)
    device = device_of(settings).type
    dtype = getattr(torch, case.precision)

    def build() -> Classifier:
        if case.kind == "long":
            return to_device(build_classifier(settings, NUM_CLASSES), settings)
        layers = nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        backbone, head = nn.Sequential(*layers), nn.Linear(16, NUM_CLASSES)
        return to_device(Classifier(Pixels(case.size, "unit"), backbone, head), settings)

    network = build()
    forward_pass = forward_of(network, case.acceleration)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, fused=case.acceleration.fused_optimizer)
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    if device == "cuda":
        images, labels = images.pin_memory(), labels.pin_memory()
    if case.data_on_device:
        images, labels = images.to(device), labels.to(device)
    *training, validation = zip(images.split(case.batch_size), labels.split(case.batch_size), strict=True)
    seconds: list[Seconds] = []

    def loss_of(batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        inputs, targets = (part.to(device, non_blocking=True) for part in batch)
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            return functional.cross_entropy(forward_pass(inputs), targets)

    def bare_epoch() -> None:
        start = Seconds.now()
        network.train()
        for batch in training:
            loss = loss_of(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.inference_mode():
            loss_of(validation).item()
        seconds.append(Seconds.now().since(start))

    turns = Turns(bare_epoch)
    train_torch.train_phase(build(), case.phase, settings, data, turns)  # type: ignore[arg-type]
    # when the script's first epoch ends, the bare side starts its first
    return seconds[1:], turns.seconds


def measure_keras(case: Case) -> tuple[list[Seconds], list[Seconds]]:
    """Seconds of each epoch: bare model.fit, and train_keras.py."""
    import keras

    import train_keras
    from tandem.on_keras import Classifier, build_classifier, jit_compile
    from tandem.on_keras.networks import Pixels

    settings, data = case.settings("keras"), MadeImages(case)
    train_keras.set_up_framework(settings)
    shape = (case.size, case.size, 3)

    def build() -> Classifier:
        if case.kind == "long":
            return build_classifier(settings, NUM_CLASSES)
        convolution = keras.layers.Conv2D(16, 3, strides=2, activation="relu")
        backbone = keras.Sequential([keras.Input(shape), convolution, keras.layers.GlobalAveragePooling2D()])
        head = keras.Sequential([keras.Input((16,)), keras.layers.Dense(NUM_CLASSES, dtype="float32")])
        return Classifier(Pixels(case.size, "unit"), backbone, head)

    bare_may_go, script_may_go = threading.Semaphore(0), threading.Semaphore(0)
    seconds: list[Seconds] = []

    class TakeTurns(keras.callbacks.Callback):
        """Gives the script its turn between two epochs of the bare fit, which runs in a thread of its own."""

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            bare_may_go.acquire()
            self.start = Seconds.now()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seconds.append(Seconds.now().since(self.start))
            script_may_go.release()

    network = build()
    network.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=jit_compile(settings),
    )
    train, val = ((data.images[rows], data.labels[rows]) for rows in (data.rows("train"), data.rows("val")))
    options = {"batch_size": case.batch_size, "epochs": case.phase.max_epochs, "verbose": 0}
    bare = threading.Thread(
        target=lambda: network.fit(*train, validation_data=val, callbacks=[TakeTurns()], **options), daemon=True
    )
    bare.start()

    def bare_turn() -> None:
        bare_may_go.release()
        script_may_go.acquire()

    turns = Turns(bare_turn)
    train_keras.train_phase(build(), case.phase, settings, data, turns)  # type: ignore[arg-type]
    bare.join()
    # when the script's first epoch ends, the bare side starts its first
    return seconds[1:], turns.seconds


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
