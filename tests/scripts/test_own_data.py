"""Folders and files that people have, in runs of the scripts: both frameworks see the same images and say the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.own_data import all_examples

WORDS = ["--config", "settings.yaml", "--regime", "scratch", "--max_epochs", "1", "--tracking.log_model", "false"]
WORDS += ["--data.source", "own", "--data.classes", "null", "--data.images_per_class", "null", "--batch_size", "8"]


def words_of(settings: dict[str, Any]) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--data.{name}", str(value))]


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["messy_folder", "12_bits_in_colour", "parquet_shards"])
def test_both_frameworks_read_the_same_images(
    name: str,
    new_store: Callable[[], Any],
    train: Callable[..., Any],
    in_both: Callable[[Callable[[str], Any]], dict[str, Any]],
) -> None:
    example, store = all_examples()[name], new_store()
    (store.folder / "own").mkdir()
    example.make(store.folder / "own")

    def run(framework: str) -> Any:
        done = train(framework, *WORDS, *words_of(dict(example.settings)), cwd=store.folder)
        assert done.returncode == 0, done.stderr
        for said in example.said:
            assert any(re.search(said, line) for line in done.stderr.splitlines()), (said, done.stderr)
        return store.only_run("pair", done, framework=framework)

    runs = in_both(run)
    for tag in ("split_hash", "test_hash", "test_images_hash", "batches_hash", "settings_hash"):
        assert len({runs[framework].tags[f"tandem.{tag}"] for framework in runs}) == 1, tag
    assert {runs[framework].run.data.params["data.split"] for framework in runs} == {example.split}


@pytest.mark.parametrize("framework", ["torch", "keras"])
@pytest.mark.parametrize("name", ["batches", "flat_parts"])
def test_folder_that_is_not_understood_is_refused_in_one_line(
    framework: str, name: str, new_store: Callable[[], Any], train: Callable[..., Any]
) -> None:
    example, store = all_examples()[name], new_store()
    (store.folder / "own").mkdir()
    example.make(store.folder / "own")
    done = train(framework, *WORDS, cwd=store.folder)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"train_{framework}.py: error: data.source: ") and re.search(example.refused, line)
