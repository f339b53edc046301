"""Results of the sweep: what each row of its table shows, and the table."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from scipy.stats import t

from e2e_abmilx import load_model
from e2e_abmilx.cohort import Case
from e2e_abmilx.data.inputs import PatchInput
from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.runs.read import read_metrics, read_test_metrics
from learning.measures import measure_task, tile_truth

REFERENCE = "ABMIL"  # the row that the others of the same training are compared with


class Row(NamedTuple):
    """A row of the table: a head, trained in one way with its tuned learning rate, once per seed.

    Attributes:
        training: ``end_to_end``, ``frozen`` or ``scratch``.
        name: The row's name in ``variants.yaml``.
        rate: The tuned learning rate.
        runs: Folder of the run of each seed.
        bags: Folder of the bags of each seed.
    """

    training: str
    name: str
    rate: float
    runs: tuple[Path, ...]
    bags: tuple[Path, ...]


class Interval(NamedTuple):
    """A mean over seeds with its 95 % interval, from the t distribution."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


class Measured(NamedTuple):
    """What the runs of a row measured on their test bags, each of shape ``(seeds,)``; α and attention may be NaN."""

    auc: np.ndarray
    attention_auc: np.ndarray
    noise_max_n: np.ndarray
    sparsity: np.ndarray
    alpha: np.ndarray
    epochs: np.ndarray
    minutes: np.ndarray


def validation_of(run: Path) -> tuple[float, float]:
    """Return the highest validation AUC of a run, and minus the loss of its epoch."""
    logged = read_metrics(run).dropna(subset=["val/auc"])
    best = logged.loc[logged["val/auc"] == logged["val/auc"].max()]
    return float(best["val/auc"].iloc[0]), -float(best["val/loss"].min())


def interval(values: np.ndarray) -> Interval:
    """Return the mean of values, one per seed, with its 95 % interval; without width for a single seed."""
    mean, count = float(values.mean()), len(values)
    half = float(t.ppf(0.975, count - 1) * values.std(ddof=1) / count**0.5) if count > 1 else 0.0
    return Interval(mean, mean - half, mean + half)


def measure(row: Row) -> Measured:
    """Measure the runs of a row; what took time is kept beside each run."""
    found = [[*_measure_run(run, bags).values()] for run, bags in zip(row.runs, row.bags, strict=True)]
    return Measured(*np.array(found, dtype=float).T)


def _measure_run(run: Path, bags: Path) -> dict[str, float]:
    kept = run / "attention.json"
    if not kept.exists():
        with atomic_write(kept) as unfinished:
            unfinished.write_text(json.dumps(_attention(run, bags)))
    record = yaml.safe_load((run / "run.yaml").read_text(encoding="utf-8"))
    return {
        "auc": float(read_test_metrics(run)["test/auc"]),
        **json.loads(kept.read_text()),
        "epochs": record["best"]["epoch"] + 1,
        "minutes": record["fit"]["seconds"] / 60,
    }


def _attention(run: Path, bags: Path) -> dict[str, float]:
    """Measure the attention of the tested weights of a run to its test bags."""
    model, truth = load_model(run), tile_truth(bags)
    cases = [Case(slide, (slide,)) for slide in truth if slide.startswith("test-")]
    inputs = bags / ("cache" if isinstance(model.contract.input, PatchInput) else "features")
    measured = measure_task(model.tasks[0], cases, inputs, truth)
    attention_auc, noise_max_n, sparsity = measured.mean
    alpha = np.nan if measured.alpha is None else measured.alpha
    return {"attention_auc": attention_auc, "noise_max_n": noise_max_n, "sparsity": sparsity, "alpha": alpha}


def print_table(rows: Sequence[Row]) -> None:
    """Print the table, and every difference that the comparison asks for."""
    measured = {(row.training, row.name): measure(row) for row in rows}
    print(*_table(rows, measured), sep="\n")


def _table(rows: Sequence[Row], measured: dict[tuple[str, str], Measured]) -> Iterator[str]:
    titles = ("training", "head", "lr", "test AUC (95 %)", f"− {REFERENCE}", "− frozen", "attention AUC", "noise MAX-N",
              "sparsity, %", "α", "best epoch", "fit, min")  # fmt: skip
    yield "| " + " | ".join(titles) + " |"
    yield "| --- | --- |" + " --: |" * (len(titles) - 2)
    for row in rows:
        yield "| " + " | ".join(_cells(row, measured)) + " |"


def _cells(row: Row, measured: dict[tuple[str, str], Measured]) -> list[str]:
    ours = measured[row.training, row.name]
    auc = interval(ours.auc)
    return [
        row.training.replace("_", " "),
        row.name,
        f"{row.rate:g}",
        f"{auc.mean:.3f} ({auc.low:.3f} to {min(auc.high, 1.0):.3f})",
        _difference(ours, measured.get((row.training, REFERENCE)), row.name != REFERENCE),
        _difference(ours, measured.get(("frozen", row.name)), row.training != "frozen"),
        *(_mean_and_std(values) for values in (ours.attention_auc, ours.noise_max_n, ours.sparsity, ours.alpha)),
        f"{ours.epochs.mean():.1f}",
        f"{ours.minutes.mean():.1f}",
    ]


def _difference(ours: Measured, theirs: Measured | None, shown: bool) -> str:
    """Return the difference of the AUC, paired by seed, since the runs of a seed share bags and order."""
    return "" if theirs is None or not shown else str(interval(ours.auc - theirs.auc))


def _mean_and_std(values: np.ndarray) -> str:
    if np.isnan(values).all():
        return "–"
    return f"{values.mean():.2f} ± {values.std(ddof=1) if len(values) > 1 else 0:.2f}"
