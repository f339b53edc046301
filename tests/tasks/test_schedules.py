"""Learning rates: their course over a run, and the authors' rates."""

import json
from pathlib import Path

import pytest
import torch

from e2e_abmilx.tasks.schedules import WarmupCosine


def _rates(steps: int, lr: float, **how: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    schedule = WarmupCosine(optimizer, steps, **how)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_shape() -> None:
    rates = _rates(100, 1.0, warmup=0.1)
    assert rates[0] == pytest.approx(1e-6)
    assert rates[5] == pytest.approx(0.5, abs=1e-5)
    assert rates[50] == pytest.approx(0.5, abs=1e-5)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    with pytest.raises(ValueError, match=r"warmup is 1\.5"):
        _rates(10, 1.0, warmup=1.5)


def test_a_rounded_fraction_warms_up_for_whole_epochs() -> None:
    rates = _rates(30 * 167, 1.0, warmup=0.16667)
    assert rates[5 * 167 - 1] == max(rates) == pytest.approx(1 - 1 / 835, rel=1e-5)
    assert rates[5 * 167] == pytest.approx(0.933, abs=1e-3)


def test_rates_equal_the_authors(shared: Path) -> None:
    runs = json.loads((shared / "reference/schedule_reference.json").read_text())["schedules"]
    assert len(runs) == 8
    for name, run in runs.items():
        rates = _rates(run["num_epochs"], run["lr"], warmup=run["warmup"] / run["num_epochs"])
        assert rates == pytest.approx(run["per_epoch"], rel=1e-9), name
