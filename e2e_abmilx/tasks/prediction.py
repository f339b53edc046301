"""The prediction for one case, and the patches that it is made from."""

from typing import NamedTuple

from torch import Tensor

from e2e_abmilx.heads.base import HeadOutput


class Prediction(NamedTuple):
    """The prediction for one case.

    Attributes:
        case: Name of the case.
        label: Class or time bin; for several labels, 1 or 0 per class; -1 if unknown. Of a regression the value, NaN if
            unknown.
        time: Months; NaN if unknown.
        event: 1 for an event, 0 for censoring.
        scores: Scores such as class probabilities, by the names of :attr:`BagTask.score_names`.
    """

    case: str
    label: int | float | tuple[int, ...]
    time: float
    event: int
    scores: dict[str, float]


class PredictedPatches(NamedTuple):
    """The patches of the case that was predicted last.

    They are not part of the prediction, since a trainer keeps the predictions of all cases in memory.

    Attributes:
        output: Logits, attention and embedding, with B = 1.
        features: Input of the head, shape ``(N, D)``.
        coords: Level-0 ``(x, y)`` of each patch, shape ``(N, 2)``.
        scale: Scale of each patch, shape ``(N,)``.
    """

    output: HeadOutput
    features: Tensor
    coords: Tensor
    scale: Tensor
