from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tandem.comparison.comparison import Comparison
from tandem.comparison.record import describe_experiment, record_comparison, with_recommendation
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


def test_recommendation_replaces_only_that_of_the_last_comparison() -> None:
    first = "### Recommendation of compare.py\n- a\n*End of the recommendation of compare.py*"
    second = first.replace("- a", "- b")
    begin, again = "A is best. <!-- from compare.py -->\n\n", "B is best. <!-- from compare.py -->\n\n"
    alone = with_recommendation("", "A is best.", first)
    assert alone == begin + first
    assert with_recommendation(alone, "B is best.", second) == again + second
    mine = with_recommendation("Photographs of my garden.", "A is best.", first)
    assert mine == f"{begin}Photographs of my garden.\n\n{first}"
    renewed = with_recommendation(mine + "\nMore notes.", "B is best.", second)
    assert renewed == f"{again}Photographs of my garden.\n\n{second}\nMore notes."
    # as an earlier version wrote it, and with a line that somebody put first since
    assert with_recommendation(f"Mine.\n\n{first}", "B is best.", second) == f"{again}Mine.\n\n{second}"
    assert with_recommendation(f"Note.\n{mine}", "B is best.", second).startswith(f"{again}Note.\nPhoto")


def test_experiment_gets_the_recommendation_as_its_description(
    client: MlflowClient, compared: Callable[..., Comparison], tmp_path: Path
) -> None:
    experiment = client.create_experiment("mine", (tmp_path / "artifacts").as_uri())
    client.create_run(experiment, tags={"tandem.framework": "torch"})
    client.set_experiment_tag(experiment, "mlflow.note.content", "My garden.")
    runs = read_runs(client.tracking_uri, "mine")
    comparison = compared({("torch", "finetune"): [True] * 8, ("torch", "scratch"): [True, False] * 4})
    for _ in range(2):
        describe_experiment(comparison, runs, "mine")
        text = client.get_experiment(experiment).tags["mlflow.note.content"]
        line, rest = text.split("\n\n", maxsplit=1)
        assert line.startswith("The most accurate is finetune torch: 1.") and line.endswith(
            "). <!-- from compare.py -->"
        )
        assert rest.startswith("My garden.\n\n### Recommendation of compare.py\n")
        (group,) = comparison.groups
        for sentence in group.recommendation:
            assert text.count(f"- {sentence}\n") == 1


def test_store_that_cannot_be_written_is_a_warning(
    client: MlflowClient, compared: Callable[..., Comparison], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = client.create_experiment("mine", (tmp_path / "artifacts").as_uri())
    client.create_run(experiment, tags={"tandem.framework": "torch"})
    runs = read_runs(client.tracking_uri, "mine")
    with sqlite3.connect(client.tracking_uri.removeprefix("sqlite:///")) as database:
        database.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON experiment_tags BEGIN SELECT RAISE(ABORT, 'readonly'); END"
        )
    describe_experiment(compared({("torch", "finetune"): [True] * 8}), runs, "mine")
    assert "the description of the experiment mine was not updated: " in capsys.readouterr().err
    assert "mlflow.note.content" not in client.get_experiment(experiment).tags
