from __future__ import annotations

import re
import shlex

import pytest

from tandem.protocol.frameworks import Framework
from tandem.protocol.help import ESSENTIALS, short_help
from tandem.protocol.parser import parse_settings, read_settings
from tandem.protocol.settings import FIELDS, flatten

FRAMEWORKS: tuple[Framework, ...] = ("torch", "keras")
TWO_SCREENS = 80  # lines


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("width", [60, 80, 100])
def test_short_help_fits_two_screens(framework: Framework, width: int) -> None:
    lines = short_help(framework, width).splitlines()
    assert max(map(len, lines)) <= max(width, 80)
    assert width < 80 or len(lines) <= TWO_SCREENS


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", ESSENTIALS)
def test_example_of_the_help_is_a_valid_setting(framework: Framework, name: str) -> None:
    line = next(line for line in short_help(framework, 80).splitlines() if line.startswith(f"  --{name} "))
    before, after = flatten(read_settings(framework, [])), flatten(read_settings(framework, shlex.split(line)))
    assert after[name] != before[name]
    changed = {changed for changed in FIELDS if after[changed] != before[changed]}
    assert changed - {"data.split", "data.fractions"} == {name}  # which depend on the data


def test_short_help_shows_the_actual_defaults() -> None:
    text = " ".join(short_help("torch", 80).split())
    values = re.findall(r"\(default: ([^)]*)\)", text)
    fields = [str(FIELDS[name].default) for name in ESSENTIALS]
    assert [value for value in values if value != "one run, with seed 0"] == [
        value for name, value in zip(ESSENTIALS, fields, strict=True) if name != "seeds"
    ]
    assert FIELDS["seed"].default == 0


def test_short_help_names_every_setting() -> None:
    text = " ".join(short_help("keras", 80).split())
    for name in FIELDS:
        group, _, last = name.rpartition(".")
        (members,) = re.findall(rf"--{group}\.\{{(.*?)\}}", text) if group else [""]
        assert f"--{name}" in re.findall(r"--[\w.]+", text) if not group else last in members.split(", "), name


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_prints_the_short_text_for_the_terminals_width(
    option: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        parse_settings("torch", ["--regime", "frozen", option])
    assert caught.value.code == 0
    assert capsys.readouterr().out == short_help("torch", 80) + "\n"
