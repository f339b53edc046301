"""Losses of bags: functions of logits and labels, each with a module of the same meaning for configs.

- ``classification.py``: cross-entropy with class weights, and binary cross-entropy with unknown labels
- ``survival.py``: the discrete-time survival likelihood, and the risk score of its logits
- ``cox.py``: the Cox partial likelihood, with a memory of recent bags
"""

from e2e_abmilx.losses.classification import MaskedBCE, WeightedCrossEntropy, masked_bce
from e2e_abmilx.losses.cox import CoxLoss, cox_loss
from e2e_abmilx.losses.survival import SurvivalNLL, survival_nll, survival_risk

__all__ = [
    "CoxLoss",
    "MaskedBCE",
    "SurvivalNLL",
    "WeightedCrossEntropy",
    "cox_loss",
    "masked_bce",
    "survival_nll",
    "survival_risk",
]
