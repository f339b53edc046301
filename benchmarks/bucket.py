"""Training from a bucket: requests and bytes of a bag, and patches per second of a worker, against a local copy.

Run ``python benchmarks/bucket.py [--rounds 3]``; it needs the extras ``cloud`` and ``test``. The bucket is moto's S3 server
behind the proxy of the tests (``tests/local_bucket.py``), in a process of its own on the same machine, which adds a latency
to every answer; 1 % of the answers are 503s where that is said. All loaders read the same bags, one loader after another in
every round, so that a busy machine slows all of them; the fastest round counts. Patches are textures of 33 kB,
the size of tissue. The last table is computed, not measured. The exit status is 1 if a target is missed.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from local_bucket import download, local_bucket

from e2e_abmilx.cache.push import push
from e2e_abmilx.cache.sending import PUSHED_FROM
from e2e_abmilx.cache.thumbnails import HASH
from e2e_abmilx.cohort import Case
from e2e_abmilx.data import ahead
from e2e_abmilx.data.bag import Target, collate
from e2e_abmilx.data.draws import PatchDraw, RunDraw, UniformDraw
from e2e_abmilx.data.loaders import BagLoader, start_method
from e2e_abmilx.data.samplers import Draw
from e2e_abmilx.data.slide_bags import RandomBags, WholeSlides, check_stores
from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.store import CohortIndex, PatchStore, StoreFacts, StoreWriter
from e2e_abmilx.store.codec import encode_patch
from e2e_abmilx.store.cohort_index import add_to_index
from e2e_abmilx.store.disk_cache import DiskCache
from e2e_abmilx.store.files import forget_objects
from e2e_abmilx.store.locations import Location, ObjectUrl

TO = ObjectUrl("s3://cohorts/textures")
BAG = 512
COUNTS = (3000, 800)
SLIDES = ("a", "b")
BAGS, SKIPPED = 12, 4  # of a pass; the first ones, for which workers start and fill their queues, do not count
GPU_PATCHES_PER_S = 12_000
DOLLARS_PER_GET = 0.0004 / 1000  # S3 Standard, us-east-1, 2026


class Bucket:
    """The server, in a process of its own."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        os.environ.update(self._ours.recv())

    def set(self, latency_s: float, failing: float = 0.0) -> None:
        """Set the latency and the fraction of 503s, and forget all requests so far."""
        self._ours.send((latency_s, failing))
        self._ours.recv()

    def requests(self) -> tuple[int, int]:
        """Return the number of GETs since the last setting, and the bytes that they sent."""
        self._ours.send(None)
        count, sent = self._ours.recv()
        return count, sent


def _serve(pipe: Connection) -> None:
    with local_bucket() as proxy:
        pipe.send({name: value for name, value in os.environ.items() if name.startswith("AWS_")})
        while True:
            asked = pipe.recv()
            if asked is None:
                pipe.send((len(proxy.gets()), sum(request.sent for request in proxy.gets())))
                continue
            proxy.latency_s, failing = asked
            rng = random.Random(0)
            proxy.fault = lambda method, path, rng=rng, failing=failing: "503" if rng.random() < failing else None
            proxy.requests.clear()
            pipe.send(None)


def write_cache(folder: Path) -> None:
    """Write stores of textures of about 33 kB; 256 different ones, since making them is slow."""
    rng = np.random.default_rng(0)
    jpegs = []
    for _ in range(256):
        blobs = np.kron(rng.random((32, 32)) ** 4, np.ones((8, 8)))[..., None]
        colour = (1 - blobs) * (225, 150, 195) + blobs * (90, 60, 140)
        jpegs.append(
            encode_patch(np.clip(colour + rng.normal(0, 12, (256, 256, 1)), 0, 255).astype(np.uint8), 90, "444")
        )
    for slide in SLIDES:
        with StoreWriter(folder / f"{slide}.zarr", (0.5, 1.0), patch_size=256) as writer:
            for scale, count in enumerate(COUNTS):
                chosen = rng.integers(0, len(jpegs), count)
                coords = np.stack([np.arange(count) % 60, np.arange(count) // 60], axis=1) * 512
                writer.write_encoded([jpegs[index] for index in chosen], coords, scale)


def bags_of(cache: Location, draw: PatchDraw, disk: DiskCache | None = None) -> RandomBags:
    """Return bags of one slide each."""
    cases = [Case(slide, (slide,)) for slide in SLIDES]
    return RandomBags(
        cases, [Target(0)] * len(cases), cache, patches_per_bag=BAG, coarse_fraction=0.25, seed=0, draw=draw,
        local_cache=disk,
    )  # fmt: skip


def count_requests(bucket: Bucket, run_length: int, bags: int, *, opened: bool) -> tuple[float, float]:
    """Return GETs per bag, and the bytes fetched over those of the patches of the bags.

    ``opened`` says whether the slides were opened before, as in a cohort of few slides; otherwise each bag opens its slide.
    """
    source = bags_of(TO, RunDraw(run_length) if run_length else UniformDraw())
    for case in range(len(SLIDES)):
        source[Draw(0, case)]
    bucket.set(0.0)
    needed = 0
    for number in range(bags):
        if not opened:
            forget_objects()
        bag = source[Draw(number, number % len(SLIDES))]
        needed += _stored_bytes(bag.coords.numpy(), bag.scale.numpy(), SLIDES[number % len(SLIDES)])
    count, sent = bucket.requests()
    return count / bags, sent / needed


_SIZES: dict[tuple[str, int], dict[tuple[int, int], int]] = {}


def _stored_bytes(coords: np.ndarray, scales: np.ndarray, slide: str) -> int:
    """Return the stored bytes of patches, which their coordinates identify."""
    total = 0
    for scale in range(2):
        if (slide, scale) not in _SIZES:
            store = PatchStore(_LOCAL / f"{slide}.zarr")
            keys = map(tuple, store.coords(scale).tolist())
            _SIZES[slide, scale] = dict(zip(keys, store.stored_bytes(scale).tolist(), strict=True))
        total += sum(_SIZES[slide, scale][x, y] for x, y in coords[scales == scale].tolist())
    return total


_LOCAL = Path()
_CACHED = "50 ms, all on local disk"  # the same bags once more, from a local cache


def patches_per_s(cache: Location, depth: int = 0, disk: DiskCache | None = None) -> float:
    """Return the patches that a loader with one worker gives per second; a local cache is read ahead only if asked."""
    ahead.DEPTH = depth
    bags = bags_of(cache, RunDraw(), disk)
    bags.reads_objects |= depth > 0
    draws = [Draw(epoch, epoch % len(SLIDES)) for epoch in range(BAGS)]
    loader = BagLoader(
        bags, sampler=draws, collate_fn=collate, num_workers=1, prefetch_factor=2,
        multiprocessing_context=start_method(bags),
    )  # fmt: skip
    started = 0.0
    for number, bag in enumerate(loader):
        if number == SKIPPED - 1:
            started = time.perf_counter()
        del bag
    return (BAGS - SKIPPED) * BAG / (time.perf_counter() - started)


def measure_speed(bucket: Bucket, local: Path, rounds: int) -> dict[str, list[float]]:
    """Return patches per second of each loader, in each round."""
    settings: list[tuple[str, float, int, float]] = [
        (f"{latency:2} ms, {depth} ahead", latency / 1000, depth, 0.0) for latency in (0, 20, 50) for depth in (0, 2)
    ]
    settings += [("50 ms, 4 ahead", 0.05, 4, 0.0), ("50 ms, 2 ahead, 1 % 503s", 0.05, 2, 0.01)]
    speeds: dict[str, list[float]] = {"local": [], "local, 2 ahead": [], **{name: [] for name, *_ in settings}}
    speeds[_CACHED] = []
    disk = DiskCache(local.parent / "disk", 10**10)
    patches_per_s(TO, 2, disk)
    for _ in range(rounds):
        speeds["local"].append(patches_per_s(local))
        speeds["local, 2 ahead"].append(patches_per_s(local, 2))
        for name, latency, depth, failing in settings:
            bucket.set(latency, failing)
            speeds[name].append(patches_per_s(TO, depth))
        bucket.set(0.05)
        speeds[_CACHED].append(patches_per_s(TO, 2, disk))
    return speeds


def open_cohort(bucket: Bucket, folder: Path, stores: int = 10_000) -> tuple[float, float, int]:
    """Return times and GETs of opening a cohort of slides that have no name, count or attribute in common.

    The first time is that of reading the index, checking all stores and making the bags; the second is that of the
    whole setup of a run, which also reads the table of labels; the GETs are those of the setup. Only the store of the
    first slide exists; the others are in the index alone.
    """
    to, draw = TO.parent / "large", random.Random(0)
    first = f"{0:040x}"
    shutil.copytree(_LOCAL / f"{SLIDES[0]}.zarr", folder / f"{first}.zarr")
    push(folder, to)
    real = CohortIndex(to)[first]
    facts = {}
    for _ in range(stores - 1):
        attributes = {**real.attributes, HASH: draw.randbytes(32).hex(), PUSHED_FROM: draw.randbytes(32).hex()}
        name, counts = draw.randbytes(20).hex(), (draw.randrange(1, 20_000), draw.randrange(1, 5_000))
        checksum = draw.randbytes(4).hex()
        facts[name] = StoreFacts(name, real.scales, real.patch_size, counts, checksum, json.dumps(attributes))
    add_to_index(to, facts)
    table = "".join(
        f"{name},{number % 2},{'val' if number % 5 == 4 else 'train'}\n" for number, name in enumerate([first, *facts])
    )
    (folder / "labels.csv").write_text(f"slide,label,split\n{table}")
    forget_objects()
    bucket.set(0.0)
    started = time.perf_counter()
    data = SlideDataModule(to, folder / "labels.csv", draw=RunDraw(), num_workers=0)
    data.prepare_data()
    data.setup("fit")
    data.train_dataloader()
    data.val_dataloader()
    setup_s, gets = time.perf_counter() - started, bucket.requests()[0]
    started = time.perf_counter()
    index = CohortIndex(to)
    check_stores(data.cases["all"], index)
    targets, val = [Target(0)] * stores, data.cases["val"]
    WholeSlides(val, targets, to, chunk_size=256, index=index)
    RandomBags(data.cases["all"], targets, to, patches_per_bag=BAG, coarse_fraction=0.25, seed=0, draw=RunDraw())
    return time.perf_counter() - started, setup_s, gets


def print_costs(gets: float, bag_bytes: float, worker: float) -> None:
    """Print what GPUs that take 12,000 patches per second ask of a bucket."""
    print(f"\ncomputed, at {GPU_PATCHES_PER_S:,} patches/s per GPU, $0.0004 per 1000 GETs and {gets:.1f} GETs a bag;")
    print(f"{GPU_PATCHES_PER_S / worker:.1f} workers like the one above (50 ms) feed a GPU")
    print(f"{'GPUs':>5}{'GB/s':>8}{'GET/s':>9}{'$/h':>8}{'h per epoch of 100,000 slides':>32}")
    for gpus in (1, 8, 64):
        bags = gpus * GPU_PATCHES_PER_S / BAG
        row = (bags * bag_bytes / 1e9, bags * gets, bags * gets * DOLLARS_PER_GET * 3600, 100_000 / bags / 3600)
        print(f"{gpus:5}{row[0]:8.2f}{row[1]:9,.0f}{row[2]:8.2f}{row[3]:32.2f}")


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print; return 1 if a target is missed."""
    global _LOCAL
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bags", type=int, default=40, help="bags whose requests are counted")
    arguments: Any = parser.parse_args(words)
    bucket = Bucket()
    with tempfile.TemporaryDirectory() as folder:
        write_cache(Path(folder, "cache"))
        started = time.perf_counter()
        push(Path(folder, "cache"), TO)
        pushed_s = time.perf_counter() - started
        _LOCAL = download(TO, Path(folder, "copy"))
        size = sum(path.stat().st_size for path in _LOCAL.rglob("*") if path.is_file())
        patches = len(SLIDES) * sum(COUNTS)
        print(f"{patches} patches of {size / patches / 1e3:.1f} kB; pushed at {size / pushed_s / 1e6:.0f} MB/s\n")
        print(f"{'a bag of 512, draw':24}{'GETs':>8}{'bytes ÷ needed':>17}")
        counted = {}
        for name, length, opened in (
            ("runs of 64", 64, True), ("same, opening a slide", 64, False), ("runs of 16", 16, True), ("uniform", 0, True)
        ):  # fmt: skip
            counted[name] = count_requests(bucket, length, arguments.bags if length else 3, opened=opened)
            print(f"{name:24}{counted[name][0]:8.1f}{counted[name][1]:17.3f}")
        opening = min(open_cohort(bucket, Path(folder, f"large-{number}")) for number in range(arguments.rounds))
        print(f"\nopening a cohort of 10,000 slides: {opening[0]:.2f} s")
        print(f"the whole setup of a run on them: {opening[1]:.2f} s, {opening[2]} GETs")
        speeds = measure_speed(bucket, _LOCAL, arguments.rounds)
    fastest = {name: max(values) for name, values in speeds.items()}
    print(f"\none worker, {arguments.rounds} rounds on {os.cpu_count()} cores, which the server shares")
    print(
        "reading ahead is done by threads, which decode on more than one core; so local reading is shown with it, too"
    )
    print(f"{'patches/s':28}{'fastest':>8}{'÷ local':>9}{'÷ local, 2 ahead':>18}")
    for name, value in fastest.items():
        print(f"{name:28}{value:8.0f}{value / fastest['local']:9.2f}{value / fastest['local, 2 ahead']:18.2f}")
    gets, over = counted["same, opening a slide"]
    print_costs(gets, over * BAG * size / patches, fastest["50 ms, 2 ahead"])
    verdicts = [
        ("GETs of a bag", gets, "≤", 10.0), ("bytes ÷ needed", over, "≤", 1.05),
        ("10,000 slides, s", opening[0], "≤", 1.0), ("10,000 slides, GETs", opening[2], "≤", 3.0),
        ("50 ms, 2 ahead ÷ local", fastest["50 ms, 2 ahead"] / fastest["local"], "≥", 0.8),
    ]  # fmt: skip
    print()
    missed = 0
    for name, value, sign, target in verdicts:
        met = value <= target if sign == "≤" else value >= target
        missed += not met
        print(f"{name:28}{value:8.2f}  (target {sign} {target:g})  {'met' if met else 'MISSED'}")
    return min(missed, 1)


if __name__ == "__main__":
    sys.exit(main())
