"""Heatmaps of the slides of a case that a task has just predicted."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from e2e_abmilx.heads import BagHead, ContributionError, PoolingHead, leave_one_out, log_odds
from e2e_abmilx.heatmaps import Contribution, Kind, SlideAttention, write_heatmap
from e2e_abmilx.store import PatchStore
from e2e_abmilx.tasks.base import BagTask
from e2e_abmilx.tasks.classification import ClassificationTask
from e2e_abmilx.tasks.multi_label import MultiLabelTask
from e2e_abmilx.tasks.prediction import PredictedPatches


def check_kind(head: object, kind: Kind) -> None:
    """Refuse contributions of a head that has none.

    Raises:
        ContributionError: The head does not classify a weighted mean of patches.
    """
    if kind == "contribution" and isinstance(head, BagHead) and not isinstance(head, PoolingHead):
        raise ContributionError(head)


def write_case_heatmaps(
    task: BagTask, scores: Mapping[str, float], sizes: Mapping[str, int], cache: Path, folder: Path, kind: Kind
) -> None:
    """Write a heatmap ``folder/<slide>`` of each slide of the case that the task predicted last.

    Args:
        task: The task.
        scores: Scores of the case, of which the title states the risk or the highest.
        sizes: Number of patches of each slide of the case, in the order of the prediction.
        cache: Folder of the slides' stores.
        folder: Where to write.
        kind: Meaning of the colours, as :func:`~e2e_abmilx.heatmaps.write_heatmap`.
    """
    patches = task.predicted_patches
    assert patches is not None  # the task has just predicted this case
    whole = _contribution(task, patches) if kind == "contribution" else None
    name = "risk" if "risk" in scores else max(scores, key=lambda name: scores[name])
    start = 0
    for slide, size in sizes.items():
        own = slice(start, start + size)
        start += size
        attention = SlideAttention.from_weights(
            PatchStore(cache / f"{slide}.zarr"),
            patches.coords[own].cpu().numpy(),
            patches.scale[own].cpu().numpy(),
            patches.output.attention[0, :, own].cpu().numpy(),
            bag_size=len(patches.coords),
            contribution=Contribution(whole.score, whole.values[own]) if whole else None,
        )
        write_heatmap(attention, folder / slide, kind=kind, title=f"{slide}: {name} = {scores[name]:.3g}")


def _contribution(task: BagTask, patches: PredictedPatches) -> Contribution:
    """Return the contribution of each patch of a case to the score of the case."""
    name, score = _explained_score(task, patches.output.logits)
    contribution = leave_one_out(task.head, patches.features, patches.output.attention[0], score)
    return Contribution(name, contribution.cpu().numpy())


def _explained_score(task: BagTask, logits: Tensor) -> tuple[str, Callable[[Tensor], Tensor]]:
    """Return the name of a score and its function of logits: log-odds of a class, or the last score, such as the risk.

    Of two classes it is always the second, so that red has the same meaning on all slides; of more classes the most
    probable one. Log-odds, because a probability near 0 or 1 hardly changes whatever is left out.
    """
    if isinstance(task, ClassificationTask):
        shown = 1 if task.num_outputs == 2 else int(logits.argmax())
        return f"log-odds of {task.classes[shown]}", partial(log_odds, output=shown)
    if isinstance(task, MultiLabelTask):
        shown = int(logits.argmax())
        return f"log-odds of {task.classes[shown]}", lambda logits: logits[:, shown]
    return task.score_names()[-1], lambda logits: task.bag_scores(logits)[:, -1]
