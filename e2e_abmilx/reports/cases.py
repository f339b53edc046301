"""The prediction of each tested case, how correct it is, and the heatmaps of its slides."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from e2e_abmilx.reports.measures import (
    classes_of,
    has_multi_labels,
    is_regression,
    labels_of,
    multi_labels_of,
    probabilities_of,
)
from e2e_abmilx.reports.tables import run_names
from e2e_abmilx.runs.read import Run, in_words


def case_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return one row per tested case, indexed by its name, the least correct first.

    Columns: ``run``; those of ``predictions.csv``; the class or classes ``predicted``, or the ``absolute_error`` of a
    predicted value; and ``correctness`` from 0 to 1: the probability of the true class or, for several labels, its mean
    over the known ones; in survival, the fraction of the run's comparable pairs with this case that are ordered
    correctly, NaN if there are none; in regression, the fraction of the run's cases that have no smaller error.
    """
    tables = [
        run.predictions.assign(run=name, **_assess(run.predictions))
        for name, run in zip(run_names(runs), runs, strict=True)
    ]
    return pd.concat(tables).sort_values("correctness", kind="stable")


def find_heatmaps(run: Run) -> dict[str, Path]:
    """Return the overlay of each slide that has one."""
    return {path.parent.name: path for path in sorted((run.folder / "heatmaps").glob("*/overlay.png"))}


def find_views(run: Run) -> dict[str, int]:
    """Return the number of each case in ``view``, the copy for the browser that ``e2e-abmilx view --export`` wrote.

    The address of a case is ``view/index.html#case=<number>``. A copy that cannot be read has no cases.
    """
    folder = run.folder / "view"
    try:
        numbers = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(numbers, dict) or not (folder / "index.html").is_file():
        return {}
    return {case: number for case, number in numbers.items() if isinstance(number, int)}


def _assess(predictions: pd.DataFrame) -> dict[str, NDArray[np.generic]]:
    if is_regression(predictions):
        error = (predictions["predicted_value"] - predictions["value"]).abs()
        return {
            "absolute_error": error.to_numpy(),
            "correctness": error.rank(method="max", ascending=False, pct=True).to_numpy(),
        }
    if "risk" in predictions:
        return {"correctness": _ordered_correctly(*predictions[["risk", "time", "event"]].to_numpy().T)}
    probability = probabilities_of(predictions)
    if has_multi_labels(predictions):
        classes, label = classes_of(predictions), multi_labels_of(predictions)
        correctness = np.where(label == 1, probability, 1 - probability)
        return {
            "predicted": np.array([in_words(classes, called) for called in probability >= 0.5]),
            "correctness": np.ma.array(correctness, mask=np.isnan(label)).mean(axis=1).filled(np.nan),
        }
    return {
        "predicted": np.array(classes_of(predictions))[probability.argmax(axis=1)],
        "correctness": probability[np.arange(len(probability)), labels_of(predictions)],
    }


def _ordered_correctly(
    risk: NDArray[np.float64], time: NDArray[np.float64], event: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the fraction of each case's comparable pairs that are ordered correctly; equal risks count one half."""
    moment = 2 * np.unique(time, return_inverse=True)[1] + (event == 0)  # events come first among equal times
    fractions = np.full(len(risk), np.nan)
    for case in range(len(risk)):
        earlier, later = (moment < moment[case]) & (event == 1), (moment > moment[case]) & (event[case] == 1)
        agreement = np.sign(risk - risk[case]) * (earlier.astype(int) - later)
        if (earlier | later).any():
            fractions[case] = (agreement[earlier | later] + 1).mean() / 2
    return fractions
