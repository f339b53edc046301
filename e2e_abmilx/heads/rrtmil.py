"""RRT-MIL: patches look around in their region before they are pooled (arXiv:2402.17228)."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e2e_abmilx.heads.base import HeadOutput, SequenceHead, attention_pool, check_heads, softmax_over_patches


class RRTMIL(SequenceHead):
    r"""Re-embedded regional transformer of Tang et al. in front of attention-based MIL ("R²T-MIL").

    The sequence of patches is laid out in a square of ``regions_per_side``² regions. Then, with a LayerNorm before and
    a shortcut around each:

    1. ``regional`` (R-MSA): self-attention within each region. Its EPEG, :math:`e + e * w` for attention scores
       :math:`e_{ij} = q_i^\top k_j`, convolves along i, hence is :math:`(q + q * w)_i^\top k_j`: here the queries are
       convolved, exactly the same, and the scores are never in memory.
    2. ``crossing`` (CR-MSA): see :class:`CrossRegionAttention`.

    Last a LayerNorm, one tanh attention over all patches (``HeadOutput.attention``, H = 1), and ``classifier``.

    The square follows the order of the patches, not their place on the slide, so the order matters; see
    :class:`SequenceHead` for what that means for padding. The authors fill the square up with zeros that take part in
    the attention; here they take no part. Bags of no more patches than regions have nothing to look around at. Time
    grows with N², a region's patches seeing each other, memory with N.

    Chosen as the recent head: of those in the ABMILX paper's Tables 1 and 2 it is the best or second on most tasks, it
    needs neither coordinates (2DMamba) nor N² memory (WiKG), and the paper reports that it collapses end to end, which
    everyone can check with it. Written anew because torchmil has none.

    Args:
        in_features: D, features of a patch.
        num_outputs: K, classes or survival bins.
        hidden_features: C, width after the input projection; 512 as in the paper.
        num_heads: heads of both self-attentions; 8 as in the authors' code. Must divide ``hidden_features``.
        attention_features: hidden units of the pooling attention; 128 as in the authors' code.
        regions_per_side: regions along each side of the square; 8 as in the authors' code.
        kernel_size: odd width of EPEG's convolution; 15 as in the authors' code, which tunes it for each task.
        num_representatives: what stands for a region in CR-MSA; 3 as in the authors' code, likewise.
        dropout: probability after the input projection; 0.25 as in the authors' code.
        attention_dropout: probability after each self-attention; 0.1 as in the authors' code.

    Raises:
        ValueError: if ``num_heads`` does not divide ``hidden_features``.
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
        """Return logits, attention and embedding as :meth:`SequenceHead.attend_unpadded` says."""
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
    """Multi-head self-attention over the last but one dimension, with a mask.

    Args:
        features: C.
        num_heads: H.
    """

    def __init__(self, features: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(features, 3 * features)
        self.project = nn.Linear(features, features)

    def forward(self, tokens: Tensor, real: Tensor | None = None) -> Tensor:
        """Mix tokens ``(B, R, T, C)`` within each R; only those that are ``real``, ``(R, T)``, are looked at."""
        packed = self.query_key_value(tokens).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = packed.flatten(0, 1).permute(2, 0, 3, 1, 4)
        if real is not None:
            real = real.repeat(len(tokens), 1)[:, None, None]
        mixed = F.scaled_dot_product_attention(self._place(query, real), key, value, real)
        projected: Tensor = self.project(mixed.transpose(1, 2).reshape(tokens.shape))
        return projected

    def _place(self, query: Tensor, real: Tensor | None) -> Tensor:
        """Leave queries ``(R, H, T, d)`` as they are; a subclass tells them where they stand."""
        return query


class RegionalAttention(SelfAttention):
    """R-MSA: self-attention within regions, with EPEG.

    EPEG's bias has no effect, the softmax cancels it, and so it is left out.

    Args:
        features: C.
        num_heads: H.
        kernel_size: of EPEG's convolution along the sequence, one a head.
    """

    def __init__(self, features: int, num_heads: int, kernel_size: int) -> None:
        super().__init__(features, num_heads)
        self.position = nn.Conv2d(
            num_heads,
            num_heads,
            (kernel_size, 1),
            padding=(kernel_size // 2, 0),
            groups=num_heads,
            bias=False,
        )

    def _place(self, query: Tensor, real: Tensor | None) -> Tensor:
        if real is not None:
            query = query.masked_fill(~real.transpose(-1, -2), 0)
        placed: Tensor = query + self.position(query)
        return placed


class CrossRegionAttention(nn.Module):
    r"""CR-MSA: a few representatives of each region attend to those of the others and report back.

    .. math::

        S = X \Phi, \qquad
        R = \mathrm{MSA}\bigl(\mathrm{softmax}_t(S)^\top X\bigr), \qquad
        Y = \bigl(\mathrm{softmax}_k(S) \odot \mathrm{minmax}_t(S)\bigr) R

    X holds the patches t of a region, :math:`\Phi` is ``represent`` with a column for each representative k, and MSA
    runs over the regions. minmax scales a column of S to 0 … 1.

    Args:
        features: C.
        num_heads: H of the MSA.
        num_representatives: columns of Φ.
    """

    def __init__(self, features: int, num_heads: int, num_representatives: int) -> None:
        super().__init__()
        self.represent = nn.Linear(features, num_representatives, bias=False)
        self.attention = SelfAttention(features, num_heads)

    def forward(self, tokens: Tensor, real: Tensor) -> Tensor:
        """Mix tokens of shape ``(B, R, T, C)``, of which those that are ``real``, ``(R, T)``, take part."""
        scores = self.represent(tokens)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        absent = ~real.unsqueeze(-1)
        present = scores.masked_fill(absent, float("-inf"))
        gather = present.softmax(dim=2).to(tokens.dtype)
        representatives = (gather.transpose(-1, -2) @ tokens).transpose(1, 2)
        reports = self.attention(representatives).transpose(1, 2)
        low = scores.masked_fill(absent, float("inf")).amin(dim=2, keepdim=True)
        high = present.amax(dim=2, keepdim=True)
        relevance = (scores - low) / (high - low + 1e-8)
        mixed: Tensor = (scores.softmax(dim=-1) * relevance).to(reports.dtype) @ reports
        return mixed


class _Regions:
    """Squares of patches: how the sequence of a bag's N patches, row by row, falls into R regions of T places each.

    Regions without a patch are left out; ``real``, shape ``(R, T)``, says which places of the others have one.
    """

    def __init__(self, num_patches: int, per_side: int, device: torch.device) -> None:
        rows = math.isqrt(num_patches - 1) + 1
        self.num_patches, self.per_side = num_patches, per_side
        self.side = math.ceil(rows / per_side)  # of a region
        # worked out on the CPU: a GPU would have to be asked how many regions are occupied
        square = np.arange((per_side * self.side) ** 2).reshape(per_side, self.side, per_side, self.side)
        places = square.transpose(0, 2, 1, 3).reshape(per_side**2, self.side**2)
        occupied = np.flatnonzero(places[:, 0] < num_patches)
        self.occupied = torch.from_numpy(occupied).to(device, non_blocking=True)
        self.real = torch.from_numpy(places[occupied] < num_patches).to(device, non_blocking=True)

    def split(self, tokens: Tensor) -> Tensor:
        """``(B, N, C)`` → ``(B, R, T, C)``, zeros where there is no patch."""
        square = (self.per_side * self.side) ** 2
        return self._cut(F.pad(tokens, (0, 0, 0, square - self.num_patches)))[:, self.occupied]

    def merge(self, regions: Tensor) -> Tensor:
        """``(B, R, T, C)`` → ``(B, N, C)``."""
        bags, _, _, features = regions.shape
        whole = regions.new_zeros(bags, self.per_side**2, self.side**2, features)
        whole[:, self.occupied] = regions
        square = whole.reshape(bags, self.per_side, self.per_side, self.side, self.side, features)
        return square.transpose(2, 3).flatten(1, 4)[:, : self.num_patches]

    def _cut(self, square: Tensor) -> Tensor:
        """``(B, (per_side · side)², C)`` → ``(B, per_side², side², C)``."""
        bags, _, features = square.shape
        rows_and_columns = square.reshape(bags, self.per_side, self.side, self.per_side, self.side, features)
        return rows_and_columns.transpose(2, 3).flatten(3, 4).flatten(1, 2)
