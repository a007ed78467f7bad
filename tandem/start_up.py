"""Messages of the frameworks while they are imported."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator

NOISE = re.compile(rb"WARNING: All log messages before absl::InitializeLog\(\)|I\d{4} \S+ +\d+ \S+:\d+\] ")
"""TensorFlow's lines of level INFO on its CPU kernels and missing GPU drivers, which its C++ code prints to the file
descriptor at every start, whatever TF_CPP_MIN_LOG_LEVEL says."""


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Hides TensorFlow's messages in a with block that loads it, unless TF_CPP_MIN_LOG_LEVEL is set."""
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    messages = StartUpMessages()
    try:
        yield
    finally:
        messages.stop()


class StartUpMessages:
    """Forwards the lines that this process writes to stderr, without those that match NOISE.

    It works on the file descriptor, since the lines come from C++.
    """

    def __init__(self) -> None:
        sys.stderr.flush()
        self._stderr = os.dup(2)
        reading, writing = os.pipe()
        os.dup2(writing, 2)
        os.close(writing)
        self._thread = threading.Thread(target=self._forward, args=(reading,), name="start-up-messages", daemon=True)
        self._thread.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """Ends the forwarding, after the last line; stderr is as it was before."""
        if self._stderr < 0:
            return
        sys.stderr.flush()
        os.dup2(self._stderr, 2)  # closes the pipe's only end for writing, so that the thread ends
        self._thread.join()
        os.close(self._stderr)
        self._stderr = -1
        atexit.unregister(self.stop)

    def _forward(self, reading: int) -> None:
        with os.fdopen(reading, "rb") as lines:
            for line in lines:
                if not NOISE.match(line):
                    with contextlib.suppress(OSError):  # nobody reads stderr
                        os.write(self._stderr, line)
