"""The sparsity measures, for attention with known results and compared with a loop."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from e2e_abmilx.heads import ABMILX, attention_sparsity


def test_equal_weights() -> None:
    sparsity = attention_sparsity(torch.full((2, 3, 20), 1 / 20))
    torch.testing.assert_close(sparsity.effective_number_of_patches, torch.full((2, 3), 20.0))
    torch.testing.assert_close(sparsity.fraction_holding_95, torch.full((2, 3), 19 / 20))
    torch.testing.assert_close(sparsity.max_n, torch.ones(2, 3))


def test_all_attention_on_one_patch() -> None:
    attention = torch.zeros(1, 1, 20)
    attention[..., 7] = 1
    assert [measure.item() for measure in attention_sparsity(attention)] == pytest.approx([1, 1 / 20, 20])


def test_known_weights() -> None:
    sparsity = attention_sparsity(torch.tensor([[[0.5, 0.3, 0.16, 0.04]]]))
    assert sparsity.effective_number_of_patches.item() == pytest.approx(1 / (0.25 + 0.09 + 0.0256 + 0.0016))
    assert sparsity.fraction_holding_95.item() == pytest.approx(3 / 4)
    assert sparsity.max_n.item() == pytest.approx(2)


def test_padding_is_not_counted() -> None:
    head = ABMILX(6, 2, hidden_features=16, num_heads=2).eval()
    bag = torch.randn(1, 9, 6)
    mask = torch.arange(30)[None] < 9
    padded = attention_sparsity(head.attend(torch.cat([bag, torch.zeros(1, 21, 6)], dim=1), mask).attention, mask)
    alone = attention_sparsity(head.attend(bag).attention)
    for in_batch, single in zip(padded, alone, strict=True):
        torch.testing.assert_close(in_batch, single)


def test_mean_over_heads() -> None:
    sparsity = attention_sparsity(torch.rand(2, 3, 5).softmax(dim=-1))
    for averaged, by_head in zip(sparsity.mean_over_heads(), sparsity, strict=True):
        assert averaged.shape == (2,)
        torch.testing.assert_close(averaged, by_head.mean(dim=1))


def patches_for_95_percent(weights: Tensor) -> int:
    taken, held = 0, 0.0
    for weight in sorted(weights.tolist(), reverse=True):
        if held >= 0.95:
            break
        taken, held = taken + 1, held + weight
    return taken


@given(seed=st.integers(0, 2**31), num_patches=st.integers(1, 50), sharpness=st.floats(0.1, 20))
def test_measures_are_within_bounds_and_equal_a_loop(seed: int, num_patches: int, sharpness: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = sharpness * torch.randn(2, 3, num_patches, generator=generator, dtype=torch.float64)
    attention = scores.softmax(dim=-1)
    effective, fraction, max_n = attention_sparsity(attention)
    assert (effective > 1 - 1e-9).all()
    assert (effective < num_patches + 1e-9).all()
    assert (max_n > 1 - 1e-9).all()
    assert (max_n < num_patches + 1e-9).all()
    for bag in range(2):
        for head in range(3):
            expected = patches_for_95_percent(attention[bag, head]) / num_patches
            assert fraction[bag, head].item() == pytest.approx(expected)
