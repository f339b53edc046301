"""End-to-end training of an encoder and an attention head on whole-slide images, from slide-level labels.

Importing the package is cheap: the module of a public name is imported when the name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

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
    from e2e_abmilx.store import PatchStore, write_store
    from e2e_abmilx.tasks import ClassificationTask, MultiLabelTask, SurvivalTask

__version__ = "0.1.0"

_HOMES = {
    "ABMIL": "heads",
    "ABMILX": "heads",
    "CLAM": "heads",
    "ClassificationTask": "tasks",
    "DSMIL": "heads",
    "DTFD": "heads",
    "FeatureDataModule": "datamodules",
    "FrozenEncoder": "encoders",
    "GatedABMIL": "heads",
    "MaxPool": "heads",
    "MeanMLP": "heads",
    "MeanPool": "heads",
    "MultiBranchCLAM": "heads",
    "MultiLabelTask": "tasks",
    "PatchStore": "store",
    "Precomputed": "encoders",
    "RRTMIL": "heads",
    "ResNetEncoder": "encoders",
    "SlideDataModule": "datamodules",
    "SurvivalTask": "tasks",
    "SyntheticDataModule": "datamodules",
    "TimmEncoder": "encoders",
    "TransMIL": "heads",
    "cache_slides": "cache",
    "write_store": "store",
}

__all__ = [
    "ABMIL",
    "ABMILX",
    "CLAM",
    "DSMIL",
    "DTFD",
    "RRTMIL",
    "ClassificationTask",
    "FeatureDataModule",
    "FrozenEncoder",
    "GatedABMIL",
    "MaxPool",
    "MeanMLP",
    "MeanPool",
    "MultiBranchCLAM",
    "MultiLabelTask",
    "PatchStore",
    "Precomputed",
    "ResNetEncoder",
    "SlideDataModule",
    "SurvivalTask",
    "SyntheticDataModule",
    "TimmEncoder",
    "TransMIL",
    "cache_slides",
    "write_store",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
