"""Workers that die do not stop the other slides."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e_abmilx.cache import cache_slides
from e2e_abmilx.cache.build import SlideJob
from e2e_abmilx.cache.manifest import CachedSlide, read_manifest
from e2e_abmilx.cache.tiling import Tiling
from e2e_abmilx.cache.workers import WorkerError, run_jobs
from e2e_abmilx.io.locks import hold
from e2e_abmilx.slides.slide_files import SlideFile

TILING = Tiling((0.5,), 64, 0.0, 0.5, 90, None)


def _task(job: SlideJob) -> CachedSlide:
    """Die on one slide always, as from a crashing decoder, and on another once, as from lack of memory."""
    job.claim.parent.mkdir(exist_ok=True)
    with hold(job.claim, wait=True):
        seen = job.out / f"{job.slide.name}.seen"
        again = seen.exists()
        seen.touch()
        if job.slide.name == "deadly" or (job.slide.name == "unlucky" and not again):
            os.kill(os.getpid(), signal.SIGKILL)
        return CachedSlide(job.slide.name, "done")


def test_a_slide_that_kills_its_process_fails(tmp_path: Path) -> None:
    names = ["a", "b", "deadly", "c", "unlucky", "d"]
    jobs = [SlideJob(SlideFile(tmp_path / f"{name}.svs"), tmp_path, TILING, 1) for name in names]
    rows = {row.slide: row for row in run_jobs(_task, jobs, 2, None)}
    assert set(rows) == set(names)
    assert {name for name, row in rows.items() if row.status == "failed"} == {"deadly"}
    assert "the process that read it died" in rows["deadly"].reason
    assert read_manifest(tmp_path)["deadly"].status == "failed"


@pytest.mark.slow  # it waits for 30 s
def test_a_scheduler_that_does_not_answer_is_named(tmp_path: Path, cohort: Path) -> None:
    pytest.importorskip("distributed", reason="the dask extra is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(WorkerError, match="no Dask scheduler answers"):
        cache_slides(cohort / "slides/slide-000.tiff", tmp_path, patch_size=64, scheduler=address)


@pytest.mark.slow
def test_a_dask_cluster_that_loses_a_worker_caches_all_slides(tmp_path: Path, cohort: Path, stores: Path) -> None:
    pytest.importorskip("distributed", reason="the dask extra is not installed")
    from distributed import Client

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    scheduler = subprocess.Popen([*run, "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"])
    address = f"tcp://127.0.0.1:{port}"
    command = [
        sys.executable,
        "-m",
        "distributed.cli.dask_worker",
        address,
        "--nthreads",
        "1",
        "--no-dashboard",
        "--no-nanny",
    ]
    workers = [subprocess.Popen(command) for _ in range(2)]
    try:
        with Client(address, timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
        killer = subprocess.Popen(
            [sys.executable, "-c", f"import os, time; time.sleep(1.5); os.kill({workers[0].pid}, 9)"]
        )
        rows = cache_slides(cohort / "slides", tmp_path, mpp=(0.5, 1.0), patch_size=64, scheduler=address)
        killer.wait()
        assert workers[0].wait(timeout=10) == -signal.SIGKILL
    finally:
        for process in (*workers, scheduler):
            process.kill()
        time.sleep(0.2)
    assert {row.status for row in rows} == {"done"}
    for path in stores.rglob("*"):
        if ".zarr" in str(path) and path.is_file():
            assert (tmp_path / path.relative_to(stores)).read_bytes() == path.read_bytes()


def test_a_script_without_a_main_guard_is_explained(cohort: Path, tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from e2e_abmilx import cache_slides\n"
        f"cache_slides({str(cohort / 'slides')!r}, {str(tmp_path / 'cache')!r}, patch_size=64, workers=2)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert 'the script must start them below `if __name__ == "__main__":`' in done.stderr
