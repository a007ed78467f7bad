"""Old name of `python -m tandem.data_report`."""

import runpy
import sys

if __name__ == "__main__":
    print("tandem.data.report is now called tandem.data_report; the old name still works", file=sys.stderr)
    runpy.run_module("tandem.data_report", run_name="__main__", alter_sys=True)
