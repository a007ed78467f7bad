from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from tandem.errors import (
    TrainingDiverged,
    UserError,
    WeightsNotDownloaded,
    exit_with,
    is_full_disk,
    one_line,
    run_program,
)
from tandem.interrupts import Interrupted


@pytest.mark.parametrize("error", [UserError, TrainingDiverged, WeightsNotDownloaded])
def test_errors_of_users_are_one_line_and_exit_status_2(
    error: type[UserError], capsys: pytest.CaptureFixture[str]
) -> None:
    def main(argv: list[str] | None) -> None:
        raise error(f"seed: received {argv}, allowed: 1")

    with pytest.raises(SystemExit) as caught:
        run_program("train_torch.py", main, ["a"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "train_torch.py: error: seed: received ['a'], allowed: 1\n"


class ResourceExhaustedError(Exception):
    """TensorFlow's."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), ""),
        (MemoryError("Unable to allocate 9.00 GiB"), " (MemoryError: Unable to allocate 9.00 GiB)"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), " (OSError: [Errno 12] Cannot allocate memory)"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried\nto"),
            " (RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried)",
        ),
        (
            ResourceExhaustedError("OOM when allocating tensor"),
            " (ResourceExhaustedError: OOM when allocating tensor)",
        ),
        (RuntimeError("RESOURCE_EXHAUSTED: 5 bytes"), " (RuntimeError: RESOURCE_EXHAUSTED: 5 bytes)"),
    ],
    ids=str,
)
def test_too_little_memory_is_one_line_in_every_program(
    error: Exception, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(argv: list[str] | None) -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        run_program("compare.py", main)
    assert caught.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith(f"compare.py: error: there is too little memory{reason}: ") and line.count("\n") == 1
    assert "GB are free; end other programs" in line


@pytest.mark.parametrize("error", [RuntimeError("value INT_MAX"), ValueError("out of memory")])
def test_other_errors_keep_their_traceback(error: Exception) -> None:
    def main(argv: list[str] | None) -> None:
        raise error

    with pytest.raises(type(error)):
        run_program("compare.py", main)


def test_program_that_succeeds_returns(capsys: pytest.CaptureFixture[str]) -> None:
    received: list[list[str] | None] = []
    run_program("compare.py", received.append)
    assert received == [None]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("file", [None, "/runs/journal.jsonl"])
def test_full_disk_is_one_line_that_names_the_file(
    number: int, file: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(argv: list[str] | None) -> None:
        raise OSError(number, os.strerror(number), file)

    with pytest.raises(SystemExit) as caught:
        run_program("train_torch.py", main)
    assert caught.value.code == 2
    where = " at /runs/journal.jsonl" if file else ""
    assert capsys.readouterr().err == (
        f"train_torch.py: error: the disk is full{where} ({os.strerror(number)}): make room, then repeat the command\n"
    )


def test_full_disk_that_a_library_quotes_is_one_line_and_its_notes(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: list[str] | None) -> None:
        error = RuntimeError("I/O error: No space left on device (os error 28)")
        error.add_note("kept: epoch 3")
        raise error

    with pytest.raises(SystemExit) as caught:
        run_program("train_torch.py", main)
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "train_torch.py: error: the disk is full (RuntimeError: I/O error: No space left on device (os error 28)): "
        "make room, then repeat the command\nkept: epoch 3\n"
    )


def test_other_errors_of_the_system_and_the_program_are_not_hidden() -> None:
    def fail(error: Exception) -> None:
        raise error

    for error in (FileNotFoundError(errno.ENOENT, "no such file"), ValueError("a bug")):
        with pytest.raises(type(error)):
            run_program("train_torch.py", lambda argv, error=error: fail(error))  # type: ignore[misc]


def test_interruption_is_exit_status_130(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: list[str] | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run_program("train_keras.py", main)
    assert caught.value.code == 130
    assert capsys.readouterr().err == "train_keras.py: interrupted\n"


def test_signal_is_exit_status_143_and_prints_the_notes(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: list[str] | None) -> None:
        error = Interrupted(signal.SIGTERM)
        error.add_note("to continue: python train_keras.py")
        raise error

    with pytest.raises(SystemExit) as caught:
        run_program("train_keras.py", main)
    assert caught.value.code == 143
    assert capsys.readouterr().err == ("train_keras.py: interrupted by SIGTERM\nto continue: python train_keras.py\n")


def test_message_may_be_followed_by_a_list_of_files(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        exit_with("report", UserError("2 files cannot be used:\n  a.png\n  b.png"))
    assert capsys.readouterr().err == "report: error: 2 files cannot be used:\n  a.png\n  b.png\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("no such network"), "ValueError: no such network"),
        (UserError("data.source: received x"), "data.source: received x"),
        (RuntimeError("\n first line \nsecond line\n"), "RuntimeError: first line "),
        (ValueError(), "ValueError"),
        (UserError(""), "UserError"),
        (FileNotFoundError(2, "No such file or directory", Path("x")), "FileNotFoundError: [Errno 2] No such file or "),
    ],
)
def test_error_in_one_line_is_its_first_line_after_its_type(error: Exception, line: str) -> None:
    assert one_line(error).startswith(line)
    assert "\n" not in one_line(error)


def test_type_of_an_error_can_be_left_out() -> None:
    assert one_line(RuntimeError("Unknown model (x)"), with_type=False) == "Unknown model (x)"
    assert one_line(RuntimeError(), with_type=False) == "RuntimeError"


def test_long_line_keeps_its_beginning_and_its_end() -> None:
    text = "the beginning " + "in between " * 100 + "and the reason"
    line = one_line(ValueError(text))
    assert len(line) == 300
    assert line.startswith("ValueError: the beginning ") and line.endswith("and the reason") and " ... " in line
    exactly = "x" * (300 - len("ValueError: "))
    assert one_line(ValueError(exactly)) == f"ValueError: {exactly}"


def test_missing_temporary_folder_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: list[str] | None) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp', '/home']")

    with pytest.raises(SystemExit) as caught:
        run_program("compare.py", main)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("compare.py: error: No usable temporary directory found in ['/tmp', ")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (RuntimeError("{'final/predictions.parquet': OSError(28, 'No space left on device')}"), True),
        (RuntimeError("a bug"), False),
    ],
)
def test_full_disk_is_recognised_in_the_error_of_a_library(error: Exception, expected: bool) -> None:
    assert is_full_disk(error) == expected
    wrapped = RuntimeError("download failed")
    wrapped.__cause__ = error
    assert is_full_disk(wrapped) == expected
