"""Opens the network of a run, of MLflow's model registry, or of a file."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.artifacts import download_artifacts
from mlflow.models import Model
from mlflow.tracking import MlflowClient

from tandem.errors import UserError, one_line
from tandem.evaluation.predictions import Predictions
from tandem.protocol.settings import DataSettings
from tandem.secrets import shown_uri
from tandem.serving.image_model import Description, ImageModel, Network, load_network
from tandem.serving.logged_model import network_folder, read_description
from tandem.serving.onnx_file import open_onnx
from tandem.start_up import quiet_start
from tandem.tracking import vocabulary
from tandem.tracking.mlflow_store import artifact_root, explained
from tandem.tracking.reader import RunRecord, connect_existing, download, find_run, temporary_folder

ALLOWED = "runs:/RUN_ID, models:/NAME@ALIAS, models:/NAME/VERSION, or a file written by python -m tandem.export"

MODEL_FILE = "MLmodel"


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """The files of a model that MLflow has logged."""

    description: Description
    network: Path
    """Folder of the MLflow model from uint8 images to probabilities."""


def open_models(names: Sequence[str], tracking_uri: str | None = None) -> list[ImageModel]:
    """Opens models for predictions.

    Args:
        names: Each `runs:/RUN_ID`, a model in MLflow's registry, a model's folder, or an .onnx file.
        tracking_uri: MLflow tracking URI; None as in the settings.

    Raises:
        UserError: There is no such model, or the package that computes it is not installed.
    """
    opened: dict[str, ImageModel] = {}
    stored: dict[str, StoredModel] = {}
    for name in names:
        if not name.lower().endswith(".onnx"):
            stored[name] = find_stored_model(name, tracking_uri)
        elif Path(name).is_file():
            opened[name] = open_onnx(Path(name))
        else:
            raise UserError(f"there is no file {name}; allowed: {ALLOWED}")
    # torch before TensorFlow: a process that loads them in the other order may be aborted
    for name in sorted(stored, key=lambda name: stored[name].description.framework == "keras"):
        opened[name] = ImageModel(stored[name].description, open_network(stored[name], name))
    return [opened[name] for name in names]


def open_network(stored: StoredModel, name: str) -> Network:
    """Loads the network of a logged model, on a GPU if the framework finds one.

    Args:
        stored: The model.
        name: Its name in messages.

    Returns:
        Function from uint8 images of shape (n, height, width, 3) to probabilities of shape (n, classes).
    """
    try:
        with quiet_start() if stored.description.framework == "keras" else contextlib.nullcontext():
            return load_network(stored.network)
    except ImportError as error:
        framework = stored.description.framework
        raise UserError(
            f"{name} needs {framework}, which cannot be imported ({one_line(error)}): "
            f"pip install -r requirements-{framework}.txt"
        ) from error


def find_stored_model(name: str, tracking_uri: str | None = None) -> StoredModel:
    """Finds the files of a model, downloads them where necessary, and reads its description.

    Args:
        name: As in open_models, except for .onnx files.
        tracking_uri: MLflow tracking URI; None as in the settings.

    Raises:
        UserError: There is no such model.
    """
    if matched := re.fullmatch(r"runs:/([0-9a-zA-Z_-]+)(/model)?/?", name):
        run = find_run(tracking_uri, matched[1])
        folder = _download_model(f"models:/{_model_of(run)}", run.uri)
        description = read_description(folder)
        return StoredModel(
            description=description or _describe_older_model(folder, run), network=network_folder(folder) or folder
        )
    if name.startswith("models:/"):
        folder = _download_model(name, connect_existing(tracking_uri).tracking_uri)
    else:
        folder = Path(name)
        if not (folder / MODEL_FILE).is_file():
            raise UserError(f"received the model {name!r}; allowed: {ALLOWED}")
    description, network = read_description(folder), network_folder(folder)
    if description is None or network is None:
        raise UserError(f"{name} does not describe its classes and images; give its run: runs:/RUN_ID")
    return StoredModel(description=description, network=network)


def _model_of(run: RunRecord) -> str:
    client = MlflowClient(tracking_uri=run.uri)
    with explained(run.uri):
        outputs = client.get_run(run.run_id).outputs
    models = outputs.model_outputs if outputs else []
    if not models:
        raise UserError(
            f"the run {run.run_id} ({run.name}, {run.status}) has logged no model; give a finished run that did "
            "(tracking.log_model; in a grid --keep_models)"
        )
    return str(models[-1].model_id)


def _download_model(uri: str, tracking_uri: str) -> Path:
    mlflow.set_tracking_uri(tracking_uri)
    try:
        # files of this machine are read where they are
        folder = None if artifact_root(tracking_uri) else str(temporary_folder())
        return Path(download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=tracking_uri))
    except Exception as error:  # each kind of artifact store raises errors of its own
        raise UserError(
            f"cannot read {uri} from MLflow at {shown_uri(tracking_uri)}: {one_line(error)}; allowed: {ALLOWED}"
        ) from error


def _describe_older_model(folder: Path, run: RunRecord) -> Description:
    """The description of a model that has none, from its run and its signature."""
    signature = Model.load(str(folder)).signature
    _, height, width, _ = signature.inputs.inputs[0].shape
    with tempfile.TemporaryDirectory() as scratch:
        file = f"{vocabulary.FINAL_FOLDER}/{vocabulary.PREDICTIONS_FILE}"
        classes = Predictions.read(download(run, file, Path(scratch))).classes
    return Description(
        classes=classes,
        height=height,
        width=width,
        resize=run.params["data.resize"],  # type: ignore[arg-type]
        pixel_range=None,
        max_pixels=DataSettings.max_pixels,
        batch_size=int(run.params["batch_size"]),
        framework=run.tags[vocabulary.FRAMEWORK],
        backbone=run.params["backbone"],
        regime=run.params["regime"],
        image_size=int(run.params["data.image_size"]),
        scaling=run.params["pixel_scaling"],
        data=run.tags[vocabulary.DATA_NAME],
        split_hash=run.tags[vocabulary.SPLIT_HASH],
        run_id=run.run_id,
    )
