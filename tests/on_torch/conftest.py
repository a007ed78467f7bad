from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch reads it: two processes with two threads each are many times slower

import pytest
import torch

from tandem.data.prepare import PreparedData
from tandem.tracking.curves import Curves
from tests.small_runs import RecordingRun, small_data

torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    # where torch finds a GPU all the same, such as one that a test pretends
    config.addinivalue_line("filterwarnings", "ignore:GPU available but not used:UserWarning")
    # Lightning warns about modules that FreezeOrThaw freezes; set_up_framework silences it in the script
    config.addinivalue_line("filterwarnings", r"ignore:Found \d+ module\(s\) in eval mode:UserWarning")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return small_data(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def curves() -> Curves:
    return Curves(RecordingRun())  # type: ignore[arg-type]
