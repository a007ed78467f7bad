"""Errors that the user can fix: bad settings, bad data, a server that does not answer."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import psutil

from tandem import interrupts
from tandem.call_stack import call_with_room
from tandem.output import protect_output
from tandem.secrets import hide_secrets

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of an OSError on a full disk; the second one is that of a user's quota."""

# Words of the libraries that compute.
_TOO_LITTLE_MEMORY = (
    # torch: CUDA's allocator, and the CPU's in its earlier and its present form
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    # TensorFlow; JAX, and XLA within TensorFlow
    "OOM when allocating",
    "Dst tensor is not initialized",
    "std::bad_alloc",
    "RESOURCE_EXHAUSTED",
    # the CUDA driver, in any framework; AMD's
    "CUDA_ERROR_OUT_OF_MEMORY",
    "cudaErrorMemoryAllocation",
    "hipErrorOutOfMemory",
    # cuBLAS and cuDNN, which allocate workspaces of their own
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
_TOO_LARGE = (
    # cuDNN, where no algorithm fits
    "CUDNN_STATUS_NOT_SUPPORTED",
    "Unable to find a valid cuDNN algorithm",
    "unable to find an engine",
    "No algorithm worked",
    # kernels of torch that count elements with 32 bits, at 2^31 and more of them
    "canUse32BitIndexMath",
    "32-bit index math",
    "INT_MAX",
    "integer out of range",
)

# Exceptions of TensorFlow and JAX that are no RuntimeError in each version.
_WITH_THEIR_OWN_TYPE = ("OpError", "ResourceExhaustedError", "InternalError", "XlaRuntimeError", "JaxRuntimeError")

LONGEST_LINE = 300
"""Characters of an error's line."""

MOST_NAMES = 12
"""Names that a line lists; a data set can have thousands."""


class UserError(Exception):
    """One clear line: what was wrong, what was received, what is allowed, what to do. A list of files may follow.

    The scripts print it without a traceback and exit with status 2.
    """


class TrainingDiverged(UserError):
    """The loss is no longer a number. The run has failed; a smaller learning rate usually helps."""


class OutOfMemory(UserError):
    """A device or the machine has too little memory for the settings."""


class TrainingPruned(Exception):
    """A sweep ends a trial early because others were better at the same epoch."""


class WeightsNotDownloaded(UserError):
    """Pretrained weights cannot be downloaded. With allow_random_weights, training starts from random ones."""


def exit_with(program: str, error: UserError) -> NoReturn:
    """Prints `program: error: ...` to stderr and exits with status 2."""
    print(f"{program}: error: {hide_secrets(str(error))}", file=sys.stderr)
    sys.exit(2)


def one_line(error: BaseException, *, with_type: bool = True) -> str:
    """The first line of an error's message, without secrets, and cut in the middle if it is long.

    Args:
        error: Any exception; a UserError's type is never shown.
        with_type: Puts the exception's type before the message.
    """
    lines = hide_secrets(str(error)).strip().splitlines()
    if not lines:
        return type(error).__name__
    line = f"{type(error).__name__}: {lines[0]}" if with_type and not isinstance(error, UserError) else lines[0]
    # The end of a long message often holds the reason, the beginning only what called what.
    return line if len(line) <= LONGEST_LINE else f"{line[:170]} ... {line[-125:]}"


def is_full_disk(error: BaseException) -> bool:
    """True if a full disk caused an error, even if a library has wrapped or only quoted it."""
    link: BaseException | None = error
    while link is not None:
        if getattr(link, "errno", None) in FULL_DISK or any(os.strerror(number) in str(link) for number in FULL_DISK):
            return True
        link = link.__cause__ or link.__context__
    return False


def says_out_of_memory(error: BaseException) -> bool:
    """True if an exception's message is one of those for a batch that is too large for a CPU or a GPU.

    The caller checks the exception's type: any text may hold these words.
    """
    message = str(error)
    return any(words in message for words in (*_TOO_LITTLE_MEMORY, *_TOO_LARGE))


def is_out_of_memory(error: BaseException) -> bool:
    """True if an exception of any library says that a device or the machine has too little memory."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    names = {kind.__name__ for kind in type(error).__mro__}
    is_of_a_library = isinstance(error, RuntimeError) or not names.isdisjoint(_WITH_THEIR_OWN_TYPE)
    return is_of_a_library and any(words in str(error) for words in _TOO_LITTLE_MEMORY)


def some_of(names: Sequence[str], most: int = MOST_NAMES) -> str:
    """Names for a line of text: all of them, or the first ones and the number of the others."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most:,} more"


def use_utf8() -> None:
    """Starts the program again in Python's UTF-8 mode if the locale's encoding is another one.

    Names of files are UTF-8 almost everywhere. With another encoding, such as that of LC_ALL=C, correct names could not
    be told from damaged ones, printed or recorded. In a notebook nothing is started.
    """
    if sys.getfilesystemencoding() != "utf-8" and "IPython" not in sys.modules and sys.executable:
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def run_program(program: str, main: Callable[[list[str] | None], None], argv: list[str] | None = None) -> None:
    """Calls main(argv). A UserError or a full disk prints one line and exits with status 2.

    Ctrl-C exits with status 130 and another signal with 143, after a line and the exception's notes.
    """
    if argv is None:
        use_utf8()
    protect_output()
    try:
        with interrupts.watch():
            call_with_room(main, argv)
    except UserError as error:
        exit_with(program, error)
    except OSError as error:
        if is_out_of_memory(error):
            exit_with(program, _out_of_memory(error))
        if str(error.strerror).startswith("No usable temporary directory"):
            exit_with(
                program, UserError(f"{error.strerror}: set TMPDIR to a folder that you may write and that has room")
            )
        if not is_full_disk(error):
            raise
        exit_with(program, _full_disk(error))
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, interrupts.Interrupted) else None
        cause = f" by {error}" if number not in (None, signal.SIGINT) else ""
        print("\n".join([f"{program}: interrupted{cause}", *getattr(error, "__notes__", [])]), file=sys.stderr)
        sys.exit(interrupts.exit_status(number))
    except Exception as error:  # libraries wrap an OSError, or only quote it
        if is_out_of_memory(error):
            exit_with(program, _out_of_memory(error))
        if not is_full_disk(error):
            raise
        exit_with(program, _full_disk(error))


def _out_of_memory(error: BaseException) -> OutOfMemory:
    memory = psutil.virtual_memory()
    reason = f" ({one_line(error)})" if str(error) else ""
    free = f"{memory.available / 1e9:.1f} of the machine's {memory.total / 1e9:.1f} GB are free"
    return OutOfMemory(
        f"there is too little memory{reason}: {free}; end other programs, run fewer processes at once, or take fewer "
        "or smaller images"
    )


def _full_disk(error: Exception) -> UserError:
    """One line, and the notes of the error."""
    where = f" at {file}" if (file := getattr(error, "filename", None)) else ""
    reason = getattr(error, "strerror", None) or one_line(error)
    message = f"the disk is full{where} ({reason}): make room, then repeat the command"
    return UserError("\n".join([message, *getattr(error, "__notes__", [])]))
