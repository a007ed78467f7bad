from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from tandem.serving.shipped_code import imported_modules, needed_packages, ship

MODULE = "tandem.serving.image_model"


def test_shipped_code_reads_images_where_tandem_is_not_installed(tmp_path: Path) -> None:
    module = ship(MODULE, tmp_path)
    code = f"import sys, {module}\nprint(sorted(name for name in sys.modules if name.partition('.')[0] == 'tandem'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "[]", done.stderr


def test_shipped_package_imports_only_itself_of_tandem(tmp_path: Path) -> None:
    package, _, rest = ship(MODULE, tmp_path).partition(".")
    assert package.startswith("tandem_") and rest == "serving.image_model"
    names = {name for file in (tmp_path / package).rglob("*.py") for name in imported_modules(file)}
    assert {name.partition(".")[0] for name in names if name.startswith("tandem")} == {package}


def test_same_code_has_the_same_name(tmp_path: Path) -> None:
    first, second = (ship(MODULE, tmp_path / name) for name in ("first", "second"))
    assert first == second
    assert ship("tandem.data.reading", tmp_path / "third").partition(".")[0] != first.partition(".")[0]


def test_requirements_are_the_packages_that_the_code_imports() -> None:
    needed = needed_packages(MODULE)
    assert {f"{name}=={version(name)}" for name in ("numpy", "pandas", "pillow")} <= set(needed)
    assert not any(name.startswith("mlflow") for name in needed)  # MLflow adds itself
