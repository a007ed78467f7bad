from __future__ import annotations

import contextlib
import csv
import itertools
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from compare import main
from tandem.errors import UserError
from tandem.evaluation.metrics import scores
from tandem.evaluation.predictions import Predictions, softmax
from tandem.recording.grad_cam import GradCam, choose_images

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with the experiments `demo`, `broken` without a finished run, and `empty`."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(tracking_uri=uri)
    names = ("demo", "broken", "empty")
    demo, broken, _ = (client.create_experiment(name, (folder / name).as_uri()) for name in names)

    def add(experiment: str, framework: str, regime: str, accuracy: float, status: str = "FINISHED") -> None:
        tags = {
            "tandem.framework": framework,
            "tandem.backend": "torch" if framework == "torch" else "tensorflow",
            "tandem.test_hash": "0123",
            "tandem.data": "digits 5-9",
        }
        run_id = client.create_run(experiment, tags=tags, run_name=f"small-{regime}-{framework}").info.run_id
        weights = "random" if regime == "scratch" else "imagenet"
        params = {"backbone": "small", "regime": regime, "seed": "0", "weights": weights}
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


def make_predictions(seed: int, skill: float) -> Predictions:
    images, num_classes = 90, 3
    truth = np.arange(images, dtype=np.int64) % num_classes
    logits = np.random.default_rng(seed).normal(size=(images, num_classes))
    logits[np.arange(images), truth] += skill
    return Predictions(
        keys=tuple(f"{index}.png" for index in range(images)),
        hashes=tuple(f"{index:04}" for index in range(images)),
        truth=truth,
        probabilities=softmax(logits),
        classes=("cat", "dog", "owl"),
    )


@pytest.fixture(scope="module")
def whole_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with the experiment `whole`, whose runs have predictions, curves and, those of torch, Grad-CAM maps."""
    folder = tmp_path_factory.mktemp("whole")
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("whole", (folder / "artifacts").as_uri())

    def add(framework: str, regime: str, predictions: Predictions, after_first_phase: Predictions | None) -> None:
        tags = {
            "tandem.framework": framework,
            "tandem.backend": "torch" if framework == "torch" else "tensorflow",
            "tandem.test_hash": "0123",
            "tandem.data": "animals",
            "tandem.grad_cam": "2 images" if framework == "torch" else "none: asked for none",
        }
        run_id = client.create_run(experiment, tags=tags, run_name=f"{regime}-{framework}").info.run_id
        measured = {f"test/{name}": value for name, value in scores(predictions).items()}
        measured |= {"cost/train_seconds": 30.0 if framework == "torch" else 40.0}
        local = folder / run_id
        predictions.write(local / "final" / "predictions.parquet")
        if after_first_phase:
            after_first_phase.write(local / "phase_1" / "predictions.parquet")
            measured |= {f"phase_1/test/{name}": value for name, value in scores(after_first_phase).items()}
            measured |= {"phase_1/cost/train_seconds": 10.0}
        if framework == "torch":
            rows = choose_images(predictions, 2)
            GradCam(
                keys=tuple(predictions.keys[row] for row in rows),
                hashes=tuple(predictions.hashes[row] for row in rows),
                classes=predictions.classes,
                truth=predictions.truth[rows],
                predicted=predictions.predicted[rows],
                images=np.zeros((2, 8, 8, 3), np.uint8),
                maps=np.zeros((2, 2, 8, 8), np.uint8),
            ).write(local / "final" / "grad_cam.npz")
        client.log_artifacts(run_id, str(local))
        curves = {"train/loss": 0.5, "val/loss": 0.6, "train/accuracy": 0.8, "val/accuracy": 0.7, "epoch/phase": 1.0}
        client.log_batch(
            run_id,
            metrics=[
                *(Metric(name, value, timestamp=0, step=0) for name, value in measured.items()),
                *(Metric(name, value, 0, step) for name, value in curves.items() for step in range(3)),
            ],
            params=[Param("backbone", "small"), Param("regime", regime), Param("seed", "0")],
        )
        client.set_terminated(run_id)

    for number, framework in enumerate(("torch", "keras")):
        add(framework, "scratch", make_predictions(number, 0.5), None)
        add(framework, "two_stage", make_predictions(2 + number, 2.5), make_predictions(4 + number, 1.0))
    return uri


def compare(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "compare.py"), *arguments], cwd=folder, capture_output=True, text=True, timeout=60
    )


def test_tables_are_printed_and_written(uri: str, tmp_path: Path) -> None:
    done = compare("--experiment", "demo", "--tracking.uri", uri, "--output", "out/tables", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["finetune", "keras", "0.7500", "0.7500", "0.1000", "-", "-", "-"] in lines
    assert "small-two_stage-torch" in done.stdout and "1 FAILED" in done.stdout

    output = tmp_path / "out" / "tables"
    names = ("summary", "scores", "frameworks", "transfer", "cost")
    expected = {f"{name}.{kind}" for name in names for kind in ("md", "csv", "tex")}
    assert {path.name for path in output.iterdir()} == expected | {"tables.md"}
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
    # The runs have no files, which is reported once and does not hide the scores.
    assert done.stdout.count("No intervals and tests") == 1


def test_predictions_give_intervals_and_a_recommendation(whole_uri: str, tmp_path: Path) -> None:
    done = compare("--experiment", "whole", "--tracking.uri", whole_uri, folder=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "95 % intervals over the 90 test images" in done.stdout
    assert "- The most accurate is two_stage" in done.stdout
    assert "Thawing changed accuracy by +" not in done.stdout  # only on request, with --all
    with (tmp_path / "comparison" / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert float(row["accuracy_low"]) < float(row["accuracy"]) < float(row["accuracy_high"])
    text = (tmp_path / "comparison" / "tables.md").read_text(encoding="utf-8")
    assert "## Recommendation: animals" in text


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_printed_numbers_are_those_of_the_files(
    whole_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    main(["--experiment", "whole", "--tracking_uri", whole_uri, "--all"])
    printed = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    values = set()
    for file in (tmp_path / "comparison").glob("*.csv"):
        for cell in itertools.chain.from_iterable(csv.reader(file.read_text(encoding="utf-8").splitlines())):
            with contextlib.suppress(ValueError):
                values.add(f"{round(float(cell), 12) + 0.0:.4f}")
    rows = [row for table in re.findall(r"─+ *\n(.+?)\n\n", printed, re.DOTALL) for row in table.splitlines()]
    assert len(rows) > 20 and max(map(len, rows)) <= width
    for row in rows:
        for number in re.findall(r"(?<![\w.])[+-]?(\d\.\d+)(?! (?:s|ms|min|h)\b)(?![\dx])", row):
            assert number in values or f"-{number}" in values, (number, row)


def test_page_is_written_and_logged_to_the_experiment(whole_uri: str, tmp_path: Path) -> None:
    arguments = ["--experiment", "whole", "--tracking.uri", whole_uri, "--html", "pages/report.html"]
    for _ in range(2):  # the second comparison does not compare the run of the first
        done = compare(*arguments, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "4 runs" in (tmp_path / "pages" / "report.html").read_text(encoding="utf-8")
    run_id = done.stdout.split()[-1]
    client = MlflowClient(tracking_uri=whole_uri)
    assert [file.path for file in client.list_artifacts(run_id)] == ["report.html"]
    assert "tandem.framework" not in client.get_run(run_id).data.tags
    text = (tmp_path / "pages" / "report.html").read_text(encoding="utf-8")
    for title in ("Recommendation", "Thawing", "Negative transfer", "Grad-CAM", "Confusions", "Calibration"):
        assert f"<h2>{title}</h2>" in text


def test_published_results_are_a_section_of_the_page(whole_uri: str, tmp_path: Path) -> None:
    arguments = ["--experiment", "whole", "--tracking.uri", whole_uri, "--published", "imagenette"]
    done = compare(*arguments, "--html", "report.html", folder=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.index("Recommendation: animals") < done.stdout.index("Published claims: imagenette")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    section = text[text.index('id="published"') :]
    for title in ("Published claims: imagenette", "Published classification report: Imagenette efficientnet_b0 frozen"):
        assert f"<h3>{title}</h3>" in section
    with (tmp_path / "comparison" / "published_claims.csv").open(newline="") as file:
        assert {row["ours_because"] for row in csv.DictReader(file)} == {"no runs on Imagenette"}


@pytest.mark.skipif(not any(map(shutil.which, ("chromium", "google-chrome"))), reason="draws with Chrome")
def test_figures_are_written_as_files(whole_uri: str, tmp_path: Path) -> None:
    done = compare("--experiment", "whole", "--tracking.uri", whole_uri, "--figures", "svg", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    written = {path.name for path in (tmp_path / "comparison" / "figures").iterdir()}
    assert {"accuracy_time.svg", "curves.svg", "thawing.svg", "confusions.svg"} < written


def test_page_that_cannot_be_written_is_named(whole_uri: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    arguments = ["--experiment", "whole", "--tracking.uri", whole_uri, "--output", str(tmp_path / "out")]
    with pytest.raises(UserError, match=r"cannot write the page to .*taken.*choose another --html"):
        main([*arguments, "--html", str(tmp_path / "taken" / "report.html")])


def test_server_that_is_down_is_one_clear_line(tmp_path: Path) -> None:
    done = compare("--tracking.uri", "http://127.0.0.1:1", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("compare.py: error: ") and done.stderr.count("\n") == 1
    assert "127.0.0.1:1" in done.stderr


def test_folder_without_runs_is_one_clear_line(tmp_path: Path) -> None:
    done = compare(folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("compare.py: error: there are no runs yet") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--tracking.uri", "--tracking_uri"])
def test_tracking_uri_is_given_by_its_name_in_the_scripts_or_by_its_old_one(
    uri: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--experiment", "demo", option, uri, "--output", str(tmp_path / "out")])
    assert "Models, regimes, frameworks" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--help"])
    words = capsys.readouterr().out
    assert "--tracking.uri URI" in words and "--tracking_uri" not in words


def test_experiment_without_finished_runs_is_one_clear_line(uri: str, tmp_path: Path) -> None:
    done = compare("--experiment", "broken", "--tracking.uri", uri, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("compare.py: error: experiment 'broken' has no finished run")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "comparison").exists()


def test_unknown_experiment_is_refused_with_the_known_names(uri: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'dmo'.*demo"):
        main(["--experiment", "dmo", "--tracking.uri", uri, "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("margin", ["0", "1", "-0.01", "nan", "inf"])
def test_margin_that_is_no_difference_is_one_clear_line(margin: str) -> None:
    with pytest.raises(UserError, match=r"--margin is a difference in accuracy above 0 and below 1\. Received: "):
        main(["--margin", margin])


def test_margin_is_printed_and_decides_what_is_equivalent(
    whole_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--experiment", "whole", "--tracking_uri", whole_uri, "--output", str(tmp_path / "out")]

    def verdicts(*more: str) -> list[str]:
        main([*arguments, *more])
        with (tmp_path / "out" / "summary.csv").open(newline="") as file:
            return [row["against_best"] for row in csv.DictReader(file)]

    assert "equivalent" not in verdicts()
    assert "less than one point (0.01)" in capsys.readouterr().out
    assert "equivalent" in verdicts("--margin", "0.9")
    assert "less than 90 points (0.9)" in capsys.readouterr().out


def test_output_that_cannot_be_written_is_named(uri: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write the tables to .*taken.*choose another --output"):
        main(["--experiment", "demo", "--tracking.uri", uri, "--output", str(tmp_path / "taken")])


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
    assert time.monotonic() - started < 5  # 0.1 s on an idle machine
    assert "--experiment" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_tables_need_neither_a_framework_nor_plotly(uri: str, tmp_path: Path) -> None:
    code = (
        "import sys, compare\n"
        f"compare.main(['--experiment', 'demo', '--tracking.uri', {uri!r}, '--output', {str(tmp_path)!r}])\n"
        "slow = {'torch', 'keras', 'tensorflow', 'jax', 'lightning', 'pytorch_lightning', 'plotly'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_published_results_are_shown_and_written_without_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    main(["--published", "birds", "--tracking.uri", f"sqlite:///{tmp_path}/none.db", "--output", str(output)])
    printed = capsys.readouterr().out
    assert "Published against ours: birds" in printed and "53.0 min" in printed
    assert printed.splitlines()[-1].startswith("there are no runs yet")
    assert {path.name for path in output.iterdir()} == {
        "tables.md",
        *(
            f"{name}.{kind}"
            for name in ("published", "published_claims", "published_training")
            for kind in ("md", "csv", "tex")
        ),
    }


@pytest.mark.parametrize(
    ("experiment", "said"),
    [("empty", "has no runs of Tandem"), ("broken", "no finished run"), ("emty", "no experiment 'emty'")],
)
def test_published_results_need_no_runs_unless_a_page_is_asked_for(
    uri: str, experiment: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--published", "birds", "--experiment", experiment, "--tracking.uri", uri]
    arguments += ["--output", str(tmp_path / "out")]
    main(arguments)
    assert said in capsys.readouterr().out.splitlines()[-1]
    with pytest.raises(UserError, match=said):
        main([*arguments, "--html", str(tmp_path / "page.html")])
    assert "Published against ours: birds" in capsys.readouterr().out
    assert not (tmp_path / "page.html").exists()


def test_long_published_tables_are_only_in_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    main(["--published", "eight_datasets", "--tracking.uri", f"sqlite:///{tmp_path}/none.db", "--output", str(output)])
    printed = capsys.readouterr().out
    assert "resnet: 86.39 % over the family; the document states 86.19 %, the mean of resnet152 alone." in printed
    assert "densenet: 88.32 % over the family; the document states 89.91 %, the mean of densenet161 alone." in printed
    assert "Of 24 published pairs 8 are negative and 1 is a tie." in printed
    assert f"Published against ours: eight_datasets: 88 rows, in {output}" in printed
    for name in ("published", "published_claims", "published_transfer", "published_families", "published_data_sets"):
        assert (output / f"{name}.csv").is_file()


def test_unreadable_store_is_an_error_after_the_published_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.db").write_text("no database, but long enough to be read as the header of one" * 20)
    arguments = ["--published", "birds", "--tracking.uri", f"sqlite:///{tmp_path}/text.db"]
    with pytest.raises(UserError, match="MLflow"):
        main([*arguments, "--output", str(tmp_path / "out")])
    assert "Published against ours: birds" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
