"""One section, in a process of its own: ``python -m gpu_sections.child``, called by the runner."""

import argparse
import importlib
import os
import sys
from pathlib import Path

from gpu_sections.rows import Rows


def main() -> int:
    """Run the section; what it raises is written down. The status is 0 even then: the lines tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module")
    parser.add_argument("--name", required=True)
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--scratch", type=Path, required=True)
    arguments = parser.parse_args()
    rows = Rows(arguments.lines, arguments.name)
    with rows.guard(arguments.name):
        _run(arguments, rows)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # readers that hang at exit would take the time of the next section


def _run(arguments: argparse.Namespace, rows: Rows) -> None:
    import torch

    from gpu_sections.settings import Settings

    if arguments.device == "cuda" and not torch.cuda.is_available():
        rows.fail("torch finds no CUDA device here", "--device cpu --tiny rehearses on a CPU")
        return
    torch.set_float32_matmul_precision("high")  # as every run of the library
    section = importlib.import_module(arguments.module)
    section.run(Settings(arguments.device, arguments.tiny, arguments.scratch), rows)


if __name__ == "__main__":
    sys.exit(main())
