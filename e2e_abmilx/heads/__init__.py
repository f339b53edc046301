"""Heads: the features of a bag's patches go in, one row of logits a bag comes out. They need torch only."""

from e2e_abmilx.heads.abmil import ABMIL, GatedABMIL
from e2e_abmilx.heads.abmilx import ABMILX, AttentionPlus
from e2e_abmilx.heads.base import BagHead, ContributionError, HeadOutput, SequenceHead
from e2e_abmilx.heads.clam import CLAM, MultiBranchCLAM
from e2e_abmilx.heads.contributions import PoolingHead, leave_one_out, log_odds
from e2e_abmilx.heads.dsmil import DSMIL
from e2e_abmilx.heads.dtfd import DTFD
from e2e_abmilx.heads.pooling import MaxPool, MeanMLP, MeanPool
from e2e_abmilx.heads.rrtmil import RRTMIL
from e2e_abmilx.heads.sparsity import AttentionSparsity, attention_sparsity
from e2e_abmilx.heads.transmil import TransMIL

__all__ = [
    "ABMIL",
    "ABMILX",
    "CLAM",
    "DSMIL",
    "DTFD",
    "RRTMIL",
    "AttentionPlus",
    "AttentionSparsity",
    "BagHead",
    "ContributionError",
    "GatedABMIL",
    "HeadOutput",
    "MaxPool",
    "MeanMLP",
    "MeanPool",
    "MultiBranchCLAM",
    "PoolingHead",
    "SequenceHead",
    "TransMIL",
    "attention_sparsity",
    "leave_one_out",
    "log_odds",
]
