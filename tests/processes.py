"""Processes that have ended."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def dead_process() -> dict[str, Any]:
    """A process of this machine that has ended, as a run's record names it."""
    code = "import json; from tandem.tracking.process import this_process; print(json.dumps(this_process()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    process: dict[str, Any] = json.loads(done.stdout)
    return process
