"""Runs for several seeds and folds, each in a process of its own, under a parent run with mean and deviation."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from tandem import interrupts
from tandem.errors import UserError
from tandem.launch.parent import start_parent_run
from tandem.launch.scripts import start_process, training_command
from tandem.protocol.repeats import Repeat, repeats_of
from tandem.protocol.settings import Settings
from tandem.rendering.tables import Column, Table
from tandem.rendering.terminal import print_table
from tandem.tracking import vocabulary
from tandem.tracking.start import command_to_continue

SHOWN = {"accuracy": "accuracy", "f1_macro": "macro F1", "f1_min": "lowest F1"}

_COLUMNS = (
    Column(key="score", heading="score"),
    Column(key="mean", heading="mean", kind="score"),
    Column(key="deviation", heading="standard deviation", kind="score"),
)


def run_repeats(framework: str, settings: Settings, words: Sequence[str]) -> None:
    """Trains with each seed and fold of the settings, one after the other, and records mean and standard deviation.

    The others are trained even if one of them fails. The same command after an interruption or a failure continues the
    parent run: finished runs are kept, and the interrupted one goes on from its checkpoint.

    Args:
        framework: torch or keras.
        settings: Common to all runs.
        words: The words of the command line that the settings come from, without the program.

    Raises:
        UserError: MLflow cannot be written or lacks a run, or a run has failed; the message names the runs.
    """
    repeats = repeats_of(settings)
    assert repeats
    children = describe(repeats)
    console = Console(highlight=False)
    with start_parent_run(settings, framework=framework, what=children) as parent:
        failed = []
        finished = parent.finished_repeats()
        more = ["--tracking.parent_run", parent.id, *(["--resume", "auto"] if parent.is_continued else [])]
        try:
            parent.wait_for_children()
            for number, repeat in enumerate(repeats, start=1):
                is_finished = repeat in finished
                words_of_end = ": finished before" if is_finished else ""
                console.print(f"[{number}/{len(repeats)}] {repeat.title}{words_of_end}", markup=False)
                if not is_finished and _train(framework, [*words, *repeat.options, *more]) != 0:
                    failed.append(repeat.title)
        except KeyboardInterrupt as error:
            num_finished = len(parent.finished_repeats() & set(repeats))
            error.add_note(f"kept: {num_finished} of {len(repeats)} runs, and the checkpoint of the one under way")
            error.add_note(f"to continue: {command_to_continue(settings, parent.folder)}")
            raise
        num_recorded, summary = parent.log_mean_and_deviation()
        rows = [
            (heading, *summary[name])
            for key, heading in SHOWN.items()
            if (name := vocabulary.TEST_PREFIX + key) in summary
        ]
        if rows:
            title = f"{settings.backbone}, {settings.regime}, {framework}: mean over {num_recorded} of {children}"
            print_table(Table(name="repeats", title=title, columns=_COLUMNS, rows=tuple(rows)), console)
        if problem := what_is_missing(len(repeats), failed, num_recorded):
            raise UserError(
                f"{problem}; to train only the missing ones: {command_to_continue(settings, parent.folder)}"
            )


def what_is_missing(num_repeats: int, failed: Sequence[str], num_recorded: int) -> str:
    """One line about the runs that the mean does not include; empty if it includes all."""
    parts = []
    if failed:
        parts.append(f"{len(failed)} of {num_repeats} runs failed, see their messages above: {'; '.join(failed)}")
    # If MLflow goes away, a script trains on and ends well; its journal keeps what has to be sent.
    lost = num_repeats - len(failed) - num_recorded
    if lost > 0:
        parts.append(
            f"{lost} of {num_repeats} runs ended well but are not finished in MLflow, so the mean does not include "
            "them; their warnings above say how to send the rest"
        )
    return "; ".join(parts)


def describe(repeats: Sequence[Repeat]) -> str:
    """Seeds and folds in words: 3 seeds, fold 0."""
    seeds = list(dict.fromkeys(repeat.seed for repeat in repeats))
    folds = list(dict.fromkeys(repeat.fold for repeat in repeats if repeat.fold is not None))
    parts = [f"{len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"]
    if folds:
        parts.append(f"{len(folds)} folds" if len(folds) > 1 else f"fold {folds[0]}")
    return ", ".join(parts)


def _train(framework: str, words: Sequence[str]) -> int:
    """Exit status of the training script with these words; Ctrl-C ends it once, from here."""
    process = start_process(training_command(framework, words))
    try:
        return process.wait()
    except BaseException:
        interrupts.handled()  # a second one would be raised while the script writes its checkpoint
        process.terminate()
        process.wait()
        raise
