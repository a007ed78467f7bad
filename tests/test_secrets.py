from __future__ import annotations

import os
import string

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL, make_url

from tandem import secrets
from tandem.secrets import has_secrets, hide_secrets, remember_secrets, shown_uri

SECRET = "hunter2secret"


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_remembered", set())


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://ann:hunter2secret@host/db", "postgresql://ann:***@host/db"),
        ("postgresql://ann:hunter#2secret@host/db", "postgresql://ann:***@host/db"),
        ("postgresql+psycopg://ann:a/b?c[d@host:5432/db", "postgresql+psycopg://ann:***@host:5432/db"),
        ("postgresql://ann:hunter2@secret@host/db", "postgresql://ann:***@host/db"),
        ("postgresql://host/db?user=ann&password=hunter2secret&sslmode=require", None),
        ("https://anna:se:cret@tracking.example.org:5000/mlflow", "https://anna:***@tracking.example.org:5000/mlflow"),
        ("https://hunter2secret@github.com/a/b.git", "https://***@github.com/a/b.git"),
        ("https://hunter2secret:x-oauth-basic@github.com/a/b.git", "https://***:***@github.com/a/b.git"),
        ("https://host/path?token=hunter2secret#access=hunter2secret", "https://host/path?token=***#access=***"),
        ("https://host/mlflow?hunter2secret", "https://host/mlflow?***"),
        ("sqlite:///file:x.db?key=hunter2secret&uri=true", "sqlite:///file:x.db?key=***&uri=true"),
        ("http://tracking.example.org:5000/#/experiments/1", "http://tracking.example.org:5000/#/experiments/1"),
        ("http://tracking.example.org:5000", "http://tracking.example.org:5000"),
        ("sqlite:////home/a@b/x#1.db", "sqlite:////home/a@b/x#1.db"),
        ("git@github.com:a/b.git", "git@github.com:a/b.git"),
        ("./birds", "./birds"),
    ],
)
def test_secrets_of_an_address_are_hidden(uri: str, shown: str | None) -> None:
    found = shown_uri(uri)
    assert found == shown or (shown is None and found.endswith("/db?user=***&password=***&sslmode=require"))
    assert "secret" not in found
    assert has_secrets(uri) == (found != uri)


WORDS = st.text(string.ascii_letters + string.digits + "@:/?#[]%&=+ é", min_size=4, max_size=20)


@given(user=st.text(string.ascii_lowercase, min_size=1, max_size=8), password=WORDS, key=WORDS)
@settings(max_examples=60, deadline=None)
def test_address_reads_as_sqlalchemy_shows_it(user: str, password: str, key: str) -> None:
    url = URL.create("postgresql", user, password, "db.example.org", 5432, "mlflow", {"password": key, "port": "1"})
    written = url.render_as_string(hide_password=False)
    shown = make_url(shown_uri(written))
    assert (shown.password, shown.query["password"]) == ("***", "***")
    assert shown == url.set(password="***").update_query_dict({"password": "***"})


@given(password=WORDS)
@settings(max_examples=100, deadline=None)
def test_no_part_of_a_password_that_is_not_encoded_is_shown(password: str) -> None:
    assume(password.strip() == password)
    shown = shown_uri(f"postgresql://ann:{password}@db/mlflow")
    assert shown == "postgresql://ann:***@db/mlflow"


def test_addresses_in_a_text_are_hidden() -> None:
    text = "cannot open 'postgresql://ann:hunter#2secret@host/db', see https://host/x?token=hunter2secret"
    assert hide_secrets(text) == "cannot open 'postgresql://ann:***@host/db', see https://host/x?token=***"


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_TOKEN", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY"])
@pytest.mark.parametrize("ending", ["", "\n", "\r\n", " "])
def test_secret_of_the_environment_is_hidden_wherever_it_occurs(
    name: str, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, SECRET + ending)
    # requests shows a header that it refuses in this form
    assert SECRET not in hide_secrets(f"Invalid header value: {'Bearer ' + SECRET + ending!r}")
    assert hide_secrets("hunters") == "hunters"


def test_secret_with_special_characters_is_hidden_in_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "back\\slash'quote\tend")
    for text in (os.environ["PGPASSWORD"], repr(os.environ["PGPASSWORD"]), repr(os.environ["PGPASSWORD"].encode())):
        assert "slash" not in hide_secrets(f"refused: {text}")


def test_file_with_a_secret_may_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD_FILE", "/run/secrets/password")
    assert hide_secrets("no /run/secrets/password") == "no /run/secrets/password"


def test_proxy_and_other_addresses_of_the_environment_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://ann:{SECRET}@proxy:3128")
    assert hide_secrets(f"Proxy-Authorization failed with {SECRET}") == "Proxy-Authorization failed with ***"


def test_remembered_secret_is_hidden_in_every_encoding() -> None:
    remember_secrets("postgresql://ann:hunter%232%20secret@host/db")
    for text in ("hunter#2 secret", "hunter%232%20secret", "hunter%232+secret"):
        assert hide_secrets(f'FATAL: user "ann" with {text} refused') == 'FATAL: user "ann" with *** refused'


@pytest.mark.parametrize(
    "token",
    [
        "ghp_0123456789abcdef0123",
        "hf_abcdefghijklmnopqrst",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
        "glpat-0123456789abcde",
    ],
)
def test_tokens_are_recognised_by_their_beginning(token: str) -> None:
    assert hide_secrets(f"refused {token}.") in ("refused ***.", "refused ***")


def test_short_words_are_not_taken_for_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PASSWORD", "a")
    assert hide_secrets("a cat") == "a cat"
