"""The sections of ``benchmarks/gpu.py``, a module each, and what they are measured with.

Nothing here is imported before a section runs: the script itself needs Python alone.
"""

from typing import NamedTuple


class Section(NamedTuple):
    """A part of the benchmark, which runs in a process of its own.

    Attributes:
        name: What it is asked for by.
        title: What it measures.
        limit_s: Seconds after which it is stopped.
        module: Where its function ``run(settings, rows)`` is.
    """

    name: str
    title: str
    limit_s: float
    module: str


#: In order of worth: what time is left over goes to the last.
SECTIONS = (
    Section("environment", "What runs here", 50, "gpu_sections.environment"),
    Section("tests", "Tests that need a GPU", 90, "gpu_sections.suite"),
    Section("training", "Training from a store", 150, "gpu_sections.training"),
    Section("variants", "torch.compile and channels-last weights", 120, "gpu_sections.variants"),
    Section("inference", "Whole slides", 60, "gpu_sections.inference"),
    Section("decoding", "JPEG decoding: CPU workers and the device", 70, "gpu_sections.decoding"),
    Section("heads", "ABMILX alone, beside the authors' formulation", 40, "gpu_sections.heads"),
)
