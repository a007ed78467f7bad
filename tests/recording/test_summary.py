from __future__ import annotations

import io

from rich.console import Console

from tandem.recording.summary import PhaseResult, print_summary


def make_phase(number: int, trainable: str, accuracy: float) -> PhaseResult:
    return PhaseResult(
        number=number,
        trainable=trainable,
        epochs=12,
        best_epoch=9,
        train_seconds=150.0,
        scores={"accuracy": accuracy, "f1_macro": 0.8123, "f1_min": 0.25, "log_loss": 1.0},
    )


def test_summary_has_one_row_per_phase_and_says_where_to_look() -> None:
    file = io.StringIO()
    where = ["mlflow ui", "http://127.0.0.1:5000/#/experiments/1/runs/" + "0123456789abcdef" * 8 + "[x]"]
    phases = [make_phase(1, "head", 0.7), make_phase(2, "all", 0.9)]
    print_summary("a run", phases, where, Console(file=file, width=60))
    lines = [line.split() for line in file.getvalue().splitlines()]
    assert ["1", "head", "12", "10", "2.5", "min", "0.7000", "0.8123", "0.2500"] in lines
    assert ["2", "all", "12", "10", "2.5", "min", "0.9000", "0.8123", "0.2500"] in lines
    assert file.getvalue().splitlines()[-2:] == where
