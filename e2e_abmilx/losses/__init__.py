"""Losses."""

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
