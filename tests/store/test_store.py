"""The patch store: what is written is what is read, by us and by zarr-python, and damage never passes silently."""

import io
import json
import math
import multiprocessing
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tiffslide
import zarr
from google_crc32c import value as crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from zarr.codecs import Crc32cCodec

from e2e_abmilx import store as store_module
from e2e_abmilx.store import JpegCodec, PatchStore, StoreError, scale_writer, shards, writer
from e2e_abmilx.store.codec import Subsampling
from e2e_abmilx.store.writer import StoreWriter, leftovers, write_store

P = 16
COUNTS = (20, 0, 5)
MPP = (0.5, 1.0, math.nan)
ATTRIBUTES = {"slide_mpp": 0.25, "slide_mpp_source": "aperio", "objective": None, "scales": [{"level": 0}]}


def textures(count: int, side: int = P, seed: int = 0) -> np.ndarray:
    """Smooth coloured patches, each different."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    waves = rng.random((4, count, 1, 1, 3))
    tilted = waves[0] * x[None, ..., None] + waves[1] * y[None, ..., None]
    return np.uint8(255 * (0.5 + 0.5 * np.sin(3 * tilted + 6 * waves[2])) * (0.6 + 0.4 * waves[3]))


def grid(count: int) -> np.ndarray:
    return np.stack([np.arange(count) * 7 - 3, np.arange(count) * 11], axis=1)


def psnr(stored: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """dB of each patch."""
    return 10 * np.log10(255**2 / np.mean((stored.astype(float) - patches) ** 2, axis=(1, 2, 3)))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_whole(path: Path) -> Path:
    """Three scales, shards of seven patches, thumbnail and tissue."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scale_writer, "PATCHES_PER_SHARD", 7)
        with StoreWriter(path, MPP, patch_size=P, attributes=ATTRIBUTES) as writer:
            for scale, count in enumerate(COUNTS):
                writer.write(textures(count, seed=scale), grid(count), scale)
            writer.write_thumbnail(textures(1, side=30)[0, :20])
            writer.write_tissue(np.indices((20, 30)).sum(axis=0) % 7 > 2)
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whole(tmp_path_factory.mktemp("stores") / "slide 1.0 [HE].zarr")


@pytest.fixture
def store(path: Path) -> PatchStore:
    return PatchStore(path)


class TestReading:
    def test_what_was_written_is_what_is_read(self, store: PatchStore) -> None:
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

    def test_pictures_of_the_slide(self, store: PatchStore) -> None:
        assert psnr(store.thumbnail()[None], textures(1, side=30)[:, :20])[0] > 30
        assert (store.tissue() == (np.indices((20, 30)).sum(axis=0) % 7 > 2)).all()

    def test_a_store_without_pictures(self, tmp_path: Path) -> None:
        bare = write_store(tmp_path / "bare.zarr", {0.5: (textures(2), None)})
        assert bare.thumbnail() is None
        assert bare.tissue() is None
        assert (bare.coords() == -1).all()
        assert list(bare.verify()) == []

    @given(
        indices=st.lists(st.integers(0, COUNTS[0] - 1), max_size=40),
        threads=st.integers(1, 4),
        kind=st.sampled_from([list, tuple, np.array]),
    )
    @settings(max_examples=60, deadline=None)
    def test_any_order_and_duplicates(self, path: Path, indices: list[int], threads: int, kind: type) -> None:
        store = PatchStore(path)
        everything = store.read(range(COUNTS[0]))
        chosen = np.array(indices, dtype=int)
        assert (store.read(kind(indices), threads=threads) == everything[chosen]).all()

    def test_encoded_bytes_are_the_patches(self, store: PatchStore) -> None:
        indices = [19, 0, 7, 7]
        jpegs = store.read_encoded(indices)
        assert all(jpeg.startswith(b"\xff\xd8") and jpeg.endswith(b"\xff\xd9") for jpeg in jpegs)
        assert (np.stack([imagecodecs.jpeg8_decode(jpeg) for jpeg in jpegs]) == store.read(indices)).all()

    @pytest.mark.parametrize("indices", [[-1], [20], [0, 5, 21], np.array([2**63], np.uint64)])
    def test_an_index_outside_is_refused(self, store: PatchStore, indices: list[int]) -> None:
        with pytest.raises(IndexError, match="scale 0 run from 0 to 19"):
            store.read(indices)

    def test_an_empty_scale_has_no_index(self, store: PatchStore) -> None:
        assert store.read([], scale=1).shape == (0, P, P, 3)
        with pytest.raises(IndexError):
            store.read([0], scale=1)

    @pytest.mark.parametrize("indices", [[0.5], [[1, 2]], [True], ["1"]])
    def test_what_is_not_an_index_is_refused(self, store: PatchStore, indices: list[object]) -> None:
        with pytest.raises(TypeError, match="flat list of integers"):
            store.read(indices)

    @pytest.mark.parametrize("scale", [-1, 3])
    def test_a_scale_outside_is_refused(self, store: PatchStore, scale: int) -> None:
        for read in (store.num_patches, store.coords, lambda scale: store.read([0], scale)):
            with pytest.raises(IndexError, match=f"scales 0 to 2, not {scale}"):
                read(scale)

    def test_a_store_rebuilt_under_its_name_is_read_anew(self, tmp_path: Path) -> None:
        for seed in (1, 2):
            patches = textures(3, seed=seed)
            assert (
                psnr(write_store(tmp_path / "a.zarr", {0.5: (patches, None)}).read([0, 1, 2]), patches) > 30
            ).all()
            shutil.rmtree(tmp_path / "a.zarr")

    def test_few_file_handles_stay_open(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(scale_writer, "PATCHES_PER_SHARD", 1)
        count = 2 * shards.OPEN_SHARDS
        store = write_store(tmp_path / "a.zarr", {0.5: (np.repeat(textures(1), count, axis=0), None)})
        shards._open_shard.cache_clear()
        before = len(os.listdir("/proc/self/fd"))
        store.read(range(count))
        assert len(os.listdir("/proc/self/fd")) <= before + shards.OPEN_SHARDS


def answer(store: PatchStore, queue: "multiprocessing.Queue[int]") -> None:
    queue.put(crc32c(store.read([19, 3, 3, 8], threads=2).tobytes()))


class TestProcesses:
    def test_pickle_carries_only_the_path(self, store: PatchStore) -> None:
        store.read([0])
        pickled = pickle.dumps(store)
        assert len(pickled) < 500
        assert (pickle.loads(pickled).read([3]) == store.read([3])).all()

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_children_read_what_the_parent_reads(self, store: PatchStore, method: str) -> None:
        patches = store.read([19, 3, 3, 8], threads=2)  # shards are open and threads have run before the fork
        context = multiprocessing.get_context(method)
        queue: multiprocessing.Queue[int] = context.Queue()
        children = [context.Process(target=answer, args=(store, queue)) for _ in range(2)]
        for child in children:
            child.start()
        answers = {queue.get(timeout=60) for _ in children}
        for child in children:
            child.join(60)
        assert answers == {crc32c(patches.tobytes())}

    def test_threads_share_a_store(self, store: PatchStore) -> None:
        everything = store.read(range(COUNTS[0]))
        draws = [np.random.default_rng(seed).integers(COUNTS[0], size=30) for seed in range(40)]
        with ThreadPoolExecutor(8) as pool:
            for draw, patches in zip(draws, pool.map(store.read, draws), strict=True):
                assert (patches == everything[draw]).all()


class TestFormat:
    def test_zarr_python_reads_the_same(self, path: Path, store: PatchStore) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            group = zarr.open_group(path, mode="r")
            for scale, count in enumerate(COUNTS):
                array = group[f"{scale}/patches"]
                assert array.shape == (count, P, P, 3)
                assert (array[:] == store.read(range(count), scale)).all()
                assert (group[f"{scale}/coords"][:] == store.coords(scale)).all()
            chosen = [2, 6, 7, 19]
            assert (group["0/patches"].oindex[chosen] == store.read(chosen)).all()
            assert (group["0/patches"][5:9, 3:7, ::2] == store.read(range(5, 9))[:, 3:7, ::2]).all()
            assert (group["thumbnail"][:] == store.thumbnail()).all()
            assert (group["tissue"][:] == store.tissue()).all()
        assert group.attrs["slide_mpp"] == ATTRIBUTES["slide_mpp"]
        assert group.attrs["e2e_abmilx"]["mpp"] == [0.5, 1.0, None]

    def test_the_program_on_the_format_page_reads_it(self, path: Path, store: PatchStore) -> None:
        page = Path(store_module.__file__).with_name("FORMAT.md").read_text(encoding="utf-8")
        program: dict[str, Any] = {}
        exec(page.split("```python")[1].split("```")[0], program)
        for scale, count in enumerate(COUNTS):
            jpegs = [program["jpeg"](path, scale, patch) for patch in range(count)]
            assert jpegs == store.read_encoded(range(count), scale)
            for jpeg, pixels in zip(jpegs, store.read(range(count), scale), strict=True):
                assert (np.asarray(Image.open(io.BytesIO(jpeg))) == pixels).all()

    def test_checksums_are_where_the_format_page_says(self, path: Path) -> None:
        shard = (path / "0" / "patches" / "c.1.0.0.0").read_bytes()
        index = shard[-16 * 7 - 4 : -4]
        assert struct.unpack("<I", shard[-4:]) == (crc32c(index),)
        for offset, length in struct.iter_unpack("<QQ", index):
            (checksum,) = struct.unpack("<I", shard[offset + length - 4 : offset + length])
            assert checksum == crc32c(shard[offset : offset + length - 4])
        text = json.loads((path / "zarr.json").read_text(), parse_constant=pytest.fail)
        checksum = text["attributes"]["e2e_abmilx"].pop("crc32c")
        assert int(checksum, 16) == crc32c(json.dumps(text, sort_keys=True, separators=(",", ":")).encode())

    def test_a_slide_is_a_handful_of_files(self, path: Path) -> None:
        shards = [file for file in path.rglob("c.*") if file.parent.name == "patches"]
        assert len(shards) == 3 + 0 + 1  # 20, 0 and 5 patches in shards of seven

    def test_the_codec_encodes_through_zarr(self, tmp_path: Path) -> None:
        patches = textures(3)
        array = zarr.create_array(
            tmp_path / "own.zarr",
            shape=patches.shape,
            chunks=(1, P, P, 3),
            dtype="uint8",
            serializer=JpegCodec(level=90, subsampling="444"),
            compressors=[Crc32cCodec()],
        )
        array[:] = patches
        ours = write_store(tmp_path / "ours.zarr", {0.5: (patches, None)}, quality=90)
        assert (zarr.open_array(tmp_path / "own.zarr", mode="r")[:] == ours.read(range(3))).all()

    @pytest.mark.skipif(
        JpegCodec.__module__.startswith("imagecodecs"),
        reason="imagecodecs brings a codec that knows all settings",
    )
    def test_the_codec_refuses_settings_that_it_does_not_know(self) -> None:
        with pytest.raises(ValueError, match=r"\['tables'\].*install imagecodecs-zarr"):
            JpegCodec.from_dict(
                {"name": "imagecodecs_jpeg", "configuration": {"level": 90, "tables": "AA=="}}
            )

    def test_zarr_finds_the_codec_by_the_entry_point(self, path: Path, tmp_path: Path) -> None:
        """A program that imports zarr alone reads a store where the package is installed."""
        installed = tmp_path / "a_package-0.dist-info"
        installed.mkdir()
        (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: a-package\nVersion: 0\n")
        line = "imagecodecs_jpeg = e2e_abmilx.store:JpegCodec"
        (installed / "entry_points.txt").write_text(f"[zarr.codecs]\n{line}\n")
        program = "import sys, zarr; print(zarr.open_group(sys.argv[1], mode='r')['0/patches'][3].shape)"
        here = str(Path(store_module.__file__).parents[2])
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, path],
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), here, *filter(None, sys.path)])},
            capture_output=True,
            text=True,
        )
        assert done.stdout.strip() == f"({P}, {P}, 3)", done.stderr

    def test_the_pixel_floor_needs_no_torch(self) -> None:
        program = "import sys, e2e_abmilx.store; sys.exit('torch' in sys.modules)"
        here = Path(store_module.__file__).parents[2]
        assert subprocess.run([sys.executable, "-c", program], cwd=here, check=False).returncode == 0


class TestWriting:
    @given(cuts=st.lists(st.integers(0, COUNTS[0]), max_size=5), threads=st.integers(1, 3))
    @settings(max_examples=15, deadline=None)
    def test_pieces_give_the_same_bytes(
        self, path: Path, tmp_path_factory: pytest.TempPathFactory, cuts: list[int], threads: int
    ) -> None:
        folder = tmp_path_factory.mktemp("pieces") / path.name
        pieces = np.split(np.arange(COUNTS[0]), sorted(cuts))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scale_writer, "PATCHES_PER_SHARD", 7)
            with StoreWriter(folder, MPP, patch_size=P, attributes=ATTRIBUTES, threads=threads) as writer:
                writer.write_tissue(np.indices((20, 30)).sum(axis=0) % 7 > 2)
                writer.write(textures(COUNTS[2], seed=2), grid(COUNTS[2]), 2)
                for piece in pieces:
                    writer.write(textures(COUNTS[0], seed=0)[piece], grid(COUNTS[0])[piece], 0)
                writer.write_thumbnail(textures(1, side=30)[0, :20])
        assert files(folder) == files(path)

    def test_encoded_patches_pass_unchanged(self, path: Path, tmp_path: Path) -> None:
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

    @staticmethod
    def foreign(kind: str) -> bytes:
        file = io.BytesIO()
        mode = {"grey": "L", "four inks": "CMYK"}.get(kind, "RGB")
        picture = Image.fromarray(textures(1, side=2 * P if kind == "larger" else P)[0]).convert(mode)
        picture.save(file, "PNG" if kind == "PNG" else "JPEG", progressive=kind == "progressive")
        jpeg = file.getvalue()
        return {
            "cut": jpeg[:-30],
            "holed": jpeg[:200] + jpeg[-30:],
            "empty": b"",
            "ends": b"\xff\xd8\xff\xd9",
        }.get(kind, jpeg)

    @pytest.mark.parametrize(
        "kind", ["grey", "four inks", "larger", "progressive", "PNG", "cut", "holed", "empty", "ends"]
    )
    def test_other_streams_do_not_pass(self, tmp_path: Path, kind: str) -> None:
        streams = [self.foreign("RGB"), self.foreign(kind)]
        writer = StoreWriter(tmp_path / "a.zarr", [0.5], patch_size=P)
        with pytest.raises(StoreError, match=r"stream of patch 1 cannot go into .*a\.zarr"), writer:
            writer.write_encoded(streams, grid(2))
        assert list(tmp_path.iterdir()) == []

    def test_streams_and_coords_must_match(self, tmp_path: Path) -> None:
        writer = StoreWriter(tmp_path / "a.zarr", [0.5], patch_size=P)
        with pytest.raises(ValueError, match="2 JPEG streams for 3 coords"), writer:
            writer.write_encoded([self.foreign("RGB")] * 2, grid(3))

    @pytest.mark.parametrize("count", [6, 7, 8, 14])
    def test_shard_borders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
        monkeypatch.setattr(scale_writer, "PATCHES_PER_SHARD", 7)
        store = write_store(tmp_path / "a.zarr", {0.5: (textures(count), grid(count))})
        assert (psnr(store.read(range(count)), textures(count)) > 30).all()
        assert (
            zarr.open_group(tmp_path / "a.zarr", mode="r")["0/patches"][:] == store.read(range(count))
        ).all()
        assert list(store.verify()) == []

    def test_scales_come_out_finest_first(self, tmp_path: Path) -> None:
        scales = {math.nan: (textures(1), None), 2.0: (textures(2), grid(2)), 0.5: (textures(3), grid(3))}
        store = write_store(tmp_path / "a.zarr", scales)
        assert store.scales[:2] == (0.5, 2.0)
        assert [store.num_patches(scale) for scale in range(3)] == [3, 2, 1]

    def test_quality_and_subsampling_matter(self, tmp_path: Path) -> None:
        patches = textures(4, side=64)
        patches[..., 0] ^= np.uint8(
            np.indices((64, 64)).sum(axis=0) % 2 * 60
        )  # colour as sharp as brightness
        error = {
            (chroma, quality): -psnr(
                write_store(
                    tmp_path / f"{chroma}-{quality}.zarr",
                    {0.5: (patches, None)},
                    quality=quality,
                    subsampling=chroma,
                ).read(range(4)),
                patches,
            ).mean()
            for chroma, quality in (("420", 90), ("444", 90), ("444", 60))
        }
        assert error["444", 90] < error["444", 60] < error["420", 90]

    @pytest.mark.parametrize(
        ("slide", "subsampling"), [("CMU-1-Small-Region.svs", "444"), ("gastrectomy.svs", "420")]
    )
    def test_the_defaults_keep_real_patches_above_30_db(
        self, shared: Path, tmp_path: Path, slide: str, subsampling: Subsampling
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
            ({"attributes": {"e2e_abmilx": 1}}, "store's own"),
            ({"attributes": {"mpp": math.nan}}, "use None"),
            ({"attributes": {"path": Path("a")}}, "plain JSON"),
        ],
    )
    def test_bad_settings_are_refused(
        self, tmp_path: Path, arguments: dict[str, object], message: str
    ) -> None:
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
    def test_bad_patches_are_refused(self, tmp_path: Path, patches: np.ndarray, coords: np.ndarray) -> None:
        with (
            pytest.raises(ValueError, match="must be"),
            StoreWriter(tmp_path / "a.zarr", [1], patch_size=P) as w,
        ):
            w.write(patches, coords)
        assert list(tmp_path.iterdir()) == []

    def test_an_existing_store_is_not_overwritten(self, path: Path) -> None:
        before = files(path)
        with pytest.raises(StoreError, match="exists already; delete it"):
            write_store(path, {0.5: (textures(1), None)})
        assert files(path) == before
        assert leftovers(path) == []

    def test_an_exception_leaves_nothing_behind(self, tmp_path: Path) -> None:
        def interrupted() -> None:
            with StoreWriter(tmp_path / "a.zarr", [0.5], patch_size=P) as writer:
                writer.write(textures(3), grid(3))
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert list(tmp_path.iterdir()) == []

    def test_a_killed_writer_leaves_no_store(self, tmp_path: Path) -> None:
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

    def test_a_full_disk_is_said_and_cleaned_up(self, tmp_path: Path) -> None:
        """A limit on the size of a file stands in for the full disk: the same failure of the same call."""
        context = multiprocessing.get_context("fork")
        queue: multiprocessing.Queue[str] = context.Queue()
        child = context.Process(target=write_under_a_limit, args=(tmp_path / "a.zarr", queue))
        child.start()
        message = queue.get(timeout=60)
        child.join(60)
        assert "cannot be written" in message
        assert "free some space" in message
        assert list(tmp_path.iterdir()) == []

    def test_a_parent_that_is_a_file(self, tmp_path: Path) -> None:
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


def read_carefully(path: Path) -> Iterator[tuple[int, int, np.ndarray]]:
    """Every patch of a harmed store that can be read, one by one, through fresh file handles."""
    shards._open_shard.cache_clear()
    with suppress(StoreError):
        store = PatchStore(path)
        for scale in range(len(store.scales)):
            for patch in range(store.num_patches(scale)):
                with suppress(StoreError):
                    yield scale, patch, store.read([patch], scale)[0]


def complaints(path: Path) -> list[str]:
    shards._open_shard.cache_clear()
    try:
        return list(PatchStore(path).verify())
    except StoreError as error:
        return [str(error)]


@pytest.fixture(scope="module")
def harmed(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the store for tests to harm and mend."""
    return Path(shutil.copytree(path, tmp_path_factory.mktemp("harmed") / path.name))


class TestDamage:
    @given(data=st.data())
    @settings(max_examples=150, deadline=None)
    def test_a_flipped_bit_never_passes(self, path: Path, harmed: Path, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(files(path))))
        whole = (path / name).read_bytes()
        bit = data.draw(st.integers(0, 8 * len(whole) - 1))
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        self.check(path, harmed, name, bytes(broken))

    @given(data=st.data())
    @settings(max_examples=60, deadline=None)
    def test_a_truncated_file_never_passes(self, path: Path, harmed: Path, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(files(path))))
        whole = (path / name).read_bytes()
        length = data.draw(st.integers(0, len(whole) - 1) | st.just(0) | st.just(len(whole) - 1))
        self.check(path, harmed, name, whole[:length])

    def check(self, path: Path, harmed: Path, name: str, content: bytes) -> None:
        sound = PatchStore(path)
        try:
            (harmed / name).write_bytes(content)
            assert complaints(harmed)
            for scale, patch, pixels in read_carefully(harmed):
                assert (pixels == sound.read([patch], scale)[0]).all()
        finally:
            (harmed / name).write_bytes((path / name).read_bytes())

    def test_every_missing_file_is_found(self, path: Path, harmed: Path) -> None:
        for name, content in files(path).items():
            (harmed / name).unlink()
            assert complaints(harmed), name
            (harmed / name).write_bytes(content)
        assert complaints(harmed) == []

    def test_the_patch_is_named(self, path: Path, harmed: Path) -> None:
        shard = harmed / "0" / "patches" / "c.1.0.0.0"
        content = bytearray(shard.read_bytes())
        content[content.index(b"\xff\xd8", 1) + 300] ^= 4  # in the second patch of the second shard of seven
        shard.write_bytes(content)
        try:
            (complaint,) = complaints(harmed)
            assert f"{harmed}, scale 0, patch 8 is damaged" in complaint
            shards._open_shard.cache_clear()
            with pytest.raises(StoreError, match=r"scale 0, patch 8 .*; build this store anew"):
                PatchStore(harmed).read([7, 8], threads=2)
            PatchStore(harmed).read([7, 9])
        finally:
            shard.write_bytes((path / "0" / "patches" / "c.1.0.0.0").read_bytes())

    def test_a_damaged_index_is_one_complaint(self, path: Path, harmed: Path) -> None:
        shard = harmed / "0" / "patches" / "c.1.0.0.0"
        shard.write_bytes(shard.read_bytes()[:-1])
        try:
            (complaint,) = complaints(harmed)
            assert "scale 0, patches 7 to 13 cannot be read" in complaint
        finally:
            shard.write_bytes((path / "0" / "patches" / "c.1.0.0.0").read_bytes())

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ((2**40, 600), "outside the file"),
            ((0, 2**40), "outside the file"),
            ((2**64 - 1, 2**64 - 1), "patch 0 cannot be read"),
            ((0, 0), "patch 0 is damaged"),
        ],
    )
    def test_a_forged_index(self, tmp_path: Path, entry: tuple[int, int], message: str) -> None:
        """The checksum is right, the content is not."""
        store = write_store(tmp_path / "a.zarr", {0.5: (textures(1), None)})
        shard = store.path / "0" / "patches" / "c.0.0.0.0"
        index = struct.pack("<QQ", *entry)
        shard.write_bytes(shard.read_bytes()[:-20] + index + struct.pack("<I", crc32c(index)))
        with pytest.raises(StoreError, match=message):
            store.read([0])

    @pytest.mark.parametrize("jpeg", [b"no JPEG at all", imagecodecs.jpeg8_encode(textures(1, side=8)[0])])
    def test_a_forged_patch(self, tmp_path: Path, jpeg: bytes) -> None:
        """Checksums are right, but it is no picture, or one of another size."""
        store = write_store(tmp_path / "a.zarr", {0.5: (textures(1), None)})
        index = struct.pack("<QQ", 0, len(jpeg) + 4)
        parts = [jpeg, struct.pack("<I", crc32c(jpeg)), index, struct.pack("<I", crc32c(index))]
        (store.path / "0" / "patches" / "c.0.0.0.0").write_bytes(b"".join(parts))
        with pytest.raises(StoreError, match="scale 0, patch 0 cannot be decoded"):
            store.read([0])


class TestOpening:
    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"no patch store at .*gone\.zarr.*run `e2e-abmilx cache` first"):
            PatchStore(tmp_path / "gone.zarr")

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\xff\xd8\xff",
            b"[]",
            b"1",
            b"null",
            b"[" * 100_000,
            b'{"attributes": null}',
            b'{"attributes": {"e2e_abmilx": 1}}',
            b'{"attributes": {"e2e_abmilx": {"format_version": 1}}}',
        ],
    )
    def test_what_is_not_a_store(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "zarr.json").write_bytes(content)
        with pytest.raises(StoreError, match="is not a patch store"):
            PatchStore(tmp_path)

    def test_a_foreign_zarr_group(self, tmp_path: Path) -> None:
        zarr.create_group(tmp_path / "a.zarr").create_array("patches", shape=(3, P, P, 3), dtype="uint8")
        with pytest.raises(StoreError, match="is not a patch store"):
            PatchStore(tmp_path / "a.zarr")

    def test_another_version(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as later:
            later.setattr(writer, "FORMAT_VERSION", 2)
            later.setattr(store_module.format, "FORMAT_VERSION", 2)
            write_store(tmp_path / "a.zarr", {0.5: (textures(1), None)})
        with pytest.raises(StoreError, match="has format version 2 and this release reads 1"):
            PatchStore(tmp_path / "a.zarr")

    def test_edited_metadata(self, tmp_path: Path) -> None:
        path = write_store(tmp_path / "a.zarr", {0.5: (textures(1), None)}).path
        text = (path / "zarr.json").read_text()
        (path / "zarr.json").write_text(text.replace("0.5", "0.25"))
        with pytest.raises(StoreError, match="edited or damaged"):
            PatchStore(path)
