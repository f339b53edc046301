"""DTFD-MIL: attention within pseudo-bags, then attention over them (arXiv:2203.12081)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from e2e_abmilx.heads.base import AuxiliaryOutput, BagHead, HeadOutput, attention_pool, pool_whole, softmax_over_patches


class DTFD(BagHead):
    r"""Double-tier feature distillation MIL of Zhang et al., with aggregated feature selection ("AFS").

    The patches of a bag are assigned to M pseudo-bags that inherit its label: at random in training, in turn in
    evaluation, so that neighbours are separated. In the first tier a gated attention pools each pseudo-bag, and
    ``pseudo_classifier`` classifies it alone; in the second, another one pools the M results for ``classifier``:

    .. math::

        z_m = \sum_{n \in m} a_n h_n, \qquad
        z = \sum_m b_m z_m, \qquad
        L = L(\text{classifier}(z)) + \frac1M \sum_m L(\text{pseudo\_classifier}(z_m))

    Of the paper's four kinds of distillation, AFS passes on :math:`z_m` itself. It is the default of the authors' code
    and the only one that gives every patch a weight, :math:`b_m a_n` (``HeadOutput.attention``, H = 1); the others
    select single patches by class probability, which survival lacks. L is the task's loss, so survival works. One
    optimizer trains both tiers on the sum of their losses. The authors stop the gradient of the second tier before the
    first, which in end-to-end training would cut the encoder off from the logits.

    Not torchmil's DTFD-MIL, which has one output, assigns padding to pseudo-bags, and draws from numpy's generator in
    evaluation too.

    Args:
        hidden_features: C, width after the input projection; 512 as in the authors' code.
        attention_features: Hidden units of each attention; 128 as in the authors' code.
        num_pseudo_bags: M; 4 as in the authors' code. In bags of fewer patches, some are in several pseudo-bags.
        dropout: Dropout probability after the input projection; 0.25 as in the other heads.
    """

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        *,
        hidden_features: int = 512,
        attention_features: int = 128,
        num_pseudo_bags: int = 4,
        dropout: float = 0.25,
    ) -> None:
        super().__init__(in_features, num_outputs)
        self.num_pseudo_bags = num_pseudo_bags
        self.embed = nn.Sequential(nn.Linear(in_features, hidden_features), nn.ReLU(), nn.Dropout(dropout))
        self.first_tier = _GatedScore(hidden_features, attention_features)
        self.pseudo_classifier = nn.Linear(hidden_features, num_outputs)
        self.second_tier = _GatedScore(hidden_features, attention_features)
        self.classifier = nn.Linear(hidden_features, num_outputs)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Return logits, attention and embedding; see :meth:`BagHead.attend`.

        ``auxiliary`` holds the logits of the pseudo-bags, shape ``(B, M, K)``.
        """
        hidden = self.embed(self.blank_padding(features, mask))
        real = torch.ones_like(hidden[..., 0], dtype=torch.bool) if mask is None else mask
        scores = self.first_tier(hidden).masked_fill(~self._assign(real), float("-inf"))
        within = softmax_over_patches(scores, None)
        distilled = pool_whole(within, hidden)
        over = softmax_over_patches(self.second_tier(distilled), None)
        embedding = attention_pool(over, distilled)
        attention = (over.transpose(1, 2) * within).sum(dim=1, keepdim=True)
        return AuxiliaryOutput(self.classifier(embedding), attention, embedding, self.pseudo_classifier(distilled))

    def training_loss(
        self, output: HeadOutput, bag_loss: Callable[[Tensor], Tensor], label: Tensor | None = None
    ) -> Tensor:
        """Return the sum of the two tiers' losses; see :meth:`BagHead.training_loss`."""
        assert isinstance(output, AuxiliaryOutput)
        pseudo_bags = output.auxiliary.unbind(dim=1)
        return bag_loss(output.logits) + torch.stack([bag_loss(logits) for logits in pseudo_bags]).mean()

    def _assign(self, real: Tensor) -> Tensor:
        """Return which patches are in which pseudo-bag, boolean ``(B, M, N)``, from the mask ``real``, ``(B, N)``."""
        if self.training:
            draw = torch.rand(real.shape, device=real.device).masked_fill(~real, float("inf"))
            place = draw.argsort(dim=1).argsort(dim=1)
        else:
            place = real.cumsum(dim=1) - 1
        pseudo_bag = torch.arange(self.num_pseudo_bags, device=real.device)[:, None]
        count = real.sum(dim=1)[:, None, None].clamp(max=self.num_pseudo_bags)
        return (place[:, None] % self.num_pseudo_bags == pseudo_bag % count) & real[:, None]


class _GatedScore(nn.Module):
    """Scores of a gated attention, Eq. 9 of arXiv:1802.04712: ``(B, N, C)`` → ``(B, 1, N)``."""

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.tanh_units, self.gate = nn.Linear(features, units), nn.Linear(features, units)
        self.weigh = nn.Linear(units, 1, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        scores: Tensor = self.weigh(torch.tanh(self.tanh_units(hidden)) * torch.sigmoid(self.gate(hidden)))
        return scores.transpose(1, 2)
