"""Lightning callbacks: one behaviour a file."""

from e2e_abmilx.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from e2e_abmilx.callbacks.predictions import PredictionTable

__all__ = ["BestCheckpoint", "LastCheckpoint", "PredictionTable"]
