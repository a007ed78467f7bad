"""Copies the code that a logged model needs into a package of its own, so that it loads without Tandem.

The package is named after the hash of its files: models of different versions can be loaded into one process, and none
hides an installed Tandem.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_OWN_IMPORT = re.compile(r"^(\s*(?:from|import) )tandem\b", re.MULTILINE)


def ship(module: str, folder: Path) -> str:
    """Writes a module and all modules of Tandem that it imports, as a package with a name of its own.

    Args:
        module: Name of the module, such as tandem.serving.image_model.
        folder: Folder that the package's folder is written to.

    Returns:
        The module's name in the new package.
    """
    sources = {file: file.read_text(encoding="utf-8") for file in needed_files(module)}
    digest = hashlib.sha256()
    for file, source in sources.items():
        digest.update(f"{file.relative_to(ROOT).as_posix()}\n{source}\n".encode())
    package = f"tandem_{digest.hexdigest()[:12]}"
    for file, source in sources.items():
        target = folder / package / file.relative_to(ROOT / "tandem")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_OWN_IMPORT.sub(rf"\g<1>{package}", source), encoding="utf-8")
    return package + module.removeprefix("tandem")


def needed_files(module: str) -> list[Path]:
    """Source files of a module, the modules of Tandem that it imports, and the packages around them."""
    found: set[Path] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            file = _file_of(".".join(parts[:length]))
            if file is not None and file not in found:
                found.add(file)
                pending += [each for each in imported_modules(file) if each.partition(".")[0] == "tandem"]
    return sorted(found)


def needed_packages(module: str) -> list[str]:
    """Requirements for pip of the packages outside of Tandem that a module needs as soon as it is imported."""
    names = {name.partition(".")[0] for file in needed_files(module) for name in imported_modules(file, at_top=True)}
    names -= {"tandem", "__future__", *sys.stdlib_module_names}
    providers = importlib.metadata.packages_distributions()
    packages = {providers[name][0] for name in names}
    return sorted(f"{package.lower()}=={importlib.metadata.version(package)}" for package in packages)


def imported_modules(file: Path, *, at_top: bool = False) -> set[str]:
    """Names of the modules that a source file imports.

    Args:
        file: The file.
        at_top: Only those that are imported with the file, not later in a function.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in tree.body if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _file_of(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
