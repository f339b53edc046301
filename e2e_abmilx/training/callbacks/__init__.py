"""Lightning callbacks: one behaviour a file."""

from e2e_abmilx.training.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from e2e_abmilx.training.callbacks.data_wait import DataWait
from e2e_abmilx.training.callbacks.early_stopping import DeferredEarlyStopping
from e2e_abmilx.training.callbacks.features import FeatureWriter
from e2e_abmilx.training.callbacks.heatmap import AttentionHeatmap
from e2e_abmilx.training.callbacks.memory_advice import MemoryAdvice
from e2e_abmilx.training.callbacks.predictions import PredictionTable
from e2e_abmilx.training.callbacks.progress import ProgressLines
from e2e_abmilx.training.callbacks.run_record import RunRecord
from e2e_abmilx.training.callbacks.splits import SplitTable

__all__ = [
    "AttentionHeatmap",
    "BestCheckpoint",
    "DataWait",
    "DeferredEarlyStopping",
    "FeatureWriter",
    "LastCheckpoint",
    "MemoryAdvice",
    "PredictionTable",
    "ProgressLines",
    "RunRecord",
    "SplitTable",
]
