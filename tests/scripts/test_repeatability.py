from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

FRAMEWORKS = ("torch", "keras")


@pytest.fixture(scope="module")
def repeated(
    new_store: Callable[[], Any], train: Callable[..., Any], in_both: Callable[..., dict[str, Any]]
) -> dict[str, list[Any]]:
    """Per framework: two runs with one seed, each in an empty folder of its own, and one with another seed."""
    words = ["--config", "settings.yaml", "--max_epochs", "2", "--tracking.log_model", "false"]

    def repeat(framework: str) -> list[Any]:
        runs = []
        for seed in ("3", "3", "4"):
            store = new_store()
            done = train(framework, *words, "--seed", seed, cwd=store.folder)
            assert done.returncode == 0, done.stderr
            runs.append(store.only_run("pair", done, framework=framework))
        return runs

    return in_both(repeat)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_same_seed_gives_the_same_predictions_bit_by_bit(repeated: dict[str, list[Any]], framework: str) -> None:
    first, again, _ = repeated[framework]
    for folder in ("phase_1", "phase_2", "final"):
        one, two = (run.probabilities(folder).to_numpy() for run in (first, again))
        assert one.dtype == np.float32 and one.tobytes() == two.tobytes()
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
        assert first.values(name) == again.values(name)
    for tag in ("phase_1.backbone_before", "phase_2.backbone_after", "batches_hash", "split_hash", "settings_hash"):
        assert first.tags[f"tandem.{tag}"] == again.tags[f"tandem.{tag}"]


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_another_seed_gives_other_weights_and_batches_but_the_same_split(
    repeated: dict[str, list[Any]], framework: str
) -> None:
    first, _, other = repeated[framework]
    for tag in ("phase_1.backbone_before", "batches_hash", "settings_hash"):
        assert first.tags[f"tandem.{tag}"] != other.tags[f"tandem.{tag}"]
    assert first.tags["tandem.split_hash"] == other.tags["tandem.split_hash"]
    assert not np.array_equal(first.probabilities().to_numpy(), other.probabilities().to_numpy())


@pytest.mark.long
@pytest.mark.timeout(600)
def test_seed_gives_both_frameworks_the_same_batches(repeated: dict[str, list[Any]]) -> None:
    torch, keras = (
        [run.tags["tandem.batches_hash"] for run in repeated[framework]] for framework in ("torch", "keras")
    )
    assert torch == keras
