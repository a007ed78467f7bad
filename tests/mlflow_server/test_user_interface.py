"""MLflow UI with runs of both scripts, in a real browser."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from playwright.sync_api import Page, expect, sync_playwright

from tandem.tracking.views import CURVES_VIEW, MODEL_TRAINING, RESULTS_VIEW
from tests.browser import CHROMIUM
from tests.team_server import FOLDER, ROOT, SETTINGS, Finished, free_port, wait_for

FRAMEWORKS = ("torch", "keras")
MILLISECONDS = 60_000  # timeout for a page while other tests use the cores

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def store(run: Callable[..., Finished], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder whose mlflow.db has a run of each script, and their comparison."""
    folder = tmp_path_factory.mktemp("store")
    # MLflow draws a bar instead of a curve for a single epoch
    (folder / "settings.yaml").write_text(SETTINGS.replace("max_epochs: 1", "max_epochs: 3"))
    for framework in FRAMEWORKS:
        trained = run(ROOT / f"train_{framework}.py", "--config", "settings.yaml", cwd=folder)
        assert trained.returncode == 0, trained.stderr
    compared = run(ROOT / "compare.py", "--experiment", "team", "--html", "report.html", cwd=folder)
    assert compared.returncode == 0, compared.stderr
    return folder


@pytest.fixture(scope="module")
def served(environment: dict[str, str], store: Path) -> Iterator[str]:
    """Address of the store's server."""
    port = free_port()
    log = store / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, FOLDER / "serve.py", "--port", str(port)],
            cwd=store,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    wait_for(f"http://127.0.0.1:{port}/health", process, log.read_text)
    yield f"http://127.0.0.1:{port}"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def page() -> Iterator[Page]:
    """Page in a browser without stored data."""
    if CHROMIUM is None:
        pytest.skip("no Chrome or Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(MILLISECONDS)
        expect.set_options(timeout=MILLISECONDS)
        yield page
        browser.close()


def test_user_interface_shows_runs_of_both_frameworks(page: Page, served: str, store: Path) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("team")
    assert experiment
    runs = client.search_runs([experiment.experiment_id])
    address = f"{served}/#/experiments/{experiment.experiment_id}"

    page.goto(f"{address}/runs?{MODEL_TRAINING}")
    for framework in FRAMEWORKS:
        expect(page.get_by_role("link", name=f"{framework} finetune mobilenet_v2").first).to_be_visible()

    # The two views show only training runs, neither the comparison nor the report on the data.
    for view, chart in ((RESULTS_VIEW, "test/f1_macro"), (CURVES_VIEW, "train/loss vs val/loss")):
        page.goto("about:blank")
        page.goto(f"{address}/runs?viewStateShareKey={view}&{MODEL_TRAINING}&compareRunsMode=CHART")
        expect(page.get_by_text("2 matching runs")).to_be_visible()
        expect(page.get_by_text(chart, exact=True)).to_be_visible()

    page.goto("about:blank")
    page.goto(f"{address}/runs?viewStateShareKey={RESULTS_VIEW}&{MODEL_TRAINING}")
    expect(page.get_by_role("columnheader", name="test/accuracy").first).to_be_visible()
    page.get_by_role("link", name="torch finetune mobilenet_v2").first.click()
    page.get_by_role("tab", name="Model metrics").click()
    # few charts stand above the losses
    for section in ("cost(3)", "epoch(3)", "test(6)", "train(2)", "val(2)"):
        expect(page.get_by_text(section, exact=True)).to_be_attached()
    expect(page.get_by_text("phase_1")).to_have_count(0)
    page.get_by_placeholder("Search metric charts").fill("val/loss")
    expect(page.locator(".js-plotly-plot path.js-line").first).to_be_attached()

    (torch,) = [run for run in runs if run.data.tags.get("tandem.framework") == "torch"]
    folder = Path(torch.info.artifact_uri.removeprefix("file://"))
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("final", exact=True).click()
    page.get_by_text("confusion_matrix.csv", exact=True).click()
    expect(page.get_by_text("Previewing the first")).to_be_visible()
    _, *matrix = csv.reader((folder / "final/confusion_matrix.csv").read_text().splitlines())
    shown = page.get_by_role("table").last.inner_text().split()  # the headings are a separate table
    assert shown == [cell for row in matrix for cell in row]
    page.get_by_text("run.html", exact=True).click()
    title = "mobilenet_v2, finetune, torch, digits"
    expect(page.frame_locator("iframe").get_by_role("heading", name=title)).to_be_visible()

    (comparison,) = [run for run in runs if "tandem.comparison" in run.data.tags]
    page.goto(f"{address}/runs/{comparison.info.run_id}/artifacts/report.html?{MODEL_TRAINING}")
    inside = page.frame_locator("iframe")
    expect(inside.get_by_text("95 % intervals over the 24 test images").first).to_be_visible()


def test_printed_link_opens_the_results_as_charts_in_a_fresh_browser(page: Page, served: str, store: Path) -> None:
    (line,) = [line for line in (store / "serve.log").read_text().splitlines() if line.startswith("  team: ")]
    page.goto(line.removeprefix("  team: "))
    expect(page.get_by_text("2 matching runs")).to_be_visible()
    expect(page.get_by_text("test/accuracy", exact=True)).to_be_visible()
    # the first line of the experiment's description, which is folded
    expect(page.get_by_text("The most accurate is ").first).to_be_in_viewport()
    # one bar per run in the first chart
    expect(page.locator(".js-plotly-plot").first.locator(".bars .point")).to_have_count(2)
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_description_says_the_result(page: Page, served: str, store: Path) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("team")
    assert experiment and "### Recommendation of compare.py" in experiment.tags["mlflow.note.content"]
    run = next(run for run in client.search_runs([experiment.experiment_id]) if "test/accuracy" in run.data.metrics)
    page.goto(f"{served}/#/experiments/{experiment.experiment_id}/runs/{run.info.run_id}?{MODEL_TRAINING}")
    accuracy = f"Accuracy {run.data.metrics['test/accuracy']:.2f} (95 % interval"  # 24 images support two decimals
    expect(page.get_by_text(accuracy)).to_be_visible()
    (output,) = client.get_run(run.info.run_id).outputs.model_outputs
    assert client.get_logged_model(output.model_id).name == run.info.run_name


def test_comparison_of_copied_runs_is_that_of_the_originals(
    served: str, store: Path, run: Callable[..., Finished], tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = f"sqlite:///{tmp_path / 'elsewhere' / 'mlflow.db'}"
    copied = run("-m", "tandem.tracking.copy", "--from", served, "--to", target, cwd=tmp_path)
    assert copied.returncode == 0, copied.stderr
    tables = []
    for uri in (f"sqlite:///{store / 'mlflow.db'}", target):
        name = str(len(tables))
        compared = run(
            ROOT / "compare.py", "--experiment", "team", "--tracking.uri", uri, "--output", name, cwd=tmp_path
        )
        assert compared.returncode == 0, compared.stderr
        tables.append({file.name: file.read_text() for file in (tmp_path / name).iterdir()})
    assert tables[0] == tables[1] and len(tables[0]) > 5
