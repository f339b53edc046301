"""What colour and intensity statistics alone predict: the trivial control, printed beside every result.

    PYTHONPATH=benchmarks python -m learning.control bags/rate10

The control is a logistic regression on statistics without texture, whose penalty is chosen on the validation bags. It is
fitted twice: on the grey, rank-equalised patches of the stores, and on the same tiles in colour. A model that is not
better than the first has learnt nothing.
"""

import argparse
import csv
from collections.abc import Callable, Sequence
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
from learning.tiles import NORMAL, SOURCE, Tiles

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PENALTIES = tuple(10.0**power for power in range(4, -5, -1))  # the strongest first, so that it wins a tie
_CONSTANT = 1e-9  # a std below it is rounding


class Table(NamedTuple):
    """Features with labels, each row in a split.

    Attributes:
        names: Name of each row, n in number.
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


def grey_bags(folder: Path) -> Table:
    """Return the statistics of the bags of ``write_bags``, of the pixels in their stores."""

    def of_bag(slide: str) -> NDArray[np.float64]:
        store = PatchStore(folder / f"cache/{slide}.zarr")
        return bag_statistics(tile_statistics(store.read(np.arange(store.num_patches()))))

    return _table(folder, of_bag)


def colour_bags(folder: Path, source: Path = SOURCE) -> Table:
    """Return the statistics of the same bags, of their tiles in colour."""
    tiles = Tiles(source)
    numbers = {name: number for number, name in enumerate(tiles.names)}
    of_tile = cache(lambda name: tile_statistics(tiles.colour(numbers[name])[None])[0])
    members: dict[str, list[str]] = {}
    for row in _rows(folder / "truth.csv"):
        members.setdefault(row["slide"], []).append(row["tile"])
    return _table(folder, lambda slide: bag_statistics(np.stack([of_tile(name) for name in members[slide]])))


def single_tiles(picture: Callable[[int], NDArray[np.uint8]], tiles: Tiles, seed: int) -> Table:
    """Return the statistics of single tiles of cancer, each class of cancer against the other, in the splits of bags.

    Args:
        picture: Returns a tile, RGB, by its number.
        tiles: The tiles.
        seed: Seed of the splits.
    """
    numbers, splits = [], []
    for split, pool in tiles.split(seed).items():
        chosen = np.concatenate(pool.by_tissue[:NORMAL])
        numbers.extend(chosen.tolist())
        splits.extend([split] * len(chosen))
    features = np.concatenate([tile_statistics(picture(number)[None]) for number in numbers])
    return Table([tiles.names[number] for number in numbers], features, tiles.tissue[numbers], np.array(splits))


def control_auc(table: Table) -> Estimate:
    """Return the test AUC of a logistic regression with a 95 % interval over bags; validation chooses the penalty."""
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


def _table(folder: Path, of_bag: Callable[[str], NDArray[np.float64]]) -> Table:
    rows = _rows(folder / "labels.csv")
    return Table(
        [row["slide"] for row in rows],
        np.stack([of_bag(row["slide"]) for row in rows]),
        np.array([int(row["label"]) for row in rows]),
        np.array([row["split"] for row in rows]),
    )


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
        for name, table in {"grey": grey_bags(folder), "colour": colour_bags(folder, options.source)}.items():
            auc = control_auc(table)
            print(f"{folder}\t{name} control\tAUC {auc.point:.3f} ({auc.low:.3f} to {auc.high:.3f})", flush=True)


if __name__ == "__main__":
    main()
