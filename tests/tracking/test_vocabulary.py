from __future__ import annotations

from pathlib import Path

import pytest

from tandem.tracking import vocabulary


def test_names_of_tags_metrics_and_files_are_unique() -> None:
    names = [value for name, value in vars(vocabulary).items() if name.isupper() and isinstance(value, str)]
    assert len(names) > 50 and len(set(names)) == len(names)


def test_hash_tag_names_phase_part_and_time() -> None:
    assert vocabulary.hash_tag(2, "backbone", "before") == "tandem.phase_2.backbone_before"


@pytest.mark.parametrize(
    ("text", "name"), [("birds 300/first try", "birds_300_first_try"), ("a-b.c_d", "a-b.c_d"), ("größe:é", "größe_é")]
)
def test_file_name_replaces_characters_that_file_systems_refuse(text: str, name: str) -> None:
    assert vocabulary.file_name(text) == name


@pytest.mark.parametrize(
    "text",
    ["..", ".", "...", "../../etc", "/etc/passwd", "a/../b", "", " ", ".hidden", "~", "a\\b", "a\0b", "a\nb", "$X"],
)
def test_file_name_never_leads_out_of_its_folder(text: str, tmp_path: Path) -> None:
    name = vocabulary.file_name(text)
    assert name and not name.startswith(".") and not set("/\\\0\n~$") & set(name)
    path = tmp_path / name
    assert path.resolve().parent == tmp_path.resolve() != path
    path.mkdir()


@pytest.mark.parametrize("letter", ["x", "é", "猫"])
def test_long_text_becomes_a_name_that_file_systems_take(letter: str, tmp_path: Path) -> None:
    name, other = vocabulary.file_name(letter * 300), vocabulary.file_name(letter * 299)
    assert name != other and len(name.encode()) <= 120
    (tmp_path / f"20260101-000000-{name}-01234567").mkdir()
