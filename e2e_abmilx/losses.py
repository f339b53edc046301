"""Losses: of survival models, with weighted classes, and of several labels a case."""

import operator
from itertools import accumulate
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SMALLEST = 1e-7  # probabilities are held above this before the logarithm, as the authors do

Ties = Literal["breslow", "efron"]


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


class WeightedCrossEntropy(nn.CrossEntropyLoss):
    """Cross-entropy with a weight a class, from numbers as a config has them.

    Args:
        weights: Weight of each class, in the order of the classes.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1].
    """

    def __init__(self, weights: list[float], *, label_smoothing: float = 0.0) -> None:
        super().__init__(torch.tensor(weights), label_smoothing=label_smoothing)


def masked_bce(logits: Tensor, label: Tensor, *, positive_weight: Tensor | None = None) -> Tensor:
    r"""Binary cross-entropy of several labels a bag, of which some are unknown.

    With :math:`p = \sigma(\text{logit})`, a label 1 costs :math:`-w \log p`, a label 0 :math:`-\log(1 - p)`, and an
    unknown one nothing.

    Args:
        logits: Shape ``(B, K)``; computed in float32 at least.
        label: 1 where the bag is of the class, 0 where it is not, -1 where that is unknown, shape ``(B, K)``.
        positive_weight: w of each class, shape ``(K,)``; 1 by default.

    Returns:
        Mean over all labels of the batch, a scalar. Over the known ones alone, a label would weigh the more the less is
        known of the bags that it shares a batch with, and several processes would not learn what one learns.
    """
    logits = _at_least_float32(logits)
    known = (label >= 0).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(
        logits, label.to(logits.dtype), weight=known, pos_weight=positive_weight
    )


class MaskedBCE(nn.Module):
    """:func:`masked_bce` as a module.

    Args:
        positive_weight: How much more than a negative label a positive one weighs, for each class in its order, such
            as the negative cases over the positive ones; 1 by default.
    """

    positive_weight: Tensor | None

    def __init__(self, positive_weight: list[float] | None = None) -> None:
        super().__init__()
        self.register_buffer(
            "positive_weight", None if positive_weight is None else torch.tensor(positive_weight)
        )

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return the mean loss of a batch: ``(B, K)``, ``(B, K)`` → scalar."""
        return masked_bce(logits, label, positive_weight=self.positive_weight)


def cox_loss(risk: Tensor, time: Tensor, event: Tensor, *, ties: Ties = "breslow") -> Tensor:
    r"""Negative log partial likelihood of the proportional-hazards model (Cox 1972).

    An event of risk r at time t costs :math:`\log \sum_{j \in R} e^{r_j} - r`, where R holds the bags whose time is
    at least t. Of d events at the same time, Breslow's method gives each the whole of R; Efron's takes
    :math:`\frac{k}{d}` of the d events out of R for the k-th of them, k = 0 … d - 1.

    Args:
        risk: Log hazard ratio, shape ``(B,)``; computed in float32 at least.
        time: Months until the event or the censoring, shape ``(B,)``.
        event: 1 where the event happened, 0 where it was censored, shape ``(B,)``.
        ties: Method for events at the same time.

    Returns:
        Mean over the events, a scalar; 0, with gradient 0, without an event.
    """
    latest_first = time.argsort(descending=True)
    risk, earlier = _at_least_float32(risk)[latest_first], -time[latest_first]
    last_at_risk = torch.searchsorted(earlier, earlier, right=True) - 1
    happened = event[latest_first].bool()
    costs = risk.logcumsumexp(0)[last_at_risk] - risk
    if ties == "efron":
        costs = costs + _efron_correction(-costs, last_at_risk, happened)
    elif ties != "breslow":
        raise ValueError(f"ties are handled by 'breslow' or 'efron', not by {ties!r}")
    # censored bags are left out by multiplying: to choose the others, a GPU would have to count them first
    return torch.where(happened, costs, 0).sum() / happened.sum().clamp_min(1)


def _efron_correction(log_share: Tensor, moment: Tensor, happened: Tensor) -> Tensor:
    """Logarithm of what Efron's method leaves of the risk set for each event; of no meaning for censored bags.

    Args:
        log_share: Logarithm of each bag's share of its risk set, at most 0, so that nothing overflows, shape ``(B,)``.
        moment: Position of the last bag of the same time, rising, shape ``(B,)``.
        happened: Which bags had the event, shape ``(B,)``.
    """
    events = happened.to(log_share.dtype)
    tied = torch.zeros_like(events).index_add(0, moment, events)
    place = events.cumsum(0) - events - (tied.cumsum(0) - tied)[moment]
    of_events = torch.zeros_like(events).index_add(0, moment, events * log_share.exp())
    left = -place * of_events[moment] / tied[moment].clamp_min(1)
    return torch.log1p(torch.where(happened, left, 0))


class CoxLoss(nn.Module):
    """:func:`cox_loss` over a batch and the bags just before it, since a few bags alone are seldom comparable.

    In training the risks of the latest bags are remembered, without gradient, and take part as events and as bags at
    risk. What is remembered of a case is forgotten when it comes again: none meets its own past, however few cases there
    are. Under data parallelism the batch is that of all processes, whose memories are alike. In
    evaluation there is no memory. The memory lies in checkpoints.

    Args:
        memory: Number of bags remembered.
        ties: Method for events at the same time.
    """

    risks: Tensor
    times: Tensor
    events: Tensor
    cases: Tensor

    def __init__(self, memory: int = 256, ties: Ties = "breslow") -> None:
        super().__init__()
        self.ties = ties
        # An empty place was censored before all time: it is in no risk set.
        self.register_buffer("risks", torch.zeros(memory))
        self.register_buffer("times", torch.full((memory,), -torch.inf))
        self.register_buffer("events", torch.zeros(memory))
        self.register_buffer("cases", torch.full((memory,), _NOBODY))

    def forward(self, risk: Tensor, time: Tensor, event: Tensor, case: Tensor | None = None) -> Tensor:
        """Return the mean loss over the events of batch and memory.

        Args:
            risk: Log hazard ratio, shape ``(B,)``.
            time: Months until the event or the censoring, shape ``(B,)``.
            event: 1 where the event happened, 0 where it was censored, shape ``(B,)``.
            case: A number of each bag's case, at least 0, shape ``(B,)``; without them each bag counts as a new case.

        Returns:
            A scalar.
        """
        if not self.training:
            return cox_loss(risk, time, event, ties=self.ties)
        case = torch.full_like(event, _NOBODY, dtype=torch.int64) if case is None else case
        risk, time, event, case = _of_all_processes(_at_least_float32(risk), time, event.float(), case)
        self._forget(case)
        risk, time = torch.cat([self.risks, risk]), torch.cat([self.times, time])
        event, case = torch.cat([self.events, event]), torch.cat([self.cases, case])
        self._remember(risk, time, event, case)
        loss = cox_loss(risk, time, event, ties=self.ties)
        # each process has the loss of all bags and the gradient of its own, and gradients are averaged over processes
        return loss + (_num_processes() - 1) * (loss - loss.detach())

    def _forget(self, case: Tensor) -> None:
        """Empty the places of cases that come again, and put empty places first, where they are the next to go."""
        again = (self.cases[:, None] == case).any(dim=1) & (self.cases != _NOBODY)
        self.times.masked_fill_(again, -torch.inf)
        self.events.masked_fill_(again, 0)
        self.cases.masked_fill_(again, _NOBODY)
        order = self.times.isneginf().int().argsort(descending=True, stable=True)
        for kept in (self.risks, self.times, self.events, self.cases):
            kept.copy_(kept[order])

    def _remember(self, *columns: Tensor) -> None:
        """Keep the latest bags of memory and batch."""
        for kept, column in zip((self.risks, self.times, self.events, self.cases), columns, strict=True):
            kept.copy_(column.detach()[len(column) - len(kept) :])


_NOBODY = -1  # the case of an empty place


def _num_processes() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def _of_all_processes(risk: Tensor, *columns: Tensor) -> list[Tensor]:
    """Columns of the bags of all processes, which have as many each; only the own risks have a gradient."""
    if _num_processes() == 1:
        return [risk, *columns]
    gathered = []
    for column in (risk, *columns):
        parts = [torch.empty_like(column) for _ in range(_num_processes())]
        torch.distributed.all_gather(parts, column.detach().contiguous())
        gathered.append(parts)
    gathered[0][torch.distributed.get_rank()] = risk
    return [torch.cat(parts) for parts in gathered]


def _at_least_float32(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
