"""ABMILX: multi-head local attention whose scores are refined by global correlation (arXiv:2506.02408)."""

from collections.abc import Mapping
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e2e_abmilx.heads.base import HeadOutput, attention_pool, softmax_over_patches
from e2e_abmilx.heads.contributions import PoolingHead
from e2e_abmilx.heads.reference import head_weights

_KERNEL_ALIGNMENT = 8  # fused attention kernels want head widths in multiples of eight numbers


class ABMILX(PoolingHead):
    r"""The head of "Revisiting End-to-End Learning with Slide-level Supervision", Eq. 3 and 4.

    .. math::

        A^j &= \mathrm{MLP}(H^j), \qquad
        U^j = \mathrm{softmax}\bigl(Q^j {K^j}^\top / \sqrt{d}\bigr), \qquad
        G(A^j) = A^j + \alpha\, U^j A^j \qquad (4)

        Z &= \mathrm{Concat}_j\bigl(\mathrm{softmax}(G(A^j))^\top H^j\bigr) \qquad (3)

    ========================  ==========================================================================
    paper                     here
    ========================  ==========================================================================
    E, patch features         ``features``, after ``input_norm``, ``embed``, ``activation`` and ``dropout``
    H^j, features of head j   slice j of E, d = C / H wide (the paper's D/m)
    A^j = MLP(H^j)            ``score``, one MLP that all heads share
    W^q, W^k                  ``attention_plus.query_key``: first d rows W^q, last d rows W^k, shared by heads
    Q^j, K^j                  ``query_key`` of ``attention_plus.norm`` of H^j
    U^j                       never in memory; ``attention_plus`` multiplies it with A^j patch by patch
    α                         ``attention_plus.alpha``, one learnable number for all heads
    G                         ``attention_plus``
    softmax(G(A^j))           ``HeadOutput.attention``
    Z                         what ``project`` takes; after it, ``ffn`` and ``norm``, ``HeadOutput.embedding``
    H_η, the classifier       ``classifier``
    ========================  ==========================================================================

    The paper leaves out what its code has: the LayerNorm before Q and K, ``project``, ``norm`` and the dropout.
    Memory grows linearly with N on CPU, and on CUDA but for float64, with or without a mask, forwards and
    backwards; time grows with N². An ONNX graph spells the attention out and needs N² memory again.

    Args:
        in_features: D, features of a patch.
        num_outputs: K, classes or survival bins.
        hidden_features: C, width after the input projection; 512 as in the paper's two-stage experiments and
            end-to-end grading (256 did better end to end on the smaller BRCA).
        num_heads: H; 8 as in all of the authors' settings but 4 for PANDA end to end. Must divide
            ``hidden_features``.
        score_features: hidden units of the MLP that scores a patch; None for as many as a head is wide, which
            every published setting uses.
        score_bias: give that MLP biases; off as in end-to-end classification, on in survival. Its last bias
            cancels in the softmax and exists only so that the authors' weights fit.
        refine: apply A+ (Eq. 4); False is the paper's ablation and equals α = 0.
        alpha_init: first value of α. "normal" draws it from N(0, 1) as the authors' code does, so it starts
            negative half of the time; a number makes runs start alike.
        activation: after the input projection; GELU as in end-to-end training.
        dropout: probability after the input projection; 0.25 as the authors use everywhere.
        norm: LayerNorm on the input and before the classifier; on because the encoder's features move
            while it trains.
        bias: biases of the projections, LayerNorms and classifier; off because the paper found that it helps
            end-to-end training.
        ffn: add a feed-forward block after the projection; off because it helps on PANDA only (Table 9).

    Raises:
        ValueError: if ``num_heads`` does not divide ``hidden_features``.

    Example:
        >>> head = ABMILX(in_features=1024, num_outputs=2)
        >>> head(torch.randn(4, 500, 1024)).shape
        torch.Size([4, 2])
        >>> head.attend(torch.randn(4, 500, 1024)).attention.shape
        torch.Size([4, 8, 500])
    """

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        *,
        hidden_features: int = 512,
        num_heads: int = 8,
        score_features: int | None = None,
        score_bias: bool = False,
        refine: bool = True,
        alpha_init: Literal["normal"] | float = "normal",
        activation: Literal["gelu", "relu"] = "gelu",
        dropout: float = 0.25,
        norm: bool = True,
        bias: bool = False,
        ffn: bool = False,
    ) -> None:
        super().__init__(in_features, num_outputs)
        if hidden_features % num_heads:
            divisors = [n for n in range(1, hidden_features + 1) if hidden_features % n == 0]
            raise ValueError(
                f"num_heads must divide hidden_features: {hidden_features} is not a multiple of {num_heads}; "
                f"try {min(divisors, key=lambda n: abs(n - num_heads))}"
            )
        head_features = hidden_features // num_heads
        score_features = head_features if score_features is None else score_features
        self.num_heads = num_heads
        self.input_norm = nn.LayerNorm(in_features, bias=bias) if norm else nn.Identity()
        self.embed = nn.Linear(in_features, hidden_features, bias=bias)
        self.activation = nn.GELU() if activation == "gelu" else nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Sequential(
            nn.Linear(head_features, score_features, bias=score_bias),
            nn.GELU(),
            nn.Linear(score_features, 1, bias=score_bias),
        )
        self.attention_plus = AttentionPlus(head_features, alpha_init=alpha_init) if refine else None
        self.project = nn.Linear(hidden_features, hidden_features, bias=bias)
        self.ffn = _feed_forward(hidden_features, norm=not norm) if ffn else None
        self.norm = nn.LayerNorm(hidden_features, bias=bias) if norm else nn.Identity()
        self.classifier = nn.Linear(hidden_features, num_outputs, bias=bias)
        self.apply(_init_linear)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Return logits, attention and embedding as :meth:`BagHead.attend` says."""
        hidden = self._hidden(self.blank_padding(features, mask))
        attention = softmax_over_patches(self._scores(hidden, mask), mask)
        embedding = self._embed_bag(attention_pool(attention, hidden))
        return HeadOutput(self.classifier(embedding), attention, embedding)

    def values(self, features: Tensor) -> Tensor:
        """Return H^j, shape ``(B, N, H, d)``."""
        return self._hidden(features).reshape(*features.shape[:2], self.num_heads, -1)

    def classify(self, pooled: Tensor) -> Tensor:
        """Return logits from Z, shape ``(B, H, d)``."""
        logits: Tensor = self.classifier(self._embed_bag(pooled.flatten(1)))
        return logits

    def _hidden(self, features: Tensor) -> Tensor:
        """All H^j side by side, shape ``(B, N, C)``."""
        hidden: Tensor = self.dropout(self.activation(self.embed(self.input_norm(features))))
        return hidden

    def _embed_bag(self, pooled: Tensor) -> Tensor:
        """From Z to what the classifier sees, both of shape ``(B, C)``."""
        embedding = self.project(pooled)
        if self.ffn is not None:
            embedding = embedding + self.ffn(embedding)
        normed: Tensor = self.norm(embedding)
        return normed

    def _scores(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """G(A) of Eq. 4 for all heads, shape ``(B, H, N)``, from hidden features of shape ``(B, N, C)``."""
        heads = hidden.reshape(*hidden.shape[:2], self.num_heads, -1)
        scores: Tensor = self.score(heads).squeeze(-1).transpose(1, 2)
        return scores if self.attention_plus is None else self.attention_plus(heads, scores, mask)

    @classmethod
    def from_reference(cls, state_dict: Mapping[str, object], *, activation: Literal["gelu", "relu"]) -> Self:
        """Build the head from the weights of the authors' ``DAttentionX``; every size is read off the shapes.

        Dropout is not in the weights and gets its default. Call ``.eval()`` to reproduce the authors' outputs.

        Args:
            state_dict: the authors' state dict, alone or under ``"model"`` in their checkpoint, with or without
                the prefixes ``module.`` and ``mil.``; weights of the encoder are passed over.
            activation: what followed the input projection; it leaves no trace in the weights.

        Raises:
            ValueError: if the weights are of a variant that this head leaves out, or of another head.
        """
        weights = head_weights(state_dict)
        hidden_features, in_features = weights["embed.weight"].shape
        score_features, head_features = weights["score.0.weight"].shape
        head = cls(
            in_features,
            weights["classifier.weight"].shape[0],
            hidden_features=hidden_features,
            num_heads=hidden_features // head_features,
            score_features=score_features,
            score_bias="score.0.bias" in weights,
            refine="attention_plus.alpha" in weights,
            activation=activation,
            norm="input_norm.weight" in weights,
            bias="embed.bias" in weights,
            ffn="ffn.1.weight" in weights,
        )
        head.load_state_dict(weights)
        return head


class AttentionPlus(nn.Module):
    r"""A+, Eq. 4: :math:`G(A) = A + \alpha\,\mathrm{softmax}(Q K^\top / \sqrt{d})\,A`, alike for all heads.

    Args:
        head_features: d, features of one head.
        alpha_init: first value of α, or "normal" for a draw from N(0, 1).
    """

    def __init__(self, head_features: int, *, alpha_init: Literal["normal"] | float = "normal") -> None:
        super().__init__()
        self.norm = nn.LayerNorm(head_features)
        self.query_key = nn.Linear(head_features, 2 * head_features, bias=False)
        # One element instead of none: sharded training (FSDP) refuses scalars.
        self.alpha = nn.Parameter(
            torch.randn(1) if alpha_init == "normal" else torch.tensor([float(alpha_init)])
        )

    def forward(self, heads: Tensor, scores: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return refined scores.

        Args:
            heads: H^j, shape ``(B, N, H, d)``.
            scores: A^j, shape ``(B, H, N)``.
            mask: True on real patches, shape ``(B, N)``; padding neither gives nor counts.

        Returns:
            G(A^j), shape ``(B, H, N)``.
        """
        query, key = self.query_key(self.norm(heads)).transpose(1, 2).chunk(2, dim=-1)
        return scores + self.alpha * _propagate(query, key, scores, mask)


def _propagate(query: Tensor, key: Tensor, scores: Tensor, mask: Tensor | None) -> Tensor:
    """``U A`` without U in memory, shape ``(B, H, N)``.

    PyTorch's fused attention kernels want values as wide as the keys, and that width aligned; anything else falls
    back, silently, to a kernel that holds N×N numbers. So A rides in the first of d columns, the rest are zero.
    """
    head_features = query.shape[-1]
    excess = -head_features % _KERNEL_ALIGNMENT
    if excess:
        query, key = F.pad(query, (0, excess)), F.pad(key, (0, excess))
    value = F.pad(scores.to(query.dtype).unsqueeze(-1), (0, query.shape[-1] - 1))
    real_keys = None if mask is None else mask[:, None, None, :]
    return F.scaled_dot_product_attention(query, key, value, real_keys, scale=head_features**-0.5)[..., 0]


def _feed_forward(features: int, *, norm: bool) -> nn.Sequential:
    """The authors' optional block: always four times as wide, always with biases."""
    return nn.Sequential(
        nn.LayerNorm(features) if norm else nn.Identity(),
        nn.Linear(features, 4 * features),
        nn.GELU(),
        nn.Linear(4 * features, features),
    )


def _init_linear(module: nn.Module) -> None:
    """Draw weights as the authors do: Xavier normal, biases zero."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
