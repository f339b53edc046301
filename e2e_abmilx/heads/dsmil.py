"""DSMIL: max pooling, and attention to patches similar to the critical one (arXiv:2011.08939)."""

import torch
from torch import Tensor, nn

from e2e_abmilx.heads.base import AuxiliaryOutput, BagHead, BagLoss, HeadOutput, pool_whole, softmax_over_patches


class DSMIL(BagHead):
    r"""Dual-stream MIL of Li et al., Section 3.2 of arXiv:2011.08939, with one attention per output (H = K).

    .. math::

        c_m &= W_0 h_m, \quad m = \operatorname{argmax}_n W_0 h_n, \qquad
        U_n = \mathrm{softmax}_n\bigl(\langle q_n, q_m \rangle / \sqrt{d}\bigr) \\
        c_b &= W_b \textstyle\sum_n U_n v_n, \qquad c = \tfrac12 (c_m + c_b)

    h is ``embed``, W_0 is ``instance_classifier``, q is ``query``, v is ``value``, W_b is ``classifier``. Every output
    has its own critical patch m, and ``classifier`` takes the K sums together. The nonlinear q and v and the
    :math:`\sqrt d` follow the authors' code. The losses of the two streams have weight 1/2 each (``training_loss``);
    both are the task's loss, so survival works too.

    Not torchmil's DSMIL, which has one output and may choose padding as the critical patch.

    Args:
        hidden_features: C, width after the input projection; 512 as is usual for slides.
        query_features: d, width of q; 128 as in the authors' code.
        dropout: Dropout probability after the input projection; 0.25 as in the ABMILX authors' comparisons.
    """

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        *,
        hidden_features: int = 512,
        query_features: int = 128,
        dropout: float = 0.25,
    ) -> None:
        super().__init__(in_features, num_outputs)
        self.embed = nn.Sequential(nn.Linear(in_features, hidden_features), nn.ReLU(), nn.Dropout(dropout))
        self.instance_classifier = nn.Linear(hidden_features, num_outputs)
        self.query = nn.Sequential(
            nn.Linear(hidden_features, query_features), nn.ReLU(), nn.Linear(query_features, query_features), nn.Tanh()
        )
        self.value = nn.Sequential(nn.Linear(hidden_features, hidden_features), nn.ReLU())
        self.classifier = nn.Linear(num_outputs * hidden_features, num_outputs)

    def attend(self, features: Tensor, mask: Tensor | None = None) -> HeadOutput:
        """Return logits, attention and embedding; see :meth:`BagHead.attend`.

        ``auxiliary`` holds the logits of the two streams, c_m and c_b, shape ``(B, 2, K)``.
        """
        hidden = self.embed(self.blank_padding(features, mask))
        instance_logits = self.instance_classifier(hidden)
        if mask is not None:
            instance_logits = instance_logits.masked_fill(~mask.unsqueeze(-1), float("-inf"))
        critical_logits, critical = instance_logits.max(dim=1)
        query = self.query(hidden)
        bags = torch.arange(query.shape[0], device=query.device).unsqueeze(1)
        critical_query = query[bags, critical]
        scores = critical_query @ query.transpose(1, 2) * query.shape[-1] ** -0.5
        attention = softmax_over_patches(scores, mask)
        embedding = pool_whole(attention, self.value(hidden)).flatten(1)
        streams = torch.stack([critical_logits, self.classifier(embedding)], dim=1)
        return AuxiliaryOutput(streams.mean(dim=1), attention, embedding, streams)

    def training_loss(self, output: HeadOutput, bag_loss: BagLoss, label: Tensor | None = None) -> Tensor:
        """Return the mean of the two streams' losses; see :meth:`BagHead.training_loss`."""
        assert isinstance(output, AuxiliaryOutput)
        critical_logits, bag_logits = output.auxiliary.unbind(dim=1)
        return (bag_loss(critical_logits) + bag_loss(bag_logits)) / 2
