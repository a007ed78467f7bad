"""Everything that runs, reports and programs write and print, searched for the secrets of their addresses."""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tandem import secrets
from tandem.data.prepare import prepare
from tandem.data_report.report import record_data_report
from tandem.errors import run_program
from tandem.launch.parent import start_parent_run
from tandem.output import SteadyStream
from tandem.protocol.settings import Settings, SweepSettings, TrackingSettings
from tandem.recording.run import PhaseOutcome, predictions_of_test, record_data, record_end
from tandem.search.record import start_sweep_run
from tandem.tracking.curves import Curves
from tandem.tracking.start import start_run
from tests.small_runs import small_settings

# of the store, of a study, of the environment; each as it is given and as programs may decode it
SECRETS = ("hunter2%23secret", "hunter2#secret", "study/p@ss", "study%2Fp", "token-of-the-server")


@pytest.fixture
def settings(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(secrets, "_remembered", set())
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token-of-the-server\n")
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    return small_settings(
        tmp_path / "cache",
        tracking=TrackingSettings(
            uri="sqlite:///file:mlflow.db?token=hunter2%23secret&uri=true", system_interval=60, run_name="of ann"
        ),
        sweep=SweepSettings(storage="postgresql://ann:study/p@ss@host/optuna"),
    )


def texts(folder: Path) -> Iterator[tuple[str, str]]:
    """Everything in a folder: names, contents of files, and rows of databases and tables."""
    for path in sorted(folder.rglob("*")):
        yield str(path), path.name
        if not path.is_file():
            continue
        content = path.read_bytes()
        yield str(path), content.decode("latin-1")
        if path.suffix == ".parquet":
            yield str(path), pd.read_parquet(path).to_csv()
        if content.startswith(b"SQLite format 3"):
            with contextlib.closing(sqlite3.connect(path)) as connection:
                yield str(path), "\n".join(connection.iterdump())


def find_secrets(folder: Path) -> list[tuple[str, str]]:
    return [(where, secret) for where, text in texts(folder) for secret in SECRETS if secret in text]


@contextlib.contextmanager
def all_output() -> Iterator[io.StringIO]:
    """All output, as a program's protect_output() filters it."""
    printed = io.StringIO()
    stream = SteadyStream(printed)
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):  # type: ignore[type-var]
        yield printed


INFERENCE = {
    "cost/parameters": 1,
    "cost/latency_milliseconds": 1.0,
    "cost/evaluation_peak_gpu_memory_megabytes": 0.0,
}
OUTCOME = PhaseOutcome(
    epochs=1,
    best_epoch=0,
    train_seconds=1.0,
    compile_seconds=0.0,
    parameters=1,
    trainable_parameters=1,
    backbone_before="a",
    backbone_after="a",
    frozen_before="b",
    frozen_after="b",
    first_epoch_hash=None,
)


def test_run_writes_no_secret_anywhere(settings: Settings, tmp_path: Path) -> None:
    with all_output() as printed:
        data = prepare(settings.data)
        with start_run(settings, framework="torch", backend="torch", versions={}) as run:
            record_data(run, data)
            run.set_tags({"note": f"read from {settings.tracking.uri}"})
            predictions = predictions_of_test(data, np.eye(5, dtype=np.float32)[data.labels[data.rows("test")]])
            record_end(run, settings, data, Curves(run), [OUTCOME], [], predictions, INFERENCE, framework="torch")
        record_data_report(data, settings.tracking)
        with start_parent_run(settings, framework="torch", what="2 seeds"):
            pass
        with start_sweep_run(settings, framework="torch", study="x", continued=None, in_use=lambda: False):
            pass
        print(*(line for line in run.where_to_look()), settings)
    assert find_secrets(tmp_path) == []
    pages = {page.name: page for page in (tmp_path / "mlartifacts").rglob("*.html")}
    assert {"run.html", "data_set.html"} <= set(pages)
    assert "token=***" in pages["run.html"].read_text()
    assert "Files of the run:" in printed.getvalue()
    assert not any(secret in printed.getvalue() for secret in SECRETS)


def test_failed_run_writes_no_secret_anywhere(settings: Settings, tmp_path: Path) -> None:
    def main(argv: list[str] | None) -> None:
        with start_run(settings, framework="torch", backend="torch", versions={}):
            raise RuntimeError(f"a library shows {settings.sweep.storage} and token-of-the-server")

    with all_output() as printed:
        with pytest.raises(RuntimeError) as raised:
            run_program("train_torch.py", main)
        sys.excepthook(type(raised.value), raised.value, raised.value.__traceback__)
    assert list((tmp_path / "mlartifacts").rglob("traceback.txt"))
    assert find_secrets(tmp_path) == []
    assert "a library shows postgresql://ann:***@host/optuna and ***" in printed.getvalue()
    assert not any(secret in printed.getvalue() for secret in SECRETS)


def test_search_finds_what_is_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text(json.dumps({"uri": "http://ann:token-of-the-server@host"}))
    assert find_secrets(tmp_path) == [(str(tmp_path / "notes.json"), "token-of-the-server")]
