"""The margin of equivalence: rows whose accuracy differs by less count as equally good."""

from __future__ import annotations

from tandem.errors import UserError

MARGIN = 0.01  # a difference of one image in a hundred


def checked_margin(margin: float) -> float:
    """Returns a margin that a user has asked for.

    Raises:
        UserError: It is not a difference of two accuracies.
    """
    if not 0 < margin < 1:
        raise UserError(
            f"--margin is a difference in accuracy above 0 and below 1. Received: {margin:g}; one point is {MARGIN:g}"
        )
    return margin


def points(margin: float) -> str:
    """A margin in words: `one point`."""
    written = f"{100 * margin:.6g}"
    return "one point" if written == "1" else f"{written} points"
