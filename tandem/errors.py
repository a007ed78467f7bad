"""Errors that the user can fix: bad settings, bad data, a server that does not answer."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import NoReturn

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of an OSError on a full disk; the second one is that of a user's quota."""

LONGEST_LINE = 300
"""Characters of an error's line."""


class UserError(Exception):
    """One clear line: what was wrong, what was received, what is allowed, what to do. A list of files may follow.

    The scripts print it without a traceback and exit with status 2.
    """


class TrainingDiverged(UserError):
    """The loss is no longer a number. The run has failed; a smaller learning rate usually helps."""


class TrainingPruned(Exception):
    """A sweep ends a trial early because others were better at the same epoch."""


class WeightsNotDownloaded(UserError):
    """Pretrained weights cannot be downloaded. With allow_random_weights, training starts from random ones."""


def exit_with(program: str, error: UserError) -> NoReturn:
    """Prints `program: error: ...` to stderr and exits with status 2."""
    print(f"{program}: error: {error}", file=sys.stderr)
    sys.exit(2)


def one_line(error: BaseException, *, with_type: bool = True) -> str:
    """The first line of an error's message, cut in the middle if it is long.

    Args:
        error: Any exception; a UserError's type is never shown.
        with_type: Puts the exception's type before the message.
    """
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    line = f"{type(error).__name__}: {lines[0]}" if with_type and not isinstance(error, UserError) else lines[0]
    # The end of a long message often holds the reason, the beginning only what called what.
    return line if len(line) <= LONGEST_LINE else f"{line[:170]} ... {line[-125:]}"


def run_program(program: str, main: Callable[[list[str] | None], None], argv: list[str] | None = None) -> None:
    """Calls main(argv). A UserError or a full disk prints one line and exits with status 2, Ctrl-C with status 130."""
    try:
        main(argv)
    except UserError as error:
        exit_with(program, error)
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        where = f" at {error.filename}" if error.filename else ""
        exit_with(program, UserError(f"the disk is full{where} ({error.strerror}): make room, then repeat the command"))
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        sys.exit(130)
