"""Discrete-time survival: the negative log-likelihood, and the risk score."""

import operator
from itertools import accumulate

import torch
from torch import Tensor, nn

from e2e_abmilx.losses.precision import _at_least_float32

_SMALLEST = 1e-7  # probabilities are held above this before the logarithm, as the authors do


def survival_nll(logits: Tensor, time_bin: Tensor, event: Tensor, *, alpha: float = 0.0) -> Tensor:
    r"""Negative log-likelihood of discrete-time survival (Zadeh and Schmid 2020, as used by arXiv:2506.02408).

    With hazards :math:`h_k = \sigma(\text{logit}_k)` and survival :math:`S_k = \prod_{j \le k} (1 - h_j)`,
    :math:`S_{-1} = 1`, an event in bin y costs :math:`-\log S_{y-1} - \log h_y`, and a censoring in bin y
    costs :math:`-(1 - \alpha) \log S_y`.

    Args:
        logits: Hazard logits of the K time bins, shape ``(B, K)``; computed in float32 at least.
        time_bin: Bin of the event or of the censoring, 0 … K-1, shape ``(B,)``.
        event: 1 where the event happened, 0 where it was censored, shape ``(B,)``.
        alpha: How much less the censored cases weigh, in [0, 1].

    Returns:
        Mean over the bags, a scalar.
    """
    hazards = _at_least_float32(logits).sigmoid()
    survival = _survival(hazards)
    before = torch.cat([torch.ones_like(survival[:, :1]), survival], dim=1)
    bins = time_bin.long().unsqueeze(1)
    happened = event.to(hazards.dtype)

    def log_at(values: Tensor, index: Tensor) -> Tensor:
        return values.gather(1, index).squeeze(1).clamp_min(_SMALLEST).log()

    uncensored = -happened * (log_at(before, bins) + log_at(hazards, bins))
    censored = -(1 - happened) * log_at(before, bins + 1)
    return (uncensored + (1 - alpha) * censored).mean()


def survival_risk(logits: Tensor) -> Tensor:
    """Risk score: minus the expected number of bins survived.

    Args:
        logits: Hazard logits, shape ``(B, K)``.

    Returns:
        Risk, higher for an earlier event, shape ``(B,)``.
    """
    return -_survival(_at_least_float32(logits).sigmoid()).sum(dim=1)


def _survival(hazards: Tensor) -> Tensor:
    """Products of the first 1, 2, … K of 1 - hazard, shape ``(B, K)``.

    Bin by bin, because the gradient of ``torch.cumprod`` looks for zeros, for which a GPU would have to be waited for.
    """
    return torch.stack(list(accumulate((1 - hazards).unbind(dim=1), operator.mul)), dim=1)


class SurvivalNLL(nn.Module):
    """:func:`survival_nll` as a module.

    Args:
        alpha: How much less the censored cases weigh, in [0, 1].
    """

    def __init__(self, alpha: float = 0.0) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, logits: Tensor, time_bin: Tensor, event: Tensor) -> Tensor:
        """Return the mean loss of a batch: ``(B, K)``, ``(B,)``, ``(B,)`` → scalar."""
        return survival_nll(logits, time_bin, event, alpha=self.alpha)
