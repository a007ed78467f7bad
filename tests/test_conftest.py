from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

TEST = """
import os, signal, subprocess, sys

def test_signals():
    for name in ("SIGINT", "SIGHUP"):
        code = f"import os, signal; os.kill(os.getpid(), signal.{name}); print('alive')"
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert child.returncode == -getattr(signal, name) and child.stdout == "", child
    os.kill(os.getpid(), signal.SIGHUP)
    try:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
    except KeyboardInterrupt:
        return
"""


def test_gpus_are_hidden_from_tests_and_their_children() -> None:
    code = "import os; print(repr(os.environ['CUDA_VISIBLE_DEVICES']), os.environ['JAX_PLATFORMS'])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["''", "cpu"]


def test_tests_and_their_children_receive_signals_that_nohup_or_a_background_job_ignores(tmp_path: Path) -> None:
    (tmp_path / "test_signals.py").write_text(TEST)

    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", str(tmp_path / "test_signals.py")],
        cwd=ROOT,
        preexec_fn=ignore,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
