"""Room for the calls of a program.

CPython keeps the frames of calls in chunks of 16 KB. A call that does not fit into the last chunk requests a new one
from the system, and its return gives it back: 70,000 times in compare.py, since imports happened to lie at the end of a
chunk (https://github.com/python/cpython/issues/142183; later versions of Python 3.13 and 3.14 keep one chunk).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Argument = TypeVar("Argument")

NUM_VALUES = 2**16
"""Values on the stack of the first frame: 0.5 MB, for which CPython requests a chunk of 1 MB. The calls that follow use
its second half; only what is used takes memory."""


def call_with_room(function: Callable[[Argument], None], argument: Argument) -> None:
    """Calls function(argument) from a frame in a chunk that has half a megabyte for the frames of further calls."""
    function(argument)


call_with_room.__code__ = call_with_room.__code__.replace(co_stacksize=NUM_VALUES)
