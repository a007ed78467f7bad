from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.tracking import MlflowClient

from compare import main
from tandem.comparison.comparison import GroupComparison, compare_runs
from tandem.comparison.page import make_page
from tandem.comparison.predictions import SavedPredictions
from tandem.errors import UserError
from tandem.evaluation.predictions import Predictions
from tandem.published.documents import DOCUMENTS_FILE, Document, PublishedResult, read_document
from tandem.published.tables import published_tables
from tandem.rendering.tables import Estimate, Table, render_csv, render_latex, render_markdown
from tandem.tracking.reader import RunRecord

MakeRun = Callable[..., RunRecord]
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NAMES = ("birds", "cifar100_lightweight", "eight_datasets", "imagenette", "mobilenet_vs_efficientnetv2")


def published_table(document: Document, groups: Sequence[GroupComparison]) -> Table:
    """The results one by one."""
    return next(table for table in published_tables(document, groups) if table.name == "published")


def rows(table: Table) -> list[dict[str, Any]]:
    keys = [column.key for column in table.columns]
    return [dict(zip(keys, row, strict=True)) for row in table.rows]


def row_of(name: str, **wanted: str) -> dict[str, Any]:
    """The one row of a document's table, made without runs, that has these values."""
    (row,) = [row for row in rows(published_table(read_document(name), ())) if wanted.items() <= row.items()]
    return row


def document(*results: PublishedResult) -> Document:
    return Document(name="study", source="A study.", notes=("Lost: a figure.",), results=results)


def our_rows(runs: list[RunRecord], *results: PublishedResult) -> list[tuple[str | None, object]]:
    table = published_table(document(*results), compare_runs(runs).groups)
    return [(row["row"], row["accuracy"]) for row in rows(table)]


# Typed by hand from the documents' own tables.
@pytest.mark.parametrize(
    ("name", "data", "backbone", "regime", "accuracy"),
    [
        ("eight_datasets", "MNIST", "alexnet", "frozen", 0.9465),
        ("eight_datasets", "MNIST", "alexnet", "scratch", 0.9453),
        ("eight_datasets", "Vegetable Image Dataset", "vgg19", "scratch", 0.7885),
        ("eight_datasets", "Caltech 101", "resnet50", "frozen", 0.9962),
        ("eight_datasets", "CIFAR-10", "densenet121", "frozen", 0.8263),
        ("eight_datasets", "SDSS17", "densenet161", "frozen", 0.9818),
        ("cifar100_lightweight", "CIFAR-100", "alexnet", "scratch", 0.61),
        ("imagenette", "Imagenette", "efficientnet_b0", "frozen", 0.91),
        ("imagenette", "Imagenette", "resnet50", "off_the_shelf", 0.827),
    ],
)
def test_published_accuracies(name: str, data: str, backbone: str, regime: str, accuracy: float) -> None:
    assert row_of(name, data=data, backbone=backbone, regime=regime)["accuracy_published"] == accuracy


def test_published_scores_and_times_beside_accuracy() -> None:
    scratch = row_of("imagenette", regime="scratch")
    assert [scratch[f"{name}_published"] for name in ("precision", "recall", "f1")] == [0.75, 0.73, 0.73]
    alexnet = row_of("cifar100_lightweight", backbone="alexnet")
    assert (alexnet["recall_published"], alexnet["train_seconds_published"]) == (0.57, 55 * 60)
    thawed = row_of("birds", regime="two_stage", framework="torch")
    assert (thawed["accuracy_published"], thawed["train_seconds_published"]) == (None, 53 * 60)
    keras = row_of("birds", regime="scratch", framework="keras")
    assert keras["train_seconds_published"] == pytest.approx(27 * 60 + 42)


def training_row_of(name: str, **wanted: str) -> dict[str, Any]:
    (table,) = [table for table in published_tables(read_document(name), ()) if table.name == "published_training"]
    (row,) = [row for row in rows(table) if wanted.items() <= row.items()]
    return row


def test_published_training_is_shown() -> None:
    resnet = training_row_of("cifar100_lightweight", backbone="resnet50")
    names = ("train_accuracy", "val_accuracy", "train_loss", "val_loss", "epochs")
    assert [resnet[f"{name}_published"] for name in names] == [0.7429, 0.7077, 0.8459, 1.0027, 25]
    scratch = training_row_of("imagenette", regime="scratch")
    assert [scratch[f"{name}_published"] for name in ("epochs", "best_epoch", "train_accuracy")] == [40, 5, 1.0]
    article = training_row_of("mobilenet_vs_efficientnetv2", backbone="efficientnet_v2_b0")
    assert (article["epochs_published"], article["parameters_published"]) == (25, 7.2e6)
    assert row_of("mobilenet_vs_efficientnetv2", backbone="mobilenet_v2")["test_loss_published"] == 0.1215


def test_every_number_of_a_result_is_in_a_table() -> None:
    hidden = {"data", "backbone", "regime", "framework", "accuracy", "classes", "note", "train_minutes"}
    for name in NAMES:
        found = read_document(name)
        columns = {column.key for table in published_tables(found, ()) for column in table.columns}
        for result in found.results:
            for field in set(vars(result)) - hidden:
                if getattr(result, field) is not None:
                    assert {f"{field}_published", field} <= columns


def test_published_images_are_those_of_the_data_set() -> None:
    found = read_document("imagenette")
    counts = {name: (of.train, of.val) for name, of in found.images.items()}
    assert set(counts) == set(found.results[1].classes)
    train, val = (sum(counts[name][part] for name in counts) for part in (0, 1))
    assert (train, val) == (9469, 3925)
    assert {name: pair[1] for name, pair in counts.items()} == {
        name: scores.support for name, scores in found.results[1].classes.items()
    }
    # The least and the largest share of a class, as its text gives them.
    shares = [[round(100 * counts[name][part] / total, 2) for name in counts] for part, total in ((0, train), (1, val))]
    assert [(min(of_part), max(of_part)) for of_part in shares] == [(9.06, 10.49), (9.1, 10.68)]
    for of in found.images.values():
        assert list(of.quartiles_bytes) == sorted(of.quartiles_bytes) and len(of.quartiles_bytes) == 5
        assert of.quartiles_bytes[0] < of.mean_bytes < of.quartiles_bytes[-1]
    (table,) = [table for table in published_tables(found, ()) if table.name == "published_images"]
    tench = rows(table)[0]
    assert (tench["class"], tench["train"], tench["mean_bytes"], tench["max_bytes"]) == ("tench", 963, 121188, 7295320)


def test_eight_data_sets_have_their_two_tables_whole() -> None:
    results = read_document("eight_datasets").results
    counts = {regime: sum(result.regime == regime for result in results) for regime in ("scratch", "frozen")}
    assert counts == {"scratch": 3 * 8, "frozen": 8 * 8}
    # The means that its notes hold against the document's own.
    for families, mean in (({"resnet50", "resnet101", "resnet152"}, 0.8639), ({"densenet121", "densenet161"}, 0.8832)):
        accuracies = [result.accuracy or 0.0 for result in results if result.backbone in families]
        assert round(sum(accuracies) / len(accuracies), 4) == mean


@pytest.mark.parametrize("name", NAMES)
def test_every_document_has_sound_results_and_makes_a_table(name: str) -> None:
    found = read_document(name)
    assert found.results and found.source.endswith(".") and all(note.endswith(".") for note in found.notes)
    for result in found.results:
        scores = [result.accuracy, result.precision, result.recall, result.f1]
        assert all(0 < score < 1 for score in scores if score is not None)
        assert result.accuracy is not None or result.train_minutes is not None
        assert result.framework in (None, "torch", "keras")
        # A note becomes part of a sentence, which gets its full stop in the table.
        assert result.note is None or not result.note.endswith(".")
    identities = [(one.data, one.backbone, one.regime, one.framework) for one in found.results]
    assert len(set(identities)) == len(identities)
    table = published_table(found, ())
    assert table.title == f"Published against ours: {name}"
    assert len(table.rows) == len(found.results)
    assert all(row["row"] is None and row["accuracy"] is None for row in rows(table))


def test_ours_stand_beside_the_published_result(make_run: MakeRun) -> None:
    runs = [
        make_run(regime="frozen", accuracy=accuracy, seed=seed, tags={"tandem.data": "cifar10"})
        for seed, accuracy in enumerate((0.84, 0.86))
    ]
    published = PublishedResult(
        data="CIFAR-10", backbone="mobilenet_v2", regime="frozen", accuracy=0.9, train_minutes=2
    )
    (row,) = rows(published_table(document(published), compare_runs(runs).groups))
    assert row["row"] == "frozen torch"
    assert row["accuracy"] == pytest.approx(0.85)
    assert row["accuracy_difference"] == pytest.approx(-0.05)
    assert (row["train_seconds_published"], row["train_seconds"]) == (120, 60)


def test_each_published_number_has_ours_beside_it(make_run: MakeRun) -> None:
    metrics = {
        **{f"test/{name}_macro": value for name, value in (("precision", 0.7), ("recall", 0.71), ("f1", 0.72))},
        **{"test/log_loss": 0.5, "train/accuracy": 0.99, "val/accuracy": 0.8, "train/loss": 0.1, "val/loss": 0.6},
        **{"cost/epochs": 12.0, "phase_1/cost/best_epoch": 4.0},
    }
    run = make_run(regime="frozen", metrics=metrics, tags={"tandem.data": "MNIST"})
    of_theirs = {
        **{"precision": 0.6, "recall": 0.61, "f1": 0.62, "test_loss": 0.4, "train_accuracy": 0.9, "val_accuracy": 0.7},
        **{"train_loss": 0.2, "val_loss": 0.3, "epochs": 10, "best_epoch": 3, "parameters": 1e6},
    }
    result = PublishedResult(data="MNIST", backbone="mobilenet_v2", regime="frozen", **of_theirs)
    tables = published_tables(document(result), compare_runs([run]).groups)
    shown: dict[str, Any] = {}
    for table in tables:
        if table.name in ("published", "published_training"):
            shown |= rows(table)[0]
    assert {name: shown[f"{name}_published"] for name in of_theirs} == of_theirs
    assert {name: shown[name] for name in of_theirs} == {
        **{"precision": 0.7, "recall": 0.71, "f1": 0.72, "test_loss": 0.5, "train_accuracy": 0.99, "val_accuracy": 0.8},
        **{"train_loss": 0.1, "val_loss": 0.6, "epochs": 12, "best_epoch": 5, "parameters": 2_200_000},
    }


def test_scores_of_a_network_off_the_shelf_are_those_over_all_outputs(make_run: MakeRun) -> None:
    metrics = {"test/precision_macro": 0.98, "test/imagenet_precision_macro": 0.04, "test/imagenet_accuracy": 0.8}
    params = {"backbone": "resnet50"}
    run = make_run(regime="off_the_shelf", metrics=metrics, params=params, tags={"tandem.data": "imagenette"})
    table = published_table(read_document("imagenette"), compare_runs([run]).groups)
    assert any(note.startswith("Our precision, recall and F1 are means over the classes") for note in table.notes)
    first = rows(table)[0]
    assert (first["row"], first["precision_published"], first["precision"]) == ("off_the_shelf torch", 0.0359, 0.04)


def test_our_interval_is_that_of_the_summary(make_run: MakeRun, make_predictions: Callable[..., Predictions]) -> None:
    run = make_run(accuracy=0.75, tags={"tandem.data": "MNIST"})
    saved = SavedPredictions(final={run.run_id: make_predictions([True, True, True, False] * 25)})
    comparison = compare_runs([run], lambda cells: saved)
    published = PublishedResult(data="MNIST", backbone="mobilenet_v2", regime="finetune", accuracy=0.8)
    (row,) = rows(published_table(document(published), comparison.groups))
    assert isinstance(row["accuracy"], Estimate)
    (summary,) = rows(comparison.groups[0].tables["summary"])
    assert row["accuracy"] == summary["accuracy"]
    assert row["accuracy_difference"] == pytest.approx(-0.05)


@pytest.mark.parametrize(
    ("published", "ours", "matches"),
    [
        ("MNIST", "mnist", True),
        ("CIFAR-10", "cifar10", True),
        ("300 Bird Species", "300_bird_species", True),
        ("MNIST", "Fashion MNIST", False),
        ("CIFAR-10", "CIFAR-100", False),
    ],
)
def test_data_sets_match_by_their_letters_and_digits(
    make_run: MakeRun, published: str, ours: str, matches: bool
) -> None:
    result = PublishedResult(data=published, backbone="mobilenet_v2", regime="finetune", accuracy=0.5)
    expected = ("finetune torch", 0.9) if matches else (None, None)
    assert our_rows([make_run(tags={"tandem.data": ours})], result) == [expected]


@pytest.mark.parametrize(
    ("name", "ours", "data"),
    [
        ("birds", "birds300", "300 Bird Species"),
        ("birds", "birds400", None),
        ("cifar100_lightweight", "cifar100", "CIFAR-100"),
        ("imagenette", "imagenette", "Imagenette"),
        ("imagenette", "imagenette2-320", "Imagenette"),
        ("imagenette", "imagewoof2", None),
        ("eight_datasets", "mnist", "MNIST"),
        ("eight_datasets", "fashion_mnist", "Fashion MNIST"),
        ("eight_datasets", "cifar10", "CIFAR-10"),
        ("eight_datasets", "cifar100", "CIFAR-100"),
        ("eight_datasets", "labelme", "LabelMe"),
        ("eight_datasets", "sdss17", "SDSS17"),
        ("eight_datasets", "vegetables", "Vegetable Image Dataset"),
        ("eight_datasets", "caltech101", "Caltech 101"),
        ("eight_datasets", "flowers", None),
        ("mobilenet_vs_efficientnetv2", "flowers", None),
    ],
)
def test_documents_know_our_names_for_their_data_sets(name: str, ours: str, data: str | None) -> None:
    assert read_document(name).data_of(ours) == data


@pytest.mark.parametrize(("name", "folder"), [("birds", "birds300"), ("imagenette", "imagenette/imagenette2")])
def test_grids_of_documents_say_where_a_copy_of_the_images_is_found_under_its_name(name: str, folder: str) -> None:
    text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    head = text.partition("experiment:")[0]
    assert f"~/.cache/tandem/datasets/{folder}" in head and "--data.source" not in head
    source = yaml.safe_load(text)["settings"]["data"]["source"]
    assert folder.split("/")[0] == source
    assert read_document(name).data_of(source) is not None


def test_every_other_name_of_a_data_set_is_of_one_that_the_document_has() -> None:
    for name in NAMES:
        found = read_document(name)
        assert set(found.data_names) <= set(found.data_sets)


def test_backbone_and_regime_must_be_the_same(make_run: MakeRun) -> None:
    run = make_run(regime="frozen", tags={"tandem.data": "MNIST"})
    others = [("resnet50", "frozen"), ("mobilenet_v2", "finetune"), ("resnet50", None)]
    results = [PublishedResult(data="MNIST", backbone=backbone, regime=regime) for backbone, regime in others]
    assert our_rows([run], *results) == [(None, None)] * 3


def test_every_regime_stands_beside_a_result_that_leaves_it_open(make_run: MakeRun) -> None:
    runs = [
        make_run(regime=regime, accuracy=accuracy, tags={"tandem.data": "MNIST"})
        for regime, accuracy in (("scratch", 0.6), ("finetune", 0.9))
    ]
    result = PublishedResult(data="MNIST", backbone="mobilenet_v2", accuracy=0.7)
    table = published_table(document(result), compare_runs(runs).groups)
    assert [(row["regime"], row["row"]) for row in rows(table)] == [(None, "scratch torch"), (None, "finetune torch")]
    assert [row["accuracy_difference"] for row in rows(table)] == [pytest.approx(-0.1), pytest.approx(0.2)]
    assert any(note.startswith("Where the document leaves the regime open") for note in table.notes)


def test_every_data_set_stands_beside_a_result_that_names_none_and_without_a_difference(make_run: MakeRun) -> None:
    result = PublishedResult(backbone="mobilenet_v2", regime="finetune", accuracy=0.8)
    runs = [make_run(tags={"tandem.data": name, "tandem.test_hash": name}) for name in ("flowers", "leaves")]
    table = published_table(document(result), compare_runs(runs).groups)
    assert {row["row"] for row in rows(table)} == {"flowers: finetune torch", "leaves: finetune torch"}
    assert all(row["accuracy"] == 0.9 and row["accuracy_difference"] is None for row in rows(table))
    assert any(note.startswith("Where the document does not name the data set") for note in table.notes)
    # The row says which images it is of where there is no other one, too.
    assert our_rows(runs[:1], result) == [("flowers: finetune torch", 0.9)]


@pytest.mark.parametrize(
    ("name", "source", "backbones", "matched"),
    [
        ("cifar100_lightweight", "cifar100", ("efficientnet_b0", "resnet50", "alexnet"), 2),
        ("mobilenet_vs_efficientnetv2", "flowers", ("mobilenet_v2", "efficientnet_v2_b0", "resnet50_v2"), 3),
    ],
)
def test_frozen_runs_of_a_documents_backbones_stand_beside_its_results(
    make_run: MakeRun, name: str, source: str, backbones: tuple[str, ...], matched: int
) -> None:
    runs = [
        make_run(regime="frozen", params={"backbone": backbone}, tags={"tandem.data": source}) for backbone in backbones
    ]
    found = rows(published_table(read_document(name), compare_runs(runs).groups))
    assert [row["row"] is not None for row in found] == [True] * matched + [False] * (3 - matched)


def test_framework_counts_where_the_document_names_it(make_run: MakeRun) -> None:
    runs = [
        make_run("torch", accuracy=0.7, tags={"tandem.data": "MNIST"}),
        make_run("keras", accuracy=0.8, tags={"tandem.data": "MNIST"}),
        make_run("keras", accuracy=0.9, backend="jax", tags={"tandem.data": "MNIST"}),
    ]
    named = PublishedResult(data="MNIST", backbone="mobilenet_v2", regime="finetune", framework="keras")
    assert our_rows(runs, named) == [("finetune keras", 0.8), ("finetune keras (jax)", 0.9)]
    assert our_rows(runs, replace(named, framework="torch")) == [("finetune torch", 0.7)]
    assert len(our_rows(runs, replace(named, framework=None))) == 3


def test_unlike_settings_are_rows_of_their_own_and_matched_rows_come_first(make_run: MakeRun) -> None:
    runs = [
        make_run(accuracy=accuracy, params={"learning_rate": rate}, tags={"tandem.data": "MNIST"})
        for rate, accuracy in (("0.001", 0.9), ("0.01", 0.8))
    ]
    results = [
        PublishedResult(data="MNIST", backbone=backbone, regime="finetune") for backbone in ("alexnet", "mobilenet_v2")
    ]
    assert our_rows(runs, *results) == [
        ("finetune torch (learning_rate 0.001)", 0.9),
        ("finetune torch (learning_rate 0.01)", 0.8),
        (None, None),
    ]


def test_rows_of_several_test_sets_say_which(make_run: MakeRun) -> None:
    runs = [
        make_run(accuracy=accuracy, tags={"tandem.data": data, "tandem.test_hash": data})
        for data, accuracy in (("MNIST", 0.9), ("LabelMe", 0.8))
    ]
    result = PublishedResult(data="LabelMe", backbone="mobilenet_v2", regime="finetune")
    assert our_rows(runs, result) == [("LabelMe: finetune torch", 0.8)]


def test_stand_ins_are_marked_and_explained(make_run: MakeRun) -> None:
    result = PublishedResult(data="MNIST", backbone="mobilenet_v2", regime="finetune")
    run = make_run(tags={"tandem.data": "MNIST", "tandem.budget": "small"})
    assert our_rows([run], result) == [("finetune torch (small budget)", 0.9)]
    table = published_table(document(result), compare_runs([run]).groups)
    assert any(note.startswith("A row of ours that is marked as of a small budget") for note in table.notes)


def test_first_phase_of_two_stage_stands_beside_a_published_frozen(make_run: MakeRun) -> None:
    run = make_run(
        regime="two_stage", tags={"tandem.data": "MNIST"}, metrics={"phase_1/test/accuracy": 0.7}, accuracy=0.8
    )
    results = [
        PublishedResult(data="MNIST", backbone="mobilenet_v2", regime=regime) for regime in ("frozen", "two_stage")
    ]
    assert our_rows([run], *results) == [("two_stage torch, first phase", 0.7), ("two_stage torch", 0.8)]


def test_notes_say_how_rows_were_matched_and_what_is_lost() -> None:
    result = PublishedResult(data="MNIST", backbone="alexnet", regime="frozen", accuracy=0.5, note="rounded")
    first, matched, differ, *rest = published_table(document(result), ()).notes
    assert first == "A study."
    assert matched.startswith("Matched by backbone, and by data set, regime and framework where")
    assert differ.startswith("Protocol and images differ")
    assert rest == ["Lost: a figure.", "MNIST alexnet frozen: rounded."]


def test_columns_are_those_that_the_document_fills() -> None:
    keys = {name: [column.key for column in published_table(read_document(name), ()).columns] for name in NAMES}
    assert keys["eight_datasets"] == [
        *("data", "backbone", "regime", "accuracy_published", "row", "accuracy", "accuracy_difference")
    ]
    assert "framework" in keys["birds"] and "train_seconds_published" in keys["birds"]
    assert "recall_published" in keys["cifar100_lightweight"] and "f1_published" not in keys["cifar100_lightweight"]


def test_table_is_written_in_every_format() -> None:
    table = published_table(read_document("eight_datasets"), ())
    read = list(csv.DictReader(io.StringIO(render_csv(table))))
    assert len(read) == 88
    assert {"data": "MNIST", "backbone": "alexnet", "regime": "frozen", "accuracy_published": "0.9465"}.items() <= read[
        24
    ].items()
    assert "| MNIST " in render_markdown(table)
    assert r"\begin{longtable}" in render_latex(table)


def test_table_is_a_section_of_the_page(make_run: MakeRun, tmp_path: Path) -> None:
    comparison = compare_runs([make_run()])
    table = published_table(read_document("birds"), comparison.groups)
    shown = replace(comparison, published=(table,))
    assert shown.tables == (*comparison.tables, table)
    page = make_page(shown, [{}], experiment="demo", folder=tmp_path)
    assert [section.blocks for section in page.sections if section.title == "Published results"] == [(table,)]
    page = make_page(comparison, [{}], experiment="demo", folder=tmp_path)
    assert "Published results" not in [section.title for section in page.sections]


def test_unknown_document_is_refused_beside_the_known_ones(tmp_path: Path) -> None:
    # Before anything is read: there is no store here.
    with pytest.raises(UserError) as caught:
        main(["--published", "bird", "--tracking_uri", f"sqlite:///{tmp_path}/none.db"])
    assert str(caught.value) == f"--published: received 'bird', allowed: {', '.join(NAMES)}"


def test_help_names_every_document(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    documents = yaml.safe_load(DOCUMENTS_FILE.read_text(encoding="utf-8"))
    assert tuple(documents) == NAMES
    assert all(name in text for name in documents)


def test_without_runs_the_published_results_are_shown_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    main(["--published", "birds", "--tracking_uri", f"sqlite:///{tmp_path}/none.db", "--output", str(output)])
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


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with an experiment `empty`, and one `broken` with a run that failed."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(tracking_uri=uri)
    client.create_experiment("empty", (folder / "empty").as_uri())
    broken = client.create_experiment("broken", (folder / "broken").as_uri())
    run = client.create_run(broken, tags={"tandem.framework": "torch"}, run_name="broke")
    client.set_terminated(run.info.run_id, "FAILED")
    return uri


@pytest.mark.parametrize(
    ("experiment", "said"),
    [("empty", "has no runs of Tandem"), ("broken", "no finished run"), ("emty", "no experiment 'emty'")],
)
def test_experiment_without_results_is_no_error_unless_a_page_is_asked_for(
    uri: str, experiment: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--published", "birds", "--experiment", experiment, "--tracking_uri", uri]
    arguments += ["--output", str(tmp_path / "out")]
    main(arguments)
    assert said in capsys.readouterr().out.splitlines()[-1]
    with pytest.raises(UserError, match=said):
        main([*arguments, "--html", str(tmp_path / "page.html")])
    assert "Published against ours: birds" in capsys.readouterr().out
    assert not (tmp_path / "page.html").exists()


def test_long_lists_are_in_the_files_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    main(["--published", "eight_datasets", "--tracking_uri", f"sqlite:///{tmp_path}/none.db", "--output", str(output)])
    printed = capsys.readouterr().out
    assert "resnet: 86.39 % over the family; the document states 86.19 %, that of resnet152 alone." in printed
    assert "densenet: 88.32 % over the family; the document states 89.91 %, that of densenet161 alone." in printed
    assert "Of 24 published pairs 8 are negative and 1 is a tie." in printed
    assert f"Published against ours: eight_datasets: 88 rows, in {output}" in printed
    for name in ("published", "published_claims", "published_transfer", "published_families", "published_data_sets"):
        assert (output / f"{name}.csv").is_file()


def test_store_that_does_not_answer_is_an_error_after_the_published_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.db").write_text("no database, but long enough to be read as the header of one" * 20)
    arguments = ["--published", "birds", "--tracking_uri", f"sqlite:///{tmp_path}/text.db"]
    with pytest.raises(UserError, match="MLflow"):
        main([*arguments, "--output", str(tmp_path / "out")])
    assert "Published against ours: birds" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
