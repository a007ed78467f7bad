"""The two training scripts are written to be read side by side."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {framework: (ROOT / f"train_{framework}.py").read_text(encoding="utf-8") for framework in ("torch", "keras")}
LONGEST = 300  # lines
MOST_IMPORTS = 20  # lines


def functions(source: str) -> list[ast.FunctionDef]:
    return [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]


def sections(source: str) -> dict[str, list[str]]:
    """The functions under each section comment."""
    lines = source.splitlines()
    headings = {
        number: found[1] for number, line in enumerate(lines, start=1) if (found := re.fullmatch("# -{20,} (.+)", line))
    }
    content: dict[str, list[str]] = {name: [] for name in headings.values()}
    for function in functions(source):
        above = [number for number in headings if number < function.lineno]
        content[headings[max(above)]].append(function.name)
    return content


def test_most_lines_differ() -> None:
    lines = {name: Counter(line.strip() for line in source.splitlines()) for name, source in SOURCES.items()}
    for of_script in lines.values():
        del of_script[""]
    num_common = sum((lines["torch"] & lines["keras"]).values())
    for name, of_script in lines.items():
        assert num_common < of_script.total() / 2, f"{num_common} of {of_script.total()} lines of train_{name}.py"


def test_functions_have_the_same_names_in_the_same_order() -> None:
    torch, keras = ([function.name for function in functions(source)] for source in SOURCES.values())
    assert torch == keras
    assert len(torch) >= 8


def test_functions_of_the_same_name_take_the_same_arguments() -> None:
    torch, keras = (
        {function.name: [argument.arg for argument in function.args.args] for function in functions(source)}
        for source in SOURCES.values()
    )
    assert torch == keras


def test_sections_are_the_same() -> None:
    torch, keras = map(sections, SOURCES.values())
    assert torch == keras
    assert list(torch) == ["run", "network", "phase", "prediction", "main"]
    assert all(torch.values())


@pytest.mark.parametrize("framework", SOURCES)
def test_script_can_be_read_in_one_go(framework: str) -> None:
    source = SOURCES[framework]
    assert len(source.splitlines()) <= LONGEST
    imports = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in imports) <= MOST_IMPORTS + 1
    # the framework's side is used through the package's face
    assert not re.search(rf"from tandem\.on_{framework}", source)


@pytest.mark.parametrize("framework", SOURCES)
def test_script_opens_with_its_command_and_its_results(framework: str) -> None:
    opening = ast.get_docstring(ast.parse(SOURCES[framework])) or ""
    assert opening.startswith("Trains an image classifier in ")
    assert f"    python train_{framework}.py --config configs/" in opening
    # accuracy over seeds, seconds, hardware, versions
    told = " ".join(opening.split())
    for pattern in (r"accuracy 0\.\d+ to 0\.\d+", "seeds", r"\d+ to \d+ seconds", "2 CPU cores", r"\d+\.\d+\.\d+"):
        assert re.search(pattern, told), pattern
