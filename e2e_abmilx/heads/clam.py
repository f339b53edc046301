"""CLAM: attention with an instance loss on the patches of highest and lowest attention (arXiv:2004.09666)."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e2e_abmilx.heads.abmil import GatedABMIL
from e2e_abmilx.heads.base import AuxiliaryOutput, BagLoss, HeadOutput, pool_whole, softmax_over_patches


class CLAM(GatedABMIL):
    r"""Clustering-constrained attention MIL of Lu et al. with one attention for all classes ("CLAM-SB", H = 1).

    A :class:`GatedABMIL` whose attention labels patches in training: for each class, the linear
    ``instance_classifier`` learns to separate the B patches of highest attention (evidence) from the B of lowest. Its
    scores :math:`s = (s_0, s_1)` of a patch cost the paper's smooth SVM loss, with the paper's
    :math:`\tau = \alpha = 1`,

    .. math:: \log \sum_j \exp\bigl(1[j \ne y] + s_j - s_y\bigr) = \log\bigl(1 + \exp(1 + s_{1-y} - s_y)\bigr).

    Only the classifier of the bag's own class is trained. If classes are exclusive, the others are trained too, to find
    no evidence in the B patches of highest attention. A bag of fewer than 2B patches gives half of them to each side.

    The instance loss needs classes, which survival lacks; CLAM without it is :class:`GatedABMIL`.

    Not torchmil's CLAM, which has two classes and one branch, and takes padding as evidence in training.

    Args:
        hidden_features: C, width after the input projection; 512 as in the paper.
        attention_features: Rows of the matrices V and U of the attention; 256 as in the paper.
        dropout: Dropout probability after the input projection and in the attention; 0.25 as in the paper.
        num_instances: B, patches on each side; 8 as in the paper.
        instance_weight: Fraction of the instance loss in the training loss; 0.3 as in the paper.
        exclusive: Whether a patch can be evidence of one class only, as in subtyping; off because that does not hold
            for tumour against normal, or for grading.
    """

    _branch_per_class: ClassVar[bool] = False

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        *,
        hidden_features: int = 512,
        attention_features: int = 256,
        dropout: float = 0.25,
        num_instances: int = 8,
        instance_weight: float = 0.3,
        exclusive: bool = False,
    ) -> None:
        super().__init__(
            in_features,
            num_outputs,
            hidden_features=hidden_features,
            attention_features=attention_features,
            dropout=dropout,
        )
        self.dropout = nn.Dropout(dropout)
        self.instance_classifier = nn.Linear(hidden_features, 2 * num_outputs)
        self.num_instances, self.instance_weight, self.exclusive = num_instances, instance_weight, exclusive
        if self._branch_per_class:
            self.weigh = nn.Linear(attention_features, num_outputs, bias=False)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Return logits, attention and embedding; see :meth:`BagHead.attend`.

        ``auxiliary`` holds the instance loss of each class for a bag of that class and for a bag of another class,
        shape ``(B, K, 2)``.
        """
        hidden = self.embed(self.blank_padding(features, mask))
        scores = self.weigh(self._units(hidden)).transpose(1, 2)
        attention = softmax_over_patches(scores, mask)
        embedding = pool_whole(attention, hidden)
        costs = self._instance_costs(hidden, scores.detach(), mask)
        return AuxiliaryOutput(self.classify(embedding), attention, embedding.flatten(1), costs)

    def training_loss(self, output: HeadOutput, bag_loss: BagLoss, label: Tensor | None = None) -> Tensor:
        """Return the weighted mean of bag and instance loss; see :meth:`BagHead.training_loss`.

        Raises:
            ValueError: The bags have no classes.
        """
        if label is None:
            raise ValueError(
                f"{type(self).__name__} labels patches by the class of their bag, and these bags have none: "
                "take GatedABMIL, the same attention without the instance loss"
            )
        assert isinstance(output, AuxiliaryOutput)
        own, other = output.auxiliary.unbind(dim=-1)
        label = label.unsqueeze(1)
        costs = own.gather(1, label)
        if self.exclusive:
            costs = other.scatter(1, label, costs)
        return (1 - self.instance_weight) * bag_loss(output.logits) + self.instance_weight * costs.mean()

    def _units(self, hidden: Tensor) -> Tensor:
        tanh: Tensor = self.dropout(torch.tanh(self.tanh_units(hidden)))
        gate: Tensor = self.dropout(torch.sigmoid(self.gate(hidden)))
        return tanh * gate

    def _margins_of_own_attention(self, margins: Tensor) -> Tensor:
        """Return each class's margins on patches drawn by its own attention: ``(B, H, n, K)`` → ``(B, K, n)``."""
        return margins[:, 0].transpose(1, 2)

    def _instance_costs(self, hidden: Tensor, scores: Tensor, mask: Tensor | None) -> Tensor:
        """Return smooth SVM losses, ``(B, K, 2)``, of patches ``(B, N, C)`` drawn by their scores, ``(B, H, N)``."""
        num_bags, num_patches = hidden.shape[:2]
        real = torch.ones_like(scores[:, :1], dtype=torch.bool) if mask is None else mask.unsqueeze(1)
        count = self.num_instances
        # padded by as many as are drawn, so that topk works for a bag of any size
        high = F.pad(scores.masked_fill(~real, float("-inf")), (0, count), value=float("-inf"))
        low = F.pad(scores.masked_fill(~real, float("inf")), (0, count), value=float("inf"))
        drawn = torch.cat([high.topk(count).indices, low.topk(count, largest=False).indices], dim=-1)
        drawn = drawn.clamp_max(num_patches - 1)
        bags = torch.arange(num_bags, device=hidden.device)[:, None, None]
        instance_scores = self.instance_classifier(hidden[bags, drawn])
        margins = instance_scores[..., 1::2] - instance_scores[..., ::2]
        strong, weak = torch.split(self._margins_of_own_attention(margins), count, dim=-1)
        own, other = (F.softplus(1 - strong) + F.softplus(1 + weak)) / 2, F.softplus(1 + strong)
        is_drawn = torch.arange(count, device=hidden.device) < real.sum(dim=-1, keepdim=True) // 2
        weights = is_drawn / is_drawn.sum(dim=-1, keepdim=True).clamp_min(1)
        return (torch.stack([own, other], dim=-1) * weights.unsqueeze(-1)).sum(dim=2)


class MultiBranchCLAM(CLAM):
    """CLAM with one attention per class (H = K), as in its paper; "CLAM-MB".

    Each class draws patches by its own attention, and its own row of ``classifier`` classifies their weighted mean. The
    arguments are those of :class:`CLAM`.
    """

    _branch_per_class = True

    def classify(self, pooled: Tensor) -> Tensor:
        """Return each class's logit from the mean by its own attention, shape ``(B, K, C)``."""
        return (pooled * self.classifier.weight).sum(dim=-1).to(pooled.dtype) + self.classifier.bias

    def _margins_of_own_attention(self, margins: Tensor) -> Tensor:
        return margins.diagonal(dim1=1, dim2=3).transpose(1, 2)
