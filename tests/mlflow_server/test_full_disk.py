"""Full disks: a disk of three megabytes in a mount namespace of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tandem.tracking.mlflow_store import connect
from tandem.tracking.reader import read_runs

# Logs a metric, a file larger than the disk, and another metric.
TRAIN = """
import sys
from pathlib import Path
from tandem.errors import run_program
from tandem.protocol.settings import Settings, TrackingSettings
from tandem.tracking.start import start_run

def main(argv):
    tracking = TrackingSettings(uri=sys.argv[1], folder=sys.argv[2], system_interval=60)
    with start_run(Settings(tracking=tracking), framework="torch", backend="torch", versions={}) as run:
        run.log_metrics({"val/loss": 1.0}, step=0)
        run.log_artifact(sys.argv[3])
        run.log_metrics({"val/loss": 0.5}, step=1)
    print("trained to the end")

run_program("train", main)
"""
# Fills the disk between two entries, and then frees space again.
JOURNAL = """
import sys
from pathlib import Path
from tandem.tracking.journal import Journal, read_journal

folder = Path(sys.argv[1])
journal = Journal(folder)
journal.append("tags", values={"note": "1"})
try:
    (folder / "filler").write_bytes(bytes(4_000_000))
except OSError:
    pass
lost = [journal.append("tags", values={"note": "x" * 5000}) for _ in range(3)]
(folder / "filler").unlink()
journal.append("tags", values={"note": "5"})
print([entry.number for entry in lost], [entry.number for entry in read_journal(journal.path).entries])
"""
IN_NAME_SPACE = ["unshare", "--map-root-user", "--mount"]


def can_mount(folder: Path) -> bool:
    try:
        done = subprocess.run([*IN_NAME_SPACE, "mount", "-t", "tmpfs", "none", folder], capture_output=True)
    except FileNotFoundError:
        return False
    return done.returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not can_mount(disk):
        pytest.skip("no mount in a name space of its own here")
    return disk


def on_small_disk(disk: Path, before: str, *command: str | Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Starts a command with an empty disk of three megabytes, after a shell command that may fill it."""
    script = f'mount -t tmpfs -o size=3m none "{disk}" && {before} && exec "$@"'
    return subprocess.Popen(
        [*IN_NAME_SPACE, "sh", "-c", script, "sh", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )


@pytest.fixture
def empty_database(tmp_path: Path) -> Path:
    database = tmp_path / "empty.db"
    connect(f"sqlite:///{database}")
    return database


@pytest.mark.long
def test_full_disk_of_the_server_does_not_end_training(
    small_disk: Path, empty_database: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "large.bin").write_bytes(b"0" * 6_000_000)
    store = f"sqlite:///{small_disk}/mlflow.db"
    words = [sys.executable, "-c", TRAIN, store, str(tmp_path / "runs"), str(tmp_path / "large.bin")]
    kept = f'cp "{empty_database}" "{small_disk}/mlflow.db"'
    # The disk disappears with the process, so the shell saves the database.
    words = ["sh", "-c", f'"$@" && cp "{small_disk}/mlflow.db" "{tmp_path}/saved.db"', "sh", *words]
    output, errors = on_small_disk(small_disk, kept, *words, environment=environment).communicate(timeout=120)
    assert output == "trained to the end\n", errors
    assert errors.count("\n") == 1
    warned = re.search(r"warning: 1 journal entries of this run are not in MLflow \(first refusal: (.*)\); ", errors)
    assert warned and "No space left on device" in warned[1]
    (folder,) = (tmp_path / "runs" / "tandem").iterdir()
    assert f"python -m tandem.tracking.replay {folder}" in errors

    (run,) = read_runs(f"sqlite:///{tmp_path}/saved.db", "tandem")
    assert (run.status, run.metrics["val/loss"]) == ("FINISHED", 0.5)


@pytest.mark.long
def test_full_disk_at_the_start_is_an_error_of_one_line(
    small_disk: Path, empty_database: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    filling = f'cat /dev/zero > "{small_disk}/filler" 2> /dev/null; true'
    filled = f'{{ cp "{empty_database}" "{small_disk}/mlflow.db"; {filling}; }}'
    for store, runs, expected in (
        (small_disk / "mlflow.db", tmp_path / "runs", "database or disk is full"),
        (empty_database, small_disk / "runs", f"train: error: the disk is full at {small_disk}/runs"),
    ):
        words = [sys.executable, "-c", TRAIN, f"sqlite:///{store}", str(runs), str(empty_database)]
        process = on_small_disk(small_disk, filled, *words, environment=environment)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 2, output + errors
        assert expected in errors and errors.count("\n") == 1


def test_journal_on_a_full_disk_warns_once_and_stays_valid(small_disk: Path, environment: dict[str, str]) -> None:
    words = [sys.executable, "-c", JOURNAL, str(small_disk)]
    output, errors = on_small_disk(small_disk, "true", *words, environment=environment).communicate(timeout=120)
    assert output == "[2, 3, 4] [1, 5]\n", errors
    assert errors.startswith("warning: the disk of ") and errors.count("\n") == 1
