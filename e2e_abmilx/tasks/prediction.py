"""The prediction for one case."""

from typing import NamedTuple

from torch import Tensor

from e2e_abmilx.heads.base import HeadOutput


class Prediction(NamedTuple):
    """The prediction for one case, with the features and coordinates of its patches.

    Attributes:
        case: Name of the case.
        label: Class or time bin; for several labels, 1 or 0 per class; -1 if unknown. Of a regression the value, NaN if
            unknown.
        time: Months; NaN if unknown.
        event: 1 for an event, 0 for censoring.
        scores: Scores such as class probabilities, by the names of :attr:`BagTask.score_names`.
        output: Logits, attention and embedding, with B = 1.
        features: Input of the head, shape ``(N, D)``.
        coords: Level-0 ``(x, y)`` of each patch, shape ``(N, 2)``.
        scale: Scale of each patch, shape ``(N,)``.
    """

    case: str
    label: int | float | tuple[int, ...]
    time: float
    event: int
    scores: dict[str, float]
    output: HeadOutput
    features: Tensor
    coords: Tensor
    scale: Tensor
