"""Measures of the sparsity of attention, on which the argument of the ABMILX paper rests."""

from typing import NamedTuple, Self

from torch import Tensor

_ROUNDING = 1e-6  # rounding error of a sum of float32 attention weights


class AttentionSparsity(NamedTuple):
    r"""Three measures of how few patches an attention :math:`p` concentrates on, per attention head: ``(B, H)``.

    Attributes:
        effective_number_of_patches: :math:`1 / \sum_n p_n^2`, from 1 (all attention on one patch) to n (equal weights
            of all n real patches). It is Kish's effective sample size: the weighted mean of the features has the
            variance of a plain mean of that many patches, and the gradient reaches the encoder mainly through that
            many. The exponential of the entropy, the other usual choice, also counts long tails of negligible weights.
        fraction_holding_95: Smallest number of patches that together hold 95 % of the attention, divided by n, in (0, 1].
        max_n: :math:`n \max_n p_n`, the largest weight relative to that of plain averaging: 1 for equal weights, n if
            one patch has all attention. The paper's MAX-N (Table 5) is this over patches known to be noise; without
            patch labels it is taken over all patches.
    """

    effective_number_of_patches: Tensor
    fraction_holding_95: Tensor
    max_n: Tensor

    def mean_over_heads(self) -> Self:
        """Return the measures averaged over the attention heads, shape ``(B,)``."""
        return type(self)(*(measure.mean(dim=-1) for measure in self))


def attention_sparsity(attention: Tensor, mask: Tensor | None = None) -> AttentionSparsity:
    """Return the sparsity of attention, per attention head.

    Args:
        attention: ``HeadOutput.attention``, shape ``(B, H, N)``: sums to 1 and is 0 on padding.
        mask: True on real patches, shape ``(B, N)``; None if no bag is padded.
    """
    num_patches = attention.shape[-1] if mask is None else mask.sum(dim=-1, keepdim=True)
    held = attention.sort(dim=-1, descending=True).values.cumsum(dim=-1)
    # the patches still below 95 %, and the one that reaches it
    holding_95 = (held < 0.95 - _ROUNDING).sum(dim=-1) + 1
    return AttentionSparsity(
        effective_number_of_patches=1 / attention.square().sum(dim=-1),
        fraction_holding_95=holding_95 / num_patches,
        max_n=attention.amax(dim=-1) * num_patches,
    )
