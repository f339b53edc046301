"""Faithfulness of the heatmaps of a case that a task has just predicted."""

import copy
import zlib
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.estimators import Auroc
from e2e_abmilx.evaluation.faithfulness import Curves, Value, removal_curves
from e2e_abmilx.heads import PoolingHead, leave_one_out
from e2e_abmilx.tasks.base import BagTask
from e2e_abmilx.tasks.explained_scores import predicted_score, shown_score
from e2e_abmilx.tasks.prediction import PredictedPatches

_AT_ONCE = 8192  # patches of bags that the head pools at once, or as many as the case has


class MapFaithfulness(NamedTuple):
    """How faithful a map of a case is.

    Attributes:
        case: Name of the case.
        map: ``attention``, ``contribution`` or ``random``.
        score: Name of the watched score, such as ``probability_tumour``.
        patches: Number of patches N.
        curves: The score while patches are removed or added.
        auc: AUC of the map against the true label of the patches, of a random map 0.5; NaN without both labels.
    """

    case: str
    map: str
    score: str
    patches: int
    curves: Curves
    auc: float


def measure_case(task: BagTask, case: str, truth: NDArray[np.bool_] | None = None) -> list[MapFaithfulness]:
    """Measure the attention, the contributions and a random map of the case that the task predicted last.

    Patches are ranked by attention, averaged over heads, and by their contribution to the predicted class, the value or
    the risk, where the head is a :class:`~e2e_abmilx.heads.PoolingHead`; other heads have no contributions. The watched
    score is the probability of the predicted class, the value or the risk. Only the head is evaluated again, on subsets
    of the features in their order, in float32.

    The AUC of contributions is that of the heatmap: of two classes, the contributions to the second.

    Args:
        task: The task.
        case: Name of the case, from which random orders are seeded.
        truth: Whether each patch shows what is looked for, shape ``(N,)``; None if unknown.

    Raises:
        InputError: The truth has another number of patches.
    """
    patches = task.predicted_patches
    assert patches is not None  # the task has just predicted this case
    maps = {"attention": _mean_attention(patches)}
    shown = dict(maps)
    watched = predicted_score(task, patches.output.logits)
    if isinstance(task.head, PoolingHead):
        maps["contribution"] = _contributions(task, patches, predicted=True)
        shown["contribution"] = _contributions(task, patches, predicted=False)
    aucs = {name: auc_of(importance, truth) for name, importance in shown.items()}
    aucs["random"] = 0.5 if _has_both(truth) else np.nan
    curves = removal_curves(_watch(task, patches, watched.output), maps, seed=zlib.crc32(case.encode()))
    score, count = task.score_names()[watched.output], len(patches.features)
    return [MapFaithfulness(case, name, score, count, curve, aucs[name]) for name, curve in curves.items()]


def auc_of(importance: NDArray[np.floating], truth: NDArray[np.bool_] | None) -> float:
    """Return the AUC with which a map separates true from other patches; NaN without truth or with one label only.

    Raises:
        InputError: The truth has another number of patches than the map.
    """
    if truth is not None and len(truth) != len(importance):
        raise InputError(f"the truth is of {len(truth)} patches, and the map of {len(importance)}; give one for each")
    if truth is None or not _has_both(truth):
        return np.nan
    return Auroc(importance, truth.astype(np.int64))(np.ones(len(truth), np.int64))


def _has_both(truth: NDArray[np.bool_] | None) -> bool:
    return truth is not None and bool(truth.any()) and not truth.all()


def _mean_attention(patches: PredictedPatches) -> NDArray[np.float64]:
    return np.asarray(patches.output.attention[0].cpu().double().mean(dim=0).numpy())


def _contributions(task: BagTask, patches: PredictedPatches, *, predicted: bool) -> NDArray[np.float64]:
    score = (predicted_score if predicted else shown_score)(task, patches.output.logits)
    values: Tensor = leave_one_out(task.head, patches.features, patches.output.attention[0], score.of_logits)
    return np.asarray(values.cpu().numpy())


def _watch(task: BagTask, patches: PredictedPatches, output: int) -> Value:
    """Return the function from the numbers of patches, shape ``(M, k)``, to a score of the task, shape ``(M,)``."""
    head = copy.deepcopy(task.head).float().eval()  # features are in float32, whatever the trainer's precision is
    features = patches.features

    @torch.no_grad()
    def value(kept: NDArray[np.intp]) -> NDArray[np.float32]:
        places = torch.from_numpy(kept).to(features.device)
        at_once = max(1, max(_AT_ONCE, len(features)) // places.shape[1])
        logits = torch.cat([head(features[bags]).float() for bags in torch.split(places, at_once)])
        return np.asarray(task.bag_scores(logits)[:, output].cpu().numpy())

    return value
