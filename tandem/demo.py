"""The old name of `python -m tandem.launch.demo`."""

import runpy
import sys

if __name__ == "__main__":
    print("tandem.demo is now called tandem.launch.demo; the old name still works", file=sys.stderr)
    runpy.run_module("tandem.launch.demo", run_name="__main__", alter_sys=True)
