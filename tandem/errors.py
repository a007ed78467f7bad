"""The one kind of error that a user can mend: bad settings, bad data, a server that is not there."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import NoReturn

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)  # of an OSError; the second is a user's own limit


class UserError(Exception):
    """What was wrong, what was received, what is allowed, what to do: one clear line (a list of files may follow it).

    The scripts print it without a traceback and leave with exit status 2.
    """


class TrainingDiverged(UserError):
    """The loss is no longer a number: the run has failed, and a smaller learning rate is the usual mend."""


class TrainingPruned(Exception):
    """A sweep has given up a trial early, since others were better at its age."""


class WeightsNotDownloaded(UserError):
    """Pretrained weights cannot be had: allow_random_weights goes on without them."""


def exit_with(program: str, error: UserError) -> NoReturn:
    """Prints `program: error: ...` to stderr and leaves with exit status 2."""
    print(f"{program}: error: {error}", file=sys.stderr)
    sys.exit(2)


def run_program(program: str, main: Callable[[list[str] | None], None], argv: list[str] | None = None) -> None:
    """Calls main(argv); a UserError or a full disk becomes one line and exit status 2, Ctrl-C exit status 130."""
    try:
        main(argv)
    except UserError as error:
        exit_with(program, error)
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        where = f" at {error.filename}" if error.filename else ""
        exit_with(
            program, UserError(f"the disk is full{where} ({error.strerror}): make room, and give the command again")
        )
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        sys.exit(130)
