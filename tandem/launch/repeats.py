"""One run a seed and a fold, each in a process of its own, under a parent run with their mean and deviation."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from rich.console import Console

from tandem.errors import UserError
from tandem.launch.parent import start_parent_run
from tandem.launch.scripts import training_script
from tandem.protocol.repeats import Repeat, repeats_of
from tandem.protocol.settings import Settings
from tandem.rendering.tables import Column, Table, print_table
from tandem.tracking import vocabulary

SHOWN = {"accuracy": "accuracy", "f1_macro": "macro F1", "f1_min": "lowest F1"}

_COLUMNS = (
    Column(key="score", heading="score"),
    Column(key="mean", heading="mean", kind="score"),
    Column(key="deviation", heading="standard deviation", kind="score"),
)


def run_repeats(framework: str, settings: Settings, argv: list[str] | None) -> None:
    """Trains with each seed and fold that the settings ask for, one after the other, and records what they share.

    A repeat that fails does not keep the others from being trained.

    Args:
        framework: torch or keras.
        settings: of all of them.
        argv: the words of the command line that the settings come from, without the program.

    Raises:
        UserError: MLflow cannot be written, it lacks a repeat, or a repeat has failed: it names those.
    """
    repeats = repeats_of(settings)
    assert argv is not None and repeats
    what = _describe(repeats)
    console = Console(highlight=False)
    with start_parent_run(settings, framework=framework, what=what) as parent:
        failed = []
        for number, repeat in enumerate(repeats, start=1):
            console.print(f"[{number}/{len(repeats)}] {repeat.title}", markup=False)
            if _train(framework, [*argv, *repeat.options, "--tracking.parent_run", parent.id]) != 0:
                failed.append(repeat.title)
        num_recorded, summary = parent.log_mean_and_deviation()
        rows = [
            (heading, *summary[name])
            for key, heading in SHOWN.items()
            if (name := vocabulary.TEST_PREFIX + key) in summary
        ]
        if rows:
            title = f"{settings.backbone}, {settings.regime}, {framework}: mean over {num_recorded} of {what}"
            print_table(Table(name="repeats", title=title, columns=_COLUMNS, rows=tuple(rows)), console)
        if missing := what_is_missing(len(repeats), failed, num_recorded):
            raise UserError(missing)


def what_is_missing(num_repeats: int, failed: Sequence[str], num_recorded: int) -> str:
    """One line on the repeats that the mean lacks; empty where it has all."""
    parts = []
    if failed:
        parts.append(f"{len(failed)} of {num_repeats} runs failed, and say why above: {'; '.join(failed)}")
    # A script whose MLflow goes away trains on and ends well; its journal has what is to be sent.
    lost = num_repeats - len(failed) - num_recorded
    if lost > 0:
        parts.append(
            f"{lost} of {num_repeats} runs ended well but are not finished in MLflow, so the mean is without them; "
            "their warnings above say how to send the rest"
        )
    return "; ".join(parts)


def _describe(repeats: Sequence[Repeat]) -> str:
    seeds = list(dict.fromkeys(repeat.seed for repeat in repeats))
    folds = list(dict.fromkeys(repeat.fold for repeat in repeats if repeat.fold is not None))
    parts = [f"{len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"]
    if folds:
        parts.append(f"{len(folds)} folds" if len(folds) > 1 else f"fold {folds[0]}")
    return ", ".join(parts)


def _train(framework: str, words: Sequence[str]) -> int:
    """Exit status of the training script with these words; it is ended with this process."""
    # a session of its own, so that Ctrl-C reaches it once, from here, and not a second time from the terminal
    process = subprocess.Popen([sys.executable, str(training_script(framework)), *words], start_new_session=True)
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
