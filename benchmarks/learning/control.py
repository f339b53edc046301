"""What colour and intensity statistics alone predict: the trivial control, printed beside every result.

    PYTHONPATH=benchmarks python -m learning.control bags/rate10

The control is a logistic regression on statistics without texture, whose penalty is chosen on the validation split. It is
fitted to bags and to single witnesses; in either case to the grey, rank-equalised patches of the stores, and to the same
tiles in colour. A model that is not better than the grey control has learnt nothing.

Before their JPEG compression all grey tiles have the same statistics, exactly, and the control would be 0.5. The
compression changes them by hundredths of a grey level, depending on texture, and the regression finds these.
"""

import argparse
import csv
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from e2e_abmilx.evaluation.bootstrap import Estimate, bootstrap
from e2e_abmilx.evaluation.estimators import Auroc
from e2e_abmilx.store import PatchStore
from learning.tiles import SOURCE, TISSUES, Tiles

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PENALTIES = tuple(10.0**power for power in range(4, -5, -1))  # the strongest first, so that it wins a tie
_CONSTANT = 1e-9  # a std below it is rounding


#: Statistics of the N patches of each slide, shape ``(N, 21)``, in the order of its store.
TileStatistics = dict[str, NDArray[np.float64]]


class Table(NamedTuple):
    """Features with labels, each row in a split.

    Attributes:
        names: Name of each row, n in number; rows of the same name are resampled together.
        features: Shape ``(n, D)``.
        labels: 0 or 1, shape ``(n,)``.
        splits: ``train``, ``val`` or ``test``, shape ``(n,)``.
    """

    names: Sequence[str]
    features: NDArray[np.float64]
    labels: NDArray[np.int64]
    splits: NDArray[np.str_]


def tile_statistics(patches: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return mean, std and quantiles of each channel of each patch: ``(N, S, S, 3)`` → ``(N, 21)``."""
    pixels = patches.reshape(len(patches), -1, 3).astype(np.float64)
    quantiles = np.quantile(pixels, QUANTILES, axis=1)
    stacked = np.stack([pixels.mean(axis=1), pixels.std(axis=1), *quantiles], axis=1)
    return stacked.reshape(len(patches), -1)


def bag_statistics(tiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return mean, std, 5 % and 95 % quantile over a bag of each statistic of its tiles: ``(N, D)`` → ``(4 D,)``.

    The quantiles show a minority of unusual tiles, which the mean hides.
    """
    return np.concatenate([tiles.mean(axis=0), tiles.std(axis=0), *np.quantile(tiles, (0.05, 0.95), axis=0)])


def grey_tiles(folder: Path) -> TileStatistics:
    """Return the statistics of the patches of each bag, of the pixels in its store."""
    stores = {row["slide"]: PatchStore(folder / f"cache/{row['slide']}.zarr") for row in _rows(folder / "labels.csv")}
    return {slide: tile_statistics(store.read(np.arange(store.num_patches()))) for slide, store in stores.items()}


def colour_tiles(folder: Path, source: Path = SOURCE) -> TileStatistics:
    """Return the statistics of the same tiles in colour, as the source has them."""
    tiles = Tiles(source)
    numbers = {name: number for number, name in enumerate(tiles.names)}
    of_tile = cache(lambda name: tile_statistics(tiles.colour(numbers[name])[None])[0])
    statistics: dict[str, list[NDArray[np.float64]]] = {}
    for row in _rows(folder / "truth.csv"):
        statistics.setdefault(row["slide"], []).append(of_tile(row["tile"]))
    return {slide: np.stack(listed) for slide, listed in statistics.items()}


def bag_table(folder: Path, tiles: TileStatistics) -> Table:
    """Return a row per bag of ``write_bags``: which class of cancer do its witnesses show?"""
    rows = _rows(folder / "labels.csv")
    return Table(
        [row["slide"] for row in rows],
        np.stack([bag_statistics(tiles[row["slide"]]) for row in rows]),
        np.array([int(row["label"]) for row in rows]),
        np.array([row["split"] for row in rows]),
    )


def witness_table(folder: Path, tiles: TileStatistics) -> Table:
    """Return a row per witness, once for all bags: which class of cancer does it show? Rows are named by their group."""
    splits = {row["slide"]: row["split"] for row in _rows(folder / "labels.csv")}
    rows = {row["tile"]: row for row in _rows(folder / "truth.csv") if row["witness"] == "1"}.values()
    return Table(
        [row["group"] for row in rows],
        np.stack([tiles[row["slide"]][int(row["patch"])] for row in rows]),
        np.array([TISSUES.index(row["tissue"]) for row in rows]),
        np.array([splits[row["slide"]] for row in rows]),
    )


def control_auc(table: Table) -> Estimate:
    """Return the test AUC of a logistic regression with a 95 % interval over names; validation chooses the penalty."""
    train, val, test = (table.splits == split for split in ("train", "val", "test"))
    mean, std = table.features[train].mean(axis=0), table.features[train].std(axis=0)
    scaled = (table.features - mean) / np.where(std > _CONSTANT, std, np.inf)  # a constant column says nothing
    chosen, best = np.zeros(len(scaled)), -np.inf
    for penalty in PENALTIES:
        scores = expit(scaled @ (fit := fit_logistic(scaled[train], table.labels[train], penalty))[:-1] + fit[-1])
        auc = Auroc(scores[val], table.labels[val])(np.ones(val.sum(), np.int64))
        if auc > best:
            chosen, best = scores, auc
    names = [name for name, counted in zip(table.names, test, strict=True) if counted]
    return bootstrap(Auroc(chosen[test], table.labels[test]), names)


def fit_logistic(features: NDArray[np.float64], labels: NDArray[np.int64], penalty: float) -> NDArray[np.float64]:
    """Return the weights and, last, the bias that minimise the mean log loss plus penalty / 2n · the squared weights.

    Args:
        features: Standardised, shape ``(n, D)``.
        labels: 0 or 1, shape ``(n,)``.
        penalty: Strength of the penalty; the bias is free.
    """
    signs = 2.0 * labels - 1

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margins = signs * (features @ weights[:-1] + weights[-1])
        pull = -signs * expit(-margins) / len(labels)
        value = np.logaddexp(0, -margins).mean() + penalty / 2 / len(labels) * weights[:-1] @ weights[:-1]
        return value, np.append(features.T @ pull + penalty / len(labels) * weights[:-1], pull.sum())

    result: NDArray[np.float64] = minimize(loss, np.zeros(features.shape[1] + 1), jac=True, method="L-BFGS-B").x
    return result


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Print the controls of a folder of bags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bags", type=Path, nargs="+", help="folders of write_bags")
    parser.add_argument("--source", type=Path, default=SOURCE)
    options = parser.parse_args()
    for folder in options.bags:
        for colour, tiles in {"grey": grey_tiles(folder), "colour": colour_tiles(folder, options.source)}.items():
            for rows, table in {"bags": bag_table(folder, tiles), "witnesses": witness_table(folder, tiles)}.items():
                auc = control_auc(table)
                found = f"AUC {auc.point:.3f} ({auc.low:.3f} to {auc.high:.3f})"
                print(f"{folder}\t{colour} {rows}\t{found}", flush=True)


if __name__ == "__main__":
    main()
