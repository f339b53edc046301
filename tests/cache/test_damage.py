"""Two hundred damaged inputs: every slide ends in a row, and no store ever returns a wrong patch."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from e2e_abmilx.cache import cache_slides, verify
from e2e_abmilx.errors import InputError
from e2e_abmilx.store import PatchStore

pytestmark = pytest.mark.slow


def _damage(data: bytes, rng: np.random.Generator, kind: str) -> bytes:
    """Return a damaged copy of a file's content."""
    if kind == "empty":
        return b""
    if kind == "truncated":
        return data[: int(rng.integers(1, len(data)))]
    damaged = bytearray(data)
    if kind == "flipped":  # a few bits anywhere
        for place in rng.integers(0, len(data), 8):
            damaged[place] ^= 1 << int(rng.integers(8))
    elif kind == "header":  # bits of the first bytes, which readers tend to trust
        for place in rng.integers(0, min(512, len(data)), 4):
            damaged[place] ^= 1 << int(rng.integers(8))
    elif kind == "overwritten":
        start = int(rng.integers(0, max(1, len(data) - 4096)))
        damaged[start : start + 4096] = rng.bytes(min(4096, len(data) - start))
    return bytes(damaged)


@pytest.mark.parametrize("kind", ["empty", "truncated", "flipped", "header", "overwritten"])
def test_every_damaged_slide_has_a_row(cohort: Path, tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(sum(kind.encode()))
    folder = tmp_path / "slides"
    folder.mkdir()
    originals = sorted((cohort / "slides").glob("*.tiff"))
    count = 4 if kind == "empty" else 24
    for number in range(count):
        suffix = (".tiff", ".svs", ".ndpi", ".scn")[number % 4]  # and of another format by name
        whole = originals[number % len(originals)].read_bytes()
        (folder / f"{kind}-{number:02d}{suffix}").write_bytes(_damage(whole, rng, kind))
    rows = cache_slides(folder, tmp_path / "out", patch_size=64, workers=2)
    assert len(rows) == count
    for row in rows:
        assert row.status == "done" or row.reason, row
        assert (tmp_path / f"out/{row.slide}.zarr").exists() == (row.status == "done")
    done = [row for row in rows if row.status == "done"]
    if kind == "empty":
        assert not done
    if done:
        assert verify(tmp_path / "out") == []


@pytest.mark.parametrize("kind", ["empty", "truncated", "flipped", "header", "overwritten"])
def test_damaged_stores_never_return_a_wrong_patch(stores: Path, tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(sum(kind.encode()))
    sound = PatchStore(stores / "slide-000.zarr")
    truth = [sound.read(np.arange(sound.num_patches(scale)), scale) for scale in (0, 1)]
    coords = [sound.coords(scale) for scale in (0, 1)]
    files = sorted(path.relative_to(sound.path) for path in sound.path.rglob("*") if path.is_file())
    refused = 0
    for number in range(20):
        copy = tmp_path / f"{kind}-{number}.zarr"
        shutil.copytree(sound.path, copy)
        victim = copy / files[int(rng.integers(len(files)))]
        victim.write_bytes(_damage(victim.read_bytes(), rng, kind))
        for scale in (0, 1):
            try:
                store = PatchStore(copy)
                for index in range(len(truth[scale])):
                    assert np.array_equal(store.read([index], scale)[0], truth[scale][index])
                assert np.array_equal(store.coords(scale), coords[scale])
            except InputError as error:
                refused += 1
                assert str(copy) in str(error)  # noqa: PT017 - a read that succeeds is right, too
        shutil.rmtree(copy)
    assert refused >= 3
