"""The short --help of the training scripts: the main settings with examples, and the names of all others by group."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any

from tandem.protocol.frameworks import LIBRARIES, Framework
from tandem.protocol.settings import FIELDS, Settings

ESSENTIALS = {
    "data.source": (
        "my/photographs",
        "A folder with one subfolder per class, or with train/ and test/ of that kind; or a data set by its name.",
    ),
    "regime": (
        "two_stage",
        "The way of training: scratch, frozen (linear probe), two_stage (LP-FT), finetune, gradual or off_the_shelf.",
    ),
    "backbone": ("resnet50", "The pretrained network. torchvision:NAME, timm:NAME and keras:NAME name any other one."),
    "learning_rate": ("3e-4", "The learning rate. --find_learning_rate true suggests one."),
    "batch_size": ("64", "Training images per step."),
    "max_epochs": ("20", "The most epochs per phase. Training stops earlier if the validation loss stops falling."),
    "seeds": ("'[0, 1, 2]'", "One run per seed, which shows how much results vary. --seed 1 trains a single one."),
    "tracking.experiment": ("flowers", "The experiment in MLflow. compare.py compares the runs of one experiment."),
}
"""The settings that most runs give: an example of the value in a shell, and an explanation."""

_WIDEST = 100  # characters of a line, on wider terminals as well


class ShortHelp(argparse._HelpAction):  # as which jsonargparse knows options that are not settings
    """The option --help: prints the short help and exits."""

    def __init__(self, option_strings: Sequence[str], const: Framework, **options: Any) -> None:
        """
        Args:
            option_strings: Names of the option.
            const: The script's framework.
            options: As those of argparse's own help.
        """
        super().__init__(option_strings, **options)
        self._framework = const

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        width = min(shutil.get_terminal_size().columns, _WIDEST)
        print(short_help(self._framework, width))
        parser.exit()


def usage(framework: Framework) -> str:
    """The line that stands for a list of all options, which would have eighty lines."""
    return f"train_{framework}.py [--config FILE] [--SETTING VALUE ...]"


def short_help(framework: Framework, width: int) -> str:
    """Text of --help.

    Args:
        framework: That of the script.
        width: Most characters per line; below 60, longer lines remain.
    """
    script = f"train_{framework}.py"
    other = "train_keras.py" if framework == "torch" else "train_torch.py"
    lines = [
        f"usage: {usage(framework)}",
        "",
        *_wrapped(
            f"Trains and tests one image classifier in {LIBRARIES[framework]} and records it in MLflow. {other} takes "
            "the same settings.",
            width,
        ),
        "",
        "Settings that most runs give, each with an example:",
    ]
    for name, (example, words) in ESSENTIALS.items():
        lines.append(f"  --{name} {example}")
        lines += _wrapped(f"{words} (default: {_default(name)})", width, indent=6)
    lines += ["", "All settings, by group; --help_all explains each:"]
    names = [name for name in FIELDS if "." not in name and name not in ESSENTIALS]
    lines += _wrapped(", ".join(f"--{name}" for name in names), width, indent=6, first=2)
    for group in dataclasses.fields(Settings):
        if group.name in FIELDS:
            continue
        members = [name.partition(".")[2] for name in FIELDS if name.startswith(f"{group.name}.")]
        lines += _wrapped(f"--{group.name}.{{{', '.join(members)}}}", width, indent=6, first=2)
    options = {
        "--config FILE": "reads settings from a YAML file; options after it override it",
        "--print_config": "prints all settings as such a file",
        "--help_all": "explains all settings",
        "-h, --help": "prints this text",
    }
    lines += ["", "Other options:"]
    lines += [f"  {option:<16}{words}" for option, words in options.items()]
    return "\n".join([*lines, "", f"Example: python {script} --data.source my/photographs --regime two_stage"])


def _default(name: str) -> str:
    field = FIELDS[name]
    return "one run, with seed 0" if name == "seeds" else str(field.default)


def _wrapped(text: str, width: int, indent: int = 0, first: int | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        max(width, 60),
        initial_indent=" " * (indent if first is None else first),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
