"""ABMIL and GatedABMIL, compared with their equations in plain Python."""

import math

import pytest
import torch

from e2e_abmilx.heads import ABMIL, GatedABMIL


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("make", [ABMIL, GatedABMIL])
def test_equals_the_equations_by_hand(make: type[ABMIL]) -> None:
    torch.manual_seed(0)
    head = make(5, 2, hidden_features=7, attention_features=3).double().eval()
    features = torch.randn(1, 9, 5).double()
    output = head.attend(features)
    weights = {name: value.tolist() for name, value in head.state_dict().items()}

    def linear(name: str, x: list[float]) -> list[float]:
        rows, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return [sum(a * b for a, b in zip(row, x, strict=True)) + c for row, c in zip(rows, bias, strict=True)]

    hidden = [[max(x, 0.0) for x in linear("embed.0", patch)] for patch in features[0].tolist()]
    scores = []
    for h in hidden:
        units = [math.tanh(x) for x in linear("tanh_units", h)]
        if make is GatedABMIL:
            units = [unit * sigmoid(x) for unit, x in zip(units, linear("gate", h), strict=True)]
        scores.append(sum(w * unit for w, unit in zip(weights["weigh.weight"][0], units, strict=True)))
    total = sum(math.exp(score) for score in scores)
    attention = [math.exp(score) / total for score in scores]
    embedding = [sum(a * h[i] for a, h in zip(attention, hidden, strict=True)) for i in range(7)]
    assert output.attention[0, 0].tolist() == pytest.approx(attention, abs=1e-12)
    assert output.embedding[0].tolist() == pytest.approx(embedding, abs=1e-12)
    assert output.logits[0].tolist() == pytest.approx(linear("classifier", embedding), abs=1e-12)


def test_size_of_the_gated_head_equals_that_of_the_paper() -> None:
    """0.66 million for 1024 features, as the ABMILX paper's Table 1 lists ABMIL."""
    count = sum(parameter.numel() for parameter in GatedABMIL(1024, 2).parameters())
    assert round(count / 1e6, 2) == 0.66
