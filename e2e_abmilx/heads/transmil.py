"""TransMIL: a transformer with attention of linear cost over the patches of a bag (arXiv:2106.00908)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e2e_abmilx.heads.base import HeadOutput, SequenceHead, check_heads


class TransMIL(SequenceHead):
    r"""TransMIL of Shao et al.: Algorithm 2 of the paper, the "TPT module", with a class token.

    1. ``embed`` the patches; repeat the first ones until they fill a square; prepend ``class_token``.
    2. ``first``, a layer of self-attention, :math:`x + \mathrm{Nyström}(\mathrm{LayerNorm}(x))`.
    3. ``position`` ("PPEG"): position encoding by convolutions of width 7, 5 and 3 over the square.
    4. ``second``, another layer; LayerNorm; ``classifier`` of the class token.

    The square follows the order of the patches, not their position on the slide, so the order matters; see
    :class:`SequenceHead` for the consequences for padding. Time and memory grow linearly with N.

    ``HeadOutput.attention`` is the class token's row of softmax attention in the second layer, which Nyström
    approximates, rescaled to sum to 1 over the patches. Repeated patches add the weights of their copies. It has no
    gradient.

    With the authors' weights, the results differ from the authors' code in two points only: the initial value of the
    inverse, which there depends on the other heads and bags, and the segments that landmarks average; see
    :func:`nystrom_attention`.

    Not torchmil's TransMIL, which takes no mask, has one output and returns N×N attention.

    Args:
        hidden_features: C, width after the input projection; 512 as in the paper.
        num_heads: H of both layers; 8 as in the authors' code. Must divide ``hidden_features``.
        num_landmarks: Number of landmarks, which represent all queries and keys; 256 as in the authors' code. Sequences
            that are not longer get exact attention.
        dropout: Dropout probability after the attention of each layer; 0.1 as in the authors' code.

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
        num_landmarks: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(in_features, num_outputs)
        check_heads(hidden_features, num_heads)
        self.embed = nn.Sequential(nn.Linear(in_features, hidden_features), nn.ReLU())
        self.class_token = nn.Parameter(torch.randn(hidden_features))
        self.first = NystromLayer(hidden_features, num_heads, num_landmarks, dropout)
        self.position = PyramidPosition(hidden_features)
        self.second = NystromLayer(hidden_features, num_heads, num_landmarks, dropout)
        self.norm = nn.LayerNorm(hidden_features)
        self.classifier = nn.Linear(hidden_features, num_outputs)

    def attend_unpadded(self, features: Tensor) -> HeadOutput:
        """Return logits, attention and embedding; see :meth:`SequenceHead.attend_unpadded`."""
        num_bags, num_patches = features.shape[:2]
        side = math.isqrt(num_patches - 1) + 1
        copies = side**2 - num_patches
        hidden = self.embed(features)
        token = self.class_token.to(hidden.dtype).expand(num_bags, 1, -1)
        tokens, _ = self.first(torch.cat([token, hidden, hidden[:, :copies]], dim=1))
        tokens, attention = self.second(self.position(tokens, side))
        attention[..., 1 : copies + 1] += attention[..., num_patches + 1 :]
        attention = attention[..., 1 : num_patches + 1]
        embedding = self.norm(tokens[:, 0])
        return HeadOutput(self.classifier(embedding), attention / attention.sum(dim=-1, keepdim=True), embedding)


class NystromLayer(nn.Module):
    r"""One layer of self-attention, :math:`x + \mathrm{Nyström}(\mathrm{LayerNorm}(x))`, without a feed-forward block.

    As in the Nyströmformer (arXiv:2102.03902), a convolution along the sequence, 33 tokens wide, one per attention head,
    is added to the attention. The arguments are those of :class:`TransMIL`, with ``features`` = C.
    """

    def __init__(self, features: int, num_heads: int, num_landmarks: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.num_landmarks = num_heads, num_landmarks
        self.norm = nn.LayerNorm(features)
        self.query_key_value = nn.Linear(features, 3 * features, bias=False)
        self.neighbours = nn.Conv2d(num_heads, num_heads, (33, 1), padding=(16, 0), groups=num_heads, bias=False)
        self.project = nn.Sequential(nn.Linear(features, features), nn.Dropout(dropout))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return mixed tokens, ``(B, N, C)``, and the first token's attention, ``(B, H, N)``, without gradient."""
        packed = self.query_key_value(self.norm(tokens)).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = packed.permute(2, 0, 3, 1, 4)
        mixed = nystrom_attention(query, key, value, self.num_landmarks) + self.neighbours(value)
        return tokens + self.project(mixed.transpose(1, 2).flatten(2)), _attention_of_first(query, key)


class PyramidPosition(nn.Module):
    r"""PPEG: :math:`x + x * w_7 + x * w_5 + x * w_3`, depthwise convolutions over a square of tokens, C = ``features``.

    All terms are linear in x, so one convolution with the sum of the kernels and one bias replaces three.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.seven = nn.Conv2d(features, features, 7, groups=features)
        self.five = nn.Conv2d(features, features, 5, groups=features, bias=False)
        self.three = nn.Conv2d(features, features, 3, groups=features, bias=False)

    def forward(self, tokens: Tensor, side: int) -> Tensor:
        """Encode positions in tokens ``(B, 1 + side², C)``; the first, the class token, is returned unchanged."""
        kernel = self.seven.weight + F.pad(self.five.weight, [1] * 4) + F.pad(self.three.weight, [2] * 4)
        square = tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, side, side)
        encoding = F.conv2d(square, kernel, self.seven.bias, padding=3, groups=len(kernel))
        return torch.cat([tokens[:, :1], tokens[:, 1:] + encoding.flatten(2).transpose(1, 2)], dim=1)


def nystrom_attention(query: Tensor, key: Tensor, value: Tensor, num_landmarks: int) -> Tensor:
    r"""Approximate softmax attention by the Nyström method, Eq. 15 of arXiv:2102.03902, in memory linear in N.

    .. math::

        \mathrm{softmax}\Bigl(\frac{Q \tilde K^\top}{\sqrt d}\Bigr)\,
        \mathrm{softmax}\Bigl(\frac{\tilde Q \tilde K^\top}{\sqrt d}\Bigr)^{\!+}
        \Bigl(\mathrm{softmax}\Bigl(\frac{\tilde Q K^\top}{\sqrt d}\Bigr) V\Bigr)

    Multiplied from the right, the outer factors are two fused attentions, which are never in memory. Landmarks
    :math:`\tilde Q, \tilde K` are means over segments of the sequence. The paper pads it with zeros to make segments of
    equal length, and these zeros receive attention; here some segments are longer by one token instead.

    Args:
        query: Q, shape ``(B, H, N, d)``.
        key: K, like Q.
        value: V, like Q.
        num_landmarks: M; if M ≥ N, exact softmax attention is computed.
    """
    if query.shape[2] <= num_landmarks:
        return F.scaled_dot_product_attention(query, key, value)
    dtype = torch.promote_types(query.dtype, torch.float32)  # the inverse magnifies rounding
    with torch.autocast(query.device.type, enabled=False):
        query_marks, key_marks = _segment_means(query, num_landmarks), _segment_means(key, num_landmarks)
        gathered = F.scaled_dot_product_attention(query_marks, key, value).to(dtype)
        query_marks, key_marks = query_marks.to(dtype), key_marks.to(dtype)
        between = (query_marks @ key_marks.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(dim=-1)
        gathered = pseudo_inverse(between) @ gathered
        mixed = F.scaled_dot_product_attention(query.to(dtype), key_marks, gathered)
    return mixed.to(query.dtype)


def pseudo_inverse(matrix: Tensor, iterations: int = 6) -> Tensor:
    r"""Approximate the Moore–Penrose inverse of matrices A, shape ``(…, M, M)``, by the Nyströmformer's iteration, six times as there.

    .. math:: Z \leftarrow \tfrac14 Z (13 I - A Z (15 I - A Z (7 I - A Z))), \qquad
        Z_0 = A^\top / (\lVert A \rVert_1 \lVert A \rVert_\infty)
    """
    columns, rows = matrix.abs().sum(dim=-2).amax(dim=-1), matrix.abs().sum(dim=-1).amax(dim=-1)
    inverse = matrix.transpose(-1, -2) / (columns * rows)[..., None, None]
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    for _ in range(iterations):
        product = matrix @ inverse
        inner = 15 * identity - product @ (7 * identity - product)
        inverse = inverse @ (13 * identity - product @ inner) / 4
    return inverse


def _segment_means(sequence: Tensor, count: int) -> Tensor:
    """Return means over ``count`` segments of a sequence ``(B, H, N, d)``; the first N mod count are one longer."""
    bags, heads, num_tokens, features = sequence.shape
    length, longer = divmod(num_tokens, count)
    head, tail = torch.split(sequence, [longer * (length + 1), (count - longer) * length], dim=2)
    means = [
        head.reshape(bags, heads, longer, length + 1, features).mean(dim=3),
        tail.reshape(bags, heads, count - longer, length, features).mean(dim=3),
    ]
    return torch.cat(means, dim=2)


@torch.no_grad()
def _attention_of_first(query: Tensor, key: Tensor) -> Tensor:
    """Return the softmax attention of the first query, shape ``(B, H, N)``, in at least float32."""
    scores = (key @ query[:, :, :1].transpose(-1, -2)).squeeze(-1) * query.shape[-1] ** -0.5
    attention: Tensor = scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(dim=-1)
    return attention
