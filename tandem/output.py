"""Standard output and error that never fail a program.

A broken pipe, a full disk, a closed terminal, or a character that the terminal's encoding lacks must not cost a run of
hours. Programs call protect_output() first; all output, that of libraries included, then goes through SteadyStream.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tandem.secrets import hide_secrets

_NUM_STANDARD_STREAMS = 3  # file descriptors 0, 1 and 2


class SteadyStream:
    """Text stream that drops what cannot be written, and hides secrets in the rest."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(hide_secrets(text))
        except UnicodeEncodeError:
            self._write_escaped(text)
        except OSError as error:
            self._drop(error)
        except ValueError:  # somebody has closed the stream
            pass
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)
        except ValueError:
            pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _write_escaped(self, text: str) -> None:
        encoding = self._stream.encoding or "ascii"
        self.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def _drop(self, error: OSError) -> None:
        """Sends everything from now on to the null device, also what libraries write to the file descriptor."""
        if error.errno == errno.EAGAIN:  # a terminal or pipe that does not block: only this text is lost
            return
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO) and sys.stderr is not self:
            print(f"warning: the output cannot be written ({error.strerror}): it is dropped", file=sys.stderr)
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
            self._stream.flush()
        except (OSError, ValueError):
            pass


def warn(line: str) -> None:
    """Prints a line of warning to standard error."""
    print(f"warning: {hide_secrets(line)}", file=sys.stderr)


def protect_output() -> None:
    """Makes standard output and error steady, and opens those that are closed.

    A closed one would give its file descriptor, and with it what libraries print, to the next file that is opened.
    Streams that something else has put in their place, such as those of a notebook, stay.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < _NUM_STANDARD_STREAMS:
        pass
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
        elif stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, SteadyStream(stream))
