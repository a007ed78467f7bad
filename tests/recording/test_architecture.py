from __future__ import annotations

from pathlib import Path

import pandas as pd

from tandem.evaluation.architecture import Layer
from tandem.protocol.settings import Settings, TrackingSettings
from tandem.recording.architecture import record_architecture
from tandem.tracking.reader import download, read_runs
from tandem.tracking.start import start_run


def test_layers_are_an_artifact_of_the_run(tmp_path: Path) -> None:
    tracking = TrackingSettings(uri=f"sqlite:///{tmp_path}/mlflow.db", folder=str(tmp_path / "runs"))
    layers = [
        Layer(name="backbone.stem", kind="Conv2d", output_shape=(32, 16, 16), parameters=864),
        Layer(name="backbone.tokens", kind="Patches", output_shape=None, parameters=0),
    ]
    with start_run(Settings(tracking=tracking), framework="torch", backend="torch", versions={}) as run:
        record_architecture(run, layers)
    (record,) = read_runs(tracking.uri, tracking.experiment)
    table = pd.read_csv(download(record, "architecture.csv", tmp_path))
    assert table.columns.tolist() == ["layer", "kind", "output_shape", "parameters"]
    assert table.loc[0].tolist() == ["backbone.stem", "Conv2d", "32 x 16 x 16", 864]
    assert table["output_shape"].isna().tolist() == [False, True]
