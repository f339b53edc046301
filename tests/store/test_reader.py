"""A store is read as it was written, by threads and child processes too, and damage is always detected."""

import math
import multiprocessing
import pickle
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from google_crc32c import value as crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from small_stores import ATTRIBUTES, COUNTS, MPP, TISSUE, P, files, grid, psnr, textures

from e2e_abmilx.store import PatchStore, StoreError, scale_reader, write_store


def test_patches_and_coords_are_read_as_written(store: PatchStore) -> None:
    assert store.name == "slide 1.0 [HE]"
    assert store.patch_size == P
    assert store.scales[:2] == MPP[:2]
    assert math.isnan(store.scales[2])
    assert store.attributes == ATTRIBUTES
    for scale, count in enumerate(COUNTS):
        assert store.num_patches(scale) == count
        patches, coords = store.read(range(count), scale), store.coords(scale)
        assert (patches.shape, patches.dtype) == ((count, P, P, 3), np.uint8)
        assert (coords.shape, coords.dtype) == ((count, 2), np.int64)
        assert (psnr(patches, textures(count, seed=scale)) > 30).all()
        assert (coords == grid(count)).all()


def test_thumbnail_and_tissue_are_read_as_written(store: PatchStore) -> None:
    assert psnr(store.thumbnail()[None], textures(1, side=30)[:, :20])[0] > 30
    assert (store.tissue() == TISSUE).all()


def test_a_store_without_thumbnail_or_tissue(tmp_path: Path) -> None:
    bare = write_store(tmp_path / "bare.zarr", {0.5: (textures(2), None)})
    assert bare.thumbnail() is None
    assert bare.tissue() is None
    assert (bare.coords() == -1).all()
    assert list(bare.verify()) == []


def test_a_store_shows_its_scales(store: PatchStore) -> None:
    assert repr(store).endswith("[HE].zarr': 20 patches at 0.5 µm/px, 0 patches at 1 µm/px, 5 patches at nan µm/px)")


@given(indices=st.lists(st.integers(0, COUNTS[0] - 1), max_size=40), kind=st.sampled_from([list, tuple, np.array]))
@settings(max_examples=60, deadline=None)
def test_patches_come_in_the_order_asked(path: Path, indices: list[int], kind: type) -> None:
    store = PatchStore(path)
    everything = store.read(range(COUNTS[0]))
    chosen = np.array(indices, dtype=int)
    assert (store.read(kind(indices)) == everything[chosen]).all()


def test_encoded_patches_decode_to_the_patches(store: PatchStore) -> None:
    indices = [19, 0, 7, 7]
    jpegs = store.read_encoded(indices)
    assert all(jpeg.startswith(b"\xff\xd8") and jpeg.endswith(b"\xff\xd9") for jpeg in jpegs)
    assert (np.stack([imagecodecs.jpeg8_decode(jpeg) for jpeg in jpegs]) == store.read(indices)).all()


def test_an_empty_scale_has_no_index(store: PatchStore) -> None:
    assert store.read([], scale=1).shape == (0, P, P, 3)
    with pytest.raises(IndexError):
        store.read([0], scale=1)


@pytest.mark.parametrize("scale", [-1, 3])
def test_a_scale_out_of_range_is_refused(store: PatchStore, scale: int) -> None:
    for read in (store.num_patches, store.coords, lambda scale: store.read([0], scale)):
        with pytest.raises(IndexError, match=f"scales 0 to 2, not {scale}"):
            read(scale)


def test_a_store_rebuilt_at_the_same_path_is_read_again(tmp_path: Path) -> None:
    for seed in (1, 2):
        patches = textures(3, seed=seed)
        assert (psnr(write_store(tmp_path / "a.zarr", {0.5: (patches, None)}).read([0, 1, 2]), patches) > 30).all()
        shutil.rmtree(tmp_path / "a.zarr")


def send_checksum(store: PatchStore, queue: "multiprocessing.Queue[int]") -> None:
    queue.put(crc32c(store.read([19, 3, 3, 8]).tobytes()))


def test_a_pickled_store_is_only_its_path(store: PatchStore) -> None:
    store.read([0])
    pickled = pickle.dumps(store)
    assert len(pickled) < 500
    assert (pickle.loads(pickled).read([3]) == store.read([3])).all()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_child_processes_read_the_same_as_the_parent(store: PatchStore, method: str) -> None:
    patches = store.read([19, 3, 3, 8])  # so that the shards are open before the fork
    context = multiprocessing.get_context(method)
    queue: multiprocessing.Queue[int] = context.Queue()
    children = [context.Process(target=send_checksum, args=(store, queue)) for _ in range(2)]
    for child in children:
        child.start()
    answers = {queue.get(timeout=60) for _ in children}
    for child in children:
        child.join(60)
    assert answers == {crc32c(patches.tobytes())}


def test_threads_may_share_a_store(store: PatchStore) -> None:
    everything = store.read(range(COUNTS[0]))
    draws = [np.random.default_rng(seed).integers(COUNTS[0], size=30) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for draw, patches in zip(draws, pool.map(store.read, draws), strict=True):
            assert (patches == everything[draw]).all()


def read_carefully(path: Path) -> Iterator[tuple[int, int, np.ndarray]]:
    """Read a damaged store patch by patch through newly opened files; yield what can be read."""
    scale_reader._open_shard.cache_clear()
    with suppress(StoreError):
        store = PatchStore(path)
        for scale in range(len(store.scales)):
            for patch in range(store.num_patches(scale)):
                with suppress(StoreError):
                    yield scale, patch, store.read([patch], scale)[0]


def problems(path: Path) -> list[str]:
    """Return what is wrong with a store, or why it cannot be opened."""
    scale_reader._open_shard.cache_clear()
    try:
        return list(PatchStore(path).verify())
    except StoreError as error:
        return [str(error)]


@pytest.fixture(scope="module")
def harmed(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the store that tests may damage and must repair."""
    return Path(shutil.copytree(path, tmp_path_factory.mktemp("harmed") / path.name))


def check(path: Path, harmed: Path, name: str, content: bytes) -> None:
    """Replace a file; assert that the damage is reported and that no patch is read wrongly."""
    sound = PatchStore(path)
    try:
        (harmed / name).write_bytes(content)
        assert problems(harmed)
        for scale, patch, pixels in read_carefully(harmed):
            assert (pixels == sound.read([patch], scale)[0]).all()
    finally:
        (harmed / name).write_bytes((path / name).read_bytes())


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_flipped_bit_is_always_detected(path: Path, harmed: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(files(path))))
    whole = (path / name).read_bytes()
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    broken = bytearray(whole)
    broken[bit // 8] ^= 1 << bit % 8
    check(path, harmed, name, bytes(broken))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_truncated_file_is_always_detected(path: Path, harmed: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(files(path))))
    whole = (path / name).read_bytes()
    length = data.draw(st.integers(0, len(whole) - 1) | st.just(0) | st.just(len(whole) - 1))
    check(path, harmed, name, whole[:length])


def test_every_missing_file_is_detected(path: Path, harmed: Path) -> None:
    for name, content in files(path).items():
        (harmed / name).unlink()
        assert problems(harmed), name
        (harmed / name).write_bytes(content)
    assert problems(harmed) == []


def test_a_damaged_patch_is_named(path: Path, harmed: Path) -> None:
    shard = harmed / "0" / "patches" / "c.1.0.0.0"
    content = bytearray(shard.read_bytes())
    content[content.index(b"\xff\xd8", 1) + 300] ^= 4  # in the second patch of the second shard of seven
    shard.write_bytes(content)
    try:
        (problem,) = problems(harmed)
        assert f"{harmed}, scale 0, patch 8 is damaged" in problem
        scale_reader._open_shard.cache_clear()
        with pytest.raises(StoreError, match=r"scale 0, patch 8 .*; rebuild this store"):
            PatchStore(harmed).read([7, 8])
        PatchStore(harmed).read([7, 9])
    finally:
        shard.write_bytes((path / "0" / "patches" / "c.1.0.0.0").read_bytes())


def test_a_damaged_index_is_reported_once(path: Path, harmed: Path) -> None:
    shard = harmed / "0" / "patches" / "c.1.0.0.0"
    shard.write_bytes(shard.read_bytes()[:-1])
    try:
        (problem,) = problems(harmed)
        assert "scale 0, patches 7 to 13 cannot be read" in problem
    finally:
        shard.write_bytes((path / "0" / "patches" / "c.1.0.0.0").read_bytes())
