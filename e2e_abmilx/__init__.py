"""End-to-end training of an encoder and an attention head on whole-slide images, from slide-level labels.

Importing the package is cheap: the module of a public name is imported when the name is first used.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if sys.platform == "win32":
    # locks between processes (flock), reads at an offset by many threads (pread), renaming over files that are open
    raise ImportError(
        "this Python runs on Windows (sys.platform is 'win32'), but e2e_abmilx needs the file locks and positioned reads"
        " of Linux or macOS; install it in WSL2 (in PowerShell: wsl --install) or on a Linux machine"
    )

if TYPE_CHECKING:
    from e2e_abmilx.cache import cache_slides
    from e2e_abmilx.datamodules import FeatureDataModule, SlideDataModule, SyntheticDataModule
    from e2e_abmilx.encoders import FrozenEncoder, Precomputed, ResNetEncoder, TimmEncoder
    from e2e_abmilx.heads import (
        ABMIL,
        ABMILX,
        CLAM,
        DSMIL,
        DTFD,
        RRTMIL,
        GatedABMIL,
        MaxPool,
        MeanMLP,
        MeanPool,
        MultiBranchCLAM,
        TransMIL,
    )
    from e2e_abmilx.models import load_model
    from e2e_abmilx.store import PatchStore, write_store
    from e2e_abmilx.tasks import ClassificationTask, MultiLabelTask, RegressionTask, SurvivalTask
    from e2e_abmilx.viewer import view

__version__ = "0.1.0"

_HOMES = {
    name: room
    for room, names in {
        "cache": "cache_slides",
        "datamodules": "FeatureDataModule SlideDataModule SyntheticDataModule",
        "encoders": "FrozenEncoder Precomputed ResNetEncoder TimmEncoder",
        "heads": "ABMIL ABMILX CLAM DSMIL DTFD GatedABMIL MaxPool MeanMLP MeanPool MultiBranchCLAM RRTMIL TransMIL",
        "models": "load_model",
        "store": "PatchStore write_store",
        "tasks": "ClassificationTask MultiLabelTask RegressionTask SurvivalTask",
        "viewer": "view",
    }.items()
    for name in names.split()
}

__all__ = [
    "ABMIL", "ABMILX", "CLAM", "DSMIL", "DTFD", "RRTMIL", "ClassificationTask", "FeatureDataModule", "FrozenEncoder",
    "GatedABMIL", "MaxPool", "MeanMLP", "MeanPool", "MultiBranchCLAM", "MultiLabelTask", "PatchStore", "Precomputed",
    "RegressionTask", "ResNetEncoder", "SlideDataModule", "SurvivalTask", "SyntheticDataModule", "TimmEncoder", "TransMIL",
    "cache_slides", "load_model", "view", "write_store",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
