"""One store to make: by one process at a time, recorded whether it is done or fails."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from e2e_abmilx.cache.crosscheck import Check
from e2e_abmilx.cache.jobs import StoreJob, describe, fingerprint, make_store
from e2e_abmilx.cache.manifest import CachedSlide, read_manifest
from e2e_abmilx.errors import InputError
from e2e_abmilx.io.locks import hold
from e2e_abmilx.slides.slide_files import SlideFile
from e2e_abmilx.store import PatchStore, StoreWriter


@dataclass(frozen=True)
class _Job(StoreJob):
    """A store of three black patches, of which one more could not be read."""

    error: Exception | None = None
    problem: str = ""

    def origin(self) -> dict[str, object]:
        return {"side": 8}

    def check(self, store: PatchStore) -> Check:
        return Check(self.problem, "tifffile", "OpenSlide", 2, 0.5, 7)

    def write(self) -> None:
        if self.error:
            raise self.error
        attributes = {"slide_mpp": 0.25, "slide_mpp_source": "assumed", "grid_patches": [4]}
        with StoreWriter(self.store, [0.5], patch_size=8, attributes=attributes) as writer:
            writer.write(np.zeros((3, 8, 8, 3), np.uint8), np.zeros((3, 2), int))


def _job(out: Path, **how: object) -> _Job:
    return _Job(SlideFile(out / "slide.svs"), out, **how)  # type: ignore[arg-type]


def test_a_finished_store_is_described_in_its_row(tmp_path: Path) -> None:
    row = make_store(_job(tmp_path))
    assert (row.slide, row.status, row.reason) == ("slide", "done", "")
    assert (row.read_by, row.checked_by, row.checked) == ("tifffile", "OpenSlide", 2)
    assert (row.mpp, row.mpp_source, row.patches, row.unreadable) == (0.25, "assumed", "3", 1)
    assert row.bytes == sum(path.stat().st_size for path in tmp_path.rglob("slide.zarr/**/*") if path.is_file())
    assert read_manifest(tmp_path) == {"slide": row}


def test_a_store_that_exists_keeps_its_row(tmp_path: Path) -> None:
    row = make_store(_job(tmp_path))
    assert make_store(_job(tmp_path, error=InputError("it must not be made again"))) == row
    earlier = {"slide": CachedSlide("slide", "done", seconds=7)}
    assert describe(_job(tmp_path), earlier, {}) == earlier["slide"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(InputError("no tissue"), "no tissue"), (ZeroDivisionError("by zero"), "slide.svs: ZeroDivisionError: by zero")],
)
def test_an_error_becomes_the_reason(tmp_path: Path, error: Exception, reason: str) -> None:
    row = make_store(_job(tmp_path, error=error))
    assert row.status == "failed"
    assert row.reason.endswith(reason)
    assert read_manifest(tmp_path) == {"slide": row}


def test_a_store_whose_readers_disagree_is_removed(tmp_path: Path) -> None:
    job = _job(tmp_path, problem="the two readers disagree")
    job.picture.parent.mkdir()
    job.picture.touch()
    row = make_store(job)
    assert (row.status, row.reason, row.mean_difference) == ("failed", "the two readers disagree", 0.5)
    assert [path.name for path in tmp_path.rglob("*slide*")] == []


def test_a_claimed_store_is_left_to_the_other_process(tmp_path: Path) -> None:
    job = _job(tmp_path)
    with hold(job.claim, wait=False) as ours:
        assert ours
        assert make_store(job, wait=False) == CachedSlide("slide", "claimed")
    assert read_manifest(tmp_path) == {}
    assert not job.store.exists()


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".slide.zarr.partial-host-1").mkdir()
    make_store(_job(tmp_path))
    assert not list(tmp_path.glob(".*partial*"))


def test_the_fingerprint_covers_size_and_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"

    def of(content: bytes) -> str:
        path.write_bytes(content)
        return fingerprint(path)

    middle = bytes(200_000)
    first = of(b"a" + middle + b"z")
    assert len({first, of(b"b" + middle + b"z"), of(b"a" + middle + b"y"), of(b"a" + middle + b"\0z")}) == 4
    assert of(b"a" + middle + b"z") == first
    assert of(b"") != of(b"a")
