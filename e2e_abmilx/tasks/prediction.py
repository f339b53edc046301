"""What a task says of one case."""

from typing import NamedTuple

from torch import Tensor

from e2e_abmilx.heads.base import HeadOutput


class Prediction(NamedTuple):
    """What a task says of one case.

    Attributes:
        case: Name of the case.
        label: Class or time bin, or, of several labels, 1 or 0 for each class; -1 where unknown.
        time: Months; NaN where unknown.
        event: 1 where the event happened.
        scores: Such as class probabilities, by the names of :attr:`BagTask.score_names`.
        output: Logits, attention and embedding, with B = 1.
        features: What the head saw of each patch, shape ``(N, D)``.
        coords: Level-0 ``(x, y)`` of each patch, shape ``(N, 2)``.
        scale: Scale of each patch, shape ``(N,)``.
    """

    case: str
    label: int | tuple[int, ...]
    time: float
    event: int
    scores: dict[str, float]
    output: HeadOutput
    features: Tensor
    coords: Tensor
    scale: Tensor
