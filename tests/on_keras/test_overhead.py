from __future__ import annotations

import argparse
import dataclasses

import pytest

from benchmarks.overhead import Case, measure_keras


@pytest.mark.long  # the same stand-in for curves as in torch
def test_script_and_bare_loop_take_turns() -> None:
    arguments = argparse.Namespace(precision="float32", epochs=2, threads=1)
    case = dataclasses.replace(Case.of("short", arguments), num_batches=2)
    bare, script = measure_keras(case)
    assert len(bare) == len(script) == 2
    assert all(epoch.clock > 0 for epoch in [*bare, *script])
