"""What all heads share: the softmax over patches, pooling, and heads for which a bag is a sequence."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from e2e_abmilx.heads import BagHead, HeadOutput, SequenceHead
from e2e_abmilx.heads.base import AuxiliaryOutput, attention_pool, check_heads, pool_whole, softmax_over_patches

MASK = torch.tensor([[True, True, True], [True, False, True]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_softmax_is_at_least_float32_and_zero_on_padding(dtype: torch.dtype) -> None:
    scores = torch.randn(2, 4, 3, dtype=dtype)
    attention = softmax_over_patches(scores, MASK)
    assert attention.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert not attention[1, :, 1].any()
    alone = softmax_over_patches(scores[1:, :, [0, 2]], None)
    torch.testing.assert_close(attention[1:, :, [0, 2]], alone)
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(2, 4).to(attention.dtype))


def test_each_attention_head_pools_its_own_slice() -> None:
    attention, hidden = torch.rand(2, 2, 3), torch.randn(2, 3, 6)
    pooled = attention_pool(attention, hidden)
    for bag in range(2):
        for head in range(2):
            own = slice(3 * head, 3 * head + 3)
            expected = sum(attention[bag, head, n] * hidden[bag, n, own] for n in range(3))
            torch.testing.assert_close(pooled[bag, own], expected)


def test_each_attention_head_pools_all_features() -> None:
    attention, hidden = torch.rand(2, 2, 3), torch.randn(2, 3, 6)
    pooled = pool_whole(attention, hidden)
    for bag in range(2):
        for head in range(2):
            expected = sum(attention[bag, head, n] * hidden[bag, n] for n in range(3))
            torch.testing.assert_close(pooled[bag, head], expected)


@pytest.mark.parametrize("pool", [attention_pool, pool_whole])
def test_autocast_does_not_round_the_attention(pool: Callable[[Tensor, Tensor], Tensor]) -> None:
    attention, hidden = torch.randn(1, 1, 300).softmax(dim=-1), torch.randn(1, 300, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = pool(attention, hidden)
    torch.testing.assert_close(pooled, pool(attention, hidden), atol=1e-6, rtol=0)


def test_heads_of_equal_width_are_accepted_and_others_get_the_nearest_divisor() -> None:
    check_heads(512, 8)
    with pytest.raises(ValueError, match="12 is not a multiple of 5; try 4"):
        check_heads(12, 5)


def test_auxiliary_output_unpacks_into_three() -> None:
    output = AuxiliaryOutput(*torch.zeros(3, 1), torch.ones(1))
    logits, attention, embedding = output
    assert len(output) == 3
    assert not (logits + attention + embedding).any()
    assert output.auxiliary.item() == 1


class _First(SequenceHead):
    """The first patch decides, and the number of patches shows."""

    def attend_unpadded(self, features: Tensor) -> HeadOutput:
        attention = torch.zeros(len(features), 1, features.shape[1])
        attention[..., 0] = 1
        return HeadOutput(features[:, 0, : self.num_outputs], attention, features.sum(dim=1))


def test_a_sequence_head_never_sees_padding() -> None:
    features = torch.arange(12.0).reshape(2, 3, 2)
    mask = torch.tensor([[True, True, True], [False, True, True]])
    output = _First(2, 1).attend(features, mask)
    assert output.logits.tolist() == [[0.0], [8.0]]
    assert output.attention.tolist() == [[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]]
    assert output.embedding.tolist() == [[6.0, 9.0], [18.0, 20.0]]


def test_padding_is_blanked_in_a_copy() -> None:
    class _Sum(BagHead):
        def attend(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
            raise NotImplementedError

    features = torch.full((2, 3, 4), float("nan"))
    features[MASK] = 1.0
    before = features.clone()
    blanked = _Sum(4, 1).blank_padding(features, MASK)
    assert torch.equal(blanked, MASK.unsqueeze(-1).expand(-1, -1, 4).float())
    assert torch.equal(features.isnan(), before.isnan())
