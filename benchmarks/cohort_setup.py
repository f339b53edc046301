"""Time the setup of a run on 10,000 stores, with each store opened and with the cohort index, and a row of the manifest.

The stores are hard links to the files of one tiny store, which has the attributes of a slide that was cut. "Opened" is what
releases before the index did, on the same stores, one after the other; it is favoured here, because the one file behind all
links is always in memory. On a network file system each store is one request for attributes with the index, and several
for attributes and content without.

Run ``python benchmarks/cohort_setup.py [--stores 10000]``, which takes a few minutes, most of them to make the links. The exit status is 1 if a
target is missed.
"""

import argparse
import csv
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from e2e_abmilx.cache.manifest import MANIFEST, CachedSlide, compact_manifest, read_manifest, update_manifest
from e2e_abmilx.cache.thumbnails import HASH, read_thumbnail_hashes
from e2e_abmilx.cohort import Case
from e2e_abmilx.data.bag import Target
from e2e_abmilx.data.slide_bags import WholeSlides, check_stores
from e2e_abmilx.io.atomic import atomic_write
from e2e_abmilx.io.locks import hold
from e2e_abmilx.store import CohortIndex, PatchStore, StoreFacts, write_store
from e2e_abmilx.store.cohort_index import SETTLED_NS
from e2e_abmilx.store.facts import decode_index, encode_index

CHUNK = 256
ATTRIBUTES = {
    "tiling": {
        "mpp": [0.5, 1.0],
        "patch_size": 16,
        "overlap": 0.0,
        "min_tissue": 0.5,
        "quality": 90,
        "assume_mpp": None,
    },
    "override_mpp": None,
    "fingerprint": "0123456789abcdef" * 2,
    "slide_file": "TCGA-00-0000-01Z-00-DX1.0123456789abcdef.svs",
    "slide_size": [100_000, 80_000],
    "slide_bounds": None,
    "slide_mpp": 0.2528,
    "slide_mpp_source": "aperio",
    "patch_mpp": [0.5, 1.0],
    "footprints": [506, 1011],
    "grid_patches": [4, 1],
    HASH: "0123456789abcdef" * 4,
}


def link_stores(folder: Path, stores: int) -> list[str]:
    """Make stores of the same content; return their names."""
    patches = np.zeros((4, 16, 16, 3), np.uint8)
    scales = {0.5: (patches, np.zeros((4, 2), np.int64)), 1.0: (patches[:1], np.zeros((1, 2), np.int64))}
    first = write_store(folder / "slide-00000.zarr", scales, attributes=ATTRIBUTES).path
    files = [file.relative_to(first) for file in first.rglob("*") if file.is_file()]
    folders = [file.relative_to(first) for file in first.rglob("*") if file.is_dir()]
    names = [f"slide-{number:05d}" for number in range(stores)]
    for name in names[1:]:
        path = folder / f"{name}.zarr"
        path.mkdir()
        for part in sorted(folders):
            (path / part).mkdir()
        for file in files:
            (path / file).hardlink_to(first / file)
    time.sleep(SETTLED_NS / 1e9 + 1)  # younger stores are not indexed
    return names


def opened_check(cases: list[Case], cache: Path) -> None:
    """Check stores as releases before the index did."""
    first: PatchStore | None = None
    for case in cases:
        for slide in case.slides:
            store = PatchStore(cache / f"{slide}.zarr")
            first = first or store
            assert store.num_patches(0)
            assert (store.scales, store.patch_size) == (first.scales, first.patch_size)


def opened_parts(cases: list[Case], cache: Path) -> None:
    """Count the parts of whole slides as releases before the index did."""
    for case in cases:
        for slide in case.slides:
            count = PatchStore(cache / f"{slide}.zarr").num_patches(0)
            assert [(slide, start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]


def opened_hashes(cases: list[Case], cache: Path) -> None:
    """Read thumbnail hashes as releases before the index did."""
    assert {slide: PatchStore(cache / f"{slide}.zarr").attributes[HASH] for case in cases for slide in case.slides}


def rewrite(folder: Path, rows: list[CachedSlide]) -> None:
    """Add rows to a manifest as releases before appending did."""
    with hold(folder / ".manifest.lock", wait=True):
        merged = {**read_manifest(folder), **{row.slide: row for row in rows}}
        with atomic_write(folder / MANIFEST) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(CachedSlide._fields)
            table.writerows(merged[slide] for slide in sorted(merged))


def seconds(task: Callable[[], object]) -> float:
    """Return the seconds that a task takes."""
    started = time.perf_counter()
    task()
    return time.perf_counter() - started


def count_opened(task: Callable[[], object], folder: Path) -> int:
    """Return how many files of a folder a task opens."""
    opened: list[str] = []
    active = True

    def note(event: str, args: tuple[object, ...]) -> None:
        if active and event == "open" and str(args[0]).startswith(str(folder)):
            opened.append(str(args[0]))

    sys.addaudithook(note)  # which cannot be removed
    task()
    active = False
    return len(opened)


def time_setup(cache: Path, names: list[str]) -> list[tuple[str, float, str, float]]:
    """Print a table of both sides; return the verdicts."""
    cases = [Case(name, (name,), label="a") for name in names]
    targets = [Target()] * len(cases)
    tasks: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "checks (check_stores)": (lambda: opened_check(cases, cache), lambda: check_stores(cases, CohortIndex(cache))),
        "parts (WholeSlides)": (
            lambda: opened_parts(cases, cache),
            lambda: WholeSlides(cases, targets, cache, chunk_size=CHUNK),
        ),
        "thumbnail hashes": (
            lambda: opened_hashes(cases, cache),
            lambda: read_thumbnail_hashes(CohortIndex(cache), names),
        ),
    }
    first = seconds(tasks["checks (check_stores)"][1])
    print(f"seconds for {len(names)} stores{'opened':>12}{'index':>8}{'ratio':>8}")
    totals = np.zeros(2)
    for name, pair in tasks.items():
        least = np.min([[seconds(task) for task in pair] for _ in range(3)], axis=0)
        totals += least
        print(f"{name:25}{least[0]:12.2f}{least[1]:8.2f}{least[0] / least[1]:7.1f}×")
    print(f"{'all three':25}{totals[0]:12.2f}{totals[1]:8.2f}{totals[0] / totals[1]:7.1f}×")
    print(f"\nmaking the index, once: {first:.2f} s")
    time_bytes(len(names))
    check = tasks["checks (check_stores)"]
    files = [count_opened(task, cache) for task in check]
    print(f"files opened by the checks: {files[0]} and {files[1]}\n")
    opening = min(seconds(check[1]) for _ in range(3))
    return [("opening the cohort, s", opening, "≤", 1.0), ("files opened", files[1], "≤", 3)]


def time_bytes(stores: int) -> None:
    """Print size and reading time of the index of stores that have no name, hash, count or time in common."""
    draw = random.Random(0)
    facts = []
    for _ in range(stores):
        own = {
            "fingerprint": draw.randbytes(16).hex(),
            "slide_file": f"{draw.randbytes(20).hex()}.svs",
            HASH: draw.randbytes(32).hex(),
        }
        counts = (draw.randrange(20_000), draw.randrange(5_000))
        stamp = tuple(draw.randrange(2**bits) for bits in (24, 13, 60, 60))
        name, checksum = draw.randbytes(20).hex(), draw.randbytes(4).hex()
        facts.append(StoreFacts(name, (0.5, 1.0), 256, counts, checksum, json.dumps({**ATTRIBUTES, **own}), stamp))
    data = encode_index(facts)
    print(
        f"the index of {stores} slides that differ: {len(data) / 1e6:.1f} MB, decoded in {seconds(lambda: decode_index(data)):.2f} s"
    )


def time_manifest(folder: Path, names: list[str]) -> list[tuple[str, float, str, float]]:
    """Print the time of a row, rewritten and appended, in manifests of as many rows; return the verdict."""
    folder.mkdir()
    whole = {
        name: CachedSlide(
            name, "done", "", "tifffile", "OpenSlide", 64, 0.31, 9, 0.2528, "aperio", "9000;2300", 0, 3 * 10**8, 61.5
        )
        for name in names
    }
    update_manifest(folder, whole.values())
    rows = [list(whole.values())[index] for index in np.random.default_rng(0).permutation(len(names))[:10]]
    rewritten = np.mean([seconds(lambda row=row: rewrite(folder, [row])) for row in rows])
    appended = np.mean([seconds(lambda row=row: update_manifest(folder, [row])) for row in rows * 10])
    reading, compacting = seconds(lambda: read_manifest(folder)), seconds(lambda: compact_manifest(folder))
    assert read_manifest(folder) == whole
    print(f"a row of a manifest of {len(names)}: rewritten {rewritten * 1e3:.1f} ms, appended {appended * 1e3:.2f} ms")
    print(f"reading it {reading * 1e3:.0f} ms, compacting it, once a command, {compacting * 1e3:.0f} ms\n")
    return [("appending a row, ms", appended * 1e3, "≤", 5.0)]


def main() -> int:
    """Print the figures; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stores", type=int, default=10_000)
    stores = parser.parse_args().stores
    with tempfile.TemporaryDirectory() as scratch:
        names = link_stores(Path(scratch, "cache"), stores)
        print(f"{os.cpu_count()} cores, least of three; the manifest is a mean\n")
        verdicts = time_setup(Path(scratch, "cache"), names) + time_manifest(Path(scratch, "manifest"), names)
    missed = 0
    for name, value, sign, target in verdicts:
        met = value <= target
        missed += not met
        print(f"{name:24}{value:8.2f}  (target {sign} {target:g})  {'met' if met else 'MISSED'}")
    return min(missed, 1)


if __name__ == "__main__":
    sys.exit(main())
