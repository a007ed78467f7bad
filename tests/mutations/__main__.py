"""Puts faults into a copy of the product, one at a time, and runs the tests that should notice them.

    python -m tests.mutations                  all, some minutes each on a slow machine
    python -m tests.mutations --only on_keras  those whose file or tests contain this text
    python -m tests.mutations --check          no tests: is each text still in its file exactly once?

A mutation is killed if its tests fail, and survives if they pass. Exit status 1 if any survives or its text is missing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.mutations.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Runs the mutations that the command line asks for, and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="part of a file's or a test's path")
    parser.add_argument("--check", action="store_true", help="run no tests")
    arguments = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if arguments.only in f"{mutation.file} {mutation.tests}"]
    stale = [mutation for mutation in chosen if (ROOT / mutation.file).read_text("utf-8").count(mutation.old) != 1]
    for mutation in stale:
        print(f"not exactly once in {mutation.file}: {mutation.old!r}", file=sys.stderr)
    if arguments.check or stale:
        return int(bool(stale))
    with tempfile.TemporaryDirectory() as folder:
        copy = copy_of_sources(Path(folder) / "tandem")
        passing: dict[str, bool] = {}
        survived = 0
        print("| file | fault | tests | result |\n|---|---|---|---|")
        for mutation in chosen:
            if mutation.tests not in passing:
                passing[mutation.tests] = passes(copy, mutation.tests)
            result = "killed" if passing[mutation.tests] else "undecided: the tests fail without it"
            if passing[mutation.tests] and passes_with(copy, mutation):
                result, survived = "SURVIVED", survived + 1
            fault = f"`{one_line(mutation.old)}` -> `{one_line(mutation.new)}`"
            print(f"| {mutation.file} | {fault} | {mutation.tests} | {result} |", flush=True)
    print(f"\n{len(chosen)} mutations, {survived} survived")
    return int(survived > 0 or not all(passing.values()))


def copy_of_sources(folder: Path) -> Path:
    """Copies the files that git tracks or would add, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def passes_with(copy: Path, mutation: Mutation) -> bool:
    """True if the tests pass with the mutation."""
    file = copy / mutation.file
    text = file.read_text("utf-8")
    file.write_text(text.replace(mutation.old, mutation.new), "utf-8")
    try:
        return passes(copy, mutation.tests)
    finally:
        file.write_text(text, "utf-8")


def passes(copy: Path, tests: str) -> bool:
    """True if the fast tests of a file or folder pass in the copy."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not long", "-p", "no:cacheprovider", f"tests/{tests}"]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest ended with status {done.returncode}: {' '.join(command)}\n{done.stdout.decode()}")
    return done.returncode == 0


def one_line(text: str) -> str:
    """A piece of code for a table's cell."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
