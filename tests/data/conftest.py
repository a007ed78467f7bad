from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.data.publisher import Publisher, publish


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """A local server, which also answers requests to Kaggle."""
    with publish() as server:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, server.address)  # Kaggle's service is http://localhost, see below
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1")
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
        monkeypatch.delenv("KAGGLEHUB_CACHE", raising=False)
        yield server
