"""A store is written whole or not at all, and what cannot be stored is refused."""

import io
import math
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import tiffslide
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_stores import ATTRIBUTES, COUNTS, MPP, TISSUE, P, files, grid, psnr, textures

from e2e_abmilx.store import PatchStore, StoreError, scale_writer
from e2e_abmilx.store.codec import Subsampling
from e2e_abmilx.store.writer import StoreWriter, leftovers, write_store


@given(cuts=st.lists(st.integers(0, COUNTS[0]), max_size=5), threads=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_the_size_of_batches_does_not_change_the_bytes(
    path: Path, tmp_path_factory: pytest.TempPathFactory, cuts: list[int], threads: int
) -> None:
    folder = tmp_path_factory.mktemp("pieces") / path.name
    pieces = np.split(np.arange(COUNTS[0]), sorted(cuts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scale_writer, "PATCHES_PER_SHARD", 7)
        with StoreWriter(folder, MPP, patch_size=P, attributes=ATTRIBUTES, threads=threads) as writer:
            writer.write_tissue(TISSUE)
            writer.write(textures(COUNTS[2], seed=2), grid(COUNTS[2]), 2)
            for piece in pieces:
                writer.write(textures(COUNTS[0], seed=0)[piece], grid(COUNTS[0])[piece], 0)
            writer.write_thumbnail(textures(1, side=30)[0, :20])
    assert files(folder) == files(path)


def test_encoded_patches_are_stored_unchanged(path: Path, tmp_path: Path) -> None:
    original = PatchStore(path)
    streams = original.read_encoded(range(COUNTS[0]))
    with StoreWriter(tmp_path / "a.zarr", [0.5], patch_size=P) as writer:
        writer.write_encoded(iter(streams[:5]), grid(5))
        writer.write(original.read([5]), grid(6)[5:])
        writer.write_encoded(streams[6:], grid(COUNTS[0])[6:])
    store = PatchStore(tmp_path / "a.zarr")
    assert store.read_encoded([*range(5), *range(6, COUNTS[0])]) == streams[:5] + streams[6:]
    assert (store.coords() == grid(COUNTS[0])).all()
    assert list(store.verify()) == []


def foreign(kind: str) -> bytes:
    file = io.BytesIO()
    mode = {"grey": "L", "CMYK": "CMYK"}.get(kind, "RGB")
    picture = Image.fromarray(textures(1, side=2 * P if kind == "larger" else P)[0]).convert(mode)
    picture.save(file, "PNG" if kind == "PNG" else "JPEG", progressive=kind == "progressive")
    jpeg = file.getvalue()
    return {
        "truncated": jpeg[:-30],
        "with a gap": jpeg[:200] + jpeg[-30:],
        "empty": b"",
        "only markers": b"\xff\xd8\xff\xd9",
    }.get(kind, jpeg)


@pytest.mark.parametrize(
    "kind", ["grey", "CMYK", "larger", "progressive", "PNG", "truncated", "with a gap", "empty", "only markers"]
)
def test_other_or_broken_streams_are_refused(tmp_path: Path, kind: str) -> None:
    streams = [foreign("RGB"), foreign(kind)]
    writer = StoreWriter(tmp_path / "a.zarr", [0.5], patch_size=P)
    with pytest.raises(StoreError, match=r"stream of patch 1 cannot go into .*a\.zarr"), writer:
        writer.write_encoded(streams, grid(2))
    assert list(tmp_path.iterdir()) == []


def test_streams_and_coords_must_match(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "a.zarr", [0.5], patch_size=P)
    with pytest.raises(ValueError, match="2 JPEG streams for 3 coords"), writer:
        writer.write_encoded([foreign("RGB")] * 2, grid(3))


def test_scales_are_sorted_finest_first(tmp_path: Path) -> None:
    scales = {math.nan: (textures(1), None), 2.0: (textures(2), grid(2)), 0.5: (textures(3), grid(3))}
    store = write_store(tmp_path / "a.zarr", scales)
    assert store.scales[:2] == (0.5, 2.0)
    assert [store.num_patches(scale) for scale in range(3)] == [3, 2, 1]


def test_quality_and_subsampling_are_applied(tmp_path: Path) -> None:
    patches = textures(4, side=64)
    patches[..., 0] ^= np.uint8(np.indices((64, 64)).sum(axis=0) % 2 * 60)  # colour as sharp as brightness
    error = {
        (chroma, quality): -psnr(
            write_store(
                tmp_path / f"{chroma}-{quality}.zarr", {0.5: (patches, None)}, quality=quality, subsampling=chroma
            ).read(range(4)),
            patches,
        ).mean()
        for chroma, quality in (("420", 90), ("444", 90), ("444", 60))
    }
    assert error["444", 90] < error["444", 60] < error["420", 90]


@pytest.mark.parametrize(("slide", "subsampling"), [("CMU-1-Small-Region.svs", "444"), ("gastrectomy.svs", "420")])
def test_the_defaults_keep_real_patches_above_30_db(
    shared: Path, tmp_path: Path, slide: str, subsampling: Subsampling
) -> None:
    with tiffslide.TiffSlide(shared / "data" / "slides" / slide) as reader:
        centre = tuple(side // 2 | 1 for side in reader.dimensions)
        region = np.asarray(reader.read_region(centre, 0, (1024, 1024), as_array=True))[..., :3]
    patches = region.reshape(4, 256, 4, 256, 3).swapaxes(1, 2).reshape(16, 256, 256, 3)
    store = write_store(tmp_path / "a.zarr", {0.5: (patches, None)}, subsampling=subsampling)
    assert psnr(store.read(range(16)), patches).min() >= 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mpp": [1.0, 0.5]}, "finest first"),
        ({"mpp": [-1.0]}, "positive"),
        ({"quality": 0}, "1 to 100"),
        ({"attributes": {"e2e_abmilx": 1}}, "reserved"),
        ({"attributes": {"mpp": math.nan}}, "use None"),
        ({"attributes": {"path": Path("a")}}, "plain JSON"),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StoreWriter(tmp_path / "a.zarr", **{"mpp": [0.5], "patch_size": P, **arguments})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("patches", "coords"),
    [
        (textures(2).astype(float), grid(2)),
        (textures(2)[:, :8], grid(2)),
        (textures(2)[..., :1], grid(2)),
        (textures(2), grid(3)),
        (textures(2), grid(2).astype(float)),
        (textures(2), np.arange(2)),
    ],
)
def test_bad_patches_are_refused(tmp_path: Path, patches: np.ndarray, coords: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be"), StoreWriter(tmp_path / "a.zarr", [1], patch_size=P) as w:
        w.write(patches, coords)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_store_is_not_overwritten(path: Path) -> None:
    before = files(path)
    with pytest.raises(StoreError, match="exists already; delete it"):
        write_store(path, {0.5: (textures(1), None)})
    assert files(path) == before
    assert leftovers(path) == []


def test_an_exception_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupted() -> None:
        with StoreWriter(tmp_path / "a.zarr", [0.5], patch_size=P) as writer:
            writer.write(textures(3), grid(3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_no_store(tmp_path: Path) -> None:
    target = tmp_path / "a[1].zarr"
    context = multiprocessing.get_context("fork")
    child = context.Process(target=write_and_die, args=(target,))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert not target.exists()
    assert list(tmp_path.glob("*.zarr")) == []
    (left,) = leftovers(target)
    with pytest.raises(StoreError):
        PatchStore(left)
    assert write_store(target, {0.5: (textures(1), None)}).num_patches() == 1
    assert leftovers(target) == [left]


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the full disk: the same call fails in the same way."""
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[str] = context.Queue()
    child = context.Process(target=write_under_a_limit, args=(tmp_path / "a.zarr", queue))
    child.start()
    message = queue.get(timeout=60)
    child.join(60)
    assert "cannot be written" in message
    assert "free some space" in message
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        write_store(tmp_path / "file" / "a.zarr", {0.5: (textures(1), None)})


def write_and_die(target: Path) -> None:
    with StoreWriter(target, [0.5], patch_size=P) as writer:
        writer.write(textures(3), grid(3))
        os.kill(os.getpid(), signal.SIGKILL)


def write_under_a_limit(target: Path, queue: "multiprocessing.Queue[str]") -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        write_store(target, {0.5: (np.repeat(textures(1), 1000, axis=0), None)})
    except StoreError as error:
        queue.put(str(error))
