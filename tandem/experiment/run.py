"""The frame of a training script: from its settings to a recorded run, a sweep or a learning-rate range test."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from itertools import chain, count

from tandem.data.console import say
from tandem.data.phase_streams import training_stream, training_targets
from tandem.data.prepare import PreparedData, prepare
from tandem.data_report.report import record_data_report_after_run
from tandem.evaluation.imagenet import match_classes
from tandem.evaluation.out_of_memory import does_not_fit
from tandem.experiment.first_weights import first_network
from tandem.experiment.framework import Framework
from tandem.protocol.backbones import find_backbone
from tandem.protocol.devices import device_line
from tandem.protocol.learning_rate_finder import LearningRateFinder
from tandem.protocol.regimes import phases_of
from tandem.protocol.search_space import varied_backbones
from tandem.protocol.settings import Settings
from tandem.recording.run import PhaseOutcome, record_data
from tandem.search.learning_rate_finder import record_learning_rate_finder
from tandem.tracking import vocabulary
from tandem.tracking.curves import Curves
from tandem.tracking.places import check_places
from tandem.tracking.run import Run, start_run


def run_experiment(framework: Framework, settings: Settings) -> None:
    """Runs what the settings ask for: one run, a sweep, or a learning-rate range test.

    Raises:
        UserError: Something is wrong with the settings, the images or MLflow; if possible, before a run is created.
    """
    for backbone in varied_backbones(settings):
        framework.package.check_builder(find_backbone(backbone, framework.name))
    if settings.sweep.num_trials is not None:
        return _run_sweep(framework, settings)
    check_places(settings)
    # without training nothing is augmented, and no larger images are stored for crops
    data = prepare(settings.data, settings.augmentation if phases_of(settings) else None)
    if phases_of(settings):
        training_targets(settings, data)  # raises UserError for weights of unknown classes
    if framework.when_prepared:
        framework.when_prepared(settings, data)
    if settings.regime == "off_the_shelf":
        match_classes(data.classes, settings.imagenet_classes)  # raises UserError for unknown classes
    if settings.find_learning_rate:
        return find_learning_rate(framework, settings, data)
    with _start_run(framework, settings) as run, _in_one_line_if_too_large(framework, settings):
        record_data(run, data)
        framework.train_and_evaluate(settings, data, run)
    if settings.tracking.data_report:
        record_data_report_after_run(data, settings.tracking)


@contextlib.contextmanager
def _start_run(
    framework: Framework, settings: Settings, not_compared: Mapping[str, str] | None = None
) -> Iterator[Run]:
    backend, versions = framework.package.backend(), framework.package.versions()
    with start_run(
        settings, framework=framework.name, backend=backend, versions=versions, not_compared=not_compared
    ) as run:
        _tag_device(framework, settings, run)
        _say_device(framework, settings)
        yield run


@contextlib.contextmanager
def _in_one_line_if_too_large(framework: Framework, settings: Settings) -> Iterator[None]:
    """Raises UserError for too little memory. A sweep takes the original error: it fails one trial, and goes on."""
    try:
        yield
    except Exception as error:
        if not framework.package.is_out_of_memory(error):
            raise
        raise does_not_fit(settings, gpu=framework.package.uses_gpu(settings)) from error


def _say_device(framework: Framework, settings: Settings) -> None:
    backend, uses_gpu = framework.package.backend(), framework.package.uses_gpu(settings)
    version = framework.package.versions()[backend]
    say(device_line(uses_gpu=uses_gpu, backend=backend, version=version), quiet=False)


def _tag_device(framework: Framework, settings: Settings, run: Run) -> None:
    run.set_tags({vocabulary.DEVICE: "gpu" if framework.package.uses_gpu(settings) else "cpu"})


def find_learning_rate(framework: Framework, settings: Settings, data: PreparedData) -> None:
    """Runs the learning-rate range test of the first phase: it suggests a rate, and keeps no weights."""
    with (
        _start_run(framework, settings, not_compared={vocabulary.RANGE_TEST: "under way"}) as run,
        _in_one_line_if_too_large(framework, settings),
    ):
        record_data(run, data)
        network = first_network(framework, settings, data, run)
        phase, finder = phases_of(settings)[0], LearningRateFinder()
        batches = chain.from_iterable(map(training_stream(settings, data, phase).epoch, count()))
        framework.raise_learning_rate(network, phase, settings, batches, finder)
        record_learning_rate_finder(run, finder, f"{settings.backbone}, {settings.regime}, {data.name}")


def _run_sweep(framework: Framework, settings: Settings) -> None:
    from tandem.search.sweep import Trainer, run_sweep  # imports Optuna, which other runs do not need

    _say_device(framework, settings)
    trainer = Trainer(
        framework=framework.name,
        backend=framework.package.backend(),
        versions=framework.package.versions(),
        train=functools.partial(train_trial, framework),
        is_out_of_memory=framework.package.is_out_of_memory,
        trials_per_process=framework.trials_per_process,
    )
    run_sweep(settings, trainer)


def train_trial(framework: Framework, settings: Settings, data: PreparedData, run: Run, curves: Curves) -> PhaseOutcome:
    """Trains all phases of a sweep's trial as in a new process, without the test images.

    Returns:
        The outcome of the last phase.
    """
    if framework.before_trial:
        framework.before_trial()
    framework.set_up(settings)
    _tag_device(framework, settings, run)
    network = first_network(framework, settings, data, run)
    for phase in phases_of(settings):
        outcome = framework.train_phase(network, phase, settings, data, curves)
    return outcome
