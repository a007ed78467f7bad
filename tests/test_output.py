from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tandem.output import SteadyStream, protect_output, warn

# prints more than a pipe holds, through Python's streams, a library's file descriptor and at the exit
PROGRAM = """
import logging, os, sys
from rich.console import Console
from tandem.errors import run_program
from tandem.output import warn

def main(argv):
    for number in range(800):
        print("a line of some length" * 5, number)
        Console().print("[bold]of rich")
        Console(stderr=True).print("of rich")
    warn("the end is near")
    logging.warning("of a library")
    try:
        os.write(1, b"of a library in C")
    except BrokenPipeError:
        pass
    sys.stdout.flush()
    open("done", "w").write("to the end")

run_program("train_torch.py", main)
"""


@pytest.mark.parametrize(
    "redirection",
    ["2>&1 | true", "> /dev/full", "> /dev/full 2>&1", ">&-", "<&- >&- 2>&-"],
)
def test_output_is_never_a_reason_to_fail(redirection: str, tmp_path: Path, own_environment: None) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = f"set -o pipefail; {sys.executable} program.py {redirection}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "done").read_text() == "to the end"
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    if redirection == "> /dev/full":
        said = [line for line in done.stderr.splitlines() if line.startswith("warning: the output")]
        assert said == ["warning: the output cannot be written (No space left on device): it is dropped"]


def test_closed_output_gives_its_descriptor_to_no_file(tmp_path: Path, own_environment: None) -> None:
    program = """
from tandem.output import protect_output
import os
protect_output()
with open("precious", "w") as file:
    os.write(1, b"of a library in C")
    file.write("content")
"""
    subprocess.run(["bash", "-c", f'{sys.executable} -c "$0" >&-', program], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "precious").read_text() == "content"


class Broken(io.StringIO):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ENOSPC, "No space left on device"),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
        ValueError("I/O operation on closed file."),
    ],
)
def test_stream_drops_what_cannot_be_written(error: Exception) -> None:
    stream = SteadyStream(Broken(error))  # type: ignore[arg-type]
    assert stream.write("text") == 4
    stream.writelines(["a", "b"])
    stream.flush()


def test_characters_that_the_encoding_lacks_are_escaped() -> None:
    written = io.BytesIO()
    stream = SteadyStream(io.TextIOWrapper(written, encoding="ascii", write_through=True))
    stream.write("caf\u00e9 \u732b\n")
    assert written.getvalue() == b"caf\\xe9 \\u732b\n"


def test_secrets_are_hidden_in_all_output(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2secret\n")
    text = io.StringIO()
    SteadyStream(text).write("InvalidHeader: 'Bearer hunter2secret\\n'")
    warn("postgresql://ann:hunter2secret@host/db is gone")
    assert "hunter2" not in text.getvalue() + capsys.readouterr().err


def test_streams_of_a_notebook_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    of_a_notebook = io.StringIO()
    monkeypatch.setattr(sys, "stdout", of_a_notebook)
    protect_output()
    assert sys.stdout is of_a_notebook


def test_protecting_twice_is_the_same_as_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, "w") as null:
        monkeypatch.setattr(sys, "__stdout__", null)
        monkeypatch.setattr(sys, "stdout", null)
        protect_output()
        protected = sys.stdout
        protect_output()
        assert sys.stdout is protected and isinstance(protected, SteadyStream)
