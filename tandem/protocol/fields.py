"""A field of the settings: its default, the values that it takes, and what it affects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, field
from typing import Any, Literal

Affects = Literal["numbers", "cost", "nothing"]
"""Kinds of effect that a setting can have.

`numbers`: what a network learns, or is tested on. Runs that differ in such a setting are different experiments.
`cost`: time or memory; numbers by rounding at most.
`nothing`: neither; such as where a run is recorded.
"""


def setting(
    default: Any = MISSING,
    *,
    affects: Affects,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    before: Any = MISSING,
    stands_for: Callable[[Any], Any] | None = None,
    changes_features: bool = False,
) -> Any:
    """A dataclass field of a setting; what the program needs to know about the setting is in the field's metadata.

    Args:
        default: Value when the setting is not given; a setting without one has to be given.
        affects: See Affects.
        above: Limit that a number has to exceed; None for no limit. The same for the next two.
        at_least: Smallest number allowed.
        at_most: Largest number allowed.
        before: Value that runs had, in effect, before the setting existed; the default where not given. To be kept when
            the default changes.
        stands_for: For a setting with a value like `auto`: computes the value that is meant, from all settings.
            Settings are resolved when they are read, so runs are recorded and hashed by what `auto` meant at that time.
        changes_features: True if a frozen backbone's features of a given image depend on the setting.
    """
    metadata: dict[str, Any] = {"affects": affects}
    limits = {"above": above, "at_least": at_least, "at_most": at_most}
    metadata |= {name: limit for name, limit in limits.items() if limit is not None}
    if before is not MISSING:
        metadata["before"] = before
    if stands_for is not None:
        metadata["stands_for"] = stands_for
    if changes_features:
        metadata["changes_features"] = True
    if isinstance(default, list | tuple):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)
