"""The process of one section: ``python -m gpu_sections.child``, started by the runner."""

import argparse
import ctypes
import importlib
import os
import signal
import sys
import time
from pathlib import Path

from gpu_sections.rows import Rows
from gpu_sections.settings import Settings

_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


def main() -> None:
    """Run the section; an exception is recorded as a failure and leaves the exit status 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module")
    parser.add_argument("--name", required=True)
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--parent", type=int, required=True)
    arguments = parser.parse_args()
    ends = time.monotonic() + arguments.seconds
    _end_with(arguments.parent)
    rows = Rows(arguments.lines, arguments.name)
    with rows.guard(arguments.name):
        section = importlib.import_module(arguments.module)
        section.run(Settings(arguments.device, arguments.tiny, arguments.scratch, ends), rows)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a hanging data loading process would take the time of the next section


def _end_with(parent: int) -> None:
    """Let Linux kill this process when the runner ends, even if it is killed: the GPU must not stay busy unattended."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    main()
