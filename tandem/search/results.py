"""Results of a sweep: the best settings, the table of trials and the page."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from tandem.commands import script_command
from tandem.files import write_text
from tandem.protocol.parser import change_settings
from tandem.protocol.settings import SweepSettings, with_values
from tandem.rendering.page import write_page
from tandem.rendering.tables import Column, Table, render_csv
from tandem.rendering.terminal import print_table
from tandem.search.page import make_sweep_page
from tandem.search.study import FAILURE, HAVE_ENDED, best_trial, ended_trials, values_of
from tandem.secrets import shown_uri
from tandem.tracking import vocabulary
from tandem.tracking.provenance import hide_password, settings_yaml

if TYPE_CHECKING:
    from tandem.search.sweep import Sweep

MOST_PRINTED = 10  # trials; the others are only in the files


def write_results(sweep: Sweep) -> None:
    """Writes the best settings, the trials and the figures so far, to the sweep's folder and to MLflow."""
    ended = ended_trials(sweep.study)
    best = best_trial(sweep.study)
    if not ended:
        return
    counts = Counter(trial.state for trial in ended)
    metrics: dict[str, float] = {
        "num_trials": len(ended),
        "num_pruned": counts[TrialState.PRUNED],
        "num_failed": counts[TrialState.FAIL],
    }
    table = _table(sweep, ended)
    files = [sweep.folder / vocabulary.TRIALS_FILE]
    write_text(files[0], render_csv(table))
    if best is not None:
        assert best.value is not None
        metrics["best"] = best.value
        files += [sweep.folder / vocabulary.BEST_SETTINGS_FILE, sweep.folder / vocabulary.SWEEP_PAGE_FILE]
        write_text(files[1], best_settings_yaml(sweep, best))
        page = make_sweep_page(
            sweep.study,
            table,
            title=f"Sweep {sweep.study.study_name}",
            objective=sweep.settings.sweep.objective,
            best_settings=in_words(values_of(best)),
            command=_command(sweep, files[1]),
        )
        write_page(files[2], page)
    sweep.run.log_results(files, {vocabulary.SWEEP_PREFIX + name: value for name, value in metrics.items()})
    print_table(dataclasses.replace(table, rows=table.rows[:MOST_PRINTED]), sweep.console)
    if best is None:
        sweep.console.print("No trial was completed, so there are no best settings")
        return
    sweep.console.print(f"Page of the sweep: {files[2]}")
    sweep.console.print(f"Train with the best settings: {_command(sweep, files[1])}")


def _command(sweep: Sweep, settings_file: Path) -> str:
    return script_command(f"train_{sweep.trainer.framework}.py", "--config", settings_file)


def best_settings_yaml(sweep: Sweep, best: FrozenTrial) -> str:
    """The settings of a trial as a configuration file of a single run, for both scripts."""
    settings = change_settings(sweep.settings, sweep.trainer.framework, {**values_of(best), "sweep": SweepSettings()})
    uri = settings.tracking.uri
    if uri is not None and shown_uri(uri) != uri:  # no password into a file
        settings = with_values(settings, {"tracking.uri": None})
    settings = hide_password(settings)
    script = f"train_{sweep.trainer.framework}.py"
    return (
        f"# Trial {best.number} of the sweep {sweep.study.study_name} in {script}, the best of "
        f"{len(ended_trials(sweep.study))}: {sweep.settings.sweep.objective} {best.value:.6g}\n"
        f"{settings_yaml(settings)}"
    )


def _table(sweep: Sweep, trials: Sequence[FrozenTrial]) -> Table:
    """The table of ended trials: the best first, then pruned and failed ones."""
    sign = 1 if sweep.settings.sweep.objective == "val_loss" else -1

    def order(trial: FrozenTrial) -> tuple[int, float, int]:
        value = trial.value if trial.state is TrialState.COMPLETE else None
        return HAVE_ENDED.index(trial.state), sign * (value or 0.0), trial.number

    return Table(
        name="trials",
        title=f"Trials of {sweep.study.study_name}",
        columns=(
            Column(key="trial", heading="trial", kind="number"),
            Column(key="end", heading="end"),
            Column(key=sweep.settings.sweep.objective, heading=sweep.settings.sweep.objective, kind="score"),
            *(Column(key=dimension.name, heading=dimension.name) for dimension in sweep.dimensions),
            Column(key="epochs", heading="epochs", kind="number"),
            Column(key="seconds", heading="took", kind="seconds"),
            Column(key="reason", heading="reason"),
        ),
        rows=tuple(
            (
                trial.number,
                trial.state.name.lower(),
                trial.value if trial.state is TrialState.COMPLETE else None,
                *(_in_a_word(values_of(trial)[dimension.name]) for dimension in sweep.dimensions),
                len(trial.intermediate_values),
                trial.duration.total_seconds() if trial.duration else None,
                trial.user_attrs.get(FAILURE, ""),
            )
            for trial in sorted(trials, key=order)
        ),
    )


def in_words(values: Mapping[str, Any]) -> str:
    """Settings of a trial in one line."""
    return ", ".join(f"{name} {_in_a_word(value)}" for name, value in values.items())


def _in_a_word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
