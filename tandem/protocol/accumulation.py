"""Gradient accumulation: the passes through the network that make one optimizer step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Passes:
    """The passes of an epoch. Its last step has the passes that are left, and its last pass the images that are left.

    The gradient of a step is that of the mean loss over the step's images.
    """

    num_images: int
    """Training images per epoch."""
    pass_size: int
    """Images per pass; the last one of an epoch may be smaller."""
    per_step: int
    """Passes per optimizer step; 1 without accumulation."""

    @property
    def num_passes(self) -> int:
        """Passes per epoch."""
        return -(-self.num_images // self.pass_size)

    @property
    def num_steps(self) -> int:
        """Optimizer steps per epoch."""
        return -(-self.num_passes // self.per_step)

    def factor(self, index: int) -> float:
        """Factor of a pass's gradient, with which the sum over a step divided by per_step is the step's gradient.

        Args:
            index: Of the pass, from 0 to num_passes - 1.

        Returns:
            The pass's share of the step's images times per_step; 1 in a whole step.
        """
        first_of_last = (self.num_steps - 1) * self.per_step
        if index < first_of_last:
            return 1.0
        is_last = index == self.num_passes - 1
        num_images = self.num_images - index * self.pass_size if is_last else self.pass_size
        return self.per_step * num_images / (self.num_images - first_of_last * self.pass_size)
