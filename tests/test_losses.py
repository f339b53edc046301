import math
from pathlib import Path

import pytest
import torch

from e2e_abmilx.losses import SurvivalNLL, survival_nll, survival_risk


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
def test_against_the_definition(alpha: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(20, 5, dtype=torch.float64)
    bins, events = torch.randint(0, 5, (20,)), torch.randint(0, 2, (20,))
    expected = _slow_nll(logits.tolist(), bins.tolist(), events.tolist(), alpha)
    assert survival_nll(logits, bins, events, alpha=alpha).item() == pytest.approx(expected, abs=1e-12)
    assert SurvivalNLL(alpha)(logits, bins, events).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.15, 0.4, 1.0])
@pytest.mark.parametrize("precision", ["f32", "f64"])
def test_against_the_authors(shared: Path, alpha: float, precision: str) -> None:
    reference = torch.load(shared / "reference/survival_reference.pt", weights_only=True)
    wanted = reference[f"alpha{alpha}_{precision}"]
    dtype = torch.float32 if precision == "f32" else torch.float64
    logits = reference["logits"].to(dtype).requires_grad_()
    loss = survival_nll(logits, reference["Y"], 1 - reference["c"], alpha=alpha)
    loss.backward()
    torch.testing.assert_close(loss, wanted["loss"].to(dtype), rtol=0, atol=1e-6)
    torch.testing.assert_close(logits.grad, wanted["grad_logits"].to(dtype), rtol=0, atol=1e-6)


def test_half_precision_is_computed_in_float32() -> None:
    logits = torch.randn(4, 4)
    bins, events = torch.tensor([0, 1, 2, 3]), torch.tensor([1, 0, 1, 0])
    rounded = logits.bfloat16()
    assert survival_nll(rounded, bins, events) == survival_nll(rounded.float(), bins, events)


def test_risk_rises_with_the_hazard() -> None:
    low, high = torch.full((1, 4), -2.0), torch.full((1, 4), 2.0)
    assert survival_risk(high) > survival_risk(low)
