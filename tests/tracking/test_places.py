from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tandem.errors import UserError
from tandem.protocol.settings import Settings
from tandem.tracking import places
from tandem.tracking.places import check_places


def test_places_are_checked(recorded_at: Callable[..., Settings], tmp_path: Path) -> None:
    check_places(recorded_at())
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^cannot make a folder for the run in tracking\.folder"):
        check_places(recorded_at(folder=str(tmp_path / "file")))
    with pytest.raises(UserError, match="MLflow"):
        check_places(recorded_at(uri="http://127.0.0.1:1"))


def test_almost_full_disk_is_named_before_hours_of_work(
    recorded_at: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places.shutil, "disk_usage", lambda path: SimpleNamespace(free=3_000_000))
    with pytest.raises(
        UserError, match=r"^tracking\.folder: the disk of .* has 3 MB free, .* at least 50 MB; make room"
    ):
        check_places(recorded_at())
