from __future__ import annotations

import subprocess
import sys


def test_old_name_of_the_program_works_and_names_the_new_one() -> None:
    command = [sys.executable, "-m", "tandem.data.report", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m tandem.data_report ")
    assert done.stderr == "tandem.data.report is now called tandem.data_report; the old name still works\n"
