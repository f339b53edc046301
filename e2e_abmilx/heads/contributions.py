"""Contributions: how much each patch adds to a bag's score, measured by leaving it out of the mean."""

import copy
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from e2e_abmilx.heads.base import BagHead, ContributionError

_CHUNK = 1024  # patches processed at once
_NO_ATTENTION = 1e-9  # attention of the other patches that is zero up to rounding


class PoolingHead(BagHead):
    r"""Base class of heads that classify weighted means of values that each patch has on its own.

    .. math:: z_h = \sum_n a_{h,n} v_{h,n}, \qquad \text{logits} = f(z_1, \dots, z_H)

    a is ``HeadOutput.attention``, however it is computed; v is :meth:`values` and f is :meth:`classify`. A patch can
    be left out of such means, which defines :meth:`contributions` and :func:`leave_one_out`.
    """

    classifier: nn.Linear

    @abstractmethod
    def values(self, features: Tensor) -> Tensor:
        """Return v from patch features ``(B, N, D)``; the values of a patch must not depend on other patches.

        Returns:
            The values that each attention head averages, shape ``(B, N, H, d)``; ``(B, N, 1, d)`` if all heads average
            the same values.
        """

    def classify(self, pooled: Tensor) -> Tensor:
        """Return f(z): logits of shape ``(B, K)`` from means of shape ``(B, H, d)``, by default of all means together."""
        logits: Tensor = self.classifier(self._embed_bag(pooled.flatten(1)))
        return logits

    def _embed_bag(self, pooled: Tensor) -> Tensor:
        """Return the input of ``classifier`` from all means of a bag, shape ``(B, H d)``."""
        return pooled

    def contributions(self, features: Tensor) -> Tensor:
        """Return :meth:`BagHead.contributions` in evaluation mode, by :func:`leave_one_out`, in float64."""
        head = copy.deepcopy(self).eval()
        with torch.no_grad():
            attention = head.attend(features).attention
        bags = zip(features, attention, strict=True)
        return torch.stack([leave_one_out(head, bag, weights, lambda logits: logits) for bag, weights in bags])


@torch.no_grad()
def leave_one_out(head: BagHead, features: Tensor, attention: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    r"""Return how much a bag's score falls when each patch is left out of the mean that the head classifies.

    With v, f and z of :class:`PoolingHead` and a score s of the logits, patch n contributes

    .. math::

        c_n = s\bigl(f(z)\bigr) - s\bigl(f(z^{-n})\bigr), \qquad
        z^{-n}_h = \frac{z_h - a_{h,n} v_{h,n}}{1 - a_{h,n}}.

    A positive contribution raises the score. The attention of the other patches is only renormalised. That is exact for
    the pooling, but differs from the head's output for a bag without the patch if the attention scores depend on other
    patches, as with A+ of ABMILX. Contributions do not add up to the score. If an attention head has all its attention
    on patch n, :math:`a_{h,n} = 1`, or if the bag has one patch, zeros remain: :math:`z^{-n}_h = 0`.

    Computed on the device of the features, in float64, because one of 100,000 patches changes a logit by little more
    than the precision of float32; in chunks of 1,024 patches, so that only attention and result grow with N.

    Args:
        head: A :class:`PoolingHead`; a copy in evaluation mode is used.
        features: Patch features of one bag, shape ``(N, D)``.
        attention: The head's attention for that bag, shape ``(H, N)``.
        score: Function from logits ``(M, K)`` to scores ``(M,)``, such as :func:`log_odds` or a risk; or ``(M, …)``, for
            several scores at once.

    Returns:
        Contributions, shape ``(N,)`` or ``(N, …)``, float64.

    Raises:
        ContributionError: The head is not a :class:`PoolingHead`.
    """
    if not isinstance(head, PoolingHead):
        raise ContributionError(head)
    exact = copy.deepcopy(head).to(features.device, torch.float64).eval()
    weights = attention.to(features.device, torch.float64).T.unsqueeze(-1)
    weights = weights / weights.sum(dim=0)

    def weigh(chunk: slice) -> tuple[Tensor, Tensor]:
        """Return weights ``(M, H, 1)`` and weighted values ``(M, H, d)`` of M patches."""
        values = exact.values(features[chunk].double().unsqueeze(0))[0]
        return weights[chunk], weights[chunk] * values

    chunks = [slice(start, start + _CHUNK) for start in range(0, len(features), _CHUNK)]
    pooled = sum((weigh(chunk)[1].sum(dim=0) for chunk in chunks), start=weights.new_zeros(()))
    whole = score(exact.classify(pooled.unsqueeze(0)))
    # allocated at once, because small results between large intermediates would fragment the memory
    contributions = whole.expand(len(features), *whole.shape[1:]).clone()
    for chunk in chunks:
        weight, weighted = weigh(chunk)
        without = torch.where(weight < 1 - _NO_ATTENTION, (pooled - weighted) / (1 - weight), 0)
        contributions[chunk] -= score(exact.classify(without))
    return contributions


def log_odds(logits: Tensor, output: int) -> Tensor:
    r"""Return the log-odds of class k = ``output`` against all others, :math:`\log \frac{p_k}{1 - p_k}`, shape ``(M,)``.

    p is the softmax of ``logits``, shape ``(M, K)``.
    """
    others = torch.cat([logits[:, :output], logits[:, output + 1 :]], dim=1)
    return logits[:, output] - others.logsumexp(dim=1)
