"""Is the package right and fast on this GPU? One command, at most nine minutes on an H100.

    python benchmarks/gpu.py [--out runs/gpu] [--only training heads] [--minutes 9]
    python benchmarks/gpu.py --device cpu --tiny

The second line rehearses everything on a CPU, in sizes that say nothing about speed. It needs this checkout and what
the package requires, but not the package installed; ``benchmarks/gpu_wheels.sh`` fetches what is missing on a machine
without a network. Each section runs in a process of its own and is stopped at its limit, so that none spoils the next.
Results are written as they are measured: ``gpu.jsonl`` has a line each, ``gpu.txt`` the tables, ``gpu.log`` what was
printed; an earlier run's in the same folder are overwritten. The exit status is 1 if a section failed or was stopped. A
target that was missed is printed and changes nothing.
"""

import argparse
import signal
import sys
from pathlib import Path

from gpu_sections import SECTIONS
from gpu_sections.runner import Runner


def main() -> int:
    """Run the sections that are asked for."""
    names = [section.name for section in SECTIONS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of the results")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="sections; all by default")
    parser.add_argument("--minutes", type=float, default=9, help="what all sections may take together")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="rehearse")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped from outside"))  # and not without its section
    runner = Runner(arguments.out, device=arguments.device, tiny=arguments.tiny, minutes=arguments.minutes)
    return 0 if runner.run([section for section in SECTIONS if section.name in arguments.only]) else 1


if __name__ == "__main__":
    sys.exit(main())
