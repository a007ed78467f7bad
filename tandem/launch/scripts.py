"""The training scripts as programs: their first lines, and how other programs start them."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from tandem import interrupts
from tandem.errors import run_program
from tandem.launch.slurm import requeue_after
from tandem.output import protect_output
from tandem.protocol.environment import prepare_environment
from tandem.protocol.frameworks import Framework
from tandem.protocol.parser import parse_settings
from tandem.protocol.repeats import repeats_of
from tandem.protocol.settings import Settings
from tandem.start_up import StartUpMessages

_start_up: list[StartUpMessages] = []  # from begin() to run_script()


def begin(framework: Framework) -> Settings:
    """Reads the settings of a training script, before the script imports anything slow.

    --help and invalid settings end the process here. So do settings that ask for several runs: each of them is trained
    in a process of its own. For a single run, the environment variables that frameworks read at their import are set.
    """
    protect_output()
    interrupts.end_on_signals(training_script(framework).name)
    settings = parse_settings(framework)
    if repeats_of(settings):
        from tandem.launch.repeats import run_repeats  # imports MLflow, which --help does not need

        run_script(framework, lambda settings: run_repeats(framework, settings, sys.argv[1:]), settings)
        sys.exit()
    is_quiet = framework == "keras" and "TF_CPP_MIN_LOG_LEVEL" not in os.environ
    prepare_environment(settings)
    if is_quiet:
        _start_up.append(StartUpMessages())
    return settings


def run_script(framework: Framework, main: Callable[[Settings], None], settings: Settings) -> None:
    """Calls a training script's main(settings); what a user can fix ends in one line and exit status 2."""
    while _start_up:
        _start_up.pop().stop()

    def run(_: object) -> None:
        try:
            main(settings)
        except KeyboardInterrupt as error:
            if settings.requeue:
                requeue_after(error)
            raise

    run_program(training_script(framework).name, run)


def training_script(framework: str) -> Path:
    """The script of torch or keras, at the top of the repository."""
    return Path(__file__).resolve().parents[2] / f"train_{framework}.py"


def training_command(framework: str, words: Sequence[str]) -> list[str]:
    """The command line of a training script with these words."""
    return [sys.executable, str(training_script(framework)), *words]


def start_process(
    command: Sequence[str],
    *,
    folder: Path | None = None,
    output: BinaryIO | None = None,
    variables: Mapping[str, str] | None = None,
    own_session: bool = True,
) -> subprocess.Popen[bytes]:
    """Starts a training script, to which Linux sends SIGTERM if this process dies.

    Args:
        command: From training_command.
        folder: Working folder; this process's by default.
        output: File for both kinds of its output; the script has no input then. This process's terminal by default.
        variables: Added to the environment of this process.
        own_session: A terminal's Ctrl-C does not reach the script; this process ends it.
    """
    return subprocess.Popen(
        command,
        cwd=folder,
        stdin=None if output is None else subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        env={**os.environ, **(variables or {})},
        start_new_session=own_session,
        preexec_fn=functools.partial(interrupts.end_with_parent, os.getpid()) if sys.platform == "linux" else None,
    )
