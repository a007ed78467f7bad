from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

import tandem.data_report.report as module
from tandem.data.prepare import PreparedData
from tandem.data_report.report import (
    make_data_report,
    record_data_report,
    record_data_report_after_run,
    write_report_tables,
)
from tandem.protocol.settings import TrackingSettings


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


def runs(uri: str, experiment: str) -> list[str]:
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return [run.info.run_id for run in client.search_runs([found.experiment_id])]


def test_tables_are_written_in_every_form(messy_data: PreparedData, tmp_path: Path) -> None:
    report = make_data_report(messy_data, quiet=True)
    write_report_tables(report, tmp_path / "new/tables")
    written = {file.name for file in (tmp_path / "new/tables").iterdir()}
    assert written == {f"{name}.{kind}" for name in report.tables for kind in ("md", "csv", "tex")} | {"tables.md"}
    everything = (tmp_path / "new/tables/tables.md").read_text()
    assert everything.startswith("# Data set birds\n\n- 19 images of 2 classes")
    assert all(f"## {table.title}" in everything for table in report.tables.values())


def test_csv_files_have_all_rows_of_a_long_table(
    messy_data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 1)
    write_report_tables(make_data_report(messy_data, quiet=True), tmp_path)
    assert len((tmp_path / "unreadable.csv").read_text().splitlines()) == 3
    assert "text.jpg" not in (tmp_path / "unreadable.md").read_text()


def test_report_is_recorded_once_for_a_data_set(
    uri: str, messy_data: PreparedData, plain_data: PreparedData, capsys: pytest.CaptureFixture[str]
) -> None:
    tracking = TrackingSettings(uri=uri, experiment="once")
    record_data_report_after_run(messy_data, tracking)
    (run_id,) = runs(uri, "once")
    assert f"Report of the data set birds: run {run_id} of once, data_set.html\n" in capsys.readouterr().err
    record_data_report_after_run(messy_data, tracking)
    assert runs(uri, "once") == [run_id] and capsys.readouterr().err == ""
    record_data_report_after_run(plain_data, tracking)
    assert len(runs(uri, "once")) == 2

    client = MlflowClient(tracking_uri=uri)
    run = client.get_run(run_id)
    assert run.info.run_name == "data set: birds" and run.info.status == "FINISHED"
    assert run.data.tags["tandem.data_report"] == messy_data.split.hash
    assert "tandem.framework" not in run.data.tags
    assert run.data.metrics["data/num_images"] == 19 and run.data.metrics["data/num_near_pairs_across_parts"] == 1
    assert run.data.params["data.split"] == "publisher" and run.data.params["data.stored_size"] == "[48, 48]"
    page = Path(client.download_artifacts(run_id, "data_set.html")).read_text(encoding="utf-8")
    assert "<h1>Data set: birds</h1>" in page
    assert {file.path for file in client.list_artifacts(run_id)} == {"data_set.html", "tables"}


def test_existing_report_is_not_made_again(uri: str, plain_data: PreparedData) -> None:
    tracking = TrackingSettings(uri=uri, experiment="given")
    given = make_data_report(plain_data, quiet=True)
    assert record_data_report(plain_data, tracking, given) == runs(uri, "given")[0]
    assert record_data_report(plain_data, tracking, given) is None


def test_error_of_the_report_is_one_line_and_does_not_fail_the_run(
    uri: str, plain_data: PreparedData, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record_data_report_after_run(plain_data, TrackingSettings(uri="ftp://nowhere"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: no report of the data set digits was recorded: MLflow cannot keep runs in this")

    def broken(data: PreparedData, *, quiet: bool) -> None:
        raise MemoryError

    monkeypatch.setattr(module, "describe", broken)
    record_data_report_after_run(plain_data, TrackingSettings(uri=uri, experiment="broken"))
    assert capsys.readouterr().err == "warning: no report of the data set digits was recorded: MemoryError\n"
    assert runs(uri, "broken") == []
