"""Processes that share one cache folder share the work."""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from e2e_abmilx.cache import CacheError, cache_slides
from e2e_abmilx.cache.build import SlideJob
from e2e_abmilx.cache.jobs import OVERVIEWS
from e2e_abmilx.cache.manifest import read_manifest
from e2e_abmilx.cache.overview import draw_overview
from e2e_abmilx.cache.tiling import Tiling
from e2e_abmilx.io.locks import hold
from e2e_abmilx.slides.slide_files import SlideFile
from e2e_abmilx.store import PatchStore
from e2e_abmilx.synthetic import write_cohort

CACHING = """
import sys, time
from pathlib import Path
from e2e_abmilx.cache import cache_slides

if __name__ == "__main__":
    slides, out, workers, start = sys.argv[1:]
    print("ready", flush=True)
    while not Path(start).exists():
        time.sleep(0.002)
    cache_slides(Path(slides), Path(out), patch_size=64, workers=int(workers))
    print(time.monotonic())
"""


SLOW_DISK = """
import sys, time
from dataclasses import dataclass
from pathlib import Path
import numpy as np
from e2e_abmilx.cache.caching import make_stores
from e2e_abmilx.cache.jobs import StoreJob
from e2e_abmilx.slides.slide_files import SlideFile
from e2e_abmilx.store import StoreWriter

@dataclass(frozen=True)
class SlowSlide(StoreJob):
    def origin(self):
        return {}

    def write(self):
        time.sleep(0.5)
        facts = {"slide_mpp": 0.5, "slide_mpp_source": "assumed", "grid_patches": [1]}
        with StoreWriter(self.store, [0.5], patch_size=8, attributes=facts) as writer:
            writer.write(np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 2), int))

slides, out, workers, start = sys.argv[1:]
jobs = [SlowSlide(SlideFile(Path(slides) / f"{number}.svs"), Path(out)) for number in range(12)]
print("ready", flush=True)
while not Path(start).exists():
    time.sleep(0.002)
make_stores(jobs, Path(out), int(workers))
print(time.monotonic())
"""


def _start(folder: Path, slides: Path, out: Path, *, workers: int = 1, code: str = CACHING) -> subprocess.Popen[str]:
    """Start a process that has imported everything and begins as soon as the file ``start`` exists."""
    script = folder / "caching.py"
    script.write_text(code)
    words = [sys.executable, str(script), str(slides), str(out), str(workers), str(folder / "start")]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    return process


def _wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "the condition was never met"
        time.sleep(0.01)


@pytest.fixture
def three(cohort: Path, tmp_path: Path) -> Path:
    """A folder of three linked slides."""
    (tmp_path / "slides").mkdir()
    for number in range(3):
        (tmp_path / f"slides/slide-00{number}.tiff").hardlink_to(cohort / f"slides/slide-00{number}.tiff")
    return tmp_path / "slides"


def _job(slides: Path, out: Path, name: str, patch_size: int = 64) -> SlideJob:
    tiling = Tiling((0.5, 1.0), patch_size, 0.0, 0.5, 90, None)
    return SlideJob(SlideFile(slides / f"{name}.tiff"), out, tiling, 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_slide_that_another_process_makes_is_waited_for_last(three: Path, tmp_path: Path, workers: int) -> None:
    out = tmp_path / "out"
    out.mkdir()
    first = _job(three, out, "slide-000")
    (tmp_path / "start").touch()
    with hold(first.claim, wait=False) as ours:
        assert ours
        process = _start(tmp_path, three, out, workers=workers)
        _wait_for(lambda: len(read_manifest(out)) == 2)  # the other two are made meanwhile
        assert set(read_manifest(out)) == {"slide-001", "slide-002"}
        time.sleep(0.3)
        assert process.poll() is None  # it waits for the first one
        first.write()
        made = (first.store / "zarr.json").stat().st_mtime_ns
    assert process.wait(timeout=60) == 0
    assert (first.store / "zarr.json").stat().st_mtime_ns == made
    assert {row.status for row in read_manifest(out).values()} == {"done"}
    with Image.open(out / "overview.png") as sheet:
        assert sheet.width == 2 * 256  # three slides on two columns


def test_the_slide_of_a_killed_process_is_taken_over(three: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    claim = _job(three, out, "slide-000").claim
    holding = (
        "import sys, time\nfrom pathlib import Path\nfrom e2e_abmilx.io.locks import hold\n"
        "with hold(Path(sys.argv[1]), wait=False):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", holding, str(claim)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline().strip() == "held"
    (tmp_path / "start").touch()
    process = _start(tmp_path, three, out)
    _wait_for(lambda: len(read_manifest(out)) == 2)
    holder.kill()
    assert process.wait(timeout=60) == 0
    assert {name: row.status for name, row in read_manifest(out).items()} == dict.fromkeys(
        ["slide-000", "slide-001", "slide-002"], "done"
    )


def test_a_store_made_meanwhile_with_other_settings_is_refused(three: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    other = _job(three, out, "slide-000", patch_size=32)
    (tmp_path / "start").touch()
    with hold(other.claim, wait=False):
        process = _start(tmp_path, three, out)
        _wait_for(lambda: len(read_manifest(out)) == 2)
        other.write()
    said = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    assert CacheError.__name__ in said
    assert "patch_size was 32 and is now 64" in said


def test_the_sheet_leaves_out_unfinished_slides_and_redraws_broken_overviews(cohort: Path, tmp_path: Path) -> None:
    slides = sorted((cohort / "slides").glob("*.tiff"))
    cache_slides(slides[:2], tmp_path, patch_size=64, workers=1)
    picture = tmp_path / OVERVIEWS / "slide-001.png"
    picture.write_bytes(picture.read_bytes()[:2000])  # as left by a process that was killed while writing it
    (tmp_path / OVERVIEWS / "slide-003.png").write_bytes(b"\x89PNG")  # as while another process writes it
    with hold(_job(cohort / "slides", tmp_path, "slide-003").claim, wait=False):
        cache_slides(slides[:3], tmp_path, patch_size=64, workers=1)
    right = draw_overview(PatchStore(tmp_path / "slide-001.zarr"))
    with Image.open(picture) as redrawn:
        assert np.array_equal(np.asarray(redrawn), np.asarray(right))
    with Image.open(tmp_path / "overview.png") as sheet:
        assert sheet.width == 2 * 256


@pytest.mark.parametrize("letters", [245, 251])
def test_a_slide_whose_name_is_too_long_does_not_stop_the_others(three: Path, tmp_path: Path, letters: int) -> None:
    (three / "slide-002.tiff").rename(three / f"{'m' * (letters - 1)}.tif")
    rows = cache_slides(three, tmp_path / "out", patch_size=64, workers=2)
    assert [row.status for row in rows] == ["failed", "done", "done"]
    assert {row.status for row in read_manifest(tmp_path / "out").values()} == {"failed", "done"}
    assert not list((tmp_path / "out/.claims").iterdir())


def _burn(seconds: float) -> int:
    """Return how many rounds of arithmetic this process does in some seconds."""
    stop, rounds = time.perf_counter() + seconds, 0
    while time.perf_counter() < stop:
        sum(range(1000))
        rounds += 1
    return rounds


def _free_cores() -> float:
    """Return the speed of two processes over that of one, at this moment: 2 if two cores are free."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(_burn, [0.05, 0.05])  # so that both have started
        (alone,) = pool.map(_burn, [0.4])
        return sum(pool.map(_burn, [0.4, 0.4], chunksize=1)) / alone


def _cache(folder: Path, slides: Path, processes: int, code: str = CACHING) -> float:
    """Return the seconds from the start until all processes that share a new folder have finished."""
    folder.mkdir()
    started = [_start(folder, slides, folder / "out", code=code) for _ in range(processes)]
    began = time.monotonic()
    (folder / "start").touch()
    ends = [float(process.communicate(timeout=300)[0]) for process in started]
    assert all(process.returncode == 0 for process in started)
    assert {row.status for row in read_manifest(folder / "out").values()} == {"done"}
    return max(ends) - began


@pytest.mark.slow
def test_two_processes_halve_the_time_on_a_slow_disk(tmp_path: Path) -> None:
    """Waiting for a slow disk does not depend on how many cores are free."""
    alone, both = (_cache(tmp_path / str(number), tmp_path, number, SLOW_DISK) for number in (1, 2))
    print(f"one process {alone:.2f} s, two {both:.2f} s: {alone / both:.2f} times as fast")
    assert alone / both >= 1.6


@pytest.mark.slow  # half a minute; skipped unless two cores are free all the time
def test_two_processes_are_faster_than_one_on_two_cores(tmp_path: Path) -> None:
    """One process uses 1.27 cores on average, because it encodes in a second thread; so two processes can be at most
    1.58 times as fast on two cores. Measured: 1.22 to 1.24.
    """
    write_cohort(tmp_path, slides=24, side=1024)
    ratios = []
    for attempt in range(3):
        free = [_free_cores()]
        seconds = {}
        for processes in (1, 2):
            seconds[processes] = _cache(tmp_path / f"{attempt}-{processes}", tmp_path / "slides", processes)
            free.append(_free_cores())
        if min(free) > 1.85:
            ratios.append(seconds[1] / seconds[2])
            print(f"one process {seconds[1]:.2f} s, two {seconds[2]:.2f} s: {ratios[-1]:.2f} times as fast")
            if ratios[-1] >= 1.1:
                return
    if not ratios:
        pytest.skip("two cores were never free for as long as it takes to compare")
    pytest.fail(f"two processes are only {[round(ratio, 2) for ratio in ratios]} times as fast as one")
