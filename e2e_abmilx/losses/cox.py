"""The Cox partial likelihood, of one batch or with a memory of recent bags."""

from typing import Literal

import torch
from torch import Tensor, nn

Ties = Literal["breslow", "efron"]

_NO_CASE = -1  # case number of an empty slot of the memory


def cox_loss(risk: Tensor, time: Tensor, event: Tensor, *, ties: Ties = "breslow") -> Tensor:
    r"""Return the negative log partial likelihood of the proportional-hazards model (Cox 1972).

    An event of risk r at time t costs :math:`\log \sum_{j \in R} e^{r_j} - r`, where the risk set R holds the bags
    whose time is at least t. For d events at the same time, Breslow's method uses the whole of R for each; Efron's
    method subtracts the fraction :math:`\frac{k}{d}` of the d tied events from R for the k-th of them, k = 0 … d - 1.

    Args:
        risk: Log hazard ratio, shape ``(B,)``; computed in at least float32.
        time: Months until the event or the censoring, shape ``(B,)``.
        event: 1 for an event, 0 for censoring, shape ``(B,)``.
        ties: Method for events at the same time.

    Returns:
        Mean over the events, a scalar; 0, with gradient 0, without an event.
    """
    latest_first = time.argsort(descending=True)
    risk = risk.to(torch.promote_types(risk.dtype, torch.float32))[latest_first]
    earlier = -time[latest_first]
    last_at_risk = torch.searchsorted(earlier, earlier, right=True) - 1
    happened = event[latest_first].bool()
    costs = risk.logcumsumexp(0)[last_at_risk] - risk
    if ties == "efron":
        costs = costs + _efron_correction(-costs, last_at_risk, happened)
    elif ties != "breslow":
        raise ValueError(f"ties are handled by 'breslow' or 'efron', not by {ties!r}")
    # censored bags are set to 0: selecting the events by a mask would synchronise with the GPU
    return torch.where(happened, costs, 0).sum() / happened.sum().clamp_min(1)


def _efron_correction(log_fraction: Tensor, last_at_risk: Tensor, happened: Tensor) -> Tensor:
    """Return the logarithm of the fraction of its risk set that Efron's method keeps for each event, shape ``(B,)``.

    ``log_fraction`` is the logarithm of each bag's fraction of its risk set: at most 0, so nothing overflows.
    ``last_at_risk`` is the position of the last bag with the same time. Values for censored bags have no meaning.
    """
    events = happened.to(log_fraction.dtype)
    tied = torch.zeros_like(events).index_add(0, last_at_risk, events)
    rank = events.cumsum(0) - events - (tied.cumsum(0) - tied)[last_at_risk]
    of_events = torch.zeros_like(events).index_add(0, last_at_risk, events * log_fraction.exp())
    removed = -rank * of_events[last_at_risk] / tied[last_at_risk].clamp_min(1)
    return torch.log1p(torch.where(happened, removed, 0))


class CoxLoss(nn.Module):
    """:func:`cox_loss` of a batch and the bags just before it, because a small batch has few comparable pairs.

    In training, the risks of the latest bags are remembered without gradient and take part, both as events and in risk
    sets. When a case comes again, its earlier bag is forgotten first, so no case is compared with its own past, however
    few cases there are. Under data parallelism the batch is that of all processes, and all memories are equal. In
    evaluation the memory is not used. Checkpoints contain the memory.

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
        # An empty slot is censored at time -∞, so it is in no risk set.
        self.register_buffer("risks", torch.zeros(memory))
        self.register_buffer("times", torch.full((memory,), -torch.inf))
        self.register_buffer("events", torch.zeros(memory))
        self.register_buffer("cases", torch.full((memory,), _NO_CASE))

    def forward(self, risk: Tensor, time: Tensor, event: Tensor, case: Tensor | None = None) -> Tensor:
        """Return the mean loss over the events of batch and memory, a scalar.

        ``risk``, ``time`` and ``event`` are those of :func:`cox_loss`; ``case`` holds the case number of each bag, at
        least 0, shape ``(B,)``. Without it each bag counts as a new case.
        """
        if not self.training:
            return cox_loss(risk, time, event, ties=self.ties)
        case = torch.full_like(event, _NO_CASE, dtype=torch.int64) if case is None else case
        risk = risk.to(torch.promote_types(risk.dtype, torch.float32))
        risk, time, event, case = _of_all_processes(risk, time, event.float(), case)
        self._forget(case)
        risk, time = torch.cat([self.risks, risk]), torch.cat([self.times, time])
        event, case = torch.cat([self.events, event]), torch.cat([self.cases, case])
        self._remember(risk, time, event, case)
        loss = cox_loss(risk, time, event, ties=self.ties)
        # A process computes the loss of all bags, but the gradient of its own bags only, and DDP averages gradients:
        # hence the gradient is multiplied by the number of processes.
        return loss + (_num_processes() - 1) * (loss - loss.detach())

    def _forget(self, case: Tensor) -> None:
        """Empty the slots of recurring cases, and move empty slots to the front, where they are overwritten first."""
        recurring = (self.cases[:, None] == case).any(dim=1) & (self.cases != _NO_CASE)
        self.times.masked_fill_(recurring, -torch.inf)
        self.events.masked_fill_(recurring, 0)
        self.cases.masked_fill_(recurring, _NO_CASE)
        order = self.times.isneginf().int().argsort(descending=True, stable=True)
        for kept in (self.risks, self.times, self.events, self.cases):
            kept.copy_(kept[order])

    def _remember(self, *columns: Tensor) -> None:
        """Keep the latest bags of memory and batch."""
        for kept, column in zip((self.risks, self.times, self.events, self.cases), columns, strict=True):
            kept.copy_(column.detach()[len(column) - len(kept) :])


def _num_processes() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def _of_all_processes(risk: Tensor, *columns: Tensor) -> list[Tensor]:
    """Return the columns of all processes, which have equal batch sizes; only the own risks have a gradient."""
    if _num_processes() == 1:
        return [risk, *columns]
    gathered = []
    for column in (risk, *columns):
        parts = [torch.empty_like(column) for _ in range(_num_processes())]
        torch.distributed.all_gather(parts, column.detach().contiguous())
        gathered.append(parts)
    gathered[0][torch.distributed.get_rank()] = risk
    return [torch.cat(parts) for parts in gathered]
