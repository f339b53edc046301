"""Bag heads: from the features of a bag's patches to one row of logits per bag. They need torch only.

- ``base.py``: ``BagHead``, the interface of all heads; softmax and pooling over patches
- ``abmilx.py``: ABMILX, the paper's head, Eq. 3 and 4
- ``reference.py``: the authors' weights, of head and encoder, under the names of this package
- ``abmil.py``: ABMIL and gated ABMIL
- ``clam.py``: CLAM with one branch, or one branch per class
- ``dsmil.py``: DSMIL
- ``dtfd.py``: DTFD-MIL
- ``rrtmil.py``: RRT-MIL
- ``transmil.py``: TransMIL
- ``pooling.py``: mean pooling, mean pooling with a hidden layer, max pooling
- ``contributions.py``: how much each patch adds to a bag's score, by leaving it out
- ``sparsity.py``: how sparse an attention is, such as its effective number of patches
"""

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
    "ABMIL", "ABMILX", "CLAM", "DSMIL", "DTFD", "RRTMIL", "AttentionPlus", "AttentionSparsity", "BagHead",
    "ContributionError", "GatedABMIL", "HeadOutput", "MaxPool", "MeanMLP", "MeanPool", "MultiBranchCLAM",
    "PoolingHead", "SequenceHead", "TransMIL", "attention_sparsity", "leave_one_out", "log_odds",
]  # fmt: skip
