from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tandem.comparison.configurations import group_runs
from tandem.errors import UserError
from tandem.grid.file import Grid, GridCell, read_grid, small_budget
from tandem.protocol.backbones import CATALOGUE
from tandem.protocol.settings import DataSettings, PhaseSettings, ScheduleSettings, Settings, flatten
from tandem.published.departures import departures
from tandem.published.documents import read_document
from tandem.tracking.provenance import parameter_text
from tests.compared import MakeRun

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
DOCUMENTS = ("birds", "cifar100_lightweight", "eight_datasets", "imagenette", "mobilenet_vs_efficientnetv2")

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a grid file of an experiment `tiny`."""

    def write(text: str) -> Path:
        file = tmp_path / "tiny.yaml"
        file.write_text(f"experiment: tiny\n{text}", encoding="utf-8")
        return file

    return write


def flat(cell: GridCell) -> dict[str, Any]:
    return {"framework": cell.framework, **flatten(cell.settings)}


# -------------------------------------------------------------------------------------------------------- the documents


@functools.cache
def document_grid(name: str) -> Grid:
    return read_grid(CONFIGS / f"{name}.yaml")


def cells_of(document: str, *names: str) -> list[tuple[Any, ...]]:
    """Cells of a document's grid as tuples of these settings."""
    return [tuple(flat(cell)[name] for name in names) for cell in document_grid(document).cells]


@pytest.mark.parametrize("file", [f"{name}.yaml" for name in DOCUMENTS] + ["photographs/imagenette_document.yaml"])
def test_grid_of_a_document_states_its_split(file: str) -> None:
    # `auto` may mean something else in a later version, and for another copy of the images
    content = yaml.safe_load((CONFIGS / file).read_text(encoding="utf-8"))
    shared = content["settings"]["data"].get("split")
    for block in content["cells"]:
        assert block.get("settings", {}).get("data", {}).get("split", shared) in ("publisher", "fractions", "folds")


def test_birds_has_two_networks_in_three_regimes() -> None:
    assert cells_of("birds", "framework", "backbone", "regime", "learning_rate", "batch_size") == [
        ("torch", "resnet50", "scratch", 1e-4, 128),
        ("torch", "resnet50", "two_stage", 1e-4, 128),
        ("torch", "resnet50", "finetune", 1e-4, 128),
        ("keras", "efficientnet_v2_b0", "scratch", 1e-3, 64),
        ("keras", "efficientnet_v2_b0", "two_stage", 1e-3, 64),
        ("keras", "efficientnet_v2_b0", "finetune", 1e-3, 64),
    ]
    shared = ("data.source", "data.split", "data.fractions", "max_epochs", "early_stopping.patience")
    assert cells_of("birds", *shared) == [("birds300", "fractions", [0.7, 0.1, 0.2], 100, 3)] * 6
    more = ("early_stopping.restore", "thawed_rate_factor", "optimizer.name", "schedule.name", "pixel_scaling")
    assert cells_of("birds", *more) == [("best", 0.1, "adam", "none", "auto")] * 6


def test_cifar100_has_four_networks_each_with_its_own_head() -> None:
    assert cells_of("cifar100_lightweight", "framework", "backbone", "regime", "weights", "head.hidden") == [
        ("keras", "efficientnet_b0", "scratch", "random", [256]),
        ("keras", "efficientnet_b0", "frozen", "imagenet", [256]),
        ("keras", "resnet50", "frozen", "imagenet", [384, 384, 384]),
        ("keras", "alexnet", "scratch", "random", []),
    ]
    shared = ("data.source", "data.split", "batch_size", "max_epochs", "optimizer.name", "learning_rate")
    assert cells_of("cifar100_lightweight", *shared) == [("cifar100", "publisher", 8, 25, "sgd", 1e-3)] * 4
    more = ("schedule.name", "schedule.factor", "early_stopping.patience", "early_stopping.restore")
    assert cells_of("cifar100_lightweight", *more) == [("plateau", 0.5, None, "last")] * 4
    changes = ("augmentation.crop_padding", "augmentation.horizontal_flip")
    assert cells_of("cifar100_lightweight", *changes) == [(4, True)] * 4
    # 40,000 training and 10,000 validation images of the 50,000 that are not the publisher's test images
    for (fractions,) in cells_of("cifar100_lightweight", "data.fractions"):
        assert 50_000 * fractions[1] / (fractions[0] + fractions[1]) == pytest.approx(10_000)


def test_eight_data_sets_has_the_cells_of_both_tables() -> None:
    names = ["mnist", "cifar10", "cifar100", "fashion_mnist", "labelme", "sdss17", "vegetables", "caltech101"]
    table_1 = ["alexnet", "vgg16", "vgg19"]
    table_2 = [*table_1, "resnet50", "resnet101", "resnet152", "densenet121", "densenet161"]
    expected = [("torch", name, "scratch", backbone) for name in names for backbone in table_1]
    expected += [("torch", name, "frozen", backbone) for name in names for backbone in table_2]
    cells = cells_of("eight_datasets", "framework", "data.source", "regime", "backbone")
    assert len(cells) == 24 + 64 == len(expected)
    assert sorted(cells) == sorted(expected)
    normal = cells_of("eight_datasets", "regime", "head.initialization")
    assert set(normal) == {("scratch", "glorot_uniform"), ("frozen", "normal")}
    assert set(cells_of("eight_datasets", "early_stopping.patience", "early_stopping.restore")) == {(None, "last")}


def test_imagenette_has_three_experiments() -> None:
    assert cells_of("imagenette", "framework", "backbone", "regime", "head.batch_norm", "data.split") == [
        ("keras", "resnet50", "off_the_shelf", False, "publisher"),
        ("keras", "efficientnet_b0", "scratch", False, "publisher"),
        ("keras", "efficientnet_b0", "frozen", True, "publisher"),
    ]
    assert [dropout > 0 for (dropout,) in cells_of("imagenette", "head.dropout")] == [False, False, True]
    assert set(cells_of("imagenette", "max_epochs", "early_stopping.patience")) == {(40, None)}


def test_article_has_three_frozen_networks_on_the_users_data() -> None:
    grid = document_grid("mobilenet_vs_efficientnetv2")
    assert [(cell.framework, cell.settings.backbone, cell.settings.regime) for cell in grid.cells] == [
        ("keras", "mobilenet_v2", "frozen"),
        ("keras", "efficientnet_v2_b0", "frozen"),
        ("keras", "resnet50_v2", "frozen"),
    ]
    # 38 batches of 32 test images
    (fractions,) = {tuple(cell.settings.data.fractions or ()) for cell in grid.cells}
    assert 37 * 32 < 7000 * fractions[2] <= 38 * 32
    assert set(grid.missing) == {"data.source"}
    given = read_grid(CONFIGS / "mobilenet_vs_efficientnetv2.yaml", more_options=["--data.source", "five"])
    assert given.missing == {}
    assert all(cell.options.count("--data.source") == 1 for cell in (*grid.cells, *given.cells))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_cells_of_a_document_do_as_the_document_did(name: str, make_run: MakeRun) -> None:
    """No setting of a cell differs from what is known of the document, so that its run can decide claims of any kind.

    The images are the document's, which a test has not.
    """
    document = replace(read_document(name), facts={})
    runs = [
        make_run(
            cell.framework,
            cell.settings.regime,
            params={key: parameter_text(value) for key, value in flatten(cell.settings).items()},
            tags={"tandem.data": cell.settings.data.source},
        )
        for cell in document_grid(name).cells
    ]
    (group,), _ = group_runs(runs)
    assert len(group.configurations) == len(runs)
    for configuration in group.configurations:
        assert departures(configuration, document, None) == (), configuration.label


def test_all_backbones_has_every_backbone_in_every_trained_regime() -> None:
    regimes = ("scratch", "frozen", "two_stage", "finetune", "gradual")
    assert len(CATALOGUE) == 12
    assert sorted(cells_of("all_backbones", "backbone", "regime", "framework")) == sorted(
        itertools.product(CATALOGUE, regimes, ("torch", "keras"))
    )
    gradual = [cell for cell in document_grid("all_backbones").cells if cell.settings.regime == "gradual"]
    assert {len(cell.settings.phases or ()) for cell in gradual} == {3}


@pytest.mark.parametrize("name", ["birds", "cifar100_lightweight", "imagenette"])
def test_small_budget_keeps_all_cells_of_a_document(name: str) -> None:
    small = read_grid(CONFIGS / f"{name}.yaml", budget="small").cells
    assert [cell.name for cell in small] == [cell.name for cell in document_grid(name).cells]
    for cell in small:
        settings = cell.settings
        assert settings.data.images_per_class == 10 and settings.max_epochs == 1 and settings.batch_size <= 16
        assert settings.tracking.budget == "small" and settings.allow_random_weights
        assert not settings.tracking.data_report


# --------------------------------------------------------------------------------------------------- from file to cells


def test_block_gives_all_combinations_of_the_varied_values(write: Write) -> None:
    file = write("cells: [{frameworks: [torch, keras], vary: {backbone: [mobilenet_v2, resnet50], seed: [0, 1, 2]}}]")
    cells = read_grid(file).cells
    assert [cell.number for cell in cells] == list(range(1, 13))
    assert [(cell.settings.backbone, cell.settings.seed, cell.framework) for cell in cells] == [
        *itertools.product(("mobilenet_v2", "resnet50"), (0, 1, 2), ("torch", "keras"))
    ]


def test_optional_block_counts_only_if_it_is_asked_for(write: Write) -> None:
    file = write(
        "cells: [{frameworks: [torch], settings: {max_epochs: 5}}, "
        "{frameworks: [torch], optional: longer, vary: {max_epochs: [50, 60]}}, "
        "{frameworks: [torch], optional: wider, settings: {batch_size: 64}}]"
    )
    grid = read_grid(file)
    assert ([cell.settings.max_epochs for cell in grid.cells], grid.left_out) == ([5], ("longer", "wider"))
    grid = read_grid(file, optional=["longer"])
    assert ([cell.settings.max_epochs for cell in grid.cells], grid.left_out) == ([5, 50, 60], ("wider",))
    assert [cell.number for cell in grid.cells] == [1, 2, 3]
    with pytest.raises(UserError) as caught:
        read_grid(file, optional=["long"])
    assert str(caught.value) == f"--with: received 'long', allowed: the optional blocks of {file}: longer, wider"


def test_documents_have_cells_beyond_their_own_as_optional_blocks() -> None:
    birds = read_grid(CONFIGS / "birds.yaml", optional=["image_size", "publisher_split"])
    more = birds.cells[6:]
    assert [(cell.settings.backbone, cell.settings.regime, cell.framework) for cell in more] == [
        ("resnet50", "two_stage", "torch"),
        ("efficientnet_v2_b0", "two_stage", "keras"),
    ] * 2
    assert [cell.settings.data.image_size for cell in more] == [128, 128, 224, 224]
    assert [cell.settings.data.split for cell in more] == ["fractions", "fractions", "publisher", "publisher"]
    assert {cell.settings.batch_size for cell in more if cell.framework == "torch"} == {128}

    cifar = read_grid(CONFIGS / "cifar100_lightweight.yaml", optional=["cross_validation", "more_epochs"])
    *folds, longer = cifar.cells[4:]
    assert (longer.settings.backbone, longer.settings.max_epochs) == ("alexnet", 50)
    assert len(folds) == 4 * 5
    assert {(cell.settings.data.split, cell.settings.data.folds) for cell in folds} == {("publisher_folds", 5)}
    assert [cell.settings.data.fold for cell in folds] == [*range(5)] * 4
    assert [cell.settings.head.hidden for cell in folds[::5]] == [[256], [256], [384, 384, 384], []]


def test_requested_cache_of_features_counts_only_where_features_could_be_cached(write: Write) -> None:
    file = write(
        "settings: {cache_features: false}\n"
        "cells: [{frameworks: [torch], vary: {regime: [scratch, frozen, two_stage, finetune]}}, "
        "{frameworks: [torch], settings: {regime: frozen, augmentation: {horizontal_flip: true}}}]"
    )
    asked = {"cache_features": False}
    assert [dict(cell.costs) for cell in read_grid(file).cells] == [{}, asked, asked, {}, {}]


def test_settings_of_a_block_override_those_at_the_top(write: Write) -> None:
    file = write(
        "settings: {learning_rate: 0.1, batch_size: 8, max_epochs: 3, threads: 1}\n"
        "cells: [{frameworks: [torch], vary: {max_epochs: [5]}, settings: {batch_size: 9, threads: 2}}]"
    )
    (cell,) = read_grid(file, more_options=["--threads", "4"]).cells
    settings = cell.settings
    assert (settings.learning_rate, settings.batch_size, settings.max_epochs, settings.threads) == (0.1, 9, 5, 4)


def test_every_kind_of_value_reaches_the_settings(write: Write) -> None:
    file = write(
        "settings:\n"
        "  data: {classes: ['0', '1'], source: a b}\n"
        "  head: {hidden: [8, 4], batch_norm: true}\n"
        "  early_stopping: {patience: null}\n"
        "  regime: gradual\n"
        "  phases: [{trainable: last, blocks: 2}, {trainable: all, learning_rate: 1.0e-5}]\n"
        "cells: [{frameworks: [keras]}]"
    )
    (cell,) = read_grid(file).cells
    settings = cell.settings
    assert (settings.data.classes, settings.data.source) == (["0", "1"], "a b")
    assert (settings.head.hidden, settings.head.batch_norm) == ([8, 4], True)
    assert settings.early_stopping.patience is None
    assert settings.phases == [
        PhaseSettings(trainable="last", blocks=2),
        PhaseSettings(trainable="all", learning_rate=1e-5),
    ]


def test_models_are_kept_only_on_request(write: Write) -> None:
    file = write("cells: [{frameworks: [torch]}]")
    for keep in (False, True):
        (cell,) = read_grid(file, keep_models=keep).cells
        assert (cell.settings.tracking.log_model, cell.settings.tracking.log_weights) == (keep, keep)
        assert cell.settings.tracking.experiment == "tiny"


def test_tracking_uri_reaches_every_cell(write: Write) -> None:
    file = write("cells: [{frameworks: [torch, keras]}]")
    uris = [cell.settings.tracking.uri for cell in read_grid(file, tracking_uri="sqlite:///a.db").cells]
    assert uris == ["sqlite:///a.db"] * 2


def test_frameworks_replace_those_of_the_file_without_duplicate_cells(write: Write) -> None:
    file = write(
        "cells: [{frameworks: [torch], vary: {seed: [0]}}, {frameworks: [keras], vary: {seed: [0, 1]}}]",
    )
    crossed = [(cell.framework, cell.settings.seed) for cell in read_grid(file, frameworks=("torch", "keras")).cells]
    assert crossed == [("torch", 0), ("keras", 0), ("torch", 1), ("keras", 1)]
    assert len(read_grid(CONFIGS / "birds.yaml", frameworks=("torch", "keras")).cells) == 12
    assert {cell.framework for cell in read_grid(CONFIGS / "birds.yaml", frameworks=("torch",)).cells} == {"torch"}


def test_cells_of_a_grid_have_different_names(write: Write) -> None:
    file = write(
        "cells: [{frameworks: [torch], vary: {data.source: [mnist, my/new birds], seed: [0, 1], max_epochs: [3]}},\n"
        "        {frameworks: [torch], vary: {head.hidden: [[8], [8, 4]]}}]"
    )
    assert [cell.name for cell in read_grid(file).cells] == [
        "mobilenet_v2 finetune torch mnist seed-0 hidden-[]",
        "mobilenet_v2 finetune torch mnist seed-1 hidden-[]",
        "mobilenet_v2 finetune torch newbirds seed-0 hidden-[]",
        "mobilenet_v2 finetune torch newbirds seed-1 hidden-[]",
        "mobilenet_v2 finetune torch digits seed-0 hidden-[8]",
        "mobilenet_v2 finetune torch digits seed-0 hidden-[8,4]",
    ]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_network_has_the_pixel_scaling_of_its_weights(name: str) -> None:
    # the two frameworks' weights of a backbone may expect different scalings
    cells = read_grid(
        CONFIGS / f"{name}.yaml", frameworks=("torch", "keras"), more_options=["--data.source", "x"]
    ).cells
    assert {cell.settings.pixel_scaling for cell in cells} == {"auto"}


def test_folders_with_the_same_name_appear_with_their_whole_paths(write: Write) -> None:
    file = write("cells: [{frameworks: [torch], vary: {data.source: [a/birds, b/birds, a/cats]}}]")
    assert [cell.name for cell in read_grid(file).cells] == [
        "mobilenet_v2 finetune torch a/birds",
        "mobilenet_v2 finetune torch b/birds",
        "mobilenet_v2 finetune torch cats",
    ]


REQUIRED = "required: {data: {source: where the birds lie}, batch_size: as many as fit}\ncells: [{frameworks: [torch]}]"


def test_required_settings_may_be_nested_and_of_any_kind(write: Write) -> None:
    file = write(REQUIRED)
    with pytest.raises(UserError) as caught:
        read_grid(file)
    assert str(caught.value) == (
        f"{file}: batch_size is not given: as many as fit; add to the command: -- --batch_size ..."
    )
    assert read_grid(file, more_options=["--batch_size", "8"]).missing == {"data.source": "where the birds lie"}
    (cell,) = read_grid(file, more_options=["--batch_size=8", "--data.source", "birds"]).cells
    assert (cell.settings.batch_size, cell.settings.data.source) == (8, "birds")


def test_wrong_value_of_a_required_setting_is_shown(write: Write) -> None:
    with pytest.raises(UserError, match=r"cell 1 .*: batch_size: received 'few'"):
        read_grid(write(REQUIRED), more_options=["--batch_size", "few"])


# --------------------------------------------------------------------------------------------------------- small budget


def test_small_budget_keeps_values_that_are_smaller_still() -> None:
    settings = Settings(batch_size=8, data=DataSettings(images_per_class=4))
    changes = small_budget(settings)
    assert (changes["data.images_per_class"], changes["batch_size"]) == (4, 8)


def test_small_budget_changes_only_the_epochs_of_each_phase() -> None:
    phases = [PhaseSettings(trainable="head", max_epochs=9), PhaseSettings(trainable="last", blocks=2)]
    assert small_budget(Settings(regime="gradual", phases=phases))["phases"] == [
        {"trainable": "head", "max_epochs": 1},
        {"trainable": "last", "blocks": 2, "max_epochs": 1},
    ]


def test_small_budget_has_no_warm_up(write: Write) -> None:
    assert small_budget(Settings(schedule=ScheduleSettings(warmup_epochs=2)))["schedule.warmup_epochs"] == 0
    file = write("settings: {schedule: {name: cosine, warmup_epochs: 2}}\ncells: [{frameworks: [torch]}]")
    (cell,) = read_grid(file, budget="small").cells
    assert cell.settings.schedule.warmup_epochs == 0


def test_options_of_the_user_override_the_small_budget(write: Write) -> None:
    file = write("cells: [{frameworks: [torch]}]")
    (cell,) = read_grid(file, budget="small", more_options=["--max_epochs", "2", "--batch_size", "4"]).cells
    settings = cell.settings
    assert (settings.max_epochs, settings.batch_size, settings.data.images_per_class) == (2, 4, 10)


# ---------------------------------------------------------------------------------------------------------- wrong files


WRONG = {
    "invalid YAML": ("cells: [", ["is not YAML"]),
    "too deep": ("settings: " + "[" * 21 + "]" * 21 + "\ncells: []", ["deeper than the 20 allowed"]),
    "too long": ("#" * 2_000_001, ["characters, allowed: at most 2,000,000"]),
    "a bomb of aliases": (
        "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)),
        ["more than 200,000 values"],
    ),
    "a key twice": ("cells: []\ncells: [{frameworks: [torch]}]", ["cells", "given twice"]),
    "unknown key": ("cels: []\ncells: []", ["'cels'", "experiment, cells, settings, required"]),
    "no cells": ("settings: {}", ["cells is missing", "a list"]),
    "no blocks": ("cells: []", ["cells: received []", "one or more blocks"]),
    "cells are no list": ("cells: {}", ["cells: received {}", "a list"]),
    "settings are no mapping": (
        "settings: [1]\ncells: [{frameworks: [torch]}]",
        ["settings: received [1]", "a mapping"],
    ),
    "block is no mapping": ("cells: [birds]", ["block 1: received 'birds'", "frameworks"]),
    "unknown key in a block": ("cells: [{frameworks: [torch], varies: {}}]", ["block 1", "'varies'", "vary"]),
    "no frameworks": ("cells: [{vary: {seed: [0]}}]", ["block 1: frameworks is missing"]),
    "unknown framework": ("cells: [{frameworks: [torch, jax]}]", ["block 1: frameworks", "jax", "torch and keras"]),
    "values are no list": ("cells: [{frameworks: [torch], vary: {seed: 0}}]", ["vary: seed: received 0", "a list"]),
    "no values": ("cells: [{frameworks: [torch], vary: {seed: []}}]", ["vary: seed: received []", "one or more"]),
    "varied and set": (
        "cells: [{frameworks: [torch], vary: {seed: [0]}, settings: {seed: 1}}]",
        ["seed is in both vary and settings"],
    ),
    "unknown setting": (
        "cells: [{frameworks: [torch], vary: {regime: [scratch, frozen]}, settings: {batchsize: 8}}]",
        ["cell 1 (mobilenet_v2 scratch torch)", "batchsize", "did you mean batch_size"],
    ),
    "wrong value": (
        "cells: [{frameworks: [torch], vary: {regime: [scratch, thaw]}}]",
        ["cell 2 (mobilenet_v2 thaw torch)", "regime: received", "two_stage"],
    ),
    "group is no group": ("settings: {data: null}\ncells: [{frameworks: [torch]}]", ["cell 1", "data: received"]),
    "date": (
        "cells: [{frameworks: [torch], vary: {data.source: [2024-05-01]}}]",
        ["cell 1 (mobilenet_v2 finetune torch)", "data.source: received 2024-05-01", "quote a text"],
    ),
    "date in a list": (
        "settings: {data: {classes: [owl, 2024-05-01]}}\ncells: [{frameworks: [torch]}]",
        ["data.classes: received ['owl', datetime.date(2024, 5, 1)]", "quote a text"],
    ),
    "unknown required setting": ("required: {sauce: x}\ncells: [{frameworks: [torch]}]", ["sauce: there is no such"]),
    "same cell twice": (
        "cells: [{frameworks: [torch], vary: {seed: [0, 1]}}, {frameworks: [torch], vary: {seed: [1]}}]",
        ["cell 3 (mobilenet_v2 finetune torch seed-1) is the same as cell 2"],
    ),
    "several seeds in a cell": ("settings: {seeds: [0, 1]}\ncells: [{frameworks: [torch]}]", ["seeds", "vary seed"]),
    "all folds in a cell": (
        "settings: {data: {split: folds}}\ncells: [{frameworks: [torch]}]",
        ["data.fold", "vary data.fold"],
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_invalid_file_is_refused_in_one_line_that_names_it(what: str, write: Write) -> None:
    text, told = WRONG[what]
    file = write(text)
    with pytest.raises(UserError) as caught:
        read_grid(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ") and len(message.splitlines()) == 1
    assert all(words in message for words in told), message


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"- birds\n", b""])
def test_file_without_a_mapping_is_refused_in_one_line(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"configs/birds\.yaml") as caught:
        read_grid(file)
    assert str(file) in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_option_for_a_varied_setting_is_refused(write: Write) -> None:
    file = write("cells: [{frameworks: [torch], vary: {seed: [0, 1]}}]")
    with pytest.raises(UserError, match=r"same as cell 1.*do not give an option after -- that the file varies"):
        read_grid(file, more_options=["--seed", "3"])


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_grid_file_opens_with_its_command_and_its_number_of_cells(file: Path) -> None:
    head = "".join(itertools.takewhile(lambda line: line.startswith("#"), file.read_text().splitlines(keepends=True)))
    assert f"python -m tandem.grid configs/{file.name}" in head
    counts = re.search(r"\((?:[\d +]*= )?(\d+) cells", head)
    assert counts and int(counts[1]) == len(document_grid(file.stem).cells)
    assert yaml.safe_load(file.read_text())["experiment"] == file.stem


def test_cells_that_differ_only_in_cost_are_refused(write: Write) -> None:
    cells = "cells:\n  - frameworks: [torch]\n    vary: {seed: [0], cache_features: [true, false]}\n"
    with pytest.raises(UserError, match=r"is the same as cell 1: .* differ in more than the cost of a run"):
        read_grid(write(f"settings: {{data: {{source: digits}}}}\n{cells}"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("sweep: {num_trials: 3}", "sweep.num_trials: received 3, allowed in a grid: null; search with the scripts"),
        ("find_learning_rate: true", "find_learning_rate: received True, allowed in a grid: false"),
    ],
)
def test_sweeps_and_range_tests_are_refused_as_cells(write: Write, settings: str, message: str) -> None:
    cells = "cells:\n  - frameworks: [torch]\n    vary: {seed: [0]}\n"
    text = f"settings: {{data: {{source: digits}}, {settings}}}\n{cells}"
    with pytest.raises(UserError, match=re.escape(message)):
        read_grid(write(text))


def test_recipe_can_be_varied_and_overridden(write: Write) -> None:
    file = write(
        "settings: {learning_rate: 0.01}\n"
        "cells:\n"
        "  - frameworks: [torch, keras]\n"
        "    vary: {recipe: [null, best, fast]}\n"
    )
    cells = [flat(cell) for cell in read_grid(file).cells]
    assert [(cell["framework"], cell["recipe"], cell["regime"]) for cell in cells] == [
        (framework, recipe, regime)
        for recipe, regime in ((None, "finetune"), ("best", "two_stage"), ("fast", "frozen"))
        for framework in ("torch", "keras")
    ]
    assert {cell["learning_rate"] for cell in cells} == {0.01}
    assert [cell.name for cell in read_grid(file).cells][2] == "mobilenet_v2 two_stage torch recipe-best"


def test_small_budget_of_a_recipe_is_valid(write: Write) -> None:
    file = write("settings: {recipe: best}\ncells:\n  - frameworks: [keras]\n    vary: {seed: [0]}\n")
    (cell,) = read_grid(file, budget="small").cells
    assert (cell.settings.max_epochs, cell.settings.schedule.warmup_epochs) == (1, 0)
    assert cell.settings.optimizer.layer_decay < 1
