from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from compare import main
from tandem.errors import UserError
from tandem.published.documents import DOCUMENTS_FILE, read_document
from tandem.published.tables import published_tables
from tests.compared import rows_of

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NAMES = ("birds", "cifar100_lightweight", "eight_datasets", "imagenette", "mobilenet_vs_efficientnetv2")


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
    tench = found.images["tench"]
    assert (tench.train, tench.mean_bytes, tench.quartiles_bytes[-1]) == (963, 121188, 7295320)


def test_file_sizes_are_those_printed() -> None:
    """Its Figure 3 prints 8.52740e+04 and 4.08193e+06."""
    assert read_document("imagenette").images["garbage_truck"].quartiles_bytes == (4985, 85274, 124770, 152881, 4081930)


def test_printed_times_are_kept() -> None:
    """Typed from the documents: 3 minutes and 70 seconds per epoch, 16 minutes; 128 and 134 seconds to evaluate."""
    of_birds = {
        one.regime: (one.epoch_seconds, one.phase_2_minutes, one.train_minutes)
        for one in read_document("birds").results
        if one.backbone == "resnet50"
    }
    assert of_birds == {
        "scratch": (180, None, 30),
        "frozen": (70, None, 37),
        "two_stage": (None, 16, 53),
        "finetune": (180, None, 23),
    }
    article = {one.backbone: one.evaluation_seconds for one in read_document("mobilenet_vs_efficientnetv2").results}
    assert article == {"mobilenet_v2": 128, "efficientnet_v2_b0": 134, "resnet50_v2": None}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("imagenette", "cassette_player has the lowest maximum of file sizes (1,628,429 bytes); golf_ball's is lower"),
        ("imagenette", "curves and its test results are of the same 3,925 images"),
        ("cifar100_lightweight", "a custom layer with 1000 neurons"),
        ("cifar100_lightweight", "both cannot be"),
        ("cifar100_lightweight", "the variant of 2014"),
        ("birds", '"in all three experiments" with Adam at 1e-3, and after thawing "using the small learning rate"'),
    ],
)
def test_contradictions_of_documents_are_named(name: str, words: str) -> None:
    assert any(words in note for note in read_document(name).notes)


# Each grid names what its document leaves open.
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("birds", "Batch-norm momentum"),
        ("birds", 'Adam at 1e-3 "in all three experiments", yet a "small" rate'),
        ("cifar100_lightweight", "Which AlexNet"),
        ("cifar100_lightweight", "Batch-norm momentum"),
        ("eight_datasets", "Which AlexNet"),
        ("eight_datasets", "Batch-norm momentum"),
        ("imagenette", "Batch-norm momentum"),
        ("mobilenet_vs_efficientnetv2", "Batch-norm momentum"),
    ],
)
def test_choices_that_a_document_leaves_open_are_listed_in_its_grid(name: str, words: str) -> None:
    lines = (CONFIGS / f"{name}.yaml").read_text().split("experiment:")[0]
    assert words in " ".join(line.removeprefix("#").strip() for line in lines.splitlines())


def test_eight_data_sets_have_their_two_tables_whole() -> None:
    results = read_document("eight_datasets").results
    counts = {regime: sum(result.regime == regime for result in results) for regime in ("scratch", "frozen")}
    assert counts == {"scratch": 3 * 8, "frozen": 8 * 8}
    # The means that its notes hold against the document's own.
    for families, mean in (({"resnet50", "resnet101", "resnet152"}, 0.8639), ({"densenet121", "densenet161"}, 0.8832)):
        accuracies = [result.accuracy or 0.0 for result in results if result.backbone in families]
        assert round(sum(accuracies) / len(accuracies), 4) == mean


@pytest.mark.parametrize("name", NAMES)
def test_every_document_has_valid_results_and_a_table(name: str) -> None:
    found = read_document(name)
    assert found.results and found.source.endswith(".") and all(note.endswith(".") for note in found.notes)
    for result in found.results:
        scores = [result.accuracy, result.precision, result.recall, result.f1]
        assert all(0 < score < 1 for score in scores if score is not None)
        assert result.accuracy is not None or result.train_minutes is not None
        assert result.framework in (None, "torch", "keras")
        # The table adds the full stop.
        assert result.note is None or not result.note.endswith(".")
    identities = [(one.data, one.backbone, one.regime, one.framework) for one in found.results]
    assert len(set(identities)) == len(identities)
    (table,) = [table for table in published_tables(found, ()) if table.name == "published"]
    assert table.title == f"Published against ours: {name}"
    assert len(table.rows) == len(found.results)
    assert all(row["row"] is None and row["accuracy"] is None for row in rows_of(table))


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


def test_other_names_belong_to_data_sets_of_the_document() -> None:
    for name in NAMES:
        found = read_document(name)
        assert set(found.data_names) <= set(found.data_sets)


@pytest.mark.parametrize(("name", "folder"), [("birds", "birds300"), ("imagenette", "imagenette/imagenette2")])
def test_grids_of_documents_name_the_folder_of_their_images(name: str, folder: str) -> None:
    text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    head = text.partition("experiment:")[0]
    assert f"~/.cache/tandem/datasets/{folder}" in head and "--data.source" not in head
    source = yaml.safe_load(text)["settings"]["data"]["source"]
    assert folder.split("/")[0] == source
    assert read_document(name).data_of(source) is not None


def test_unknown_document_is_refused_with_the_known_names(tmp_path: Path) -> None:
    # Before anything is read: there is no store here.
    with pytest.raises(UserError) as caught:
        main(["--published", "bird", "--tracking.uri", f"sqlite:///{tmp_path}/none.db"])
    assert str(caught.value) == f"--published: received 'bird', allowed: {', '.join(NAMES)}"


def test_help_names_every_document(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    documents = yaml.safe_load(DOCUMENTS_FILE.read_text(encoding="utf-8"))
    assert tuple(documents) == NAMES
    assert all(name in text for name in documents)
