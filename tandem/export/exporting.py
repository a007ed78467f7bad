"""Exports the network of a run to a file of its own, checks it against the run's predictions, and times it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from mlflow.tracking import MlflowClient
from rich.progress import track

from tandem.data.prepare import prepare
from tandem.errors import UserError, one_line
from tandem.evaluation.batching import in_batches
from tandem.evaluation.cost import measure_inference
from tandem.evaluation.predictions import Predictions
from tandem.protocol.parser import read_settings
from tandem.serving.image_model import Description, ImageModel
from tandem.serving.onnx_file import DESCRIPTION_KEY, INPUT, OUTPUT, open_onnx
from tandem.serving.opening import StoredModel, find_stored_model, open_network
from tandem.start_up import quiet_start
from tandem.tracking import vocabulary
from tandem.tracking.mlflow_store import explained
from tandem.tracking.numbers import tags_with
from tandem.tracking.reader import RunRecord, download, find_run
from tandem.tracking.system import describe_hardware

Format = Literal["onnx", "torch_export", "saved_model"]

FORMATS = {"onnx": ("torch", "keras"), "torch_export": ("torch",), "saved_model": ("keras",)}
"""Frameworks whose networks each format holds."""

OPSET = 18
"""Version of ONNX's operators; both converters write it, and ONNX Runtime reads it since 1.14."""

TOLERANCE = 1e-4
"""Largest difference of a probability from the run's predictions."""

NUM_NOISE_IMAGES = 8

CHECK_BATCH = 32
"""Images per batch of the check, and of the throughput, which is to be the same for all runs."""

LATENCY_THREADS = 1
"""Threads that latency is measured with, since they scale differently from machine to machine."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """An exported network."""

    path: Path
    lines: tuple[str, ...]
    """Sentences on its check and its speed."""


def export_model(
    name: str, kind: Format, path: Path, tracking_uri: str | None = None, *, compare: bool = True
) -> Export:
    """Exports a run's network.

    An ONNX file is compared with the network on noise, and with the run's recorded predictions on its test images; the
    run then gets its latency.

    Args:
        name: `runs:/RUN_ID`, or a model in MLflow's registry.
        kind: The format.
        path: The new file, or folder for a SavedModel; replaced if it exists.
        tracking_uri: MLflow tracking URI; None as in the settings.
        compare: Compares with the recorded predictions, for which the run's images have to be on this machine.

    Raises:
        UserError: There is no such model, its framework has no such format, or the file's predictions differ.
    """
    stored = find_stored_model(name, tracking_uri)
    framework = stored.description.framework
    if framework not in FORMATS[kind]:
        possible = [each for each, frameworks in FORMATS.items() if framework in frameworks]
        raise UserError(f"--format: received {kind} for a network of {framework}; allowed: {', '.join(possible)}")
    run = find_run(tracking_uri, stored.description.run_id)
    with _whole(path) as partial:
        if kind != "onnx":
            _write_own_format(stored, partial)
            lines: tuple[str, ...] = ()
        else:
            _write_onnx(stored, partial, name)
            lines = (*_check(partial, stored, name, run, compare=compare), _log_latency(partial, run))
    return Export(path=path, lines=lines)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A temporary name for a file or folder, which is renamed after the with block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(partial, path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)


def _write_own_format(stored: StoredModel, path: Path) -> None:
    if stored.description.framework == "torch":
        (file,) = stored.network.rglob("*.pt2")
        shutil.copyfile(file, path)
        return
    with quiet_start():
        from tandem.on_keras.onnx_export import write_saved_model  # only where Keras is installed

        write_saved_model(stored.network, path)


def _write_onnx(stored: StoredModel, path: Path, name: str) -> None:
    try:
        import onnx

        if stored.description.framework == "torch":
            from tandem.on_torch.onnx_export import write_onnx
        else:
            with quiet_start():
                from tandem.on_keras.onnx_export import write_onnx
    except ImportError as error:
        raise UserError(
            f"exporting {name} needs {stored.description.framework} and onnx ({one_line(error)}): "
            f"pip install -r requirements-{stored.description.framework}.txt"
        ) from error
    write_onnx(stored.network, path, input_name=INPUT, output_name=OUTPUT, opset=OPSET)
    model = onnx.load_model(str(path))
    onnx.helper.set_model_props(model, {DESCRIPTION_KEY: stored.description.to_json()})
    onnx.save_model(model, str(path))


# -------------------------------------------------------------------------------------------------------------- checks


def _check(path: Path, stored: StoredModel, name: str, run: RunRecord, *, compare: bool) -> list[str]:
    exported = open_onnx(path)
    noise = _noise(stored.description)
    difference = _largest_difference(exported.network(noise), open_network(stored, name)(noise))
    if difference > TOLERANCE:
        raise UserError(
            f"the exported network differs from that of {name} by up to {difference:.2g} in a probability; allowed: "
            f"{TOLERANCE:g}; this is a fault of the converter"
        )
    lines = [f"Largest difference from the network in a probability: {difference:.1e}, on images of noise"]
    if compare:
        lines.append(_compare_with_recorded(exported, run))
    return lines


def _noise(description: Description) -> np.ndarray:
    shape = (NUM_NOISE_IMAGES, *description.image_shape)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _compare_with_recorded(exported: ImageModel, run: RunRecord) -> str:
    with tempfile.TemporaryDirectory(prefix="tandem-export-") as scratch:
        folder = Path(scratch)
        predictions_file = f"{vocabulary.FINAL_FOLDER}/{vocabulary.PREDICTIONS_FILE}"
        recorded = Predictions.read(download(run, predictions_file, folder))
        settings_file = download(run, vocabulary.SETTINGS_FILE, folder)
        settings = read_settings(exported.description.framework, ["--config", str(settings_file)])  # type: ignore[arg-type]
    try:
        data = prepare(settings.data)
    except UserError as error:
        raise UserError(
            f"the run's images, to check the export with, cannot be read: {error}; or give --unchecked"
        ) from error
    rows = data.rows("test")
    if [data.hashes[row] for row in rows] != list(recorded.hashes):
        raise UserError(
            f"{settings.data.source} has other test images than the run {run.run_id}: give them back, or --unchecked"
        )
    batches = [np.asarray(data.images[part]) for part in in_batches(rows, CHECK_BATCH)]
    shown = track(batches, "Checking", transient=True, disable=not sys.stderr.isatty())
    probabilities = np.concatenate([exported.network(images) for images in shown])
    difference = _largest_difference(probabilities, recorded.probabilities)
    line = f"Largest difference from the recorded predictions: {difference:.1e}, on {len(rows):,} test images"
    if difference <= TOLERANCE:
        return line
    lower = _lower_precision(run)
    if lower is None:
        raise UserError(f"{line}; allowed: {TOLERANCE:g}; the run's model is not the network that was evaluated")
    return f"{line}, which the run computed {lower}; the exported network computes in float32"


def _lower_precision(run: RunRecord) -> str | None:
    """The run's precision in words; None for float32."""
    if run.params.get("precision", "float32") != "float32":
        return f"in {run.params['precision']}"
    is_tf32 = run.tags.get(vocabulary.DEVICE) == "gpu" and run.params.get("acceleration.tf32", "True") == "True"
    return "in TF32, on a GPU" if is_tf32 else None


def _largest_difference(received: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(received.astype(np.float64) - expected).max())


# --------------------------------------------------------------------------------------------------------------- speed


def _log_latency(path: Path, run: RunRecord) -> str:
    exported = open_onnx(path, threads=LATENCY_THREADS)
    latency, throughput = measure_inference(exported.network, _noise(exported.description), CHECK_BATCH)
    numbers = {vocabulary.ONNX_LATENCY_MILLISECONDS: latency, vocabulary.ONNX_IMAGES_PER_SECOND: throughput}
    client = MlflowClient(tracking_uri=run.uri)
    with explained(run.uri):
        tags = tags_with(client.get_run(run.run_id), numbers)
        for tag, text in {**tags, vocabulary.ONNX_HARDWARE: describe_hardware()}.items():
            client.set_tag(run.run_id, tag, text)
    return (
        f"Latency in ONNX Runtime on one thread: {latency:.1f} ms; {throughput:.0f} images per second in batches of "
        f"{CHECK_BATCH}; logged to the run"
    )
