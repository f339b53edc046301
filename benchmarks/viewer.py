"""The viewer on a slide of 60,000 × 60,000 pixels with 100,000 patches: tile latency, memory, size of the document.

    python benchmarks/viewer.py [--folder /tmp]

A pyramidal TIFF of 256 px JPEG tiles (levels 1, 4, 16 and 64), a TIFF of its finest level alone, a patch store and the
attention of eight heads are written into a temporary folder (about 1 GB; a few tiles and patches, repeated). The server runs
as a process of its own, as users start it. Two clients pan and zoom at the same time: each zooms from the overview
into a random place, pans a few screens there, and starts again; like a browser it asks for the tiles of a screen of 1,400 ×
900 pixels over six connections, but never twice for a tile. A client looks at a screen for half a second. It needs Linux.
"""

import argparse
import http.client
import json
import multiprocessing
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import imagecodecs
import numpy as np
import tifffile
import yaml

from e2e_abmilx.heatmaps.case_map import CaseMap, SlideMap, write_case_map
from e2e_abmilx.store import PatchStore, StoreWriter
from e2e_abmilx.synthetic.slide import draw_slide
from e2e_abmilx.viewer.levels import num_levels, tile_box

SIDE, TILE, PATCHES, HEADS = 60_000, 256, 100_000, 8
SCREEN = (1400, 900)
LATENCY_MS, MEMORY_MB, TILES = 100, 500, 2000
LOOK_S = 0.5


def main() -> None:
    """Write the slide and the runs, and print the figures beside their targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="where to write a gigabyte for a while")
    folder = Path(tempfile.mkdtemp(dir=parser.parse_args().folder))
    try:
        run = write_all(folder)
        print(f"{os.cpu_count()} CPU cores, load average {os.getloadavg()[0]:.1f} before the measurements")
        for name in ("pyramid", "one level", "no file: mosaic of the patches"):
            place_slide(folder, name)
            measure(name, run)
    finally:
        shutil.rmtree(folder)


def place_slide(folder: Path, name: str) -> None:
    """Let the slide's name lead to one of its files, or to none."""
    link = folder / "slides" / "slide.tiff"
    link.unlink(missing_ok=True)
    if not name.startswith("no file"):
        link.symlink_to(folder / f"{name}.tiff")


def measure(name: str, run: Path) -> None:
    """Print the figures of one kind of slide."""
    words = [sys.executable, "-m", "e2e_abmilx", "view", "--run", str(run), "--port", "0"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    started = time.perf_counter()
    document = ask(url, "case/0.json")
    seconds = time.perf_counter() - started
    again = time.perf_counter()
    ask(url, "case/0.json")
    again = time.perf_counter() - again
    size = json.loads(document)["slides"][0]
    assert (size["width"], size["picture"]["levels"]) == (SIDE, num_levels((SIDE, SIDE)))
    assert bool(size["note"]) == name.startswith("no file")
    print(f"\n{name}")
    print(
        f"  case document, {PATCHES:,} patches, {HEADS} heads: {len(document) / 1e6:.1f} MB in {seconds:.2f} s, then {again:.2f} s"
    )
    before = memory_mb(server.pid)
    latencies = browse(url)
    low, high = np.percentile(latencies, [50, 95])
    print(
        f"  {len(latencies):,} tiles, 2 clients: p50 {low:.0f} ms, p95 {high:.0f} ms (target {LATENCY_MS} ms), max {max(latencies):.0f} ms"
    )
    print(
        f"  memory of the server: {before:.0f} MB before, at most {memory_mb(server.pid):.0f} MB (target {MEMORY_MB} MB)"
    )
    server.send_signal(signal.SIGINT)
    server.wait()


def browse(url: str) -> list[float]:
    """Let two clients ask for TILES tiles together; return the milliseconds that each tile took."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        parts = pool.starmap(client, [(url, seed, TILES // 2) for seed in (0, 1)])
    return [one for part in parts for one in part]


def client(url: str, seed: int, tiles: int) -> list[float]:
    """Pan and zoom; return the milliseconds that each tile took, from the request to the last byte."""
    asked: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[float] = queue.SimpleQueue()
    threads = [threading.Thread(target=connection, args=(url, asked, done)) for _ in range(6)]
    for thread in threads:
        thread.start()
    latencies: list[float] = []
    for screen in screens(np.random.default_rng(seed)):
        for address in screen:
            asked.put(address)
        latencies += [done.get() for _ in screen]
        if len(latencies) >= tiles:
            break
        time.sleep(LOOK_S)
    for _ in threads:
        asked.put(None)
    return latencies


def connection(url: str, asked: "queue.SimpleQueue[str | None]", done: "queue.SimpleQueue[float]") -> None:
    """Answer requests over one connection that stays open."""
    parts = urlsplit(url)
    opened = http.client.HTTPConnection(str(parts.hostname), parts.port)
    while (address := asked.get()) is not None:
        started = time.perf_counter()
        opened.request("GET", parts.path + address)
        answer = opened.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        done.put(1000 * (time.perf_counter() - started))


def screens(rng: np.random.Generator) -> Iterator[list[str]]:
    """Yield the tiles of each screen that were not asked for before."""
    seen: set[tuple[int, int, int]] = set()
    levels = num_levels((SIDE, SIDE))
    while True:
        x, y = rng.uniform(0.1, 0.9, 2) * SIDE
        for level in range(levels):
            steps = 6 if level == levels - 1 else 1
            for _ in range(steps):
                new = [tile for tile in tiles_of(level, x, y) if tile not in seen]
                seen.update(new)
                yield [f"case/0/slide/0/tile/{level}_{column}_{row}.jpg" for level, column, row in new]
                shift = rng.uniform(-0.7, 0.7, 2) * SCREEN * 2 ** (levels - 1 - level) * (steps > 1)
                x, y = np.clip((x + shift[0], y + shift[1]), 0, SIDE - 1)


def tiles_of(level: int, x: float, y: float) -> list[tuple[int, int, int]]:
    """Return the tiles of a screen around a place."""
    covers = TILE * 2 ** (num_levels((SIDE, SIDE)) - 1 - level)
    half = [side * covers / TILE / 2 for side in SCREEN]
    columns, rows = (
        range(int((place - way) // covers), int((place + way) // covers) + 1)
        for place, way in zip((x, y), half, strict=True)
    )
    return [(level, column, row) for row in rows for column in columns if tile_box((SIDE, SIDE), level, column, row)]


def ask(url: str, address: str) -> bytes:
    """Return what an address gives."""
    parts = urlsplit(url)
    opened = http.client.HTTPConnection(str(parts.hostname), parts.port)
    opened.request("GET", parts.path + address)
    body = opened.getresponse().read()
    opened.close()
    return body


def memory_mb(pid: int) -> float:
    """Return the largest resident memory that a process has had, MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def write_all(folder: Path) -> Path:
    """Write the slides, the store and the run; return the folder of the run."""
    pixels, _ = draw_slide(seed=0, lesion_fraction=0.3, side=2048)
    write_tiff(folder / "pyramid.tiff", pixels, (1, 4, 16, 64))
    write_tiff(folder / "one level.tiff", pixels, (1,))
    (folder / "slides").mkdir()
    store = write_store(folder / "cache" / "slide.zarr", pixels)
    run = folder / "run"
    run.mkdir()
    (run / "predictions.csv").write_text("case,label,probability_0,probability_1\na,1,0.9,0.1\nb,0,0.9,0.1\n")
    settings = {"slides": str(folder / "slides"), "cache": str(folder / "cache")}
    (run / "fit.yaml").write_text(yaml.safe_dump({"data": {"init_args": settings}}))
    heads = np.random.default_rng(0).gamma(0.3, 1, (HEADS, PATCHES)).astype(np.float32)
    heads *= PATCHES / heads.sum(axis=1, keepdims=True)
    rank = np.empty(PATCHES, np.int64)
    rank[np.argsort(-heads.mean(axis=0))] = np.arange(1, PATCHES + 1)
    where = (store.coords(), np.zeros(PATCHES, np.int64))
    one = SlideMap(
        "slide", str(store.path), (SIDE, SIDE), 0.25, (0.5,), (128.0,), *where, heads, heads[0] - heads[1], rank
    )
    write_case_map(run, CaseMap("a", "log-odds of 1", (one,)))
    return run


def write_tiff(path: Path, pixels: np.ndarray, levels: tuple[int, ...]) -> None:
    """Write a tiled JPEG TIFF from the tiles of a small picture, repeated."""
    tiles = [
        imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels[y : y + TILE, x : x + TILE]), level=80, subsampling="420")
        for y in range(0, pixels.shape[0], TILE)
        for x in range(0, pixels.shape[1], TILE)
    ]
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for number, downsample in enumerate(levels):
            side = SIDE // downsample
            count = (-(-side // TILE)) ** 2
            tiff.write(
                (tiles[index * 7919 % len(tiles)] for index in range(count)),
                shape=(side, side, 3),
                dtype=np.uint8,
                photometric="ycbcr",
                subsampling=(2, 2),
                tile=(TILE, TILE),
                compression="jpeg",
                resolution=(4e4 / downsample,) * 2,
                resolutionunit="CENTIMETER",
                subifds=len(levels) - 1 if number == 0 else 0,
                subfiletype=int(number > 0),
                metadata=None,
            )


def write_store(path: Path, pixels: np.ndarray) -> PatchStore:
    """Write patches of 64 px that cover 128 level-0 pixels each, and a thumbnail."""
    attributes = {"slide_size": [SIDE, SIDE], "slide_mpp": 0.25, "footprints": [128.0]}
    variety = pixels.reshape(32, 64, 32, 64, 3).swapaxes(1, 2).reshape(-1, 64, 64, 3)
    jpegs = [imagecodecs.jpeg8_encode(np.ascontiguousarray(patch), level=80, subsampling="420") for patch in variety]
    columns = 400
    path.parent.mkdir(parents=True)
    with StoreWriter(path, [0.5], patch_size=64, attributes=attributes) as writer:
        for start in range(0, PATCHES, 10_000):
            index = np.arange(start, min(start + 10_000, PATCHES))
            coords = np.stack([index % columns, index // columns], 1) * 128 + 4096
            writer.write_encoded([jpegs[one % len(jpegs)] for one in index], coords)
        writer.write_thumbnail(pixels)
    return PatchStore(path)


if __name__ == "__main__":
    main()
