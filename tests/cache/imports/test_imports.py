"""What users already have becomes stores: the same pixels at the same places, and hostile files run nothing."""

import io
import math
import os
import pickle
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from e2e_abmilx.cache import CacheError, cache_slides
from e2e_abmilx.cache.imports import databases, import_coords, import_images, import_lmdb
from e2e_abmilx.cache.manifest import read_manifest
from e2e_abmilx.errors import SourceError
from e2e_abmilx.slides import Slide
from e2e_abmilx.store import PatchStore
from e2e_abmilx.synthetic import write_slide

P = 32


def picture(seed: int, side: int = P) -> np.ndarray:
    """A smooth coloured patch."""
    y, x = np.mgrid[:side, :side] / side
    phase = np.random.default_rng(seed).random((3, 3)) * 2
    waves = np.sin(3 * x[..., None] * phase[0] + 3 * y[..., None] * phase[1] + phase[2])
    return np.uint8(128 + 100 * waves)


def jpeg(seed: int, side: int = P, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(seed, side)).save(file, "JPEG", quality=80, **options)
    return file.getvalue()


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal to noise ratio of two uint8 images, dB."""
    return float(10 * np.log10(255**2 / max(((a.astype(float) - b.astype(float)) ** 2).mean(), 1e-9)))


def snapshot(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("*.zarr/**/*")}


def write_lmdb(path: Path, slides: dict[str, list[bytes]], extra: dict[str, bytes] | None = None) -> Path:
    """A database as the authors write it; ``extra`` replaces values, and an empty one removes its key."""
    keys = [f"{slide}-{i}".encode() for slide, jpegs in slides.items() for i in range(len(jpegs))]
    values = dict(
        zip(keys, (pickle.dumps(value) for values in slides.values() for value in values), strict=True)
    )
    values |= {
        b"__keys__": pickle.dumps(keys),
        b"__len__": pickle.dumps(len(keys)),
        b"__slide__": pickle.dumps(list(slides)),
        b"__pn__": pickle.dumps({slide: len(jpegs) for slide, jpegs in slides.items()}),
    }
    values |= {key.encode(): value for key, value in (extra or {}).items()}
    with (
        lmdb.open(str(path), subdir=False, map_size=2**26, lock=False) as database,
        database.begin(write=True) as transaction,
    ):
        for key, value in values.items():
            if value:
                transaction.put(key, value)
    return path


def read_lmdb(path: Path) -> dict[str, Any]:
    """All values of a database that we trust."""
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as database, database.begin() as view:
        return {key.decode(): pickle.loads(value) for key, value in view.cursor()}


class Runs:
    """Unpickled, this runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


class TestLmdb:
    @pytest.fixture
    def pair(self, shared: Path) -> tuple[Path, Path]:
        folder = shared / "reference/lmdb_sample"
        return folder / "tiny_256_80_level1.lmdb", folder / "tiny_256_80_level1_512.lmdb"

    def test_the_authors_pair(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        rows = import_lmdb(pair[0], tmp_path, coarse=pair[1], workers=2)
        databases = [read_lmdb(path) for path in pair]
        assert [row.slide for row in rows] == sorted(databases[0]["__slide__"])
        assert {row.status for row in rows} == {"done"}
        assert read_manifest(tmp_path) == {row.slide: row for row in rows}
        for row in rows:
            store = PatchStore(tmp_path / f"{row.slide}.zarr")
            assert list(store.verify()) == []
            assert store.patch_size == 256
            assert all(math.isnan(mpp) for mpp in store.scales)
            for scale, database in enumerate(databases):
                count = database["__pn__"][row.slide]
                assert store.num_patches(scale) == count
                assert (store.coords(scale) == -1).all()
                streams = [
                    database[f"{row.slide}-{i}"] for i in range(count)
                ]  # 10 comes after 9, not after 1
                assert store.read_encoded(range(count), scale) == streams
        assert max(databases[0]["__pn__"].values()) > 10

    def test_a_second_call_redoes_nothing(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        first = import_lmdb(pair[0], tmp_path, mpp=(0.5,), workers=1)
        before = snapshot(tmp_path)
        shutil.rmtree(tmp_path / f"{first[1].slide}.zarr")
        (tmp_path / f".{first[1].slide}.zarr.partial-killed").mkdir()
        assert [row.slide for row in import_lmdb(pair[0], tmp_path, mpp=("20x",), workers=1)] == [
            row.slide for row in first
        ]
        after = snapshot(tmp_path)
        assert {path for path in before if before[path] != after[path]} == {
            path for path in before if first[1].slide in str(path)
        }
        assert not list(tmp_path.glob(".*partial*"))
        assert PatchStore(tmp_path / f"{first[0].slide}.zarr").scales == (0.5,)

    def test_other_settings_and_other_sources_are_refused(self, tmp_path: Path) -> None:
        slides = {"a": [jpeg(0), jpeg(1)]}
        path = write_lmdb(tmp_path / "one.lmdb", slides)
        import_lmdb(path, tmp_path / "out", workers=1)
        with pytest.raises(CacheError, match=r"mpp \[None\] there, \[1\.0\] now"):
            import_lmdb(path, tmp_path / "out", mpp=(1.0,), workers=1)
        path.unlink()
        write_lmdb(path, {"a": [jpeg(2)]})
        with pytest.raises(CacheError, match="fingerprints"):
            import_lmdb(path, tmp_path / "out", workers=1)

    def test_slides_that_one_database_lacks_are_named(self, tmp_path: Path) -> None:
        fine = write_lmdb(tmp_path / "fine.lmdb", {"a": [jpeg(0)], "b": [jpeg(1)], "empty": []})
        coarse = write_lmdb(tmp_path / "coarse.lmdb", {"b": [jpeg(2)], "c": [jpeg(3)], "empty": [jpeg(4)]})
        rows = {row.slide: row for row in import_lmdb(fine, tmp_path / "out", coarse=coarse, workers=1)}
        assert {name for name, row in rows.items() if row.status == "done"} == {"b"}
        assert "coarse.lmdb has no patch of slide 'a'" in rows["a"].reason
        assert "fine.lmdb has no patch of slide 'c'" in rows["c"].reason
        assert "fine.lmdb has no patch of slide 'empty'" in rows["empty"].reason
        assert read_manifest(tmp_path / "out") == rows
        with pytest.raises(SourceError, match="are one database"):
            import_lmdb(fine, tmp_path / "out", coarse=fine)
        with pytest.raises(SourceError, match="not one number for each of 2"):
            import_lmdb(fine, tmp_path / "out", coarse=coarse, mpp=(0.5,))
        with pytest.raises(SourceError, match="different positive"):
            import_lmdb(fine, tmp_path / "out", coarse=coarse, mpp=(0.5, -1))

    def test_an_interrupted_database_is_refused(self, tmp_path: Path) -> None:
        meta = dict.fromkeys(("__keys__", "__len__", "__slide__", "__pn__"), b"")
        path = write_lmdb(tmp_path / "one.lmdb", {"a": [jpeg(0)]}, meta)
        with pytest.raises(SourceError, match="writing was interrupted; run"):
            import_lmdb(path, tmp_path / "out")

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (jpeg(0, progressive=True), "patch 1 .* complete baseline"),
            (jpeg(0, side=2 * P), r"patch 1 .* \(64, 64, 3\), not of \(32, 32, 3\)"),
            (jpeg(0)[:-20], "patch 1 .* complete baseline"),
            (jpeg(0)[:300] + b"\xff\xd9", "patch 1 "),
            (b"", "patch 1 .* complete baseline"),
            ("text", "a str instead of JPEG bytes at bad-1"),
            ([b"list"], "a list instead of JPEG bytes at bad-1"),
        ],
    )
    def test_a_bad_patch_sets_its_slide_aside(self, tmp_path: Path, value: object, reason: str) -> None:
        slides = {"bad": [jpeg(0), jpeg(1)], "good": [jpeg(2)]}
        path = write_lmdb(tmp_path / "one.lmdb", slides, {"bad-1": pickle.dumps(value)})
        bad, good = import_lmdb(path, tmp_path / "out", workers=1)
        assert (bad.status, good.status) == ("failed", "done")
        assert re.search(reason, bad.reason)
        assert sorted(file.name for file in (tmp_path / "out").iterdir() if "zarr" in file.name) == [
            "good.zarr"
        ]

    def test_a_missing_patch_sets_its_slide_aside(self, tmp_path: Path) -> None:
        path = write_lmdb(tmp_path / "one.lmdb", {"a": [jpeg(0), jpeg(1)]}, {"a-1": b""})
        (row,) = import_lmdb(path, tmp_path / "out", workers=1)
        assert "no value at a-1" in row.reason

    @staticmethod
    def hostile(marker: Path) -> dict[str, bytes]:
        run = Runs(f"touch {marker}")
        return {
            "reduce": pickle.dumps(run),
            "reduce, protocol 0": pickle.dumps(run, 0),
            "inside a list": pickle.dumps([b"", {"a": run}]),
            "before bytes": pickle.dumps(run)[:-1] + b"0" + pickle.dumps(jpeg(0))[2:],
            "a module is imported": b"cantigravity\nfly\n.",
            "persistent": b"Pid\n.",
            "extension": b"\x82\x01.",
            "deep nesting": b"\x80\x04" + b"]" * 300_000 + b"a" * 299_999 + b".",
            "deep tuple as a key": b"\x80\x04}" + b")" + b"\x85" * 300_000 + b"K\x01s.",
            "huge memo": b"\x80\x04C\x01xr\xff\xff\xff\xff.",
            "huge bytes": b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"x.",
            "huge frame": b"\x80\x04\x95" + (2**63 - 1).to_bytes(8, "little") + b"C\x01x.",
            "huge int": b"\x80\x04\x8b\xff\xff\xff\x7f" + b"\x01" * 1000 + b".",
            "truncated": pickle.dumps(jpeg(0))[:-40],
            "no pickle": b"\xff\xd8\xff\xe0 a bare JPEG",
            "nothing on the stack": b"\x80\x04.",
            "float": pickle.dumps(1.5),
            "tuple": pickle.dumps((b"x",)),
            "none": pickle.dumps(None),
            "array": pickle.dumps(np.frombuffer(jpeg(0), np.uint8)),
            "unhashable key": b"\x80\x04}]K\x01s.",
            "16 MB": pickle.dumps(bytes(2**24)),
        }

    HOSTILE = tuple(hostile(Path()))

    @pytest.mark.parametrize("name", HOSTILE)
    def test_hostile_pickles_are_named_and_not_run(self, tmp_path: Path, name: str) -> None:
        marker = tmp_path / "it ran"
        value = self.hostile(tmp_path / "it\\ ran")[name]
        slides = {"bad": [jpeg(0)], "good": [jpeg(1)]}
        bad, good = import_lmdb(
            write_lmdb(tmp_path / "patch.lmdb", slides, {"bad-0": value}), tmp_path / "out", workers=1
        )
        assert good.status == "done"
        assert bad.status == "failed"
        assert "patch.lmdb has a" in bad.reason
        assert "bad-0" in bad.reason
        table = write_lmdb(tmp_path / "table.lmdb", slides, {"__pn__": value})
        with pytest.raises(SourceError, match=r"table\.lmdb has a .*__pn__"):
            import_lmdb(table, tmp_path / "out2", workers=1)
        assert not marker.exists()

    def test_the_hostile_pickles_are_hostile(self, tmp_path: Path) -> None:
        pickle.loads(self.hostile(tmp_path / "it\\ ran")["reduce"])
        assert (tmp_path / "it ran").exists()

    @pytest.mark.parametrize(
        "counts", [{"a": -1}, {"a": 10**12}, {"a": "1"}, {1: 1}, ["a"], {"a": [1]}, {"a": 1, "b": 10**30}]
    )
    def test_a_table_that_lies_is_refused(self, tmp_path: Path, counts: object) -> None:
        path = write_lmdb(tmp_path / "one.lmdb", {"a": [jpeg(0)]}, {"__pn__": pickle.dumps(counts)})
        with pytest.raises(SourceError, match="__pn__"):
            import_lmdb(path, tmp_path / "out", workers=1)

    @pytest.mark.parametrize(
        "name", ["../evil", "/tmp/evil", ".hidden", "a/b", "a\\b", "", "n\n", "\ud800", "x" * 300]
    )
    @pytest.mark.parametrize("count", [0, 1])
    def test_names_cannot_leave_the_folder(self, tmp_path: Path, name: str, count: int) -> None:
        path = write_lmdb(tmp_path / "one.lmdb", {"a": [jpeg(0)]}, {"__pn__": pickle.dumps({name: count})})
        (row,) = import_lmdb(path, tmp_path / "out", workers=1)
        assert "cannot name a file" in row.reason
        assert sorted(file.name for file in tmp_path.iterdir()) == ["one.lmdb", "out"]
        assert [file.name for file in (tmp_path / "out").iterdir()] == ["manifest.csv"]

    @pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
    def test_a_database_that_is_cut_off_is_named(self, tmp_path: Path, share: float) -> None:
        path = write_lmdb(tmp_path / "one.lmdb", {"a": [jpeg(i, side=256) for i in range(20)]})
        os.truncate(path, int(share * path.stat().st_size))
        with pytest.raises(SourceError, match=r"one\.lmdb (cannot be read as an LMDB|is cut off)"):
            import_lmdb(path, tmp_path / "out", workers=1)

    def test_what_is_no_database_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "text.lmdb").write_text("text" * 5000)
        for name in ("text.lmdb", "absent.lmdb", "."):
            with pytest.raises(SourceError, match="cannot be read as an LMDB"):
                import_lmdb(tmp_path / name, tmp_path / "out")

    def test_without_the_extra(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "lmdb", None)
        with pytest.raises(SourceError, match=r"pip install e2e-abmilx\[lmdb\]"):
            import_lmdb(tmp_path / "one.lmdb", tmp_path / "out")


PLAIN = st.recursive(
    st.binary(max_size=300) | st.text(max_size=300) | st.integers(-(2**1000), 2**1000),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text() | st.integers(), inner, max_size=8),
)


class TestUnpickling:
    @given(value=PLAIN, protocol=st.integers(3, pickle.HIGHEST_PROTOCOL))
    @settings(deadline=None, max_examples=80)
    def test_plain_values_pass(self, value: object, protocol: int) -> None:
        assert databases._unpickle(memoryview(pickle.dumps(value, protocol))) == value

    @given(value=PLAIN, data=st.data())
    @settings(deadline=None, max_examples=300)
    def test_anything_else_is_an_error(self, value: object, data: st.DataObject) -> None:
        pickled = bytearray(pickle.dumps(value))
        for _ in range(data.draw(st.integers(1, 4))):
            pickled[data.draw(st.integers(0, len(pickled) - 1))] = data.draw(st.integers(0, 255))
        try:
            found = databases._unpickle(memoryview(bytes(pickled)))
        except Exception:  # noqa: BLE001 - its caller names whatever it is
            return
        assert {type(part) for part in parts(found)} <= {bytes, str, int, list, dict}


def parts(value: object) -> Iterator[object]:
    """A value and all that it holds, each once."""
    seen: set[int] = set()
    todo = [value]
    while todo:
        part = todo.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        if isinstance(part, list):
            todo += part
        elif isinstance(part, dict):
            todo += [*part, *part.values()]


def write_trident(path: Path, coords: np.ndarray, *, drop: str = "", **changed: object) -> Path:
    """64 px patches at 10x of a 20x slide, each 128 level-0 pixels."""
    attributes = {
        "patch_size": 64,
        "patch_size_level0": 128,
        "level0_magnification": 20,
        "target_magnification": 10,
        "overlap": 0,
        "name": path.stem.removesuffix("_patches"),
        "savetodir": str(path.parent),
        "level0_width": 1024,
        "level0_height": 1024,
    } | changed
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        table = file.create_dataset(
            "coords", data=coords, chunks=(1, 2) if coords[..., 0].size and coords.ndim == 2 else None
        )
        table.attrs.update({key: value for key, value in attributes.items() if key != drop})
    return path


def write_clam(path: Path, coords: np.ndarray, *, level: int = 1, **changed: object) -> Path:
    """64 px patches of a level of a slide whose levels halve."""
    factor, side = float(2**level), 1024 // 2**level
    attributes = {
        "patch_size": 64,
        "patch_level": level,
        "downsample": (factor, factor),
        "downsampled_level_dim": (side, side),
        "level_dim": (side, side),
        "name": path.stem,
        "save_path": str(path.parent),
    } | changed
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("coords", data=coords.astype(np.int32)).attrs.update(attributes)
    return path


def lattice(stride: int, count: int = 5, first: tuple[int, int] = (150, 203)) -> np.ndarray:
    x, y = np.meshgrid(first[0] + stride * np.arange(count), first[1] + stride * np.arange(count))
    return np.stack([x.ravel(), y.ravel()], axis=1)


def assert_coords_are_right(slide_file: Path, store: PatchStore, decibel: float = 30) -> None:
    with Slide(slide_file) as slide:
        for scale in range(len(store.scales)):
            side = store.attributes["footprints"][scale]
            for stored, (x, y) in zip(
                store.read(range(store.num_patches(scale)), scale), store.coords(scale), strict=True
            ):
                assert min(x, y) >= 0
                assert max(x, y) + side <= max(slide.size)
                whole = math.ceil(side)
                region = Image.fromarray(
                    slide.read_level(0, x, y, min(whole, slide.size[0] - x), min(whole, slide.size[1] - y))
                )
                box = (0, 0, min(side, region.width), min(side, region.height))
                again = region.resize(stored.shape[:2], Image.Resampling.HAMMING, box=box)
                assert psnr(stored, np.asarray(again)) >= decibel


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for seed, name in enumerate(("a", "b", "b.two_patches")):
        write_slide(folder / f"{name}.tiff", seed=seed, lesion_share=0.3, side=1024)
    return folder


class TestCoords:
    @pytest.mark.parametrize("overlap", [0, 16])
    def test_trident(self, slides: Path, tmp_path: Path, overlap: int) -> None:
        coords = lattice(128 - 2 * overlap)
        for name in ("a", "b.two_patches"):
            write_trident(tmp_path / f"h5/{name}_patches.h5", coords, overlap=overlap)
        rows = import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=2)
        assert [(row.slide, row.status, row.patches) for row in rows] == [
            ("a", "done", "25"),
            ("b.two_patches", "done", "25"),
        ]
        assert (rows[0].mpp, rows[0].mpp_source) == (pytest.approx(0.5), "TIFF resolution tags")
        store = PatchStore(tmp_path / "out/a.zarr")
        assert (store.scales, store.patch_size) == ((1.0,), 64)
        assert sorted(map(tuple, store.coords())) == sorted(map(tuple, coords))
        assert store.attributes["footprints"] == [128]
        assert_coords_are_right(slides / "a.tiff", store)

    @pytest.mark.parametrize("level", [0, 1, 2])
    def test_clam(self, slides: Path, tmp_path: Path, level: int) -> None:
        coords = lattice(64 * 2**level, count=3)
        write_clam(tmp_path / "h5/a.h5", coords, level=level)
        (row,) = import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=1)
        assert row.status == "done", row.reason
        store = PatchStore(tmp_path / "out/a.zarr")
        assert store.scales == (0.5 * 2**level,)
        assert sorted(map(tuple, store.coords())) == sorted(map(tuple, coords))
        assert store.attributes["footprints"] == [64 * 2**level]
        # level 2 was encoded after shrinking twice, and its pixels lie between those of the corners
        assert_coords_are_right(slides / "a.tiff", store, decibel=30 if level < 2 else 28)

    def test_clam_with_its_older_downsample(self, slides: Path, tmp_path: Path) -> None:
        write_clam(tmp_path / "h5/a.h5", lattice(256, count=2), level=1, custom_downsample=2)
        (row,) = import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=1)
        store = PatchStore(tmp_path / "out/a.zarr")
        assert (row.status, store.scales, store.attributes["footprints"]) == ("done", (2.0,), [256])
        assert_coords_are_right(slides / "a.tiff", store, decibel=28)

    def test_scales_asked_for(self, slides: Path, tmp_path: Path) -> None:
        coords = lattice(128)
        write_trident(tmp_path / "h5/a_patches.h5", coords)
        import_coords(tmp_path / "h5", slides, tmp_path / "out", mpp=("10x", 2.0), workers=1)
        store = PatchStore(tmp_path / "out/a.zarr")
        assert store.scales == (1.0, 2.0)
        assert sorted(map(tuple, store.coords(0))) == sorted(map(tuple, coords))
        assert_coords_are_right(slides / "a.tiff", store)
        centres, corners = coords + 64, store.coords(1)
        inside = (corners[:, None] <= centres) & (centres < corners[:, None] + 256)
        assert inside.all(axis=2).any(axis=0).all()  # every fine patch has its surroundings
        assert inside.all(axis=2).any(axis=1).all()  # and no coarse one lies elsewhere

    def test_a_level_is_a_scale(self, slides: Path, tmp_path: Path) -> None:
        write_trident(tmp_path / "h5/a_patches.h5", lattice(128))
        import_coords(tmp_path / "h5", slides, tmp_path / "out", mpp=("level1", "level2"), workers=1)
        assert PatchStore(tmp_path / "out/a.zarr").scales == (1.0, 2.0)

    def test_stores_that_were_cut_here_are_not_taken_for_imports(self, slides: Path, tmp_path: Path) -> None:
        write_trident(tmp_path / "h5/a_patches.h5", lattice(128))
        cache_slides([slides / "a.tiff"], tmp_path / "cut", patch_size=64)
        with pytest.raises(CacheError, match=r"coords None there, a_patches\.h5 now"):
            import_coords(tmp_path / "h5", slides, tmp_path / "cut")
        import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=1)
        with pytest.raises(CacheError, match="patch_size None there, 64 now"):
            cache_slides([slides / "a.tiff"], tmp_path / "out", patch_size=64)

    def test_a_real_slide(self, shared: Path, tmp_path: Path) -> None:
        file = shared / "data/slides/CMU-1-Small-Region.svs"
        (tmp_path / "slides.csv").write_text(f"wsi\n{file}\n")
        size = {"level0_width": 2220, "level0_height": 2967}
        write_trident(
            tmp_path / "h5/CMU-1-Small-Region_patches.h5", lattice(400), **size, patch_size_level0=256
        )
        (row,) = import_coords(tmp_path / "h5", tmp_path / "slides.csv", tmp_path / "out", workers=1)
        assert row.status == "done", row.reason
        store = PatchStore(tmp_path / f"out/{row.slide}.zarr")
        assert store.scales == (2.0,)  # 0.499 µm/px, four times coarser
        assert store.attributes["patch_mpp"] == [pytest.approx(4 * 0.499)]
        assert_coords_are_right(file, store)

    def test_a_finer_scale_is_centred(self, slides: Path, tmp_path: Path) -> None:
        coords = lattice(128)
        write_trident(tmp_path / "h5/a_patches.h5", coords)
        import_coords(tmp_path / "h5", slides, tmp_path / "out", mpp=(0.5,), workers=1)
        store = PatchStore(tmp_path / "out/a.zarr")
        assert sorted(map(tuple, store.coords())) == sorted(map(tuple, coords + 32))
        assert_coords_are_right(slides / "a.tiff", store)

    def test_overhanging_patches_are_moved_inwards(self, slides: Path, tmp_path: Path) -> None:
        write_clam(tmp_path / "h5/a.h5", np.array([[960, 100], [1000, 1023], [100, 100]]))
        (row,) = import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=1)
        assert row.patches == "3"
        store = PatchStore(tmp_path / "out/a.zarr")
        assert sorted(map(tuple, store.coords())) == [(100, 100), (896, 100), (896, 896)]
        assert_coords_are_right(slides / "a.tiff", store)

    def test_resume_and_changes(self, slides: Path, tmp_path: Path) -> None:
        write_trident(tmp_path / "h5/a_patches.h5", lattice(128))
        rows = import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=1)
        before = snapshot(tmp_path / "out")
        assert import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=1) == rows
        assert snapshot(tmp_path / "out") == before
        with pytest.raises(CacheError, match=r"mpp \[\] there, \[2\.0\] now"):
            import_coords(tmp_path / "h5", slides, tmp_path / "out", mpp=(2.0,), workers=1)
        write_trident(tmp_path / "h5/a_patches.h5", lattice(130))
        with pytest.raises(CacheError, match="fingerprints"):
            import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=1)

    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            ({"drop": "patch_size_level0"}, "states neither patch_size_level0"),
            ({"drop": "patch_size"}, "states patch_size None"),
            ({"patch_size": "None"}, "states patch_size 'None'"),
            ({"patch_size": -64}, "states patch_size"),
            ({"patch_size": 10**6}, "1000000 px"),
            ({"patch_size_level0": 0}, "states patch_size_level0"),
            ({"patch_size_level0": 10**6}, "do not fit into it"),
            ({"patch_size_level0": 16}, "coarser than the"),
            ({"level0_width": 2048}, "was not made from"),
            ({"coords": lattice(300)}, "was not made from"),
            ({"coords": -lattice(10)}, "was not made from"),
            ({"coords": lattice(10) + 0.5}, "has coords float64 of"),
            ({"coords": lattice(10).T}, r"has coords int64 of \(2, 25\)"),
            ({"coords": lattice(10)[:, 0]}, r"has coords int64 of \(25,\)"),
            ({"coords": np.empty((0, 2), int)}, r"has coords int64 of \(0, 2\)"),
        ],
    )
    def test_broken_trident_files(
        self, slides: Path, tmp_path: Path, changed: dict[str, Any], reason: str
    ) -> None:
        coords = changed.pop("coords", lattice(128)) if "coords" in changed else lattice(128)
        write_trident(tmp_path / "h5/a_patches.h5", coords, **changed)
        write_trident(tmp_path / "h5/b_patches.h5", lattice(128))
        bad, good = import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=1)
        assert (bad.status, good.status) == ("failed", "done")
        assert re.search(reason, bad.reason)
        assert not (tmp_path / "out/a.zarr").exists()

    @pytest.mark.parametrize("changed", [{"level": 9}, {"downsample": (16.0, 16.0)}, {"patch_level": -1}])
    def test_broken_clam_files(self, slides: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
        level = changed.pop("level", 1)
        write_clam(tmp_path / "h5/a.h5", lattice(128), **({"patch_level": level} | changed))
        (row,) = import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=1)
        assert row.status == "failed"
        assert "was not made from" in row.reason or "states patch_level" in row.reason

    def test_files_that_are_no_coordinates(self, slides: Path, tmp_path: Path) -> None:
        good = write_trident(tmp_path / "h5/b_patches.h5", lattice(128))
        (tmp_path / "h5/a.h5").write_bytes(good.read_bytes()[:1000])
        (tmp_path / "h5/unknown_patches.h5").write_bytes(good.read_bytes())
        with h5py.File(tmp_path / "h5/b.two_patches.h5", "w") as file:
            file.create_group("coords")
        rows = {row.slide: row for row in import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=1)}
        assert {name for name, row in rows.items() if row.status == "done"} == {"b"}
        assert "a.h5 cannot be read" in rows["a"].reason
        assert "b.two_patches.h5 cannot be read" in rows["b.two_patches"].reason
        assert "none in" in rows["unknown"].reason
        with pytest.raises(SourceError, match=r"holds no \.h5 file"):
            import_coords(slides, slides, tmp_path / "out")
        shutil.copy(good, tmp_path / "h5/b.h5")
        with pytest.raises(SourceError, match="both belong to 'b'"):
            import_coords(tmp_path / "h5", slides, tmp_path / "out")

    def test_a_slide_without_resolution_needs_an_assumption(self, tmp_path: Path) -> None:
        (tmp_path / "slides").mkdir()
        pixels = np.full((1024, 1024, 3), 200, np.uint8)
        tifffile.imwrite(tmp_path / "slides/a.tiff", pixels, tile=(256, 256), photometric="rgb")
        write_trident(tmp_path / "h5/a_patches.h5", lattice(128))
        (row,) = import_coords(tmp_path / "h5", tmp_path / "slides", tmp_path / "out", workers=1)
        assert "assume_mpp" in row.reason
        (row,) = import_coords(
            tmp_path / "h5", tmp_path / "slides", tmp_path / "out", assume_mpp=0.5, workers=1
        )
        assert (row.status, row.mpp, row.mpp_source) == ("done", 0.5, "assumed")
        (tmp_path / "slides/list.csv").write_text("slide,mpp\na.tiff,0.25\n")
        (row,) = import_coords(tmp_path / "h5", tmp_path / "slides/list.csv", tmp_path / "out2", workers=1)
        assert (row.mpp, row.mpp_source) == (0.25, "override")
        assert PatchStore(tmp_path / "out2/a.zarr").scales == (0.5,)

    def test_without_the_extra(self, slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_trident(tmp_path / "h5/a_patches.h5", lattice(128))
        monkeypatch.setitem(sys.modules, "h5py", None)
        (row,) = import_coords(tmp_path / "h5", slides, tmp_path / "out", workers=1)
        assert "pip install e2e-abmilx[features]" in row.reason


class TestImages:
    def test_png_with_coordinates(self, tmp_path: Path) -> None:
        for slide in ("s.1", "t"):
            (tmp_path / "in" / slide).mkdir(parents=True)
            for i in range(5):
                name = f"{slide}_{i * 100}_{7 * i}" if slide == "s.1" else f"{i * 100}_{7 * i}"
                Image.fromarray(picture(i)).save(tmp_path / f"in/{slide}/{name}.png")
        (tmp_path / "in/t/notes.txt").write_text("not an image")
        rows = import_images(tmp_path / "in", tmp_path / "out", mpp=0.5, workers=2)
        assert [(row.slide, row.status, row.patches) for row in rows] == [
            ("s.1", "done", "5"),
            ("t", "done", "5"),
        ]
        for slide in ("s.1", "t"):
            store = PatchStore(tmp_path / f"out/{slide}.zarr")
            assert store.scales == (0.5,)
            patches, coords = store.read(range(5)), store.coords()
            for patch, (x, y) in zip(patches, coords, strict=True):
                assert y == 7 * x / 100
                assert psnr(patch, picture(x // 100)) > 30

    @pytest.mark.parametrize(
        "names", [("0_0", "0_32", "last"), ("p0", "p1", "p2"), ("u_0_0", "u_0_1", "u_0_2")]
    )
    def test_one_other_name_and_no_place_is_known(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        (tmp_path / "in/s").mkdir(parents=True)
        for i, name in enumerate(names):
            Image.fromarray(picture(i)).save(tmp_path / f"in/s/{name}.tif")
        (row,) = import_images(tmp_path / "in", tmp_path / "out", workers=1)
        assert row.status == "done"
        store = PatchStore(tmp_path / "out/s.zarr")
        assert (store.coords() == -1).all()
        assert math.isnan(store.scales[0])

    def test_jpegs_are_kept_where_they_can_be(self, tmp_path: Path) -> None:
        (tmp_path / "in/s").mkdir(parents=True)
        streams = [jpeg(0), jpeg(1, progressive=True), jpeg(2, subsampling=0)]
        for i, stream in enumerate(streams):
            (tmp_path / f"in/s/{i}.jpg").write_bytes(stream)
        Image.fromarray(picture(3)).convert("L").save(tmp_path / "in/s/3.jpeg")
        Image.fromarray(picture(4)).convert("RGBA").save(tmp_path / "in/s/4.png")
        (row,) = import_images(tmp_path / "in", tmp_path / "out", workers=1)
        assert (row.status, row.patches) == ("done", "5")
        store = PatchStore(tmp_path / "out/s.zarr")
        kept = store.read_encoded(range(3))
        assert [a == b for a, b in zip(kept, streams, strict=True)] == [True, False, True]
        patches = store.read(range(5))
        for i in (0, 1, 2, 4):
            assert psnr(patches[i], picture(i)) > 28
        assert (patches[3] == patches[3][..., :1]).all()

    @pytest.mark.parametrize(
        "bad", ["truncated.png", "truncated.jpg", "text.png", "small.png", "deep.png", "wide.png"]
    )
    def test_a_bad_image_sets_its_slide_aside(self, tmp_path: Path, bad: str) -> None:
        for slide in ("bad", "good"):
            (tmp_path / "in" / slide).mkdir(parents=True)
            Image.fromarray(picture(0)).save(tmp_path / f"in/{slide}/0.png")
        file = tmp_path / "in/bad" / bad
        if bad == "truncated.png":
            file.write_bytes((tmp_path / "in/bad/0.png").read_bytes()[:-100])
        elif bad == "truncated.jpg":
            file.write_bytes(jpeg(0)[:-200])
        elif bad == "text.png":
            file.write_text("no image")
        elif bad == "small.png":
            Image.fromarray(picture(0, P // 2)).save(file)
        elif bad == "wide.png":
            Image.fromarray(np.hstack([picture(0)] * 2)).save(file)
        else:
            Image.fromarray(np.full((P, P), 60_000, np.uint16)).save(file)
        failed, done = import_images(tmp_path / "in", tmp_path / "out", workers=1)
        assert (failed.status, done.status) == ("failed", "done")
        assert bad in failed.reason
        assert not (tmp_path / "out/bad.zarr").exists()
        file.unlink()
        assert {row.status for row in import_images(tmp_path / "in", tmp_path / "out", workers=1)} == {"done"}

    def test_folders_that_hold_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="holds no folder"):
            import_images(tmp_path, tmp_path / "out")
        (tmp_path / "in/s").mkdir(parents=True)
        (row,) = import_images(tmp_path / "in", tmp_path / "out", workers=1)
        assert "holds no image" in row.reason
