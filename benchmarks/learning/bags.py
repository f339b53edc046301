"""Bags of grey tiles of lung, as patch stores, with labels and truth.

    PYTHONPATH=benchmarks python -m learning.bags --out bags/rate10 --witness_rate 0.1 --size_px 64 --seed 0

A bag looks like a slide of ``patches`` tiles. A fraction of them, the witnesses, shows one class of cancer, which is the
bag's label: 0 adenocarcinoma, 1 squamous. The others are normal. The tiles are grey and rank-equalised, because in colour
the classes are trivial.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.store import StoreWriter
from learning.tiles import NORMAL, SHARES, SOURCE, TISSUES, Pool, Tiles

MPP = 0.5  # nominal: the source does not state the µm per pixel
_THUMBNAIL = 256, 256
_VERSION = 1  # raised when the same settings give other pixels or labels
_QUALITY = 95  # the JPEG quality; 90 would smooth an equalised tile more, the finer its texture is


class PlannedBag(NamedTuple):
    """A bag before its pixels.

    Attributes:
        slide: Its name.
        label: 0 adenocarcinoma, 1 squamous.
        split: ``train``, ``val`` or ``test``.
        tiles: Number of the tile at each place, shape ``(N,)``.
    """

    slide: str
    label: int
    split: str
    tiles: NDArray[np.int64]


def write_bags(
    folder: Path,
    *,
    witness_rate: float,
    size_px: int,
    train: int,
    val: int,
    test: int,
    seed: int,
    source: Path = SOURCE,
    patches: int = 100,
) -> Path:
    """Write bags of grey tiles; bags that exist already are not written again.

    ``folder/cache/<slide>.zarr`` are the bags, one scale at a nominal 0.5 µm per pixel each, tiles placed row by row.
    ``folder/labels.csv`` has one row per bag: slide, label, split. ``folder/truth.csv`` has one row per patch, in the
    order of the store: slide, patch, tile, group (its original image), tissue, witness (1 = of a cancer class).

    The seed determines which original images belong to which split, and every bag; a smaller number of bags gives the
    first of the same bags. A tile may be in several bags of its split, but at most once in each.

    Args:
        folder: A new or empty folder, or one that an earlier call with the same settings has begun or filled.
        witness_rate: Fraction of a bag's tiles that are of the cancer class.
        size_px: Side of a patch, pixels; tiles have 112.
        train: Number of training bags.
        val: Number of validation bags.
        test: Number of test bags.
        seed: Seed of all draws.
        source: Folder of the tiles.
        patches: N, tiles of a bag.

    Returns:
        The path of ``labels.csv``.

    Raises:
        InputError: An argument is out of its range, or the folder holds something else.
    """
    tiles = Tiles(source)
    counts = {"train": train, "val": val, "test": test}
    witnesses = _count_witnesses(witness_rate, patches)
    if not 8 <= size_px <= 112:
        raise InputError(f"size_px is {size_px}; tiles have 112 pixels, so it must lie in [8, 112]")
    if seed < 0:
        raise InputError(f"seed is {seed}; it must be at least 0")
    pools = tiles.split(seed)
    _check_pools(pools, counts, witnesses, patches)
    drawn = {"version": _VERSION, "witness_rate": witness_rate, "size_px": size_px, "patches": patches, "seed": seed}
    _claim(folder, {**drawn, **counts, "tiles": tiles.checksum})
    bags = list(plan_bags(pools, counts, witnesses=witnesses, patches=patches, seed=seed))
    _write_tables(folder, bags, tiles)
    grey = cache(lambda tile: tiles.grey(tile, size_px))
    for bag in bags:
        path = folder / f"cache/{bag.slide}.zarr"
        if not path.exists():
            _write_store(path, np.stack([grey(int(tile)) for tile in bag.tiles]))
    return folder / "labels.csv"


def plan_bags(
    pools: Mapping[str, Pool], counts: Mapping[str, int], *, witnesses: int, patches: int, seed: int
) -> Iterator[PlannedBag]:
    """Draw the tiles of every bag and their order; labels alternate.

    Each bag has a generator of its own, so that bags do not depend on how many there are.

    Args:
        pools: Tiles of each split.
        counts: Number of bags of each split.
        witnesses: Tiles of a bag that are of the cancer class.
        patches: N, tiles of a bag.
        seed: Seed of the draws.
    """
    for place, split in enumerate(SHARES):
        by_tissue = pools[split].by_tissue
        for number in range(counts[split]):
            rng, label = np.random.default_rng([seed, place, number]), number % 2
            cancer = rng.choice(by_tissue[label], witnesses, replace=False)
            normal = rng.choice(by_tissue[NORMAL], patches - witnesses, replace=False)
            yield PlannedBag(f"{split}-{number:03d}", label, split, rng.permutation(np.concatenate([cancer, normal])))


def _count_witnesses(rate: float, patches: int) -> int:
    if not 0 < rate < 1:
        raise InputError(f"witness_rate is {rate}; it is a fraction of a bag's tiles and must lie in (0, 1)")
    witnesses = round(rate * patches)
    if not 1 <= witnesses < patches:
        raise InputError(
            f"a witness_rate of {rate} makes {witnesses} witnesses of {patches} patches; a bag needs a witness and a"
            " normal tile: change one of the two"
        )
    return witnesses


def _check_pools(pools: Mapping[str, Pool], counts: Mapping[str, int], witnesses: int, patches: int) -> None:
    for split, number in counts.items():
        if number < 0:
            raise InputError(f"{split} is {number}; it counts bags and must be at least 0")
        for tissue, pool in enumerate(pools[split].by_tissue):
            wanted = patches - witnesses if tissue == NORMAL else witnesses
            if number and wanted > len(pool):
                raise InputError(
                    f"a bag needs {wanted} different {TISSUES[tissue]} tiles, and the split {split} has {len(pool)};"
                    " ask for fewer patches, or another witness_rate"
                )


def _claim(folder: Path, settings: dict[str, float]) -> None:
    """Record the settings in a folder, or refuse the folder if it holds other bags or anything else."""
    record = folder / "bags.json"
    if record.exists():
        found = json.loads(record.read_text())
        if found != settings:
            changed = [name for name in {**found, **settings} if found.get(name) != settings.get(name)]
            different = ", ".join(f"{name} {found.get(name)} instead of {settings.get(name)}" for name in changed)
            raise InputError(f"{folder} holds bags of other settings: {different}; name another folder, or delete it")
        return
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no bags, which need their own folder; name a new one")
    with atomic_write(record) as unfinished:
        unfinished.write_text(json.dumps(settings))


def _write_tables(folder: Path, bags: list[PlannedBag], tiles: Tiles) -> None:
    _write_csv(folder / "labels.csv", ("slide", "label", "split"), (bag[:3] for bag in bags))
    rows = (
        (
            bag.slide,
            patch,
            tiles.names[tile],
            tiles.group[tile],
            TISSUES[tiles.tissue[tile]],
            int(tiles.tissue[tile] != NORMAL),
        )
        for bag in bags
        for patch, tile in enumerate(bag.tiles)
    )
    _write_csv(folder / "truth.csv", ("slide", "patch", "tile", "group", "tissue", "witness"), rows)


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    with atomic_write(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def _write_store(path: Path, patches: NDArray[np.uint8]) -> None:
    """Write patches as if they had been cut from a slide that they fill row by row, so that heatmaps can be drawn."""
    side, columns = patches.shape[1], int(np.ceil(len(patches) ** 0.5))
    numbers = np.arange(len(patches))
    coords = np.stack([numbers % columns, numbers // columns], axis=1) * side
    slide = np.full((columns * side, columns * side, 3), 255, np.uint8)
    for (x, y), patch in zip(coords, patches, strict=True):
        slide[y : y + side, x : x + side] = patch
    attributes = {"slide_size": [columns * side] * 2, "slide_mpp": MPP, "footprints": [side]}
    with StoreWriter(path, [MPP], patch_size=side, attributes=attributes, quality=_QUALITY) as writer:
        writer.write(patches, coords)
        writer.write_thumbnail(np.asarray(Image.fromarray(slide).resize(_THUMBNAIL, Image.Resampling.BOX)))


def main() -> None:
    """Write the bags that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder")
    parser.add_argument("--witness_rate", type=float, default=0.1)
    parser.add_argument("--size_px", type=int, default=64)
    for split, number in {"train": 120, "val": 30, "test": 80}.items():
        parser.add_argument(f"--{split}", type=int, default=number, help=f"bags (default {number})")
    parser.add_argument("--patches", type=int, default=100, help="tiles of a bag")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--source", type=Path, default=SOURCE)
    options = vars(parser.parse_args())
    print(write_bags(options.pop("out"), **options))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
