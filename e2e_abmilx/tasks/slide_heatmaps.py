"""Heatmaps of the slides of a case that a task has just predicted."""

from collections.abc import Mapping
from pathlib import Path

from e2e_abmilx.heads import BagHead, ContributionError, PoolingHead, leave_one_out
from e2e_abmilx.heatmaps import Contribution, Kind, SlideAttention, write_heatmap
from e2e_abmilx.store import PatchStore
from e2e_abmilx.tasks.base import BagTask
from e2e_abmilx.tasks.explained_scores import shown_score
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
    score = shown_score(task, patches.output.logits)
    contribution = leave_one_out(task.head, patches.features, patches.output.attention[0], score.of_logits)
    return Contribution(score.name, contribution.cpu().numpy())
