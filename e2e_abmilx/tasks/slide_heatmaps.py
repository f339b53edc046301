"""Heatmaps of the slides of a case that a task has just predicted."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from e2e_abmilx.data.slide_bags import row_ranks
from e2e_abmilx.heads import BagHead, ContributionError, PoolingHead, leave_one_out
from e2e_abmilx.heatmaps import Contribution, Kind, SlideAttention, write_heatmap
from e2e_abmilx.store import PatchStore
from e2e_abmilx.store.locations import Location, store_path
from e2e_abmilx.tasks.base import BagTask
from e2e_abmilx.tasks.explained_scores import shown_score


def check_kind(head: object, kind: Kind) -> None:
    """Refuse contributions of a head that has none.

    Raises:
        ContributionError: The head does not classify a weighted mean of patches.
    """
    if kind == "contribution" and isinstance(head, BagHead) and not isinstance(head, PoolingHead):
        raise ContributionError(head)


def write_case_heatmaps(
    task: BagTask, scores: Mapping[str, float], sizes: Mapping[str, int], cache: Location, folder: Path, kind: Kind
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
    contribution = contribution_of(task) if kind == "contribution" else None
    name = "risk" if "risk" in scores else max(scores, key=lambda name: scores[name])
    for slide, _, attention in slide_attentions(task, sizes, cache, contribution):
        write_heatmap(attention, folder / slide, kind=kind, title=f"{slide}: {name} = {scores[name]:.3g}")


def slide_attentions(
    task: BagTask, sizes: Mapping[str, int], cache: Location, contribution: Contribution | None
) -> Iterator[tuple[str, NDArray[np.int64], SlideAttention]]:
    """Yield each slide of the case that the task predicted last, which of the case's patches are its own, and their attention.

    They are in the order of the slide's store, which may be a random one; predictions are row by row.

    Args:
        task: The task.
        sizes: Number of patches of each slide of the case, in the order of the prediction.
        cache: Folder of the slides' stores.
        contribution: Of all patches of the case, if wanted.

    Raises:
        HeatmapError: A store lacks the positions of its patches, or has other positions.
    """
    patches = task.predicted_patches
    assert patches is not None  # the task has just predicted this case
    start = 0
    for slide, size in sizes.items():
        store = PatchStore(store_path(cache, slide))
        own = start + _in_store_order(store, patches.scale[start : start + size].cpu().numpy())
        start += size
        attention = SlideAttention.from_weights(
            store,
            patches.coords.cpu().numpy()[own],
            patches.scale.cpu().numpy()[own],
            patches.output.attention[0].cpu().numpy()[:, own],
            bag_size=len(patches.coords),
            contribution=Contribution(contribution.score, contribution.values[own]) if contribution else None,
        )
        yield slide, own, attention


def _in_store_order(store: PatchStore, scale: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each patch of a store is among the slide's predicted patches, whose scales are given, shape ``(N,)``."""
    places = np.arange(len(scale))
    if store.order_seed is not None:
        for number in np.unique(scale):
            here = places[scale == number]
            if len(here) == store.num_patches(int(number)):  # others are refused by from_weights
                places[scale == number] = here[row_ranks(store, int(number))]
    return places


def contribution_of(task: BagTask) -> Contribution:
    """Return the contribution of each patch of the case that the task predicted last to the score of the case.

    Raises:
        ContributionError: The head does not classify a weighted mean of patches.
    """
    patches = task.predicted_patches
    assert patches is not None  # the task has just predicted this case
    score = shown_score(task, patches.output.logits)
    contribution = leave_one_out(task.head, patches.features, patches.output.attention[0], score.of_logits)
    return Contribution(score.name, contribution.cpu().numpy())
