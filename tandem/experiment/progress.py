"""Progress of a run through its phases: curves, outcomes and results, kept so that an interrupted run continues."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator

from tandem.data.prepare import PreparedData
from tandem.errors import TrainingDiverged
from tandem.evaluation.predictions import Predictions
from tandem.experiment.framework import Framework, Network
from tandem.protocol.regimes import Phase, phases_of
from tandem.protocol.settings import Settings
from tandem.recording.run import PhaseOutcome, record_end, record_phase
from tandem.recording.summary import PhaseResult
from tandem.tracking import vocabulary
from tandem.tracking.checkpoints import Checkpoints
from tandem.tracking.curves import Curves
from tandem.tracking.run import Run


class Progress:
    """Progress of a run, from its beginning or from where it was interrupted.

        progress = Progress(FRAMEWORK, network, settings, run)
        for phase in progress.phases_left():
            if not progress.is_trained(phase):
                with progress.keeping_good_weights():
                    progress.add_outcome(train_phase(network, phase, settings, data, progress.curves))
            progress.add_predictions(phase, predictions)
        progress.record_end(data, predictions, cost)

    Attributes:
        curves: Of all epochs so far.
        outcomes: Of each trained phase.
        results: Of each evaluated phase.
    """

    def __init__(
        self, framework: Framework, network: Network, settings: Settings, run: Run, curves: Curves | None = None
    ) -> None:
        """
        Args:
            framework: Reads and sets the network's weights.
            network: With its first weights. It gets those after the last trained phase, if the run is continued.
            settings: The run's.
            run: Its folder keeps the checkpoints.
            curves: The run's; new ones by default.
        """
        self._framework = framework
        self._network = network
        self._settings = settings
        self._run = run
        self._phases = phases_of(settings)
        folder = run.folder / vocabulary.CHECKPOINT_FOLDER
        self._checkpoints = run.checkpoints = Checkpoints(folder, minutes=settings.checkpoint_minutes)
        self.curves = curves or Curves(run)
        self.curves.checkpoints = self._checkpoints
        self.outcomes: list[PhaseOutcome] = []
        self.results: list[PhaseResult] = []
        if state := self._checkpoints.after_phase:
            framework.package.restore_weights(network, state["network"])
            framework.package.restore_random_state(state["backend_random"])
            self.curves.rows = state["rows"]
            self.outcomes = [PhaseOutcome(**outcome) for outcome in state["outcomes"]]
            self.curves.feature_seconds = sum(outcome.feature_seconds for outcome in self.outcomes)
            self.results = [PhaseResult(**result) for result in state["results"]]

    def phases_left(self) -> Iterator[Phase]:
        """The phases that have to be trained or evaluated. The last one is always evaluated, for its predictions."""
        return iter(self._phases[len(self.results) :])

    def is_trained(self, phase: Phase) -> bool:
        """True if the run trained the phase before it was interrupted."""
        return phase.number <= len(self.outcomes)

    @contextlib.contextmanager
    def keeping_good_weights(self) -> Iterator[None]:
        """If the training of a phase diverges in the with block, writes the weights of the last checkpoint to a file.

        Raises:
            TrainingDiverged: With the file's path.
        """
        try:
            yield
        except TrainingDiverged as error:
            raise TrainingDiverged(f"{error}; {self._good_weights()}") from error

    def _good_weights(self) -> str:
        """Writes the last good weights, and says where they are."""
        package, folder = self._framework.package, self._run.folder / vocabulary.GOOD_WEIGHTS_FOLDER
        place = self._checkpoints.good_weights
        if place is None and (state := self._checkpoints.last_phase()) is not None:
            package.restore_weights(self._network, state["network"])
            place = f"the training up to the end of phase {len(state['outcomes'])}"
        if place is None:
            return "no weights are kept, since no checkpoint was written before it"
        try:
            shutil.rmtree(folder, ignore_errors=True)
            package.save_weights(self._network, folder)
        except OSError as error:
            return f"the weights of {place} could not be written to {folder} ({error.strerror or error})"
        return f"kept: the weights of {place}, for --weights {folder / package.BACKBONE_FILE}"

    def add_outcome(self, outcome: PhaseOutcome) -> None:
        """Keeps the outcome and the weights of the phase that was just trained."""
        self.outcomes.append(outcome)
        state = {
            "network": self._framework.package.copy_weights(self._network),
            "backend_random": self._framework.package.random_state(),
            "rows": self.curves.rows,
            "outcomes": [dataclasses.asdict(each) for each in self.outcomes],
            "results": [dataclasses.asdict(each) for each in self.results],
        }
        self._checkpoints.write_phase(state, number=len(self.outcomes))

    def add_predictions(self, phase: Phase, predictions: Predictions) -> None:
        """Records costs and test scores of a trained phase.

        Raises:
            RuntimeError: Weights or batch-norm statistics of the frozen part changed.
        """
        outcome = self.outcomes[phase.number - 1]
        self.results.append(record_phase(self._run, phase, outcome, predictions, self.curves))

    def record_end(self, data: PreparedData, predictions: Predictions, cost: dict[str, float]) -> None:
        """Records costs and test scores of the whole run, its page and its model card, and prints a summary.

        Args:
            data: The run's.
            predictions: Of the last phase, or of the network off the shelf.
            cost: From measure_inference_cost.
        """
        record_end(
            self._run,
            self._settings,
            data,
            self.curves,
            self.outcomes,
            self.results,
            predictions,
            cost,
            framework=self._framework.name,
        )
