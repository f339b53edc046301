"""Test and time the package on a GPU: one command, at most nine minutes on an H100.

    python benchmarks/gpu.py [--out runs/gpu] [--only training heads] [--minutes 9]
    python benchmarks/gpu.py --device cpu --tiny

The second command rehearses everything on a CPU, with sizes that do not show speed. The script needs this checkout and
the requirements of the package, but the package need not be installed; ``benchmarks/gpu_wheels.sh`` fetches missing
wheels for a machine without a network. Each section runs in its own process and is stopped at its time limit, so that
it cannot disturb the next. Results are written as soon as they are measured: ``gpu.jsonl`` has one line per result,
``gpu.txt`` the tables and ``gpu.log`` the output of the sections; files of an earlier run in the same folder are
overwritten. The exit status is 1 if a section failed or was stopped. A missed target is printed, but does not change the
exit status.
"""

import argparse
import signal
import sys
from pathlib import Path

from gpu_sections import SECTIONS
from gpu_sections.runner import Runner


def main() -> int:
    """Run the selected sections."""
    names = [section.name for section in SECTIONS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of the results")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="sections; all by default")
    parser.add_argument("--minutes", type=float, default=9, help="time limit of all sections together")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="rehearse with tiny sizes")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped from outside"))  # ends the section too
    runner = Runner(arguments.out, device=arguments.device, tiny=arguments.tiny, minutes=arguments.minutes)
    return 0 if runner.run([section for section in SECTIONS if section.name in arguments.only]) else 1


if __name__ == "__main__":
    sys.exit(main())
