"""What each patch contributes to a bag's logits: how far they fall when it is left out of the mean."""

import copy
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from e2e_abmilx.heads.base import BagHead, ContributionError

_CHUNK = 1024  # patches that are left out at once
_NOTHING = 1e-9  # attention that rounding leaves of 1 - 1, and more


class PoolingHead(BagHead):
    r"""Base of heads that classify weighted means of what each patch says by itself.

    .. math:: z_h = \sum_n a_{h,n} v_{h,n}, \qquad \text{logits} = f(z_1, \dots, z_H)

    a is ``HeadOutput.attention``, wherever it comes from; v is :meth:`values` and f is :meth:`classify`. A patch can
    be left out of such means, which gives :meth:`contributions` and :func:`leave_one_out`.
    """

    @abstractmethod
    def values(self, features: Tensor) -> Tensor:
        """Return v, which no patch may owe to another.

        Args:
            features: patch features, shape ``(B, N, D)``.

        Returns:
            What each attention head averages, d numbers a patch, shape ``(B, N, H, d)``; ``(B, N, 1, d)`` where all
            average the same.
        """

    @abstractmethod
    def classify(self, pooled: Tensor) -> Tensor:
        """Return f.

        Args:
            pooled: z, shape ``(B, H, d)``.

        Returns:
            Logits, shape ``(B, K)``.
        """

    def contributions(self, features: Tensor) -> Tensor:
        """Return what each patch adds to each logit, by :func:`leave_one_out`, as in evaluation.

        Args:
            features: patch features of bags without padding, shape ``(B, N, D)``.

        Returns:
            Shape ``(B, N, K)``, float64.
        """
        head = copy.deepcopy(self).eval()
        with torch.no_grad():
            attention = head.attend(features).attention
        bags = zip(features, attention, strict=True)
        return torch.stack(
            [leave_one_out(head, bag, weights, lambda logits: logits) for bag, weights in bags]
        )


@torch.no_grad()
def leave_one_out(
    head: BagHead, features: Tensor, attention: Tensor, score: Callable[[Tensor], Tensor]
) -> Tensor:
    r"""Return how far a score falls when a patch is left out of the mean that its bag is classified from.

    With v, f and z of :class:`PoolingHead` and a score s of the logits, patch n contributes

    .. math::

        c_n = s\bigl(f(z)\bigr) - s\bigl(f(z^{-n})\bigr), \qquad
        z^{-n}_h = \frac{z_h - a_{h,n} v_{h,n}}{1 - a_{h,n}}.

    Positive is what speaks for the score. The attention of the others is renormalised and otherwise kept: exact for
    the pooling, but not what the head says of a bag that lacks the patch, where scores that patches give each other
    (A+ of ABMILX) would change too. Contributions do not add up to the score. An attention head that looks at nothing
    but patch n, :math:`a_{h,n} = 1`, is left with zeros, :math:`z^{-n}_h = 0`; so is a bag of one patch.

    Computed where the features are, in float64, because one of 100,000 patches moves a logit by little more than
    float32 can tell; 1,024 patches at a time, so that besides the attention only the result grows with N.

    Args:
        head: a :class:`PoolingHead`; it stays as it is and counts as in evaluation.
        features: patch features of one bag, shape ``(N, D)``.
        attention: the head's attention of that bag, shape ``(H, N)``.
        score: from logits ``(M, K)`` to a number for each row ``(M,)``, such as :func:`log_odds` or a risk; several
            numbers, ``(M, …)``, have contributions each.

    Returns:
        Contributions, shape ``(N,)`` or ``(N, …)``, float64.

    Raises:
        ContributionError: if the head is no :class:`PoolingHead`.
    """
    if not isinstance(head, PoolingHead):
        raise ContributionError(head)
    exact = copy.deepcopy(head).to(features.device, torch.float64).eval()
    weights = attention.to(features.device, torch.float64).T.unsqueeze(-1)
    weights = weights / weights.sum(dim=0)

    def weigh(chunk: slice) -> tuple[Tensor, Tensor]:
        """Weights ``(M, H, 1)`` and weighted values ``(M, H, d)`` of M patches."""
        values = exact.values(features[chunk].double().unsqueeze(0))[0]
        return weights[chunk], weights[chunk] * values

    chunks = [slice(start, start + _CHUNK) for start in range(0, len(features), _CHUNK)]
    pooled = sum((weigh(chunk)[1].sum(dim=0) for chunk in chunks), start=weights.new_zeros(()))
    whole = score(exact.classify(pooled.unsqueeze(0)))
    # In one piece from the start: small results between large intermediates would scatter the heap.
    contributions = whole.expand(len(features), *whole.shape[1:]).clone()
    for chunk in chunks:
        weight, weighted = weigh(chunk)
        without = torch.where(weight < 1 - _NOTHING, (pooled - weighted) / (1 - weight), 0)
        contributions[chunk] -= score(exact.classify(without))
    return contributions


def log_odds(logits: Tensor, output: int) -> Tensor:
    r"""Log-odds of one class against all others, :math:`\log \frac{p_k}{1 - p_k}` of the softmax.

    Args:
        logits: shape ``(M, K)``.
        output: k, which class.

    Returns:
        Shape ``(M,)``.
    """
    others = torch.cat([logits[:, :output], logits[:, output + 1 :]], dim=1)
    return logits[:, output] - others.logsumexp(dim=1)
