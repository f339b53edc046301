"""RRT-MIL: self-attention within and across regions of patches before pooling (arXiv:2402.17228)."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e2e_abmilx.heads.base import HeadOutput, SequenceHead, attention_pool, check_heads, softmax_over_patches


class RRTMIL(SequenceHead):
    r"""Re-embedded regional transformer of Tang et al. in front of attention-based MIL ("R²T-MIL").

    The sequence of patches is laid out in a square of ``regions_per_side``² regions. Two layers follow, each with a
    LayerNorm before it and a residual connection around it:

    1. ``regional`` (R-MSA): self-attention within each region, with the position encoding EPEG.
    2. ``crossing`` (CR-MSA): see :class:`CrossRegionAttention`.

    Then come a LayerNorm, one tanh attention over all patches (``HeadOutput.attention``, H = 1), and ``classifier``.

    The square follows the order of the patches, not their position on the slide, so the order matters; see
    :class:`SequenceHead` for the consequences for padding. The authors fill the square with zeros that take part in
    the attention; here they do not. In bags with no more patches than regions, every region has one patch. Time grows
    with N² (self-attention within regions), memory with N.

    Included as the recent head, because it is best or second best on most tasks in Tables 1 and 2 of the ABMILX paper,
    needs neither coordinates (as 2DMamba does) nor N² memory (as WiKG does), and collapses end to end according to the
    paper, which users can check. torchmil has no such head.

    Args:
        hidden_features: C, width after the input projection; 512 as in the paper.
        num_heads: H of both self-attentions; 8 as in the authors' code. Must divide ``hidden_features``.
        attention_features: Hidden units of the pooling attention; 128 as in the authors' code.
        regions_per_side: Regions along each side of the square; 8 as in the authors' code.
        kernel_size: Odd width of EPEG's convolution; 15 as in the authors' code, which tunes it per task.
        num_representatives: Representatives of a region in CR-MSA; 3 as in the authors' code, which tunes it per task.
        dropout: Dropout probability after the input projection; 0.25 as in the authors' code.
        attention_dropout: Dropout probability after each self-attention; 0.1 as in the authors' code.

    Raises:
        ValueError: ``num_heads`` does not divide ``hidden_features``.
    """

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        *,
        hidden_features: int = 512,
        num_heads: int = 8,
        attention_features: int = 128,
        regions_per_side: int = 8,
        kernel_size: int = 15,
        num_representatives: int = 3,
        dropout: float = 0.25,
        attention_dropout: float = 0.1,
    ) -> None:
        super().__init__(in_features, num_outputs)
        check_heads(hidden_features, num_heads)
        self.regions_per_side = regions_per_side
        self.embed = nn.Sequential(nn.Linear(in_features, hidden_features), nn.ReLU(), nn.Dropout(dropout))
        self.regional_norm = nn.LayerNorm(hidden_features)
        self.regional = RegionalAttention(hidden_features, num_heads, kernel_size)
        self.crossing_norm = nn.LayerNorm(hidden_features)
        self.crossing = CrossRegionAttention(hidden_features, num_heads, num_representatives)
        self.attention_dropout = nn.Dropout(attention_dropout)
        self.norm = nn.LayerNorm(hidden_features)
        self.tanh_units = nn.Linear(hidden_features, attention_features, bias=False)
        self.weigh = nn.Linear(attention_features, 1, bias=False)
        self.classifier = nn.Linear(hidden_features, num_outputs)

    def attend_unpadded(self, features: Tensor) -> HeadOutput:
        """Return logits, attention and embedding; see :meth:`SequenceHead.attend_unpadded`."""
        regions = _Regions(features.shape[1], self.regions_per_side, features.device)
        hidden = self.embed(features)
        for norm, mix in ((self.regional_norm, self.regional), (self.crossing_norm, self.crossing)):
            mixed = regions.merge(mix(regions.split(norm(hidden)), regions.real))
            hidden = hidden + self.attention_dropout(mixed)
        hidden = self.norm(hidden)
        scores = self.weigh(torch.tanh(self.tanh_units(hidden))).transpose(1, 2)
        attention = softmax_over_patches(scores, None)
        embedding = attention_pool(attention, hidden)
        return HeadOutput(self.classifier(embedding), attention, embedding)


class SelfAttention(nn.Module):
    """Masked self-attention with ``num_heads`` = H heads over the last dimension but one, for ``features`` = C."""

    def __init__(self, features: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(features, 3 * features)
        self.project = nn.Linear(features, features)

    def forward(self, tokens: Tensor, real: Tensor | None = None) -> Tensor:
        """Mix tokens ``(B, R, T, C)`` within each region; only ``real`` tokens, ``(R, T)``, are attended to."""
        packed = self.query_key_value(tokens).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = packed.flatten(0, 1).permute(2, 0, 3, 1, 4)
        if real is not None:
            real = real.repeat(len(tokens), 1)[:, None, None]
        mixed = F.scaled_dot_product_attention(self._encode_position(query, real), key, value, real)
        projected: Tensor = self.project(mixed.transpose(1, 2).reshape(tokens.shape))
        return projected

    def _encode_position(self, query: Tensor, real: Tensor | None) -> Tensor:
        """Return the queries ``(R, H, T, d)``; a subclass adds a position encoding."""
        return query


class RegionalAttention(SelfAttention):
    r"""R-MSA: self-attention within regions, with EPEG, a convolution of width ``kernel_size`` per attention head.

    EPEG is :math:`e + e * w` for attention scores :math:`e_{ij} = q_i^\top k_j`. Since it convolves along i, it equals
    :math:`(q + q * w)_i^\top k_j`: here the queries are convolved, so that the scores are never in memory. EPEG's bias is
    left out, because the softmax cancels it.
    """

    def __init__(self, features: int, num_heads: int, kernel_size: int) -> None:
        super().__init__(features, num_heads)
        kernel, padding = (kernel_size, 1), (kernel_size // 2, 0)
        self.position = nn.Conv2d(num_heads, num_heads, kernel, padding=padding, groups=num_heads, bias=False)

    def _encode_position(self, query: Tensor, real: Tensor | None) -> Tensor:
        if real is not None:
            query = query.masked_fill(~real.transpose(-1, -2), 0)
        encoded: Tensor = query + self.position(query)
        return encoded


class CrossRegionAttention(nn.Module):
    r"""CR-MSA: self-attention between ``num_representatives`` weighted means of the tokens of each region.

    .. math::

        S = X \Phi, \qquad
        R = \mathrm{MSA}\bigl(\mathrm{softmax}_t(S)^\top X\bigr), \qquad
        Y = \bigl(\mathrm{softmax}_k(S) \odot \mathrm{minmax}_t(S)\bigr) R

    X holds the patches t of a region, :math:`\Phi` is ``represent``, with one column per representative k, and MSA is
    self-attention over the regions, with ``num_heads`` = H heads. minmax scales a column of S to [0, 1].
    """

    def __init__(self, features: int, num_heads: int, num_representatives: int) -> None:
        super().__init__()
        self.represent = nn.Linear(features, num_representatives, bias=False)
        self.attention = SelfAttention(features, num_heads)

    def forward(self, tokens: Tensor, real: Tensor) -> Tensor:
        """Mix the ``real`` tokens, ``(R, T)``, among the tokens ``(B, R, T, C)``."""
        scores = self.represent(tokens)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        absent = ~real.unsqueeze(-1)
        present = scores.masked_fill(absent, float("-inf"))
        gather = present.softmax(dim=2).to(tokens.dtype)
        representatives = (gather.transpose(-1, -2) @ tokens).transpose(1, 2)
        attended = self.attention(representatives).transpose(1, 2)
        low = scores.masked_fill(absent, float("inf")).amin(dim=2, keepdim=True)
        high = present.amax(dim=2, keepdim=True)
        relevance = (scores - low) / (high - low + 1e-8)
        mixed: Tensor = (scores.softmax(dim=-1) * relevance).to(attended.dtype) @ attended
        return mixed


class _Regions:
    """Division of a bag's N patches, laid out row by row in a square, into R square regions of T positions each.

    Regions without a patch are left out; ``real``, shape ``(R, T)``, is True at positions that have a patch.
    """

    def __init__(self, num_patches: int, per_side: int, device: torch.device) -> None:
        rows = math.isqrt(num_patches - 1) + 1
        self.num_patches, self.per_side = num_patches, per_side
        self.side = math.ceil(rows / per_side)  # of a region
        # computed on the CPU, because the number of occupied regions decides shapes
        square = np.arange((per_side * self.side) ** 2).reshape(per_side, self.side, per_side, self.side)
        positions = square.transpose(0, 2, 1, 3).reshape(per_side**2, self.side**2)
        occupied = np.flatnonzero(positions[:, 0] < num_patches)
        self.occupied = torch.from_numpy(occupied).to(device, non_blocking=True)
        self.real = torch.from_numpy(positions[occupied] < num_patches).to(device, non_blocking=True)

    def split(self, tokens: Tensor) -> Tensor:
        """Divide tokens into regions: ``(B, N, C)`` → ``(B, R, T, C)``, zeros at positions without a patch."""
        padded = F.pad(tokens, (0, 0, 0, (self.per_side * self.side) ** 2 - self.num_patches))
        square = padded.reshape(len(tokens), self.per_side, self.side, self.per_side, self.side, -1)
        return square.transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, self.occupied]

    def merge(self, regions: Tensor) -> Tensor:
        """Undo :meth:`split`: ``(B, R, T, C)`` → ``(B, N, C)``."""
        bags, _, _, features = regions.shape
        whole = regions.new_zeros(bags, self.per_side**2, self.side**2, features)
        whole[:, self.occupied] = regions
        square = whole.reshape(bags, self.per_side, self.per_side, self.side, self.side, features)
        return square.transpose(2, 3).flatten(1, 4)[:, : self.num_patches]
