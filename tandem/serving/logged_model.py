"""Writes and opens the MLflow model of a run: the network, its description, and the code that reads its images."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import mlflow
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from tandem.serving.image_model import DESCRIPTION_FILE, NETWORK_FOLDER, PROBABILITY_PREFIX, Description
from tandem.serving.shipped_code import needed_packages, ship

CODE = "tandem.serving.image_model"

METADATA_KEY = "tandem"
"""Key of the description in the model's metadata."""

_PARTS_FOLDER = "parts"


def save_image_model(network: Path, description: Description, folder: Path) -> None:
    """Writes an MLflow model that takes files, bytes, or arrays of any size, around a network with one size.

    Args:
        network: MLflow model from uint8 images to probabilities; it is moved.
        description: Describes the network.
        folder: Folder of the new model; must not exist yet.
    """
    parts = folder.with_name(f"{folder.name}-{_PARTS_FOLDER}")
    data = parts / "data"
    shutil.rmtree(parts, ignore_errors=True)  # a killed process may have left it
    data.mkdir(parents=True)
    try:
        module = ship(CODE, parts)
        shutil.move(network, data / NETWORK_FOLDER)
        (data / DESCRIPTION_FILE).write_text(description.to_json() + "\n", encoding="utf-8")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*input example was not provided")
            mlflow.pyfunc.save_model(
                folder,
                loader_module=module,
                data_path=str(data),
                code_paths=[str(parts / module.partition(".")[0])],
                signature=_signature(description),
                metadata={METADATA_KEY: description.to_dict()},
                pip_requirements=_requirements(data / NETWORK_FOLDER),
            )
    finally:
        shutil.rmtree(parts)


def _signature(description: Description) -> ModelSignature:
    """The columns of the predictions.

    There is no schema of the input, since MLflow's know no input that is a path, bytes or an array: with one, it would
    refuse all but one of them.
    """
    columns: list[ColSpec | TensorSpec] = [ColSpec(DataType.string, "class"), ColSpec(DataType.float, "probability")]
    columns += [ColSpec(DataType.float, PROBABILITY_PREFIX + name) for name in description.classes]
    return ModelSignature(outputs=Schema(columns))


def _requirements(network: Path) -> list[str]:
    of_network = (network / "requirements.txt").read_text(encoding="utf-8").splitlines()
    by_name = {line.partition("==")[0]: line for line in (*needed_packages(CODE), *of_network)}
    return list(by_name.values())  # each package once: with two versions of one, MLflow would ask pip


def network_folder(model: Path) -> Path | None:
    """Folder of the network within a logged model; None for models of older versions, which are the network itself."""
    folder = model / "data" / "data" / NETWORK_FOLDER
    return folder if folder.is_dir() else None


def read_description(model: Path) -> Description | None:
    """The description in a logged model's folder; None for models of older versions."""
    metadata = mlflow.models.Model.load(str(model)).metadata or {}
    values = metadata.get(METADATA_KEY)
    return None if values is None else Description.from_dict(values)
