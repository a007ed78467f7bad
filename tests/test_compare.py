from __future__ import annotations

import csv
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from compare import main
from tandem.errors import UserError

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with the experiment `demo` of two frameworks and two regimes, and one named `broken`."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(tracking_uri=uri)
    demo, broken = (client.create_experiment(name, (folder / name).as_uri()) for name in ("demo", "broken"))

    def add(experiment: str, framework: str, regime: str, accuracy: float, status: str = "FINISHED") -> None:
        tags = {
            "tandem.framework": framework,
            "tandem.backend": "torch" if framework == "torch" else "tensorflow",
            "tandem.test_hash": "0123",
            "tandem.data": "digits 5-9",
        }
        run_id = client.create_run(experiment, tags=tags, run_name=f"small-{regime}-{framework}").info.run_id
        params = {"backbone": "small", "regime": regime, "seed": "0", "weights": "random"}
        scores = {"test/accuracy": accuracy, "test/f1_macro": accuracy, "test/f1_min": 0.1, "cost/parameters": 2.2e6}
        client.log_batch(
            run_id,
            metrics=[Metric(name, score, timestamp=0, step=0) for name, score in scores.items()],
            params=[Param(name, value) for name, value in params.items()],
        )
        client.set_terminated(run_id, status)

    for framework, gain in (("torch", 0.0), ("keras", 0.03)):
        add(demo, framework, "scratch", 0.25 + gain)
        add(demo, framework, "finetune", 0.72 + gain)
    add(demo, "torch", "two_stage", 0.99, status="FAILED")
    add(broken, "torch", "scratch", 0.5, status="KILLED")
    return uri


def compare(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "compare.py"), *arguments], cwd=folder, capture_output=True, text=True, timeout=60
    )


def test_tables_are_printed_and_written(uri: str, tmp_path: Path) -> None:
    done = compare("--experiment", "demo", "--tracking_uri", uri, "--output", "out/tables", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["small", "finetune", "keras", "0.7500", "0.7500", "0.1000", "-", "-", "2.2M", "-", "1"] in lines
    assert "small-two_stage-torch" in done.stdout and "1 FAILED" in done.stdout

    output = tmp_path / "out" / "tables"
    expected = {"summary.md", "summary.csv", "frameworks.md", "frameworks.csv", "tables.md"}
    assert {path.name for path in output.iterdir()} == expected
    with (output / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["regime"], row["framework"], row["accuracy"]) for row in rows] == [
        ("scratch", "torch", "0.25"),
        ("scratch", "keras", "0.28"),
        ("finetune", "torch", "0.72"),
        ("finetune", "keras", "0.75"),
    ]
    everything = (output / "tables.md").read_text(encoding="utf-8")
    for name in ("summary.md", "frameworks.md"):
        assert (output / name).read_text(encoding="utf-8") in everything
    assert "1 FAILED" in everything


def test_experiment_without_finished_runs_is_one_clear_line(uri: str, tmp_path: Path) -> None:
    done = compare("--experiment", "broken", "--tracking_uri", uri, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("compare.py: error: experiment 'broken' has no finished run")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "comparison").exists()


def test_unknown_experiment_is_named_beside_the_existing_ones(uri: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'dmo'.*demo"):
        main(["--experiment", "dmo", "--tracking_uri", uri, "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_written_is_named(uri: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write the tables to .*taken.*choose another --output"):
        main(["--experiment", "demo", "--tracking_uri", uri, "--output", str(tmp_path / "taken")])


def test_help_answers_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, compare\n"
        "try: compare.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'mlflow', 'pandas', 'sklearn', 'plotly', 'torch', 'keras', 'tensorflow', 'jax', 'lightning'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert time.monotonic() - started < 5  # a loaded machine; it is 0.1 s on an idle one
    assert "--experiment" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_comparing_needs_no_framework(uri: str, tmp_path: Path) -> None:
    code = (
        "import sys, compare\n"
        f"compare.main(['--experiment', 'demo', '--tracking_uri', {uri!r}, '--output', {str(tmp_path)!r}])\n"
        "frameworks = {'torch', 'keras', 'tensorflow', 'jax', 'lightning', 'pytorch_lightning'}\n"
        "print(sorted(frameworks & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
