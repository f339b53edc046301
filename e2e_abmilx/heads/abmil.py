"""ABMIL: attention-based MIL, with plain or gated attention (arXiv:1802.04712)."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from e2e_abmilx.heads.base import HeadOutput, attention_pool, softmax_over_patches
from e2e_abmilx.heads.contributions import PoolingHead


class ABMIL(PoolingHead):
    r"""Attention-based MIL of Ilse et al., Eq. 8 of arXiv:1802.04712, with one attention (H = 1).

    .. math:: a = \mathrm{softmax}\bigl(w^\top \tanh(V h)\bigr), \qquad z = \sum_n a_n h_n

    h is ``embed``, V is ``tanh_units``, w is ``weigh``, without a bias because the softmax would cancel it.

    Args:
        hidden_features: C, width after the input projection; 512 as is usual for slides.
        attention_features: Rows of V; 128 as in the paper.
        dropout: Dropout probability after the input projection; 0.25 as in the ABMILX authors' comparisons.
    """

    _gated: ClassVar[bool] = False

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        *,
        hidden_features: int = 512,
        attention_features: int = 128,
        dropout: float = 0.25,
    ) -> None:
        super().__init__(in_features, num_outputs)
        self.embed = nn.Sequential(nn.Linear(in_features, hidden_features), nn.ReLU(), nn.Dropout(dropout))
        self.tanh_units = nn.Linear(hidden_features, attention_features)
        self.weigh = nn.Linear(attention_features, 1, bias=False)
        self.classifier = nn.Linear(hidden_features, num_outputs)
        if self._gated:
            self.gate = nn.Linear(hidden_features, attention_features)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Return logits, attention and embedding; see :meth:`BagHead.attend`."""
        hidden = self.embed(self.blank_padding(features, mask))
        scores = self.weigh(self._units(hidden)).transpose(1, 2)
        attention = softmax_over_patches(scores, mask)
        embedding = attention_pool(attention, hidden)
        return HeadOutput(self.classifier(embedding), attention, embedding)

    def values(self, features: Tensor) -> Tensor:
        """Return the hidden features h, shape ``(B, N, 1, C)``."""
        hidden: Tensor = self.embed(features)
        return hidden.unsqueeze(2)

    def _units(self, hidden: Tensor) -> Tensor:
        return torch.tanh(self.tanh_units(hidden))


class GatedABMIL(ABMIL):
    r"""Gated attention of Ilse et al., Eq. 9: :math:`\tanh(V h) \odot \sigma(U h)` in place of :math:`\tanh(V h)`.

    U is ``gate``. The arguments are those of :class:`ABMIL`.
    """

    _gated = True

    def _units(self, hidden: Tensor) -> Tensor:
        return super()._units(hidden) * torch.sigmoid(self.gate(hidden))
