"""Rows and pairs for tests that need no runs."""

from __future__ import annotations

from collections.abc import Mapping

from tandem.comparison.configurations import Configuration
from tandem.comparison.rows import Pair, PairedDifference, Row
from tandem.evaluation.significance import Verdict
from tandem.rendering.tables import Estimate
from tandem.tracking.reader import RunRecord


def configuration(
    label: str = "finetune torch",
    *,
    backbone: str = "mobilenet_v2",
    regime: str = "finetune",
    framework: str = "torch",
    hardware: str = "2 cores",
    metrics: Mapping[str, float] | None = None,
) -> Configuration:
    """A configuration of one run."""
    run = RunRecord(
        uri="sqlite:///mlflow.db",
        run_id=label,
        name=label,
        status="FINISHED",
        start_time=0,
        params={},
        metrics=dict(metrics or {}),
        tags={},
        artifact_uri="artifacts",
    )
    return Configuration(
        label=label,
        backbone=backbone,
        regime=regime,
        framework=framework,
        settings=(),
        costs=(("hardware", hardware),),
        runs=(run,),
    )


def row(
    label: str = "finetune torch",
    *,
    accuracy: float | Estimate | None = None,
    seconds: float | None = None,
    hardware: str = "2 cores",
    after_first_phase: bool = False,
    parameters: float | None = None,
) -> Row:
    """A row with an accuracy, with or without an interval, a training time and a number of parameters."""
    prefix = "phase_1/" if after_first_phase else ""
    value = accuracy.value if isinstance(accuracy, Estimate) else accuracy
    metrics = {"test/accuracy": value, "cost/train_seconds": seconds, "cost/parameters": parameters}
    return Row(
        configuration=configuration(
            label,
            hardware=hardware,
            metrics={prefix + name: number for name, number in metrics.items() if number is not None},
        ),
        after_first_phase=after_first_phase,
        intervals={"accuracy": accuracy} if isinstance(accuracy, Estimate) else {},
    )


def difference(
    value: float,
    *,
    below: float = 0.02,
    above: float = 0.01,
    significant: bool = False,
    verdict: Verdict | None = None,
) -> PairedDifference:
    """A tested difference; its verdict is that of its significance unless given."""
    of_significance: Verdict = "undecided" if not significant else "better" if value > 0 else "worse"
    return PairedDifference(
        value=Estimate(value=value, low=value - below, high=value + above),
        p_value=0.5,
        p_holm=0.6,
        significant=significant,
        verdict=verdict or of_significance,
        of_networks=True,
    )


def pair(first: Row, second: Row, tested: PairedDifference | None = None) -> Pair:
    """A pair with or without a test of accuracy."""
    return Pair(first=first, second=second, tested={} if tested is None else {"accuracy": tested})
