"""How sparse is the attention? The quantities that the ABMILX paper's argument rests on."""

from typing import NamedTuple, Self

from torch import Tensor

_ROUNDING = 1e-6  # of a sum of float32 attention weights


class AttentionSparsity(NamedTuple):
    r"""Three measures of how few patches an attention :math:`p` looks at; shape ``(B, H)``, one a head.

    Attributes:
        effective_number_of_patches: :math:`1 / \sum_n p_n^2`, from 1 (one patch) to n (all n real patches alike). It is
            Kish's effective sample size: the weighted mean of the features is as noisy as a plain mean of so many
            patches, and the gradient reaches the encoder through about so many. The exponential of the entropy,
            the other usual choice, would also count long tails of weights too small to matter there.
        fraction_holding_95: the fewest patches that together hold 95 % of the attention, as a share of n, in (0, 1].
        max_n: :math:`n \max_n p_n`, how far the largest weight exceeds that of plain averaging: 1 when all patches
            count alike, n when one takes all. The paper's MAX-N (Table 5) is this over patches known to be noise;
            without patch labels all patches are looked at.
    """

    effective_number_of_patches: Tensor
    fraction_holding_95: Tensor
    max_n: Tensor

    def mean_over_heads(self) -> Self:
        """Return the same measures averaged over a bag's heads, shape ``(B,)``."""
        return type(self)(*(measure.mean(dim=-1) for measure in self))


def attention_sparsity(attention: Tensor, mask: Tensor | None = None) -> AttentionSparsity:
    """Measure the sparsity of attention, head by head.

    Args:
        attention: ``HeadOutput.attention``, shape ``(B, H, N)``: sums to 1, is 0 on padding.
        mask: True on real patches, shape ``(B, N)``; None when no bag is padded.

    Returns:
        The measures, each of shape ``(B, H)``.
    """
    num_patches = attention.shape[-1] if mask is None else mask.sum(dim=-1, keepdim=True)
    held = attention.sort(dim=-1, descending=True).values.cumsum(dim=-1)
    # The patch that reaches 95 % counts too, hence those still below it and one more.
    holding_95 = (held < 0.95 - _ROUNDING).sum(dim=-1) + 1
    return AttentionSparsity(
        effective_number_of_patches=1 / attention.square().sum(dim=-1),
        fraction_holding_95=holding_95 / num_patches,
        max_n=attention.amax(dim=-1) * num_patches,
    )
