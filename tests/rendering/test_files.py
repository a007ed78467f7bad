from __future__ import annotations

from pathlib import Path

import pytest

from tandem.rendering.files import write_text


def test_file_is_replaced_in_a_new_folder(tmp_path: Path) -> None:
    file = tmp_path / "new" / "page.html"
    for text in ("before", "äfter"):
        write_text(file, text)
        assert file.read_text(encoding="utf-8") == text
    assert [path.name for path in file.parent.iterdir()] == ["page.html"]


def test_failed_write_leaves_the_old_file_and_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "page.html"
    write_text(file, "before")

    def full_disk(path: Path, text: str, encoding: str) -> int:
        path.write_bytes(text[:2].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_text(file, "after")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("page.html", b"before")]
