"""The sections of ``benchmarks/gpu.py``, one module each, and their tools.

A section is imported only in its own process: the script itself needs nothing but Python.
"""

from typing import NamedTuple


class Section(NamedTuple):
    """A part of the benchmark, which runs in a process of its own.

    Attributes:
        name: Its name on the command line.
        title: Its heading in the tables.
        limit_s: Seconds after which it is stopped.
        module: The module with its function ``run(settings, rows)`` is.
    """

    name: str
    title: str
    limit_s: float
    module: str


#: The most important first: the last section gets the remaining time.
SECTIONS = (
    Section("environment", "Environment", 20, "gpu_sections.environment"),
    Section("tests", "Tests that need a GPU", 130, "gpu_sections.suite"),
    Section("training", "Training from a store", 150, "gpu_sections.training"),
    Section("compiling", "torch.compile", 75, "gpu_sections.compiling"),
    Section("inference", "Whole slides", 75, "gpu_sections.inference"),
    Section("decoding", "JPEG decoding: CPU workers and the device", 90, "gpu_sections.decoding"),
    Section("heads", "ABMILX alone, compared with the authors' formulation", 40, "gpu_sections.heads"),
)
