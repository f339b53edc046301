"""The scores that heatmaps explain."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor

from e2e_abmilx.heads import log_odds
from e2e_abmilx.tasks.base import BagTask
from e2e_abmilx.tasks.classification import ClassificationTask
from e2e_abmilx.tasks.multi_label import MultiLabelTask


class ExplainedScore(NamedTuple):
    """A score of a case that contributions of patches explain.

    Attributes:
        output: Its number among the task's scores.
        name: Its name, such as ``"log-odds of tumour"`` or ``"risk"``.
        of_logits: Function from logits ``(M, K)`` to scores ``(M,)``.
    """

    output: int
    name: str
    of_logits: Callable[[Tensor], Tensor]


def shown_score(task: BagTask, logits: Tensor) -> ExplainedScore:
    """Return the score that heatmaps of contributions show: log-odds of a class, or the last score, such as the risk.

    Of two classes it is always the second, so that red has the same meaning on all slides; of more classes the most
    probable one.

    Args:
        task: The task.
        logits: Of the case, shape ``(1, K)``.
    """
    if isinstance(task, ClassificationTask) and task.num_outputs == 2:
        return _score(task, 1)
    return predicted_score(task, logits)


def predicted_score(task: BagTask, logits: Tensor) -> ExplainedScore:
    """Return the score that a case is predicted by: log-odds of the most probable class, or the last score.

    The arguments are those of :func:`shown_score`.
    """
    if isinstance(task, ClassificationTask | MultiLabelTask):
        return _score(task, int(logits.argmax()))
    return _score(task, len(task.score_names()) - 1)


def _score(task: BagTask, output: int) -> ExplainedScore:
    """Return a score; of classes log-odds, because a probability near 0 or 1 hardly changes whatever is left out."""
    if isinstance(task, ClassificationTask):
        return ExplainedScore(output, f"log-odds of {task.classes[output]}", partial(log_odds, output=output))
    if isinstance(task, MultiLabelTask):
        return ExplainedScore(output, f"log-odds of {task.classes[output]}", lambda logits: logits[:, output])
    return ExplainedScore(output, task.score_names()[output], lambda logits: task.bag_scores(logits)[:, output])
