"""The two training scripts are written to be read side by side."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TORCH, KERAS = ((ROOT / f"train_{framework}.py").read_text(encoding="utf-8") for framework in ("torch", "keras"))
LONGEST = 480  # lines


def functions(source: str) -> list[str]:
    return [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]


def sections(source: str) -> dict[str, list[str]]:
    """The section comments, each with the functions that stand in it."""
    lines = source.splitlines()
    headings = {
        number: found[1] for number, line in enumerate(lines, start=1) if (found := re.fullmatch("# -{20,} (.+)", line))
    }
    content: dict[str, list[str]] = {name: [] for name in headings.values()}
    for node in ast.parse(source).body:
        above = [number for number in headings if number < node.lineno]
        if above and isinstance(node, ast.FunctionDef):
            content[headings[max(above)]].append(node.name)
    return content


def test_functions_have_the_same_names_in_the_same_order() -> None:
    assert functions(TORCH) == functions(KERAS)
    assert len(functions(TORCH)) >= 15


def test_sections_are_the_same() -> None:
    headings = [[line for line in source.splitlines() if line.startswith("# ---")] for source in (TORCH, KERAS)]
    assert headings[0] == headings[1]
    assert list(sections(TORCH)) == ["main", "run", "search for settings", "phase", "evaluation"]
    assert all(sections(TORCH).values())
    assert sections(TORCH) == sections(KERAS)


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_script_can_be_read_in_one_go(framework: str) -> None:
    source = {"torch": TORCH, "keras": KERAS}[framework]
    assert len(source.splitlines()) < LONGEST
    assert ast.get_docstring(ast.parse(source)).startswith("Trains one image classifier in ")  # type: ignore[union-attr]
    assert f"python train_{framework}.py --config " in source


def test_same_functions_take_the_same_arguments_by_name() -> None:
    def arguments(source: str) -> dict[str, set[str]]:
        found = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
        return {node.name: {argument.arg for argument in node.args.args + node.args.kwonlyargs} for node in found}

    # what one framework keeps in objects of its own the other is handed
    own = {"settings", "network", "optimizer"}
    torch, keras = arguments(TORCH), arguments(KERAS)
    for name in torch:
        assert torch[name] ^ keras[name] <= own, name
