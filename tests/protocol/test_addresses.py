from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import make_url

from tandem.errors import UserError
from tandem.protocol.addresses import absolute, resolve_address, sqlite_address, sqlite_file

NAMES = ("a%20b", "a b", "a#b?c", "ä'\"", "日本 語", "$HOME", "{a}", "a&b=c", "a@b:c", "%", "+")


@pytest.mark.parametrize("name", NAMES)
def test_folder_of_any_name_is_read_back_by_sqlalchemy(name: str, tmp_path: Path) -> None:
    file = tmp_path / name / "mlflow.db"
    address = sqlite_address(file)
    assert make_url(address).database == str(file)
    assert sqlite_file(address) == file
    assert resolve_address(address, "tracking") == address


@pytest.mark.parametrize("name", NAMES)
def test_parameters_of_a_database_are_kept(name: str, tmp_path: Path) -> None:
    like = sqlite_address(tmp_path / "other.db") + "?timeout=30"
    url = make_url(sqlite_address(tmp_path / name, like=like))
    assert (url.database, dict(url.query)) == (str(tmp_path / name), {"timeout": "30"})


@pytest.mark.parametrize("ending", ["\r", "\n", "\r\n", " ", "\t", "\0", "\u200b"])
@pytest.mark.parametrize("address", ["sqlite:////data/mlflow.db", "http://host:5000", "postgresql://a:b@host/db"])
def test_blanks_and_control_characters_at_the_ends_are_ignored(address: str, ending: str) -> None:
    assert resolve_address(f" {address}{ending}", "tracking") == address


@pytest.mark.parametrize(
    ("address", "password"),
    [
        ("postgresql://u:hunter#2secret@host/db", "hunter#2secret"),
        ("postgresql://u:a@b:c/d[e@host:5432/db", "a@b:c/d[e"),
        ("postgresql://u:a%40b@host/db", "a@b"),
        ("postgresql://u:a@b/c@host/db", "a@b/c"),
        ("postgresql://u:p@host/db?options=a@b", "p"),
    ],
)
def test_password_with_characters_of_an_address_is_read(address: str, password: str) -> None:
    url = make_url(resolve_address(address, "tracking"))
    assert (url.password, url.host, url.database) == (password, "host", "db")


@pytest.mark.parametrize(
    "address",
    [
        *("zzz", "", "mlflow.db", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://host/x.db", "ftp://host"),
        *("http://", "http://[", "http://host:port", "http://host:99999", "postgresql://u:p@host:99999/db"),
        *("postgresql://u:hunter2[secret@host:port/db", "sqlite:///a\0b.db", "http://a\nb:5000", "databricks://x"),
    ],
)
@pytest.mark.parametrize("use", ["tracking", "study"])
def test_address_that_cannot_be_used_is_refused_without_its_password(address: str, use: str) -> None:
    with pytest.raises(UserError) as raised:
        resolve_address(address, use)  # type: ignore[arg-type]
    message = str(raised.value)
    assert "received " in message and "allowed are sqlite:///FILE.db" in message
    assert "\n" not in message and "hunter2" not in message


def test_study_has_no_server() -> None:
    with pytest.raises(UserError, match=r"^sweep\.storage: a study cannot be kept there: received 'http://host'"):
        resolve_address("http://host", "study")


def test_user_without_a_home_folder_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    with pytest.raises(UserError, match=r"^~/x\.db: this user has no home folder, .* set HOME, or give a path"):
        absolute(Path("~/x.db"))


def test_working_folder_that_was_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(UserError, match=r"working folder does not exist any more"):
        absolute(Path("mlflow.db"))
