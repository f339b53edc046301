"""Every class that an option may name is found by its bare name, such as ``--model.head ABMIL``."""

import subprocess
import sys

SCRIPT = """
import importlib
import inspect
from jsonargparse._typehints import resolve_class_path_by_name
from lightning.pytorch import Callback, LightningDataModule
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
import e2e_abmilx.training.cli  # all that the command line imports before it reads options
from e2e_abmilx.data.draws import PatchDraw

BASES = (nn.Module, Callback, LightningDataModule, LRScheduler, PatchDraw)
ROOMS = (
    "heads", "encoders", "encoders.augment", "losses", "tasks", "tasks.schedules",
    "datamodules", "data.draws", "training.callbacks",
)
for room in ROOMS:
    module = importlib.import_module(f"e2e_abmilx.{room}")
    for name in getattr(module, "__all__", [*vars(module)]):
        found = getattr(module, name)
        bases = [base for base in BASES if isinstance(found, type) and issubclass(found, base) and found is not base]
        if not bases or not found.__module__.startswith("e2e_abmilx") or name == "Normalize":  # is no option
            continue
        if inspect.isabstract(found):  # cannot be made
            continue
        path = resolve_class_path_by_name(bases[0], name)
        place, _, last = path.rpartition(".")
        assert place and getattr(importlib.import_module(place), last) is found, (name, path)
        print(name)
"""


def test_bare_names_are_enough() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    names = set(ran.stdout.split())
    assert names >= {
        "ABMIL", "ABMILX", "CLAM", "DSMIL", "DTFD", "GatedABMIL", "MaxPool", "MeanMLP", "MeanPool", "MultiBranchCLAM",
        "RRTMIL", "TransMIL",
    }  # fmt: skip
    assert names >= {"FrozenEncoder", "Precomputed", "ResNetEncoder", "TimmEncoder", "RandomCrops"}
    assert names >= {"CoxLoss", "MaskedBCE", "SurvivalNLL", "WeightedCrossEntropy", "WarmupCosine"}
    assert names >= {"ClassificationTask", "CoxTask", "MultiLabelTask", "RegressionTask", "SurvivalTask"}
    assert names >= {"FeatureDataModule", "SlideDataModule", "SyntheticDataModule"}
    assert names >= {"AttentionDraw", "RegionalDraw", "UniformDraw"}
    assert names >= {
        "AttentionHeatmap", "BestCheckpoint", "DataWait", "DeferredEarlyStopping", "EmbeddingTable", "Faithfulness",
        "FeatureWriter", "LastCheckpoint", "MemoryAdvice", "PatchBar", "PredictionTable", "ProgressLines", "RunRecord",
        "SplitTable",
    }  # fmt: skip
