"""Runs on a made-up cohort whose label may follow the site or the stain, and whose embeddings may encode the site."""

from pathlib import Path

import numpy as np
import pandas as pd
from hand_written import write_run

from e2e_abmilx.runs.read import Run
from e2e_abmilx.store import write_store

CASES = 80


def write_audited_run(
    folder: Path,
    *,
    seed: int = 0,
    cases: int = CASES,
    confounded: float = 0,
    leak: float = 0,
    tint: float | None = None,
) -> Run:
    """Write labels with columns ``site`` and ``scanner``, embeddings and, with a tint, stores; return the run.

    Args:
        folder: Of the cohort; the run is in ``folder/run``.
        seed: Of all draws.
        cases: Number of cases, all of them tested.
        confounded: Fraction of the cases whose site follows from the label.
        leak: How strongly embeddings encode the site, besides the label.
        tint: How much redder slides of the second class are, in grey levels.
    """
    draw = np.random.default_rng(seed)
    label = np.arange(cases) % 2
    site = np.where(draw.random(cases) < confounded, label, draw.integers(0, 3, cases))
    names = [f"case-{number:03d}" for number in range(cases)]
    table = pd.DataFrame(
        {"case": names, "slide": names, "label": label, "site": np.array(["Bonn", "Kyoto", "Lima"])[site]}
    )
    table["scanner"] = draw.choice(["A", "B"], cases)
    folder.mkdir(parents=True)
    table.to_csv(folder / "labels.csv", index=False)
    if tint is not None:
        for name, one in zip(names, label, strict=True):
            colour = np.array([150 + tint * one, 90, 130]) + draw.normal(0, 5, 3)
            pixels = np.broadcast_to(colour, (2, 16, 16, 3)).round().astype(np.uint8)
            write_store(folder / f"cache/{name}.zarr", {0.5: (pixels, None)})
    probability = 1 / (1 + np.exp(-draw.normal(4 * label - 2, 1)))
    predictions = pd.DataFrame({"case": names, "label": label, "probability_0": 1 - probability})
    data = {"labels": str(folder / "labels.csv"), "cache": str(folder / "cache")}
    run = write_run(folder / "run", predictions.assign(probability_1=probability), data=data)
    codes = draw.normal(size=(2, 16)), draw.normal(size=(3, 16))
    embedding = 2 * codes[0][label] + leak * codes[1][site] + draw.normal(size=(cases, 16))
    np.savez(run.folder / "embeddings.npz", case=np.array(names), embedding=embedding.astype(np.float32))
    return run
