"""The Cox partial likelihood and its memory, against the definition and lifelines."""

import copy
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from torch import Tensor

from e2e_abmilx.losses.cox import CoxLoss, Ties, cox_loss

TIES: list[Ties] = ["breslow", "efron"]


def _slow_cox(risk: Tensor, time: list[int], event: list[int], ties: Ties) -> Tensor:
    """Return the partial likelihood from its definition, event by event."""
    costs, seen = [], dict.fromkeys(time, 0)
    for i in range(len(time)):
        if not event[i]:
            continue
        hazard = torch.stack([risk[j].exp() for j in range(len(time)) if time[j] >= time[i]]).sum()
        tied = [j for j in range(len(time)) if event[j] and time[j] == time[i]]
        if ties == "efron":
            hazard = hazard - seen[time[i]] / len(tied) * torch.stack([risk[j].exp() for j in tied]).sum()
        seen[time[i]] += 1
        costs.append(hazard.log() - risk[i])
    return torch.stack(costs).mean() if costs else (risk * 0).sum()


def _with_gradient(loss: Callable[[Tensor], Tensor], risk: list[float]) -> tuple[Tensor, Tensor]:
    leaf = torch.tensor(risk, dtype=torch.float64, requires_grad=True)
    value = loss(leaf)
    value.backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad


bags = st.lists(st.tuples(st.floats(-5, 5), st.integers(1, 6), st.integers(0, 1)), min_size=1, max_size=15)


@given(bags, st.sampled_from(TIES))
def test_cox_equals_its_definition(rows: list[tuple[float, int, int]], ties: Ties) -> None:
    risk, time, event = (list(column) for column in zip(*rows, strict=True))
    columns = torch.tensor(time, dtype=torch.float64), torch.tensor(event)
    found = _with_gradient(lambda leaf: cox_loss(leaf, *columns, ties=ties), risk)
    wanted = _with_gradient(lambda leaf: _slow_cox(leaf, time, event, ties), risk)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("ties", TIES)
def test_cox_equals_lifelines(ties: Ties) -> None:
    """At the maximum that lifelines finds, the log-likelihoods (Efron's) are equal and the gradient is zero."""
    generator = np.random.default_rng(0)
    covariates = generator.normal(size=(120, 2))
    time = generator.exponential(np.exp(-covariates @ [0.7, -0.4]))
    time = np.ceil(time * 5) if ties == "efron" else time  # without ties the two methods are equal
    table = pd.DataFrame(covariates).assign(time=time, event=generator.random(120) < 0.6)
    fitter = CoxPHFitter().fit(table, "time", "event", fit_options={"precision": 1e-10})
    coefficients = torch.tensor(fitter.params_.to_numpy(), requires_grad=True)
    event = torch.tensor(table["event"].to_numpy())
    loss = cox_loss(torch.tensor(covariates) @ coefficients, torch.tensor(time), event, ties=ties)
    loss.backward()
    assert -loss.item() * int(event.sum()) == pytest.approx(fitter.log_likelihood_, abs=1e-9)
    assert coefficients.grad is not None
    assert coefficients.grad.abs().max() < 1e-5


@pytest.mark.parametrize("ties", TIES)
def test_cox_is_numerically_stable(ties: Ties) -> None:
    torch.manual_seed(0)
    risk = (torch.randn(40) * 1e4).requires_grad_()
    time, event = torch.randint(1, 12, (40,)).float(), torch.randint(0, 2, (40,))
    loss = cox_loss(risk, time, event, ties=ties)
    loss.backward()
    exact = cox_loss(risk.detach().double(), time, event, ties=ties)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    assert risk.grad is not None
    assert risk.grad.isfinite().all()
    assert cox_loss(risk.detach().bfloat16(), time, event, ties=ties).dtype == torch.float32


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize(
    ("time", "event"),
    [([3.0], [1]), ([3.0], [0]), ([1.0, 2.0, 2.0], [0, 0, 0]), ([3.0, 1.0, 2.0], [1, 0, 0])],
    ids=["one event", "one censoring", "all censored", "last one had the event"],
)
def test_cox_without_comparable_pairs_is_zero(ties: Ties, time: list[float], event: list[int]) -> None:
    risk = torch.randn(len(time), requires_grad=True)
    loss = cox_loss(risk, torch.tensor(time), torch.tensor(event), ties=ties)
    loss.backward()
    assert loss == 0
    assert risk.grad is not None
    assert (risk.grad == 0).all()


@given(bags, st.sampled_from(TIES), st.floats(-100, 100))
def test_cox_depends_on_differences_of_risk_only(rows: list[tuple[float, int, int]], ties: Ties, shift: float) -> None:
    risk, time, event = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
    risk.requires_grad_()
    loss = cox_loss(risk, time, event, ties=ties)
    loss.backward()
    torch.testing.assert_close(cox_loss(risk + shift, time, event, ties=ties), loss, rtol=0, atol=1e-9)
    assert risk.grad is not None
    assert abs(risk.grad.sum()) < 1e-9


def test_cox_refuses_other_methods_for_ties() -> None:
    with pytest.raises(ValueError, match="'breslow' or 'efron', not by 'exact'"):
        cox_loss(torch.zeros(1), torch.ones(1), torch.ones(1), ties="exact")  # type: ignore[arg-type]


def _cohort(size: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(size), torch.randint(1, 9, (size,)).float(), torch.randint(0, 2, (size,))


@pytest.mark.parametrize("ties", TIES)
def test_memory_contains_the_latest_bags(ties: Ties) -> None:
    risk, time, event = _cohort(20)
    loss = CoxLoss(memory=7, ties=ties)
    for start in range(0, 20, 2):
        now, seen = slice(start, start + 2), slice(max(start - 7, 0), start)
        own = risk[now].clone().requires_grad_()
        found = loss(own, time[now], event[now])
        found.backward()
        again = risk[now].clone().requires_grad_()
        columns = (torch.cat([column[seen], column[now]]) for column in (time, event))
        wanted = cox_loss(torch.cat([risk[seen], again]), *columns, ties=ties)
        wanted.backward()
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(own.grad, again.grad)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("memory", [3, 7, 256])
def test_no_case_is_compared_with_its_own_past(memory: int, ties: Ties) -> None:
    """Six cases recur: each is compared with the latest bags of the other cases in the memory, never with its own."""
    _, time, event = _cohort(6)
    loss, last = CoxLoss(memory=memory, ties=ties), dict[int, Tensor]()
    generator = torch.Generator().manual_seed(1)
    for _ in range(12):
        for case in torch.randperm(6, generator=generator).split(2):
            risk = torch.randn(2, generator=generator, requires_grad=True)
            found = loss(risk, time[case], event[case], case)
            others = [other for other in last if other not in case.tolist()]
            met = {int(one) for one in loss.cases.tolist() if one >= 0} - set(case.tolist())
            if memory >= 6:
                assert met == set(others)
            met_risks = [last[one] for one in others if one in met]
            known = torch.tensor([one for one in others if one in met], dtype=torch.long)
            if memory == 256:
                wanted = cox_loss(
                    torch.cat([*[one.reshape(1) for one in met_risks], risk]),
                    torch.cat([time[known], time[case]]), torch.cat([event[known], event[case]]), ties=ties,
                )  # fmt: skip
                torch.testing.assert_close(found, wanted)
            for one, value in zip(case.tolist(), risk.detach(), strict=True):
                last[one] = value
        places = [one for one in loss.cases.tolist() if one >= 0]
        assert len(places) == len(set(places)) <= memory


def _one_of_two(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    risk, time, event = _cohort(24)
    loss, losses, gradients = CoxLoss(memory=10), [], []
    for batch in torch.arange(24).split(4):
        own = batch[rank::2]
        live = risk[own].clone().requires_grad_()
        value = loss(live, time[own], event[own], own % 9)
        value.backward()
        losses.append(value.detach())
        gradients.append(live.grad)
    torch.save((losses, gradients, loss.state_dict()), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_equal_one_with_larger_batches(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_one_of_two, args=(str(tmp_path),), nprocs=2)
    (first, own, memory), (second, others, other_memory) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(memory, other_memory)
    risk, time, event = _cohort(24)
    loss = CoxLoss(memory=10)
    for step, batch in enumerate(torch.arange(24).split(4)):
        batch = torch.cat([batch[::2], batch[1::2]])
        live = risk[batch].clone().requires_grad_()
        value = loss(live, time[batch], event[batch], batch % 9)
        value.backward()
        torch.testing.assert_close(first[step], value.detach())
        averaged = torch.cat([own[step], others[step]]) / 2  # DDP averages gradients over both
        torch.testing.assert_close(averaged, live.grad)


def test_with_memory_single_bags_have_a_gradient() -> None:
    """Without memory a single bag has no gradient; with it, the risks learn the order of the times."""
    torch.manual_seed(0)
    time, event = torch.arange(1.0, 9.0), torch.ones(8)
    risk, loss = torch.zeros(8, requires_grad=True), CoxLoss(memory=7)
    optimizer = torch.optim.SGD([risk], lr=1.0)
    for _ in range(30):
        for bag in torch.randperm(8).split(1):
            optimizer.zero_grad()
            loss(risk[bag], time[bag], event[bag]).backward()
            optimizer.step()
    assert (risk.diff() < 0).all()


def test_memory_keeps_no_graph_and_is_unused_in_evaluation() -> None:
    risk, time, event = _cohort(4)
    loss = CoxLoss(memory=8)
    loss(risk.requires_grad_(), time, event)
    assert not loss.risks.requires_grad
    before = copy.deepcopy(loss.state_dict())
    loss.eval()
    torch.testing.assert_close(loss(-risk, time, event), cox_loss(-risk, time, event))
    torch.testing.assert_close(loss.state_dict(), before)


def test_checkpoints_contain_the_memory() -> None:
    risk, time, event = _cohort(12)
    loss = CoxLoss(memory=8)
    loss(risk[:6], time[:6], event[:6])
    file = io.BytesIO()
    torch.save(loss.state_dict(), file)
    file.seek(0)
    resumed = CoxLoss(memory=8)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    rest = risk[6:], time[6:], event[6:]
    assert resumed(*rest) == loss(*rest)


def test_a_batch_may_be_larger_than_the_memory() -> None:
    risk, time, event = _cohort(12)
    loss = CoxLoss(memory=5)
    torch.testing.assert_close(loss(risk, time, event), cox_loss(risk, time, event))
    torch.testing.assert_close(loss.risks, risk[-5:])


@pytest.mark.gpu
@pytest.mark.parametrize("ties", TIES)
def test_cox_on_a_gpu_equals_the_cpu(ties: Ties) -> None:
    columns = _cohort(20)
    here, there = CoxLoss(memory=8, ties=ties), CoxLoss(memory=8, ties=ties).cuda()
    for batch in zip(*(column.split(4) for column in columns), strict=True):
        found = there(*(column.cuda() for column in batch))
        torch.testing.assert_close(found.cpu(), here(*batch))
