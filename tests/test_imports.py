"""Import rules: within Tandem by reading the source, for frameworks by importing in a separate process."""

from __future__ import annotations

import ast
import graphlib
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FRAMEWORKS = {"torch", "torchvision", "pytorch_lightning", "lightning", "timm", "keras", "tensorflow", "jax"}
HEAVY = {"mlflow", "pandas", "sklearn", "scipy", "plotly"}
SIDES = ("on_torch", "on_keras")

# Packages that each package may import beside itself; every package may import EVERYWHERE.
EVERYWHERE = {"call_stack", "commands", "errors", "files", "interrupts", "output", "secrets", "start_up", ""}
ALLOWED = {
    "call_stack": set(),
    "commands": set(),
    "secrets": set(),
    "output": {"secrets"},
    "files": set(),
    "start_up": set(),
    "errors": {"call_stack", "output", "secrets"},
    "protocol": set(),
    "rendering": set(),
    "data": {"protocol"},
    "serving": {"protocol", "data", "evaluation", "tracking"},
    "export": {"protocol", "data", "evaluation", "tracking", "serving", "on_torch", "on_keras"},
    "predict": {"protocol", "data", "evaluation", "tracking", "rendering", "serving", "comparison"},
    "evaluation": {"protocol"},
    "tracking": {"protocol"},
    "on_torch": {"protocol", "data", "evaluation", "tracking"},
    "on_keras": {"protocol", "data", "evaluation", "tracking"},
    "recording": {"protocol", "data", "evaluation", "tracking", "rendering"},
    "data_report": {"protocol", "data", "tracking", "rendering"},
    "comparison": {"protocol", "data", "evaluation", "tracking", "rendering", "recording"},
    "published": {"protocol", "data", "evaluation", "tracking", "rendering", "recording", "comparison"},
    "search": {"protocol", "data", "evaluation", "tracking", "rendering", "recording"},
    "experiment": {"protocol", "data", "evaluation", "tracking", "recording", "data_report", "search", "serving"},
    "launch": {"protocol", "tracking", "rendering"},
    "grid": {"protocol", "tracking", "rendering", "launch"},
}
SCRIPTS = ("train_torch", "train_keras", "compare")
MODULES = sorted((ROOT / "tandem").rglob("*.py"))
PROGRAMS = [file for file in MODULES if '__name__ == "__main__"' in file.read_text(encoding="utf-8")]


def modules_of(*packages: str) -> list[str]:
    """Names of the modules in these packages of tandem/; the empty name stands for tandem/ itself."""
    files = [file for name in packages for file in sorted((ROOT / "tandem" / name).glob("**/*.py" if name else "*.py"))]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    assert names
    return names


PACKAGES = sorted(file.parent.name for file in (ROOT / "tandem").glob("*/__init__.py"))


def loaded_after_importing(modules: list[str], **variables: str) -> set[str]:
    """Top-level names in sys.modules after a new process has imported these modules."""
    code = (
        "import importlib, json, sys\n"
        "for name in json.loads(sys.argv[1]): importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(modules)],
        cwd=ROOT,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def imported_names(module: Path) -> set[str]:
    """Modules of Tandem, and scripts, that a source file imports, at its top or within functions."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names = [node.module or ""]
            if node.module == "tandem":
                names = [f"tandem.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name for name in names if name.partition(".")[0] in {"tandem", *SCRIPTS}}
    return found


def imported_parts(module: Path) -> set[str]:
    """Packages of Tandem, and scripts, that a source file imports; "" for tandem itself."""
    names = imported_names(module)
    return {name if name in SCRIPTS else [*name.split("."), ""][1] for name in names}


def files_of(name: str) -> list[Path]:
    """Source files of a package, or of a single module."""
    folder = ROOT / "tandem" / name
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def test_imports_point_one_way() -> None:
    wrong = []
    for name, allowed in ALLOWED.items():
        for file in files_of(name):
            if beyond := imported_parts(file) - allowed - EVERYWHERE - {name}:
                wrong.append(f"{file.relative_to(ROOT)} imports {', '.join(sorted(beyond))}")
    assert wrong == []


def test_every_package_has_import_rules() -> None:
    assert set(PACKAGES) == set(ALLOWED) - EVERYWHERE


def test_rules_allow_no_cycle() -> None:
    graphlib.TopologicalSorter(ALLOWED).prepare()  # raises CycleError


def test_programs_do_not_import_framework_packages() -> None:
    programs = [file for file in PROGRAMS if file.parent.name not in SIDES]
    for file in [*programs, ROOT / "compare.py", *(ROOT / "mlflow_server").glob("*.py")]:
        assert not imported_parts(file) & {*SIDES, *SCRIPTS}, file


def test_nothing_imports_a_program() -> None:
    assert len(PROGRAMS) >= 5
    programs = {".".join(file.relative_to(ROOT).with_suffix("").parts) for file in PROGRAMS}
    for file in [*MODULES, *ROOT.glob("*.py"), *(ROOT / "mlflow_server").glob("*.py")]:
        assert not imported_names(file) & programs, file


def test_training_scripts_import_only_their_own_framework_package() -> None:
    assert "on_keras" not in imported_parts(ROOT / "train_torch.py")
    assert "on_torch" not in imported_parts(ROOT / "train_keras.py")


def test_frameworks_are_imported_only_by_their_packages() -> None:
    packages = [name for name in PACKAGES if name not in SIDES]
    assert set(packages) == set(ALLOWED) - {*EVERYWHERE, *SIDES}
    modules = [*modules_of(*packages, ""), "compare", "mlflow_server.serve"]
    loaded = loaded_after_importing(modules)
    assert {"mlflow", "sklearn"} <= loaded
    assert loaded & FRAMEWORKS == set()


def test_settings_import_no_heavy_package() -> None:
    loaded = loaded_after_importing([*modules_of("protocol"), *(f"tandem.{name}" for name in EVERYWHERE if name)])
    assert loaded & {*FRAMEWORKS, *HEAVY} == set()


def test_options_of_the_data_report_import_no_heavy_package() -> None:
    assert loaded_after_importing(["tandem.data_report.__main__"]) & {*FRAMEWORKS, *HEAVY} == set()


def test_missing_shared_memory_is_not_a_warning() -> None:
    code = (
        "import _multiprocessing\n"
        "def refuse(*_, **__): raise OSError(30, 'Read-only file system')\n"
        "_multiprocessing.SemLock = refuse\n"
        "import {} joblib\n"
        "assert joblib.parallel.mp is None"
    )
    for first, warns in (("", True), ("tandem.evaluation.metrics,", False)):
        done = subprocess.run([sys.executable, "-c", code.format(first)], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and ("joblib will operate" in done.stderr) == warns, done.stderr


def test_torch_package_does_not_import_keras() -> None:
    loaded = loaded_after_importing([*modules_of("on_torch"), "train_torch"])
    assert {"torch", "torchvision", "pytorch_lightning"} <= loaded
    assert loaded & {"keras", "tensorflow", "jax"} == set()
    # two copies of Lightning cannot share a process
    assert "lightning" not in loaded


def test_keras_package_does_not_import_torch() -> None:
    loaded = loaded_after_importing([*modules_of("on_keras"), "train_keras"], KERAS_BACKEND="tensorflow")
    assert {"keras", "tensorflow"} <= loaded
    assert loaded & {"torch", "torchvision", "pytorch_lightning", "lightning", "timm"} == set()
