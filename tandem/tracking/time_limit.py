"""The part of a run's time limit that a phase may train for."""

from __future__ import annotations

import sys

from tandem.protocol.regimes import Phase, phases_of
from tandem.protocol.settings import Settings
from tandem.tracking import vocabulary
from tandem.tracking.curves import Curves


class PhaseTimeLimit:
    """Decides when a phase has used its part of `max_minutes`.

    A phase may take the time that is left, divided by the number of phases that are left. So the last phase always has
    time, and the time that a phase does not need passes on to later ones.

    Attributes:
        is_reached: True once the limit has ended the phase.
    """

    def __init__(self, settings: Settings, phase: Phase, curves: Curves, *, feature_seconds: float) -> None:
        """
        Args:
            settings: `max_minutes`, and the regime with its phases.
            phase: The phase that begins, or is continued.
            curves: Has the seconds of all epochs so far, those before an interruption included.
            feature_seconds: Seconds that computing the phase's features took; 0 without features.
        """
        self._curves = curves
        self._phase = phase
        self._feature_seconds = feature_seconds
        self._seconds: float | None = None
        self.is_reached = False
        if settings.max_minutes is not None:
            earlier = (row[vocabulary.EPOCH_SECONDS] for row in curves.rows if row["phase"] < phase.number)
            left = 60 * settings.max_minutes - sum(earlier) - curves.feature_seconds
            self._seconds = left / (len(phases_of(settings)) - phase.number + 1)
        curves.feature_seconds += feature_seconds

    @property
    def is_set(self) -> bool:
        """True if the run has a time limit."""
        return self._seconds is not None

    def is_over(self, epoch_seconds: float = 0.0) -> bool:
        """True if the phase has used its time.

        Args:
            epoch_seconds: Seconds so far of an epoch that is not among the curves yet.
        """
        if self._seconds is None:
            return False
        return self._feature_seconds + sum(self._curves.seconds_of(self._phase)) + epoch_seconds >= self._seconds

    def end_phase(self) -> None:
        """Notes that the limit ends the phase, and says so."""
        self.is_reached = True
        if not self._curves.quiet:
            print(f"The time limit (max_minutes) ends phase {self._phase.number}", file=sys.stderr, flush=True)
