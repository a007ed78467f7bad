from __future__ import annotations

import pytest

from tandem.data.prepare import PreparedData
from tests.small_runs import small_data


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return small_data(tmp_path_factory.mktemp("cache"))
