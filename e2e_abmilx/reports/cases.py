"""What runs say of each case, how right that is, and where to look at it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from e2e_abmilx.reports.measures import (
    classes_of,
    has_multi_labels,
    labels_of,
    multi_labels_of,
    probabilities_of,
)
from e2e_abmilx.reports.tables import run_names
from e2e_abmilx.runs.read import Run, in_words


def case_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return a row a tested case, by its name, the least right first.

    Columns: ``run``; what ``predictions.csv`` has, with the class or classes ``predicted``; and ``rightness`` from 0 to
    1: the probability of the true class, its mean over several labels, or the share of the run's comparable pairs with
    this case that are ranked rightly, NaN where there is none.
    """
    tables = [
        run.predictions.assign(run=name, **_judge(run.predictions))
        for name, run in zip(run_names(runs), runs, strict=True)
    ]
    return pd.concat(tables).sort_values("rightness", kind="stable")


def find_heatmaps(run: Run) -> dict[str, Path]:
    """Return the overlay of each slide that has one."""
    return {path.parent.name: path for path in sorted((run.folder / "heatmaps").glob("*/overlay.png"))}


def _judge(predictions: pd.DataFrame) -> dict[str, NDArray[np.generic]]:
    if "risk" in predictions:
        return {"rightness": _ranked_rightly(*predictions[["risk", "time", "event"]].to_numpy().T)}
    probability = probabilities_of(predictions)
    if has_multi_labels(predictions):
        classes, label = classes_of(predictions), multi_labels_of(predictions)
        rightness = np.where(label == 1, probability, 1 - probability)
        return {
            "predicted": np.array([in_words(classes, called) for called in probability >= 0.5]),
            "rightness": np.ma.array(rightness, mask=np.isnan(label)).mean(axis=1).filled(np.nan),
        }
    return {
        "predicted": np.array(classes_of(predictions))[probability.argmax(axis=1)],
        "rightness": probability[np.arange(len(probability)), labels_of(predictions)],
    }


def _ranked_rightly(
    risk: NDArray[np.float64], time: NDArray[np.float64], event: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Share of each case's comparable pairs where the higher risk meets the earlier event; equal risks are a half."""
    moment = 2 * np.unique(time, return_inverse=True)[1] + (event == 0)  # of equal times events come first
    shares = np.full(len(risk), np.nan)
    for case in range(len(risk)):
        earlier, later = (moment < moment[case]) & (event == 1), (moment > moment[case]) & (event[case] == 1)
        right = np.sign(risk - risk[case]) * (earlier.astype(int) - later)
        if (earlier | later).any():
            shares[case] = (right[earlier | later] + 1).mean() / 2
    return shares
