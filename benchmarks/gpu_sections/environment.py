"""The environment: device, processor and versions."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

import torch

from gpu_sections.measure import prepare
from gpu_sections.rows import Cell, Rows
from gpu_sections.settings import Settings

PACKAGES = ("lightning", "torchvision", "timm", "torchcodec", "imagecodecs", "zarr", "tiffslide", "numpy")


def run(settings: Settings, rows: Rows) -> None:
    """Record the environment."""
    device = prepare(settings.device)
    if device.type == "cuda":
        rows.facts(_gpu())
    rows.facts(
        {
            "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {_memory_gb():.0f} GB",
            "shared memory": f"{shutil.disk_usage('/dev/shm').free / 1e9:.0f} GB free",
            "Python": platform.python_version(),
            "torch": torch.__version__,
        }
    )
    rows.facts({name: _version(name) for name in PACKAGES})
    if commit := _output("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"):
        rows.facts({"commit": commit})
    if settings.tiny:
        rows.note("A rehearsal with tiny sizes: the figures below do not show speed.")


def _gpu() -> dict[str, Cell]:
    properties = torch.cuda.get_device_properties(0)
    driver = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines()
    return {
        "GPU": f"{properties.name}, {properties.total_memory / 1e9:.1f} GB, {properties.multi_processor_count} SMs",
        "driver": driver[0] if driver else "unknown",
        "CUDA": f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _output(*command: str) -> str:
    """Return the output of a program; empty if it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
