"""Folders and files as people have them: each is read as it should be and said, or refused in one line."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tandem.data.prepare import prepare
from tandem.errors import UserError
from tandem.protocol.data_sets import resolve_split
from tandem.protocol.settings import DataSettings
from tests.own_data import Example, all_examples

ROOT = Path(__file__).resolve().parents[2]


def settings_of(example: Example, tmp_path: Path) -> DataSettings:
    root = tmp_path / "own"
    root.mkdir()
    source = example.make(root) or root
    settings = {"image_size": 8, **example.settings}
    inner = settings.pop("source", None)
    return DataSettings(
        source=str(source / inner if inner else source), cache_folder=str(tmp_path / "cache"), **settings
    )


@pytest.mark.parametrize("name", all_examples())
def test_example_is_read_or_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = all_examples()[name]
    settings = settings_of(example, tmp_path)
    if example.refused:
        with pytest.raises(UserError, match=example.refused) as caught:
            resolve_split(settings)
            prepare(settings)
        _, *listed = str(caught.value).splitlines()
        assert len(listed) == len(example.listed)
        for pattern, line in zip(example.listed, listed, strict=True):
            assert re.match(rf"  {pattern}", line)
        return
    assert resolve_split(settings).split == example.split
    data = prepare(settings)
    manifest = data.split.manifest
    found = Counter(
        f"{part}/{kind}" if part else kind
        for part, kind in zip(manifest.images["part"], manifest.class_names, strict=True)
    )
    assert dict(found) == dict(example.images)
    lines = capsys.readouterr().err.splitlines()
    assert "split" in lines[0] or "merged" in lines[0]
    for said in example.said:
        assert any(re.search(said, line) for line in lines), (said, lines)


def test_document_lists_every_example_and_names_a_test_in_each_row() -> None:
    lines = (ROOT / "docs/data.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("|") and not line.startswith("|---")]
    rows = [row for row in rows if not row.endswith("| test |")]
    named = [re.findall(r"`(\w+)`", row.rpartition(" | ")[2]) for row in rows]
    functions = {
        name
        for file in (ROOT / "tests/data").glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(rows) > 50 and all(named)
    found = {name for names in named for name in names}
    assert found <= functions | all_examples().keys()
    assert found >= all_examples().keys()
