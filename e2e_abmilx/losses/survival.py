"""Discrete-time survival: the negative log-likelihood, and the risk score."""

import operator
from itertools import accumulate

import torch
from torch import Tensor, nn

_SMALLEST = 1e-7  # lower bound of probabilities before the logarithm, as in the authors' code


def survival_nll(logits: Tensor, time_bin: Tensor, event: Tensor, *, alpha: float = 0.0) -> Tensor:
    r"""Return the negative log-likelihood of discrete-time survival (Zadeh and Schmid 2020; used by arXiv:2506.02408).

    With hazards :math:`h_k = \sigma(\text{logit}_k)` and survival :math:`S_k = \prod_{j \le k} (1 - h_j)`,
    :math:`S_{-1} = 1`, an event in bin y costs :math:`-\log S_{y-1} - \log h_y`, and censoring in bin y
    costs :math:`-(1 - \alpha) \log S_y`.

    Args:
        logits: Hazard logits of the K time bins, shape ``(B, K)``; computed in at least float32.
        time_bin: Bin of the event or of the censoring, 0 … K-1, shape ``(B,)``.
        event: 1 for an event, 0 for censoring, shape ``(B,)``.
        alpha: Fraction by which the weight of censored cases is reduced, in [0, 1].

    Returns:
        Mean over the bags, a scalar.
    """
    hazards = _hazards(logits)
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
    """Return minus the expected number of bins survived, shape ``(B,)``, from hazard logits of shape ``(B, K)``.

    It is a risk score: higher for an earlier event.
    """
    return -_survival(_hazards(logits)).sum(dim=1)


def _hazards(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid()


def _survival(hazards: Tensor) -> Tensor:
    """Return the products of the first 1, 2, … K values of 1 - hazard, shape ``(B, K)``.

    Multiplied bin by bin, because the gradient of ``torch.cumprod`` looks for zeros, which synchronises with the GPU.
    """
    return torch.stack(list(accumulate((1 - hazards).unbind(dim=1), operator.mul)), dim=1)


class SurvivalNLL(nn.Module):
    """:func:`survival_nll` as a module; ``alpha``, in [0, 1], reduces the weight of censored cases."""

    def __init__(self, alpha: float = 0.0) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, logits: Tensor, time_bin: Tensor, event: Tensor) -> Tensor:
        """Return the mean loss of a batch: ``(B, K)``, ``(B,)``, ``(B,)`` → scalar."""
        return survival_nll(logits, time_bin, event, alpha=self.alpha)
