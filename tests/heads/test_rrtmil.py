"""RRT-MIL, compared with the paper's R-MSA, EPEG and CR-MSA, computed in loops over regions."""

import math

import pytest
import torch
from torch import Tensor

from e2e_abmilx.heads import RRTMIL
from e2e_abmilx.heads.rrtmil import CrossRegionAttention, RegionalAttention, SelfAttention

C, H = 8, 2


def regions_reference(num_patches: int, per_side: int) -> list[list[int]]:
    """Return the patches of each region of the square, row by row, without empty regions."""
    side = math.ceil(math.ceil(math.sqrt(num_patches)) / per_side)
    regions: dict[tuple[int, int], list[int]] = {}
    for patch in range(num_patches):
        row, column = divmod(patch, per_side * side)
        regions.setdefault((row // side, column // side), []).append(patch)
    return [regions[place] for place in sorted(regions)]


def attention_reference(layer: SelfAttention, tokens: Tensor) -> Tensor:
    """Return the self-attention of one region's tokens ``(T, C)``, with EPEG on the scores if the layer has it."""
    query, key, value = (tokens @ layer.query_key_value.weight.T + layer.query_key_value.bias).chunk(3, dim=1)
    heads = []
    for head in range(H):
        own = slice(head * C // H, (head + 1) * C // H)
        scores = query[:, own] @ key[:, own].T / math.sqrt(C / H)
        if isinstance(layer, RegionalAttention):
            kernel = layer.position.weight[head, 0, :, 0]
            position = torch.zeros_like(scores)
            for i in range(len(tokens)):
                for step, weight in enumerate(kernel, start=-(len(kernel) // 2)):
                    if 0 <= i + step < len(tokens):
                        position[i] += weight * scores[i + step]
            scores = scores + position
        heads.append(scores.softmax(dim=1) @ value[:, own])
    return torch.cat(heads, dim=1) @ layer.project.weight.T + layer.project.bias


def crossing_reference(layer: CrossRegionAttention, regions: list[Tensor]) -> list[Tensor]:
    """Return CR-MSA over regions of tokens ``(T, C)``, which may have different lengths."""
    scores = [tokens @ layer.represent.weight.T for tokens in regions]
    number = scores[0].shape[1]
    attended = []
    for k in range(number):
        representatives = [s[:, k].softmax(dim=0) @ tokens for s, tokens in zip(scores, regions, strict=True)]
        attended.append(attention_reference(layer.attention, torch.stack(representatives)))
    mixed = []
    for region, s in enumerate(scores):
        rows = []
        for t in range(len(s)):
            fractions = s[t].softmax(dim=0)
            row = torch.zeros(C).double()
            for k in range(number):
                low, high = s[:, k].min(), s[:, k].max()
                row += fractions[k] * (s[t, k] - low) / (high - low + 1e-8) * attended[k][region]
            rows.append(row)
        mixed.append(torch.stack(rows))
    return mixed


def small_head() -> RRTMIL:
    torch.manual_seed(0)
    head = RRTMIL(5, 3, hidden_features=C, num_heads=H, attention_features=4, regions_per_side=2, kernel_size=3)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return head.double().eval()


@pytest.mark.parametrize("num_patches", [1, 2, 5, 16, 17, 30])
@torch.no_grad()
def test_equals_the_equations(num_patches: int) -> None:
    head = small_head()
    features = torch.randn(num_patches, 5).double()
    hidden = (features @ head.embed[0].weight.T + head.embed[0].bias).relu()
    regions = regions_reference(num_patches, 2)

    normed = head.regional_norm(hidden)
    mixed = torch.zeros_like(hidden)
    for members in regions:
        mixed[members] = attention_reference(head.regional, normed[members])
    hidden = hidden + mixed
    normed = head.crossing_norm(hidden)
    crossed = crossing_reference(head.crossing, [normed[members] for members in regions])
    for members, rows in zip(regions, crossed, strict=True):
        mixed[members] = rows
    hidden = head.norm(hidden + mixed)
    scores = torch.stack([head.weigh.weight[0] @ torch.tanh(head.tanh_units.weight @ h) for h in hidden])
    attention = scores.softmax(dim=0)

    output = head.attend(features.unsqueeze(0))
    torch.testing.assert_close(output.attention[0, 0], attention, atol=1e-9, rtol=0)
    torch.testing.assert_close(output.embedding[0], attention @ hidden, atol=1e-9, rtol=0)
    torch.testing.assert_close(output.logits[0], head.classifier(attention @ hidden), atol=1e-9, rtol=0)


def test_order_matters() -> None:
    head = small_head()
    features = torch.randn(1, 30, 5).double()
    assert not torch.allclose(head(features), head(features.flip(1)), atol=1e-3)


def test_regions_of_one_patch_give_no_gradient_to_the_crossing_layer() -> None:
    head = RRTMIL(5, 3, regions_per_side=8).eval()
    head(torch.randn(1, 64, 5)).sum().backward()
    assert not head.crossing.represent.weight.grad.any()
