from __future__ import annotations

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
