from __future__ import annotations

import ast
import os
from pathlib import Path

import numpy as np
import pytest

from tandem.files import csv_cell, whole_file, whole_path, write_text
from tests.conftest import ROOT


def test_file_is_replaced_in_a_new_folder(tmp_path: Path) -> None:
    file = tmp_path / "new" / "page.html"
    for text in ("before", "äfter"):
        write_text(file, text)
        assert file.read_text(encoding="utf-8") == text
    assert [path.name for path in file.parent.iterdir()] == ["page.html"]


def test_failed_write_leaves_the_old_file_and_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "page.html"
    write_text(file, "before")

    def full_disk(source: Path, target: Path) -> None:
        assert Path(source).read_text() == "after"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_text(file, "after")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("page.html", b"before")]


def test_file_is_replaced_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "scan.json"
    for text in ("first", "second, with an \u00e9"):
        with whole_file(path) as file:
            file.write(text)
            assert not path.exists() or path.read_text(encoding="utf-8") == "first"
        assert path.read_text(encoding="utf-8") == text
    with whole_file(tmp_path / "bytes", "wb") as file:
        file.write(b"\xff")
    assert (tmp_path / "bytes").read_bytes() == b"\xff"
    assert sorted(os.listdir(tmp_path)) == ["bytes", "scan.json"]


def test_file_has_the_permissions_of_the_umask(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with whole_file(tmp_path / "whole") as file:
        file.write("x")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_file_is_unchanged_if_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "scan.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as file:
        file.write("half of the n")
        raise KeyboardInterrupt
    assert (path.read_text(), sorted(os.listdir(tmp_path))) == ("old", ["scan.json"])


def test_two_writers_of_a_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "scan.json"
    with whole_file(path) as first, whole_file(path) as second:
        first.write("first " * 10_000)
        second.write("second")
    assert path.read_text() == "first " * 10_000  # of the writer that finished last
    assert sorted(os.listdir(tmp_path)) == ["scan.json"]


def test_writer_that_wants_a_name_gets_one_of_the_same_kind(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 60 + ".npz")
    with whole_path(path, sync=True) as partial:
        np.savez(partial, values=np.arange(3))  # appends .npz to other names
        assert not path.exists()
    assert np.load(path)["values"].tolist() == [0, 1, 2]
    assert os.listdir(tmp_path) == [path.name]


def test_nothing_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_path(tmp_path / "page.html"):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("text", ['=HYPERLINK("http://x")', "+1", "-cat", "@SUM(A1)", "\tx", "\r=1"])
def test_text_that_a_spreadsheet_would_run_is_kept_as_text(text: str) -> None:
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["cat", "a=b", -0.5, 3, None, "'=1", ""])
def test_other_values_of_a_table_are_unchanged(value: object) -> None:
    assert csv_cell(value) == value


def test_file_keeps_the_whole_ending_and_the_line_ends(tmp_path: Path) -> None:
    with whole_path(tmp_path / "head.weights.h5") as partial:
        assert partial.name.endswith(".weights.h5") and partial.parent == tmp_path
        partial.touch()
    write_text(tmp_path / "table.csv", "a\r\nb\n")
    assert (tmp_path / "table.csv").read_bytes() == b"a\r\nb\n"


WRITTEN_IN_PLACE = {
    "tandem/grid/processes.py": "output of a process",
    "tandem/grid/slurm.py": "a new file, whose name must not be taken",
    "tandem/launch/demo.py": "output of a process",
    "tandem/on_torch/export_weights.py": "a name that the caller has made up, and renames",
    "tandem/on_torch/serving.py": "a folder that is uploaded and removed",
    "tandem/predict/gallery.py": "written to memory",
    "tandem/serving/logged_model.py": "a folder that is uploaded and removed",
    "tandem/serving/shipped_code.py": "a folder that is uploaded and removed",
    "tandem/tracking/checkpoints.py": "one partial name, so that killed processes leave at most one partial checkpoint",
    "tandem/tracking/creation.py": "a folder that is uploaded and removed",
}


def direct_writes(source: str) -> list[str]:
    """Calls that write a file under its own name."""
    found = []
    for call in [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]:
        function = call.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
        words = [word.value for word in call.args if isinstance(word, ast.Constant)]
        opened = name == "open" and any(isinstance(word, str) and set(word) <= set("wxbt+") for word in words)
        table = name in ("to_csv", "to_parquet") and bool(call.args)
        saved = name in ("save", "savez", "savez_compressed", "write_table", "save_file")
        targets = [owner, *map(ast.unparse, call.args)]
        whole = any(target.endswith(("partial", "file", "sheet", "self.checkpoints")) for target in targets)
        if opened or table or (saved and not whole) or (owner and name in ("write_text", "write_bytes")):
            found.append(ast.unparse(call))
    return found


def test_product_writes_files_as_a_whole() -> None:
    sources = [ROOT / name for name in ("compare.py", "train_torch.py", "train_keras.py")]
    sources += [*(ROOT / "tandem").rglob("*.py"), *(ROOT / "mlflow_server").rglob("*.py")]
    found = {str(file.relative_to(ROOT)): direct_writes(file.read_text(encoding="utf-8")) for file in sources}
    found.pop("tandem/files.py")
    assert {name: calls for name, calls in found.items() if calls and name not in WRITTEN_IN_PLACE} == {}
    assert {name for name in WRITTEN_IN_PLACE if not found[name]} == set()
