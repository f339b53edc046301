"""Attention against the truth of patches: its AUC, the paper's MAX-N over noise patches, sparsity, and α.

Letters: N patches of a slide, H attention heads.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from e2e_abmilx.cohort import Case
from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.patch_truth import covered_in_store
from e2e_abmilx.heads.sparsity import attention_sparsity
from e2e_abmilx.models import CasePrediction, Model
from e2e_abmilx.models.inputs import bags_of
from e2e_abmilx.store import PatchStore
from e2e_abmilx.tasks import BagTask


class Truth(NamedTuple):
    """What the patches of a slide show; a patch may be neither.

    Attributes:
        witness: True on patches that the label comes from, shape ``(N,)``.
        noise: True on patches that have nothing of it, shape ``(N,)``.
    """

    witness: NDArray[np.bool_]
    noise: NDArray[np.bool_]


class AttentionMeasures(NamedTuple):
    """Measures of one attention, or their mean over attentions.

    Attributes:
        auc: Fraction of pairs of a witness and another patch in which the witness has more attention; ties count half.
        noise_max_n: N times the largest attention to a noise patch, the paper's MAX-N (Table 5): 1 for equal weights.
        sparsity: 100 % minus the smallest percentage of patches that together hold 95 % of the attention. The paper
            prints a percentage, higher for sparser attention, "derived from activated patches", and does not say which
            patches count as activated; so our numbers can be compared with each other but not with the paper's.
    """

    auc: float
    noise_max_n: float
    sparsity: float


class SlideMeasures(NamedTuple):
    """Measures of the attention to one slide.

    Attributes:
        mean: Of the attention averaged over heads, as each head adds an equal part of the embedding.
        heads: Of each head by itself, H in number.
    """

    mean: AttentionMeasures
    heads: tuple[AttentionMeasures, ...]


class TaskMeasures(NamedTuple):
    """Measures of a trained task, averaged over slides.

    Attributes:
        mean: Of the attention averaged over heads.
        single: Of single heads, averaged over the heads.
        heads: Of each head by itself, H in number.
        alpha: α of ABMILX; None for other heads.
        slides: Number of slides that count.
    """

    mean: AttentionMeasures
    single: AttentionMeasures
    heads: tuple[AttentionMeasures, ...]
    alpha: float | None
    slides: int


def tile_truth(folder: Path) -> dict[str, Truth]:
    """Return the truth of the bags of ``write_bags``, by slide."""
    witnesses: dict[str, list[bool]] = {}
    with (folder / "truth.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            witnesses.setdefault(row["slide"], []).append(row["witness"] == "1")
    masks = {slide: np.array(listed) for slide, listed in witnesses.items()}
    return {slide: Truth(mask, ~mask) for slide, mask in masks.items()}


def lesion_truth(folder: Path, slides: Sequence[str]) -> dict[str, Truth]:
    """Return the truth of synthetic slides: witnesses are half lesion at least, noise has no lesion at all.

    Args:
        folder: Folder of a synthetic cohort, with ``cache`` and ``masks``.
        slides: Names of the slides.
    """
    truth = {}
    for slide in slides:
        store = PatchStore(folder / f"cache/{slide}.zarr")
        fractions = covered_in_store(store, folder / f"masks/{slide}.png", store.coords(), 0)
        truth[slide] = Truth(fractions >= 0.5, fractions == 0)
    return truth


def measure_attention(attention: NDArray[np.floating], truth: Truth) -> SlideMeasures:
    """Measure the attention of H heads to the N patches of a slide, shape ``(H, N)``.

    Raises:
        InputError: Attention and truth have different numbers of patches, or the slide lacks witnesses or noise.
    """
    if attention.shape[1] != len(truth.witness):
        raise InputError(
            f"attention is to {attention.shape[1]} patches, and {len(truth.witness)} have a truth; evaluate the finest"
            " scale, for which the truth is written"
        )
    if not truth.witness.any() or not truth.noise.any():
        raise InputError("the slide has no witness or no noise, so neither AUC nor MAX-N is defined; leave it out")
    heads = tuple(_measure(head.astype(np.float64), truth) for head in attention)
    return SlideMeasures(_measure(attention.mean(axis=0, dtype=np.float64), truth), heads)


def measure_task(task: BagTask, cases: Sequence[Case], cache: Path, truth: Mapping[str, Truth]) -> TaskMeasures:
    """Measure the attention of a trained task to cases of one slide each, averaged over the slides.

    Slides without witnesses or without noise do not count: where nothing is a lesion, no patch distracts from one. A
    callback may call this after each epoch of a fit, which goes on as it would have without.

    Args:
        task: The task, in training, trained or loaded from a checkpoint.
        cases: The cases.
        cache: Folder of their stores.
        truth: Truth by slide.

    Raises:
        InputError: A case has several slides or cannot be read, or no slide counts.
    """
    counted = [case for case in cases if truth[_only_slide(case)].witness.any() and truth[case.slides[0]].noise.any()]
    if not counted:
        raise InputError(f"none of the {len(cases)} slides has both witnesses and noise; give slides with lesions")
    measured = []
    for case, prediction in zip(counted, _predict(task, counted, cache), strict=True):
        measured.append(measure_attention(prediction.patches.attention, truth[case.slides[0]]))
    heads = tuple(_average(head) for head in zip(*(slide.heads for slide in measured), strict=True))
    alpha = task.head.watched().get("alpha")
    return TaskMeasures(
        _average([slide.mean for slide in measured]),
        _average(heads),
        heads,
        None if alpha is None else float(alpha),
        len(measured),
    )


def _measure(attention: NDArray[np.float64], truth: Truth) -> AttentionMeasures:
    fraction = attention_sparsity(torch.from_numpy(attention)[None, None]).fraction_holding_95
    return AttentionMeasures(
        _auc(attention, truth.witness), len(attention) * attention[truth.noise].max(), 100 * (1 - float(fraction))
    )


def _auc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve from the sum of the ranks (Mann and Whitney)."""
    count = positive.sum()
    rank_sum = rankdata(scores)[positive].sum()
    return float((rank_sum - count * (count + 1) / 2) / (count * (len(scores) - count)))


def _predict(task: BagTask, cases: Sequence[Case], cache: Path) -> list[CasePrediction]:
    training, predictions = task.training, []
    for prediction in Model(task, device=str(task.device)).predict_cases(bags_of(cases, cache, task.contract)):
        if isinstance(prediction, InputError):
            raise prediction
        predictions.append(prediction)
    task.train(training)  # Model sets the evaluation mode, in which the rest of a fit would go on
    return predictions


def _only_slide(case: Case) -> str:
    if len(case.slides) != 1:
        raise InputError(f"case {case.id} has {len(case.slides)} slides; truth is known of cases with one")
    return case.slides[0]


def _average(measures: Sequence[AttentionMeasures]) -> AttentionMeasures:
    return AttentionMeasures(*np.mean(measures, axis=0).tolist())
