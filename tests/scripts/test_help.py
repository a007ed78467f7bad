from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "torch",
    "torchvision",
    "keras",
    "tensorflow",
    "jax",
    "mlflow",
    "lightning",
    "pytorch_lightning",
    "pandas",
    "sklearn",
    "plotly",
}

# Runs a script as a program, and prints the slow packages that it has imported.
WRAPPER = f"""
import pathlib, runpy, sys
script = sys.argv.pop(1)
sys.argv[0] = script
sys.path[0] = str(pathlib.Path(script).parent)
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as end:
    assert end.code in (0, None), end.code
print("loaded:", *sorted({HEAVY!r} & set(sys.modules)))
"""


@pytest.mark.parametrize("script", ["train_torch.py", "train_keras.py", "compare.py", "mlflow_server/serve.py"])
def test_help_imports_nothing_heavy(script: str, run: Callable[..., Any], tmp_path: Path) -> None:
    done = run("-c", WRAPPER, ROOT / script, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    *text, loaded = done.stdout.splitlines()
    assert text[0].startswith("usage: ") and len(text) > 5
    assert loaded.split() == ["loaded:"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("framework", ["torch", "keras"])
def test_printing_the_settings_imports_nothing_heavy(framework: str, run: Callable[..., Any], tmp_path: Path) -> None:
    done = run("-c", WRAPPER, ROOT / f"train_{framework}.py", "--regime", "frozen", "--print_config", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "regime: frozen" in done.stdout.splitlines()
    assert done.stdout.splitlines()[-1] == "loaded:"


PROGRAMS = [
    "compare.py",
    "mlflow_server/serve.py",
    *("tandem.predict", "tandem.export", "tandem.grid", "tandem.data_report", "tandem.launch.demo"),
    *("tandem.tracking.copy", "tandem.tracking.replay"),
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_of_programs_starts_with_a_short_usage_at_80_columns(
    program: str, run: Callable[..., Any], tmp_path: Path
) -> None:
    words = [ROOT / program] if program.endswith(".py") else ["-m", program]
    done = run(*words, "--help", cwd=tmp_path, COLUMNS="80", PYTHONPATH=str(ROOT))
    assert (done.returncode, done.stderr) == (0, "")
    usage, *rest = done.stdout.split("\n\n")
    assert usage.startswith("usage: ") and len(usage.splitlines()) <= 6 and rest
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", ["train_torch.py", "train_keras.py", "compare.py", "mlflow_server/serve.py"])
def test_help_works_from_any_folder(script: str, run: Callable[..., Any], tmp_path: Path) -> None:
    done = run(ROOT / script, "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(script).name in done.stdout
