from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import Timeout

from tandem.data.cache import (
    NoRoom,
    check_room,
    in_megabytes,
    lock_of,
    partial_of,
    remove_leftovers,
    wait_for_lock,
    whole_folder,
)

# Acquires the lock of an entry, prints that, and holds it until it is killed.
HOLDER = """
import sys, time
from pathlib import Path
from tandem.data.cache import lock_of
with lock_of(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    return tmp_path / "entry"


@pytest.fixture
def holder(entry: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the entry's lock."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLDER, str(entry)]
    with subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_lock_of_a_killed_process_is_free(entry: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(Timeout):
        lock_of(entry, timeout=0).acquire()
    with pytest.raises(Timeout):  # the partial name has the same lock
        lock_of(partial_of(entry), timeout=0).acquire()
    with lock_of(entry.with_name("other"), timeout=0):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with lock_of(entry, timeout=10):
        pass


def test_waiting_for_a_lock_is_reported_once(
    entry: Path, holder: subprocess.Popen[str], capfd: pytest.CaptureFixture[str]
) -> None:
    acquired = threading.Event()

    def work() -> None:
        with wait_for_lock(entry, busy="baking the same bread", quiet=False):
            acquired.set()

    thread = threading.Thread(target=work)
    thread.start()
    said = ""
    while "\n" not in said:
        said += capfd.readouterr().err
    assert said == "Another process is baking the same bread: waiting for it.\n"
    assert not acquired.is_set()
    holder.kill()
    thread.join(20)
    assert acquired.is_set()
    assert capfd.readouterr().err == ""


def test_free_lock_is_acquired_silently(entry: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with wait_for_lock(entry, busy="here", quiet=False), pytest.raises(Timeout):
        lock_of(entry, timeout=0).acquire()
    with lock_of(entry, timeout=0):
        pass
    assert capfd.readouterr().err == ""


def test_folder_appears_when_it_is_complete_and_replaces_an_older_one(entry: Path) -> None:
    entry.mkdir()
    (entry / "old").touch()
    partial_of(entry).mkdir()
    (partial_of(entry) / "left behind").touch()
    with whole_folder(entry) as folder:
        assert (folder, names(folder)) == (partial_of(entry), [])
        (folder / "new").touch()
        assert not entry.exists()
    assert names(entry) == ["new"]
    assert names(entry.parent) == ["entry"]


def test_folder_is_removed_if_making_it_fails(entry: Path) -> None:
    with pytest.raises(KeyboardInterrupt), whole_folder(entry) as folder:
        (folder / "half").touch()
        raise KeyboardInterrupt
    assert names(entry.parent) == []


def test_leftovers_are_removed_unless_another_process_is_making_them(
    entry: Path, holder: subprocess.Popen[str]
) -> None:
    for name in ("killed.partial", "entry.partial", "complete", "own.partial"):
        (entry.parent / name).mkdir()
        (entry.parent / name / "file").touch()
    (entry.parent / "a file.partial").touch()
    own = entry.with_name("own")
    remove_leftovers(entry.parent, lambda path: path.name.endswith(".partial"), but=own)
    assert names(entry.parent) == ["a file.partial", "complete", "entry.partial", "own.partial"]
    holder.kill()
    holder.wait()
    remove_leftovers(entry.parent, lambda path: path.name.endswith(".partial"), but=own)
    assert names(entry.parent) == ["a file.partial", "complete", "own.partial"]


def test_entry_completed_in_the_meantime_is_not_a_leftover(entry: Path) -> None:
    entry.mkdir()
    answers = iter([True, False])
    remove_leftovers(entry.parent, lambda path: next(answers), but=entry.with_name("own"))
    assert entry.exists()


def test_entry_whose_lock_is_held_is_never_removed(entry: Path) -> None:
    entry.mkdir()
    remove_leftovers(entry.parent, lambda path: True, but=entry)
    assert entry.exists()


def test_lack_of_room_says_how_much_is_needed_and_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=2_500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    check_room(tmp_path, 2_500_000, what="they")
    with pytest.raises(NoRoom) as caught:
        check_room(tmp_path, 2_600_000, what="the images")
    assert str(caught.value) == f"the images need 2.6 MB in {tmp_path}, where 2.5 MB are free"
    assert in_megabytes(1_234_500_000) == "1,234.5 MB"
