"""What Lightning's loop does in each step for nobody here, left out: a good part of a short step."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytorch_lightning as lightning
from pytorch_lightning.profilers import PassThroughProfiler


class LeanLightningModule(lightning.LightningModule):
    """A LightningModule that is told quickly which of its hooks runs.

    Lightning notes on it the name of each hook that it calls, 44 times a step, and torch's own way of setting an
    attribute looks through parameters, buffers and modules first.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)


class NoProfiler(PassThroughProfiler):
    """Profiles nothing, as Lightning's own default, without a generator for each of the 36 hooks of a step."""

    _nothing: AbstractContextManager[Any] = nullcontext()

    def profile(self, action_name: str) -> Any:
        """A context that does nothing, the same each time."""
        return self._nothing
