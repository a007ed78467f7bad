from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tandem.comparison.record import record_comparison
from tandem.tracking.reader import read_runs

pytestmark = pytest.mark.usefixtures("own_environment")


def test_page_is_an_artifact_of_a_run_that_is_no_training_run(client: MlflowClient, tmp_path: Path) -> None:
    experiment = client.create_experiment("mine", (tmp_path / "artifacts").as_uri())
    trained = client.create_run(experiment, tags={"tandem.framework": "torch"}).info.run_id
    page = tmp_path / "report.html"
    page.write_text("<p>hello")
    runs = read_runs(client.tracking_uri, "mine")
    run_id = record_comparison(runs, "mine", page)

    recorded = client.get_run(run_id)
    assert recorded.info.status == "FINISHED" and recorded.data.tags["tandem.comparison"] == "1 runs"
    assert Path(client.download_artifacts(run_id, "report.html")).read_text() == "<p>hello"
    assert [run.run_id for run in read_runs(client.tracking_uri, "mine")] == [trained]
