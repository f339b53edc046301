"""Runs with made-up predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from e2e_abmilx.runs.read import Run, read_run


def write_run(
    folder: Path,
    predictions: pd.DataFrame,
    *,
    threshold: float | None = None,
    splits: pd.DataFrame | None = None,
    data: dict[str, Any] | None = None,
) -> Run:
    """Write a run and return what is read back."""
    folder.mkdir(parents=True)
    predictions.to_csv(folder / "predictions.csv", index=False)
    if threshold is not None:
        (folder / "metrics.csv").write_text(f"epoch,test/threshold\n1,{threshold!r}\n")
    if splits is None:
        splits = pd.DataFrame({"case": predictions["case"], "split": "test"})
    splits.to_csv(folder / "splits.csv", index=False)
    settings = {"seed_everything": 0, "data": {"init_args": {"fold": None, "splits": None, **(data or {})}}}
    (folder / "fit.yaml").write_text(yaml.safe_dump(settings))
    return read_run(folder)


def classified(cases: Sequence[str], classes: Sequence[str], *, seed: int, skill: float = 1.0) -> pd.DataFrame:
    """Return random predictions, better with higher skill; every class occurs, and labels depend only on the case."""
    truth = np.array([sum(map(ord, case)) % len(classes) for case in cases])
    logits = np.random.default_rng(seed).normal(size=(len(cases), len(classes)))
    logits[np.arange(len(cases)), truth] += skill
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    columns = {f"probability_{name}": probability[:, number] for number, name in enumerate(classes)}
    return pd.DataFrame({"case": cases, "label": [classes[number] for number in truth], **columns})


def survived(cases: Sequence[str], *, seed: int) -> pd.DataFrame:
    """Return random times, events and risks; times and events depend only on the number of cases."""
    truth = np.random.default_rng(len(cases))
    time, event = truth.exponential(30, len(cases)).round(1), truth.integers(0, 2, len(cases))
    risk = np.random.default_rng(seed).normal(size=len(cases)) - time / 30
    return pd.DataFrame({"case": cases, "time": time, "event": event, "risk": risk})


def regressed(cases: Sequence[str], *, seed: int, noise: float = 1.0) -> pd.DataFrame:
    """Return random predicted values, better with less noise; true values depend only on the number of cases."""
    value = np.random.default_rng(len(cases)).normal(20, 3, len(cases)).round(2)
    predicted = value + noise * np.random.default_rng(seed).normal(0, 3, len(cases))
    return pd.DataFrame({"case": cases, "value": value, "predicted_value": predicted})


def multi_labelled(
    cases: Sequence[str], classes: Sequence[str], *, seed: int, skill: float = 1.0, unknown: float = 0.2
) -> pd.DataFrame:
    """Return random predictions of several labels per case, some unknown; labels depend only on the number of cases."""
    truth = np.random.default_rng(len(cases))
    label = truth.integers(0, 2, (len(cases), len(classes))).astype(float)
    logits = np.random.default_rng(seed).normal(size=label.shape) + skill * (label - 0.5)
    label[truth.random(label.shape) < unknown] = np.nan
    labels = pd.DataFrame(label, columns=[f"label_{name}" for name in classes]).astype("Int64")
    scores = pd.DataFrame(1 / (1 + np.exp(-logits)), columns=[f"probability_{name}" for name in classes])
    return pd.concat([pd.DataFrame({"case": cases}), labels, scores], axis=1)
