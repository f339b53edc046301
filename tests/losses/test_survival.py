"""The discrete-time survival likelihood, against its definition and the authors' code."""

import math
from pathlib import Path

import pytest
import torch

from e2e_abmilx.losses import SurvivalNLL, survival_nll, survival_risk


def _slow_nll(logits: list[list[float]], bins: list[int], events: list[int], alpha: float) -> float:
    """Return the likelihood from its definition, case by case."""
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
def test_nll_equals_its_definition(alpha: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(20, 5, dtype=torch.float64)
    bins, events = torch.randint(0, 5, (20,)), torch.randint(0, 2, (20,))
    expected = _slow_nll(logits.tolist(), bins.tolist(), events.tolist(), alpha)
    assert survival_nll(logits, bins, events, alpha=alpha).item() == pytest.approx(expected, abs=1e-12)
    assert SurvivalNLL(alpha)(logits, bins, events).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.15, 0.4, 1.0])
@pytest.mark.parametrize("precision", ["f32", "f64"])
def test_nll_equals_the_authors(shared: Path, alpha: float, precision: str) -> None:
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


def test_risk_equals_the_authors(shared: Path) -> None:
    reference = torch.load(shared / "reference/survival_reference.pt", weights_only=True)
    torch.testing.assert_close(survival_risk(reference["logits"]), reference["risk"], rtol=0, atol=1e-6)


def test_half_precision_is_computed_in_float32(shared: Path) -> None:
    reference = torch.load(shared / "reference/survival_reference.pt", weights_only=True)
    half, bins, event = reference["fp16"]["logits"], reference["Y"], 1 - reference["c"]
    loss = survival_nll(half, bins, event)
    assert loss.dtype == torch.float32
    assert loss == survival_nll(half.float(), bins, event)
    assert survival_risk(half).dtype == torch.float32
    # the authors compute in float16, which is less exact
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


def test_nll_of_censored_cases_only() -> None:
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
