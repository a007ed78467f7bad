"""The frame of a training script: everything about a run that is the same in both frameworks."""

from tandem.experiment.evaluation import (
    evaluate_off_the_shelf,
    evaluate_views,
    explain_predictions,
    measure_inference_cost,
    predict_test,
)
from tandem.experiment.first_weights import first_network
from tandem.experiment.framework import Framework
from tandem.experiment.phase_meter import PhaseMeter
from tandem.experiment.progress import Progress
from tandem.experiment.run import run_experiment
from tandem.experiment.saving import save_network
from tandem.protocol.learning_rate_finder import LearningRateFinder
from tandem.recording.run import PhaseOutcome
