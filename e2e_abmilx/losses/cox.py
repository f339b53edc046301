"""The Cox partial likelihood."""

from typing import Literal

import torch
from torch import Tensor, nn

from e2e_abmilx.losses.precision import _at_least_float32

Ties = Literal["breslow", "efron"]


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
