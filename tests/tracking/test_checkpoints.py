from __future__ import annotations

import errno
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tandem.tracking import checkpoints
from tandem.tracking.checkpoints import Checkpoints, PhaseCheckpoints, read_state, write_state

STATE: dict[str, Any] = {
    "network": {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "count": np.array(3)},
    "optimizer": {0: {"step": np.float64(0.1)}, 1: (1, [True, None, "x"])},
    "lowest": math.inf,
}


def test_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_state(tmp_path / "state.npz", STATE)
    found = read_state(tmp_path / "state.npz")
    assert found is not None
    assert np.array_equal(found["network"]["weight"], STATE["network"]["weight"])
    assert found["network"]["weight"].dtype == np.float32
    assert found["network"]["count"].shape == ()
    assert found["optimizer"] == STATE["optimizer"]
    assert found["lowest"] == math.inf


def test_damaged_state_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "state.npz"
    write_state(path, {"weights": np.ones(10_000)})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert read_state(path) is None
    assert "is damaged" in capsys.readouterr().err


def test_state_of_another_version_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state(tmp_path / "state.npz", STATE)
    monkeypatch.setattr(checkpoints, "FORMAT_VERSION", 2)
    assert read_state(tmp_path / "state.npz") is None


def test_failed_write_leaves_the_state_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state(tmp_path / "state.npz", STATE)

    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="no space"):
        write_state(tmp_path / "state.npz", {"other": 1})
    assert read_state(tmp_path / "state.npz") is not None
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]


def test_training_goes_on_without_room_for_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(path: Path, state: Any) -> None:
        raise OSError(errno.ENOSPC, "no space")

    kept = Checkpoints(tmp_path / "checkpoint")
    monkeypatch.setattr(checkpoints, "write_state", fail)
    kept.write_epoch(STATE, "1 epoch")
    kept.write_epoch(STATE, "2 epochs")
    assert kept.problem == "no space"
    assert kept.place.startswith("nothing yet")
    assert capsys.readouterr().err.count("no space") == 1


def test_state_within_a_phase_brings_its_curves(tmp_path: Path) -> None:
    first = PhaseCheckpoints(Checkpoints(tmp_path), 2, [{"epoch": 0.0}])
    assert first.state is None
    first.save(epoch=3, batch=1, state={"weights": np.ones(2)})
    rows: list[dict[str, float]] = []
    continued = PhaseCheckpoints(Checkpoints(tmp_path), 2, rows)
    assert (continued.epoch, continued.batch, rows) == (3, 1, [{"epoch": 0.0}])
    assert continued.seconds > 0
    assert PhaseCheckpoints(Checkpoints(tmp_path), 1, []).state is None


def test_checkpoints_of_a_phase_replace_those_within_it(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    PhaseCheckpoints(kept, 1, []).save(epoch=1, batch=0, state={})
    kept.write_phase({"rows": []}, number=1)
    assert [path.name for path in tmp_path.iterdir()] == ["phase.npz"]
    kept.remove()
    assert not tmp_path.exists()
