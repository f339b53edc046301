"""ABMILX, the paper's head: multi-head attention refined by global correlation (arXiv:2506.02408, Eq. 3 and 4).

Eq. 3 is :meth:`ABMILX.attend`; Eq. 4, the refinement A+, is :class:`AttentionPlus`.
"""

from collections.abc import Mapping
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e2e_abmilx.heads.base import HeadOutput, attention_pool, check_heads, softmax_over_patches
from e2e_abmilx.heads.contributions import PoolingHead
from e2e_abmilx.heads.reference import head_weights

_KERNEL_ALIGNMENT = 8  # fused attention kernels require head widths that are multiples of 8


class ABMILX(PoolingHead):
    r"""The head of "Revisiting End-to-End Learning with Slide-level Supervision", Eq. 3 and 4.

    .. math::

        A^j &= \mathrm{MLP}(H^j), \qquad
        U^j = \mathrm{softmax}\bigl(Q^j {K^j}^\top / \sqrt{d}\bigr), \qquad
        G(A^j) = A^j + \alpha\, U^j A^j \qquad (4)

        Z &= \mathrm{Concat}_j\bigl(\mathrm{softmax}(G(A^j))^\top H^j\bigr) \qquad (3)

    ========================  ==========================================================================
    paper                     code
    ========================  ==========================================================================
    E, patch features         ``features``, after ``input_norm``, ``embed``, ``activation`` and ``dropout``
    H^j, features of head j   slice j of E, d = C / H wide (the paper's D/m)
    A^j = MLP(H^j)            ``score``, one MLP that all heads share
    W^q, W^k                  ``attention_plus.query_key``: first d rows W^q, last d rows W^k, shared by heads
    Q^j, K^j                  ``query_key`` of ``attention_plus.norm`` of H^j
    U^j                       never in memory as a whole; ``attention_plus`` computes its product with A^j
    α                         ``attention_plus.alpha``, one learnable number for all heads
    G                         ``attention_plus``
    softmax(G(A^j))           ``HeadOutput.attention``
    Z                         input of ``project``; with ``ffn`` and ``norm`` it gives ``HeadOutput.embedding``
    H_η, the classifier       ``classifier``
    ========================  ==========================================================================

    The LayerNorm before Q and K, ``project``, ``norm`` and the dropout are in the authors' code but not in the paper.
    Memory grows linearly with N, with or without a mask, in the forward and the backward pass, on CPU and on CUDA
    (except in float64); time grows with N². An ONNX graph writes the attention out and needs N² memory.

    Args:
        in_features: D, features per patch.
        num_outputs: K, classes or survival bins.
        hidden_features: C, width after the input projection; 512 as in the paper's two-stage experiments and
            end-to-end grading (256 was better end to end on the smaller BRCA).
        num_heads: H; 8 as in all of the authors' settings except PANDA end to end, which uses 4. Must divide
            ``hidden_features``.
        score_features: Hidden units of the MLP that scores a patch; None for the width of a head, as in every
            published setting.
        score_bias: Give that MLP biases; off as in end-to-end classification, on in survival. Its last bias
            cancels in the softmax and exists only so that the authors' weights fit.
        refine: Apply A+ (Eq. 4); False is the paper's ablation and equals α = 0.
        alpha_init: Initial value of α. "normal" draws it from N(0, 1) as the authors' code does, so it is negative
            in half of the runs; a number makes it the same in all runs.
        alpha_fixed: Keep α at its initial value, the paper's ablation of a learnable α (Sec. 3.3).
        activation: Activation after the input projection; GELU as in end-to-end training.
        dropout: Dropout probability after the input projection; 0.25 as in all of the authors' settings.
        norm: LayerNorm on the input and before the classifier; on because the encoder's features change
            during training.
        bias: Biases of the projections, LayerNorms and classifier; off because the paper found that it helps
            end-to-end training.
        ffn: Add a feed-forward block after the projection; off because it helps on PANDA only (Table 9).

    Raises:
        ValueError: ``num_heads`` does not divide ``hidden_features``.

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
        alpha_fixed: bool = False,
        activation: Literal["gelu", "relu"] = "gelu",
        dropout: float = 0.25,
        norm: bool = True,
        bias: bool = False,
        ffn: bool = False,
    ) -> None:
        super().__init__(in_features, num_outputs)
        check_heads(hidden_features, num_heads)
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
        self.attention_plus = (
            AttentionPlus(head_features, alpha_init=alpha_init, alpha_fixed=alpha_fixed) if refine else None
        )
        self.project = nn.Linear(hidden_features, hidden_features, bias=bias)
        self.ffn = _feed_forward(hidden_features, norm=not norm) if ffn else None
        self.norm = nn.LayerNorm(hidden_features, bias=bias) if norm else nn.Identity()
        self.classifier = nn.Linear(hidden_features, num_outputs, bias=bias)
        self.apply(_init_linear)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Return logits, attention and embedding (Eq. 3); see :meth:`BagHead.attend`."""
        hidden = self._hidden(self.blank_padding(features, mask))
        attention = softmax_over_patches(self._scores(hidden, mask), mask)  # softmax(G(A^j))
        embedding = self._embed_bag(attention_pool(attention, hidden))  # of Z
        return HeadOutput(self.classifier(embedding), attention, embedding)

    def watched(self) -> dict[str, Tensor]:
        """Return α, if there is A+."""
        return {} if self.attention_plus is None else {"alpha": self.attention_plus.alpha.detach()[0]}

    def values(self, features: Tensor) -> Tensor:
        """Return H^j, shape ``(B, N, H, d)``."""
        return self._hidden(features).reshape(*features.shape[:2], self.num_heads, -1)

    def _hidden(self, features: Tensor) -> Tensor:
        """Return all H^j side by side, shape ``(B, N, C)``."""
        hidden: Tensor = self.dropout(self.activation(self.embed(self.input_norm(features))))
        return hidden

    def _embed_bag(self, pooled: Tensor) -> Tensor:
        """Return the input of the classifier from Z, both of shape ``(B, C)``."""
        embedding = self.project(pooled)
        if self.ffn is not None:
            embedding = embedding + self.ffn(embedding)
        normed: Tensor = self.norm(embedding)
        return normed

    def _scores(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Return G(A^j) of Eq. 4 for all heads, shape ``(B, H, N)``, from hidden features of shape ``(B, N, C)``."""
        heads = hidden.reshape(*hidden.shape[:2], self.num_heads, -1)
        scores: Tensor = self.score(heads).squeeze(-1).transpose(1, 2)
        return scores if self.attention_plus is None else self.attention_plus(heads, scores, mask)

    @classmethod
    def from_reference(cls, state_dict: Mapping[str, object], *, activation: Literal["gelu", "relu"]) -> Self:
        """Build the head from the weights of the authors' ``DAttentionX``; all sizes are inferred from the shapes.

        The dropout probability is not in the weights and gets its default. Call ``.eval()`` to reproduce the authors'
        outputs.

        Args:
            state_dict: The authors' state dict, alone or under ``"model"`` in their checkpoint, with or without
                the prefixes ``module.`` and ``mil.``; weights of the encoder are ignored.
            activation: Activation after the input projection, which cannot be inferred from the weights.

        Raises:
            ValueError: The weights are those of a variant that this head does not support, or of another head.
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
    r"""A+, the refinement of Eq. 4: :math:`G(A) = A + \alpha\,\mathrm{softmax}(Q K^\top / \sqrt{d})\,A`.

    All attention heads share its weights.

    Args:
        head_features: d, features of one head.
        alpha_init: Initial value of α, or "normal" for a draw from N(0, 1).
        alpha_fixed: Keep α at its initial value.
    """

    def __init__(
        self, head_features: int, *, alpha_init: Literal["normal"] | float = "normal", alpha_fixed: bool = False
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(head_features)
        self.query_key = nn.Linear(head_features, 2 * head_features, bias=False)
        # A vector of one element, because sharded training (FSDP) refuses scalars.
        initial = torch.randn(1) if alpha_init == "normal" else torch.tensor([float(alpha_init)])
        self.alpha = nn.Parameter(initial, requires_grad=not alpha_fixed)

    def forward(self, heads: Tensor, scores: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the refined scores G(A^j), shape ``(B, H, N)``.

        Args:
            heads: H^j, shape ``(B, N, H, d)``.
            scores: A^j, shape ``(B, H, N)``.
            mask: True on real patches, shape ``(B, N)``; padding has no influence on them.
        """
        query, key = self.query_key(self.norm(heads)).transpose(1, 2).chunk(2, dim=-1)
        return scores + self.alpha * _propagate(query, key, scores, mask)


def _propagate(query: Tensor, key: Tensor, scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return the product U A of Eq. 4, shape ``(B, H, N)``, without holding U in memory.

    PyTorch's fused attention kernels require values as wide as the keys, in an aligned width; otherwise PyTorch silently
    uses a kernel that holds N×N numbers. Hence A is the first of d columns of the values, and the others are zero.
    """
    head_features = query.shape[-1]
    excess = -head_features % _KERNEL_ALIGNMENT
    if excess:
        query, key = F.pad(query, (0, excess)), F.pad(key, (0, excess))
    value = F.pad(scores.to(query.dtype).unsqueeze(-1), (0, query.shape[-1] - 1))
    real_keys = None if mask is None else mask[:, None, None, :]
    return F.scaled_dot_product_attention(query, key, value, real_keys, scale=head_features**-0.5)[..., 0]


def _feed_forward(features: int, *, norm: bool) -> nn.Sequential:
    """Return the authors' optional block, which always has a width of 4 C, and biases."""
    return nn.Sequential(
        nn.LayerNorm(features) if norm else nn.Identity(),
        nn.Linear(features, 4 * features),
        nn.GELU(),
        nn.Linear(4 * features, features),
    )


def _init_linear(module: nn.Module) -> None:
    """Initialise a linear layer as the authors do: Xavier normal weights, zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
