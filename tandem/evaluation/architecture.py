"""The layers of a network in a form that both frameworks share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of a network, or one weight that belongs to none."""

    name: str
    """Unique in the network, beginning with `backbone.` or `head.`."""
    kind: str
    """Name of its class in its framework."""
    output_shape: tuple[int | None, ...] | None
    """For one image, in the framework's own order of axes; None for several outputs, or if it is not called itself."""
    parameters: int
    """Number of its weights, excluding the statistics of batch norm."""
