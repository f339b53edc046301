"""Heads: the features of a bag's patches go in, one row of logits a bag comes out. They need torch only."""

from e2e_abmilx.heads.abmil import ABMIL, GatedABMIL
from e2e_abmilx.heads.abmilx import ABMILX, AttentionPlus
from e2e_abmilx.heads.base import BagHead, HeadOutput
from e2e_abmilx.heads.pooling import MaxPool, MeanPool
from e2e_abmilx.heads.sparsity import AttentionSparsity, attention_sparsity

__all__ = [
    "ABMIL",
    "ABMILX",
    "AttentionPlus",
    "AttentionSparsity",
    "BagHead",
    "GatedABMIL",
    "HeadOutput",
    "MaxPool",
    "MeanPool",
    "attention_sparsity",
]
