import copy
import io
import math
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

from e2e_abmilx.losses import (
    MaskedBCE,
    SurvivalNLL,
    WeightedCrossEntropy,
    masked_bce,
    survival_nll,
    survival_risk,
)
from e2e_abmilx.losses.cox import CoxLoss, Ties, cox_loss

TIES: list[Ties] = ["breslow", "efron"]


def _slow_nll(logits: list[list[float]], bins: list[int], events: list[int], alpha: float) -> float:
    """The likelihood case by case, from its definition."""
    total = 0.0
    for row, own, event in zip(logits, bins, events, strict=True):
        hazards = [1 / (1 + math.exp(-value)) for value in row]
        alive = math.prod(1 - hazards[k] for k in range(own))
        if event:
            total -= math.log(alive) + math.log(hazards[own])
        else:
            total -= (1 - alpha) * math.log(alive * (1 - hazards[own]))
    return total / len(bins)


@pytest.mark.parametrize("alpha", [0.0, 0.15, 1.0])
def test_nll_against_the_definition(alpha: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(20, 5, dtype=torch.float64)
    bins, events = torch.randint(0, 5, (20,)), torch.randint(0, 2, (20,))
    expected = _slow_nll(logits.tolist(), bins.tolist(), events.tolist(), alpha)
    assert survival_nll(logits, bins, events, alpha=alpha).item() == pytest.approx(expected, abs=1e-12)
    assert SurvivalNLL(alpha)(logits, bins, events).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.15, 0.4, 1.0])
@pytest.mark.parametrize("precision", ["f32", "f64"])
def test_nll_against_the_authors(shared: Path, alpha: float, precision: str) -> None:
    reference = torch.load(shared / "reference/survival_reference.pt", weights_only=True)
    wanted = reference[f"alpha{alpha}_{precision}"]
    dtype = torch.float32 if precision == "f32" else torch.float64
    logits = reference["logits"].to(dtype).requires_grad_()
    bins, event = reference["Y"], 1 - reference["c"]
    loss = survival_nll(logits, bins, event, alpha=alpha)
    loss.backward()
    torch.testing.assert_close(loss, wanted["loss"].to(dtype), rtol=0, atol=1e-6)
    torch.testing.assert_close(logits.grad, wanted["grad_logits"].to(dtype), rtol=0, atol=1e-6)
    for row, own in enumerate(wanted["per_sample"]):
        alone = survival_nll(logits[row : row + 1], bins[row : row + 1], event[row : row + 1], alpha=alpha)
        torch.testing.assert_close(alone, own, rtol=0, atol=1e-6)


def test_risk_against_the_authors(shared: Path) -> None:
    reference = torch.load(shared / "reference/survival_reference.pt", weights_only=True)
    torch.testing.assert_close(survival_risk(reference["logits"]), reference["risk"], rtol=0, atol=1e-6)


def test_half_precision_is_computed_in_float32(shared: Path) -> None:
    reference = torch.load(shared / "reference/survival_reference.pt", weights_only=True)
    half, bins, event = reference["fp16"]["logits"], reference["Y"], 1 - reference["c"]
    loss = survival_nll(half, bins, event)
    assert loss.dtype == torch.float32
    assert loss == survival_nll(half.float(), bins, event)
    assert survival_risk(half).dtype == torch.float32
    # the authors stay in float16, which moves their loss away from the exact one
    exact, theirs = reference["alpha0.0_f64"]["loss"], reference["fp16"]["loss"]
    assert (loss - exact).abs() < (theirs - exact).abs() / 5


@pytest.mark.parametrize("extreme", [1e2, 1e4])
def test_nll_of_extreme_logits_is_finite(extreme: float) -> None:
    logits = torch.tensor([[extreme] * 4, [-extreme] * 4]).repeat(2, 1).requires_grad_()
    loss = survival_nll(logits, torch.tensor([3, 0, 3, 0]), torch.tensor([1, 1, 0, 0]))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_nll_of_censored_cases_alone() -> None:
    logits = torch.zeros(2, 4, requires_grad=True)
    bins, event = torch.tensor([0, 3]), torch.tensor([0, 0])
    assert survival_nll(logits, bins, event).item() == pytest.approx((1 + 4) / 2 * math.log(2))
    loss = survival_nll(logits, bins, event, alpha=1.0)
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_risk_rises_with_the_hazard() -> None:
    low, high = torch.full((1, 4), -2.0), torch.full((1, 4), 2.0)
    assert survival_risk(high) > survival_risk(low)


def _slow_cox(risk: Tensor, time: list[int], event: list[int], ties: Ties) -> Tensor:
    """The partial likelihood event by event, from its definition."""
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
def test_cox_against_the_definition(rows: list[tuple[float, int, int]], ties: Ties) -> None:
    risk, time, event = (list(column) for column in zip(*rows, strict=True))
    columns = torch.tensor(time, dtype=torch.float64), torch.tensor(event)
    found = _with_gradient(lambda leaf: cox_loss(leaf, *columns, ties=ties), risk)
    wanted = _with_gradient(lambda leaf: _slow_cox(leaf, time, event, ties), risk)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("ties", TIES)
def test_cox_against_lifelines(ties: Ties) -> None:
    """At lifelines' own maximum: its log-likelihood (Efron's), and no slope there."""
    generator = np.random.default_rng(0)
    covariates = generator.normal(size=(120, 2))
    time = generator.exponential(np.exp(-covariates @ [0.7, -0.4]))
    time = np.ceil(time * 5) if ties == "efron" else time  # without ties the two methods are one
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
def test_cox_is_stable(ties: Ties) -> None:
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
    ids=["one event", "one censoring", "all censored", "nobody left at risk"],
)
def test_cox_without_comparable_bags_is_zero(ties: Ties, time: list[float], event: list[int]) -> None:
    risk = torch.randn(len(time), requires_grad=True)
    loss = cox_loss(risk, torch.tensor(time), torch.tensor(event), ties=ties)
    loss.backward()
    assert loss == 0
    assert risk.grad is not None
    assert (risk.grad == 0).all()


@given(bags, st.sampled_from(TIES), st.floats(-100, 100))
def test_cox_knows_only_differences(rows: list[tuple[float, int, int]], ties: Ties, shift: float) -> None:
    risk, time, event = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
    risk.requires_grad_()
    loss = cox_loss(risk, time, event, ties=ties)
    loss.backward()
    torch.testing.assert_close(cox_loss(risk + shift, time, event, ties=ties), loss, rtol=0, atol=1e-9)
    assert risk.grad is not None
    assert abs(risk.grad.sum()) < 1e-9


def test_cox_refuses_other_ties() -> None:
    with pytest.raises(ValueError, match="'breslow' or 'efron', not by 'exact'"):
        cox_loss(torch.zeros(1), torch.ones(1), torch.ones(1), ties="exact")  # type: ignore[arg-type]


def _cohort(size: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(size), torch.randint(1, 9, (size,)).float(), torch.randint(0, 2, (size,))


@pytest.mark.parametrize("ties", TIES)
def test_memory_holds_the_latest_bags(ties: Ties) -> None:
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
def test_no_case_meets_its_own_past(memory: int, ties: Ties) -> None:
    """Six cases over and over: each meets the others' last bags, as far as the memory reaches, and never its own."""
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
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
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


def test_two_processes_are_one_with_larger_batches(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_one_of_two, args=(str(tmp_path),), nprocs=2)
    (first, own, memory), (second, others, other_memory) = (
        torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)
    )
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
        averaged = torch.cat([own[step], others[step]]) / 2  # as DDP averages, over both
        torch.testing.assert_close(averaged, live.grad)


def test_memory_learns_from_single_bags() -> None:
    """Bags come one by one: alone none has a gradient, with the memory the risk learns the order of the times."""
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


def test_memory_keeps_no_graph_and_rests_in_evaluation() -> None:
    risk, time, event = _cohort(4)
    loss = CoxLoss(memory=8)
    loss(risk.requires_grad_(), time, event)
    assert not loss.risks.requires_grad
    before = copy.deepcopy(loss.state_dict())
    loss.eval()
    torch.testing.assert_close(loss(-risk, time, event), cox_loss(-risk, time, event))
    torch.testing.assert_close(loss.state_dict(), before)


def test_memory_lies_in_checkpoints() -> None:
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


def test_batch_may_exceed_the_memory() -> None:
    risk, time, event = _cohort(12)
    loss = CoxLoss(memory=5)
    torch.testing.assert_close(loss(risk, time, event), cox_loss(risk, time, event))
    torch.testing.assert_close(loss.risks, risk[-5:])


@pytest.mark.gpu
@pytest.mark.parametrize("ties", TIES)
def test_cox_is_the_same_on_the_gpu(ties: Ties) -> None:
    columns = _cohort(20)
    here, there = CoxLoss(memory=8, ties=ties), CoxLoss(memory=8, ties=ties).cuda()
    for batch in zip(*(column.split(4) for column in columns), strict=True):
        found = there(*(column.cuda() for column in batch))
        torch.testing.assert_close(found.cpu(), here(*batch))


def test_weighted_cross_entropy_is_torchs() -> None:
    logits, label = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    ours = WeightedCrossEntropy([1.0, 2.0, 0.5], label_smoothing=0.1)(logits, label)
    theirs = torch.nn.functional.cross_entropy(
        logits, label, weight=torch.tensor([1.0, 2.0, 0.5]), label_smoothing=0.1
    )
    torch.testing.assert_close(ours, theirs)


def _slow_bce(logits: Tensor, label: list[list[int]], weight: list[float]) -> Tensor:
    """The cross-entropy label by label, from its definition."""
    costs = []
    for row, truth in zip(logits, label, strict=True):
        for k, one in enumerate(truth):
            probability = 1 / (1 + (-row[k]).exp())
            if one == 1:
                costs.append(-weight[k] * probability.log())
            elif one == 0:
                costs.append(-(1 - probability).log())
    return (logits * 0).sum() + sum(costs) / logits.numel()


labelled = st.lists(
    st.tuples(*[st.tuples(st.floats(-5, 5), st.sampled_from([0, 1, -1]))] * 3), min_size=1, max_size=6
)


@given(labelled, st.sampled_from([None, [1.0, 3.0, 0.25]]))
def test_masked_bce_against_the_definition(
    rows: list[tuple[tuple[float, int], ...]], weight: list[float] | None
) -> None:
    values = [[value for value, _ in row] for row in rows]
    label = [[one for _, one in row] for row in rows]
    ours, slow = (torch.tensor(values, dtype=torch.float64, requires_grad=True) for _ in range(2))
    loss, wanted = (
        MaskedBCE(weight).double()(ours, torch.tensor(label)),
        _slow_bce(slow, label, weight or [1.0] * 3),
    )
    torch.testing.assert_close(loss, wanted, rtol=0, atol=1e-12)
    loss.backward()
    wanted.backward()
    torch.testing.assert_close(ours.grad, slow.grad, rtol=0, atol=1e-12)
    assert ours.grad is not None
    assert (ours.grad[torch.tensor(label) < 0] == 0).all()


def test_masked_bce_is_torchs_where_all_is_known() -> None:
    logits, label = torch.randn(6, 3), torch.randint(0, 2, (6, 3))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, label.float())
    torch.testing.assert_close(masked_bce(logits, label), expected)


def test_masked_bce_of_extreme_and_half_precise_logits() -> None:
    logits = torch.tensor([[1e4, -1e4, 1e4]], requires_grad=True)
    masked_bce(logits, torch.tensor([[0, 1, -1]])).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[1 / 3, -1 / 3, 0.0]]))
    half = torch.randn(4, 2).bfloat16()
    label = torch.tensor([[0, 1], [-1, 1], [1, 0], [0, -1]])
    assert masked_bce(half, label).dtype == torch.float32
    assert masked_bce(half, label) == masked_bce(half.float(), label)


def test_masked_bce_of_a_batch_is_the_mean_of_its_bags() -> None:
    """However much is known of each: so processes and accumulated batches add up to one large batch."""
    logits, label = torch.randn(8, 3), torch.randint(-1, 2, (8, 3))
    alone = torch.stack([masked_bce(logits[[bag]], label[[bag]]) for bag in range(8)])
    torch.testing.assert_close(masked_bce(logits, label), alone.mean())
    assert masked_bce(logits, torch.full((8, 3), -1)) == 0


def test_positive_weights_move_with_the_loss() -> None:
    assert list(MaskedBCE([1.0, 2.0]).state_dict()) == ["positive_weight"]
    assert not MaskedBCE().state_dict()
