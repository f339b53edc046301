import contextlib
import csv
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from e2e_abmilx.cache import CacheError, cache_slides, verify
from e2e_abmilx.cache.tiling import TilingError
from e2e_abmilx.main import main
from e2e_abmilx.slides import Slide, SlideError
from e2e_abmilx.store import PatchStore
from e2e_abmilx.synthetic import write_slide


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal to noise ratio of two uint8 images, dB."""
    return float(10 * np.log10(255**2 / max(((a.astype(float) - b.astype(float)) ** 2).mean(), 1e-9)))


def _reread(slide: Slide, store: PatchStore, scale: int, index: int) -> np.ndarray:
    """A patch as it is in the slide: its whole footprint from level 0, averaged down."""
    x, y = store.coords(scale)[index]
    side = store.attributes["footprints"][scale]
    width, height = slide.size
    end = (min(int(np.ceil(x + side)), width), min(int(np.ceil(y + side)), height))
    region = Image.fromarray(slide.read_level(0, x, y, end[0] - x, end[1] - y))
    box = (0, 0, min(side, region.width), min(side, region.height))
    return np.asarray(region.resize((store.patch_size, store.patch_size), Image.Resampling.HAMMING, box=box))


def _assert_coords_are_right(slide_file: Path, store: PatchStore, psnr: float = 30) -> None:
    rng = np.random.default_rng(0)
    with Slide(slide_file) as slide:
        for scale in range(len(store.scales)):
            count = store.num_patches(scale)
            assert count, f"no patch at scale {scale}"
            for index in rng.choice(count, min(count, 12), replace=False):
                stored = store.read([index], scale)[0]
                assert _psnr(stored, _reread(slide, store, scale, index)) >= psnr


def _snapshot(folder: Path) -> dict[str, tuple[int, float]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime) for p in folder.rglob("*") if ".zarr" in str(p)}


def _rows(out: Path) -> dict[str, dict[str, str]]:
    with open(out / "manifest.csv", newline="") as file:
        return {row["slide"]: row for row in csv.DictReader(file)}


def test_cohort_is_cached_at_two_scales(cohort: Path, stores: Path) -> None:
    rows = _rows(stores)
    assert len(rows) == 24
    assert {row["status"] for row in rows.values()} == {"done"}
    store = PatchStore(stores / "slide-000.zarr")
    assert store.scales == (0.5, 1.0)
    assert store.patch_size == 64
    assert rows["slide-000"]["patches"] == f"{store.num_patches(0)};{store.num_patches(1)}"
    assert float(rows["slide-000"]["mpp"]) == pytest.approx(0.5)
    assert rows["slide-000"]["mpp_source"] == "TIFF resolution tags"
    _assert_coords_are_right(cohort / "slides/slide-000.tiff", store)


def test_every_patch_holds_tissue(stores: Path) -> None:
    for path in sorted(stores.glob("*.zarr"))[:6]:
        store = PatchStore(path)
        patches = store.read(np.arange(store.num_patches()))
        assert (patches.mean(axis=(1, 2)).min(axis=1) < 225).all()  # none is the off-white of bare glass


@pytest.mark.parametrize("mpp", [(0.5, 1.0), (0.7, 1.9), (1.0, 4.0)])
def test_scales_between_levels_are_right(tmp_path: Path, mpp: tuple[float, ...]) -> None:
    slide_file = tmp_path / "slides/one.tiff"
    slide_file.parent.mkdir()
    write_slide(slide_file, seed=5, lesion_share=0.2, side=1024)
    cache_slides([slide_file], tmp_path / "out", mpp=mpp, patch_size=32)
    _assert_coords_are_right(slide_file, PatchStore(tmp_path / "out/one.zarr"), psnr=28)


@pytest.mark.parametrize(
    ("name", "mpp"), [("CMU-1-Small-Region.svs", (0.5, 1.0)), ("gastrectomy.svs", (3.0, 6.0))]
)
def test_real_slides(shared: Path, tmp_path: Path, name: str, mpp: tuple[float, ...]) -> None:
    (row,) = cache_slides([shared / "data/slides" / name], tmp_path, mpp=mpp)
    assert (row.status, row.unreadable) == ("done", 0)
    _assert_coords_are_right(shared / "data/slides" / name, PatchStore(tmp_path / f"{row.slide}.zarr"))


def test_second_call_redoes_nothing_and_finds_new_slides(cohort: Path, tmp_path: Path) -> None:
    files = sorted((cohort / "slides").glob("*.tiff"))[:3]
    cache_slides(files[:2], tmp_path, patch_size=64, workers=1)
    before, rows = _snapshot(tmp_path), _rows(tmp_path)
    cache_slides(files, tmp_path, patch_size=64, workers=1)
    after = _snapshot(tmp_path)
    assert {path: after[path] for path in before} == before
    assert set(_rows(tmp_path)) == {file.stem for file in files}
    assert _rows(tmp_path)[files[0].stem] == rows[files[0].stem]


def test_processes_make_the_same_stores(cohort: Path, stores: Path, tmp_path: Path) -> None:
    files = sorted((cohort / "slides").glob("*.tiff"))[:3]
    cache_slides(files, tmp_path, patch_size=64, workers=2)
    for file in files:
        one, other = (sorted((folder / f"{file.stem}.zarr").rglob("*")) for folder in (stores, tmp_path))
        assert [path.name for path in one] == [path.name for path in other]
        assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, other, strict=True) if a.is_file())


def test_bad_slides_are_set_aside_and_the_rest_is_done(
    cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "slides"
    folder.mkdir()
    shutil.copy(cohort / "slides/slide-000.tiff", folder / "good.tiff")
    (folder / "text.svs").write_text("not a slide")
    (folder / "empty.tiff").touch()
    whole = (cohort / "slides/slide-001.tiff").read_bytes()
    (folder / "cut.tiff").write_bytes(whole[: len(whole) // 3])
    tifffile.imwrite(
        folder / "no_mpp.tiff", np.full((512, 512, 3), 200, np.uint8), tile=(256, 256), photometric="rgb"
    )
    glass = np.full((512, 512, 3), 240, np.uint8)
    tifffile.imwrite(
        folder / "glass.tiff", glass, tile=(256, 256), photometric="rgb",
        resolution=(20000, 20000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    cache_slides(folder, tmp_path / "out", patch_size=64, workers=2)
    rows = _rows(tmp_path / "out")
    assert {name for name, row in rows.items() if row["status"] == "done"} == {"good"}
    assert "cannot be opened" in rows["text"]["reason"]
    assert "cannot be opened" in rows["empty"]["reason"]
    assert rows["cut"]["reason"]
    assert "assume_mpp" in rows["no_mpp"]["reason"]
    assert "no patch of 64 px at 0.5 µm/px with at least 50% tissue" in rows["glass"]["reason"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.zarr")) == ["good.zarr"]


def test_unreadable_regions_are_left_out_and_counted(cohort: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.tiff"
    shutil.copy(cohort / "slides/slide-002.tiff", damaged)
    with tifffile.TiffFile(damaged) as file:
        page = file.pages[0]
        offset, size = page.dataoffsets[0], page.databytecounts[0]
    with open(damaged, "r+b") as file:
        file.seek(offset)
        file.write(os.urandom(size))
    (row,) = cache_slides([damaged], tmp_path / "out", patch_size=64, min_tissue=0.0)
    assert row.status == "done"
    store = PatchStore(tmp_path / "out/damaged.zarr")
    assert row.unreadable == 16  # the 256 px tile that was overwritten holds 4 × 4 patches of 64 px
    assert not np.any((store.coords() < 256).all(axis=1))


def test_other_settings_are_refused_with_the_difference(cohort: Path, tmp_path: Path) -> None:
    files = sorted((cohort / "slides").glob("*.tiff"))[:1]
    cache_slides(files, tmp_path, patch_size=64)
    with pytest.raises(CacheError, match="patch_size 64 there, 32 now"):
        cache_slides(files, tmp_path, patch_size=32)


def test_another_slide_of_the_same_name_is_refused(cohort: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a/s.tiff", tmp_path / "b/s.tiff"
    for copy, original in ((first, "slide-000"), (second, "slide-001")):
        copy.parent.mkdir()
        shutil.copy(cohort / f"slides/{original}.tiff", copy)
    cache_slides([first], tmp_path / "out", patch_size=64)
    with pytest.raises(CacheError, match=r"made from something else.*: fingerprint \w+ there, \w+ now\."):
        cache_slides([second], tmp_path / "out", patch_size=64)
    first.unlink()  # archived: its store stays good
    (row,) = cache_slides([first], tmp_path / "out", patch_size=64)
    assert row.status == "done"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"mpp": (0.5, 0.5)}, "different positive"),
        ({"patch_size": 4}, "at least 8 pixels"),
        ({"overlap": 1.0}, "overlap is 1.0"),
        ({"min_tissue": 2.0}, "min_tissue is 2.0"),
        ({"assume_mpp": -1.0}, "assume_mpp is -1.0"),
    ],
)
def test_wrong_settings_are_refused_at_the_door(
    cohort: Path, tmp_path: Path, how: dict[str, object], message: str
) -> None:
    with pytest.raises(TilingError, match=message):
        cache_slides(cohort / "slides", tmp_path, **how)  # type: ignore[arg-type]


def test_full_disk_is_named_and_leaves_nothing_half_written(cohort: Path, tmp_path: Path) -> None:
    # the system refuses files of more than 20 kB, as a full disk refuses the next byte
    code = f"""
import resource
from e2e_abmilx.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
main(["cache", "--slides", r"{cohort / "slides/slide-000.tiff"}", "--out", r"{tmp_path}", "--patch_size", "64"])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "cannot be written" in result.stderr
    assert "1 of 1 slides failed" in result.stderr
    assert "Traceback" not in result.stderr
    assert not [path for path in tmp_path.iterdir() if "zarr" in path.name]


def test_folder_that_cannot_be_written(cohort: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(CacheError, match="cannot be written"):
        cache_slides(cohort / "slides", blocked / "out")
    with pytest.raises(SlideError, match="no such"):
        cache_slides(cohort / "absent", tmp_path)


def test_magnifications_overrides_and_plans(cohort: Path, tmp_path: Path) -> None:
    slide = cohort / "slides/slide-000.tiff"
    table = tmp_path / "slides.csv"
    table.write_text(f"slide,mpp\n{slide},0.25\n")
    planned = cache_slides(table, tmp_path / "out", mpp=("20x",), patch_size=64, dry_run=True)
    assert not (tmp_path / "out").exists()
    (row,) = cache_slides(table, tmp_path / "out", mpp=("20x",), patch_size=64)
    assert (row.mpp, row.mpp_source) == (0.25, "override")
    store = PatchStore(tmp_path / "out/slide-000.zarr")
    assert store.scales == (0.5,)
    assert store.attributes["footprints"] == [128.0]  # 64 px of 0.5 µm on a slide said to have 0.25
    assert planned[0].patches == row.patches
    shards = sum(path.stat().st_size for path in (store.path / "0/patches").glob("c.*"))
    assert planned[0].bytes == pytest.approx(shards, rel=0.25)
    with pytest.raises(CacheError, match=r"override_mpp 0\.25 there, None now"):
        cache_slides(slide, tmp_path / "out", mpp=("20x",), patch_size=64)


def test_a_level_is_one_resolution_for_all_slides(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slides = [cohort / f"slides/slide-00{number}.tiff" for number in range(2)]
    (tmp_path / "slides.csv").write_text(f"slide,mpp\n{slides[0]},\n{slides[1]},0.25\n")
    command = ["cache", "--slides", str(tmp_path / "slides.csv"), "--out", str(tmp_path / "out")]
    main([*command, "--mpp", "[level1,2.0]", "--patch_size", "32"])
    stores = [PatchStore(tmp_path / f"out/slide-00{number}.zarr") for number in range(2)]
    assert [store.scales for store in stores] == [(1.0, 2.0)] * 2
    assert [store.attributes["footprints"][0] for store in stores] == [64, 128]
    cache_slides(
        tmp_path / "slides.csv", tmp_path / "out", mpp=(1.0, 2.0), patch_size=32
    )  # the same settings


def test_the_rest_of_a_slide_of_one_damaged_level_is_cached(shared: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.svs"
    shutil.copy(shared / "data/slides/CMU-1-Small-Region.svs", damaged)
    with tifffile.TiffFile(damaged, mode="r+b") as file:
        page = file.pages[0]  # 10 tiles of 240 px in a row
        file.filehandle.seek(page.dataoffsets[63])
        file.filehandle.write(bytes(page.databytecounts[63]))
    (row,) = cache_slides([damaged], tmp_path / "out", mpp=(0.499,), patch_size=120)
    (whole,) = cache_slides(
        [shared / "data/slides/CMU-1-Small-Region.svs"], tmp_path / "out", mpp=(0.499,), patch_size=120
    )
    assert row.status == "done"
    assert whole.num_patches - 9 <= row.num_patches < whole.num_patches
    places = PatchStore(tmp_path / "out/damaged.zarr").coords()
    assert not np.any((places > (600, 1320)).all(axis=1) & (places < (960, 1680)).all(axis=1))


def test_verify_names_slide_and_patch(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache_slides(sorted((cohort / "slides").glob("*.tiff"))[:2], tmp_path, patch_size=64, workers=1)
    assert verify(tmp_path) == []
    shard = next((tmp_path / "slide-001.zarr/0/patches").glob("c.*"))
    damaged = bytearray(shard.read_bytes())
    damaged[100] ^= 1
    shard.write_bytes(damaged)
    (problem,) = verify(tmp_path)
    assert "slide-001.zarr" in problem
    assert "patch 0" in problem
    with pytest.raises(SystemExit, match="1 problems"):
        main(["verify", "--cache", str(tmp_path)])
    assert "patch 0" in capsys.readouterr().out
    with pytest.raises(CacheError, match="holds no patch store"):
        verify(tmp_path / "absent")


def test_two_processes_share_a_folder(cohort: Path, stores: Path, tmp_path: Path) -> None:
    code = (
        "from e2e_abmilx.cache import cache_slides\n"
        f"cache_slides(r'{cohort / 'slides'}', r'{tmp_path}', patch_size=64, workers=1)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    _assert_same_stores(stores, tmp_path)
    assert {row["status"] for row in _rows(tmp_path).values()} == {"done"}
    assert not list((tmp_path / ".claims").iterdir())  # the folder stays: others may be about to claim in it


@pytest.mark.slow
def test_killed_at_twenty_moments(cohort: Path, stores: Path, tmp_path: Path) -> None:
    code = (
        "from e2e_abmilx.cache import cache_slides\n"
        "if __name__ == '__main__':\n"
        f"    cache_slides(r'{cohort / 'slides'}', r'{tmp_path}', patch_size=64, workers=2)"
    )
    (tmp_path / "build.py").write_text(code)
    rng = np.random.default_rng(0)
    interrupted = 0
    for _ in range(20):
        process = subprocess.Popen([sys.executable, str(tmp_path / "build.py")], start_new_session=True)
        try:
            process.wait(timeout=float(rng.uniform(1.0, 6.0)))
        except subprocess.TimeoutExpired:
            interrupted += 1
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for path in rng.permutation(sorted(map(str, tmp_path.glob("*.zarr"))))[:8]:
            shutil.rmtree(path)  # so that there is always something to do
    assert interrupted >= 10
    subprocess.run([sys.executable, str(tmp_path / "build.py")], check=True)
    _assert_same_stores(stores, tmp_path)
    assert not [path.name for path in tmp_path.iterdir() if "partial" in path.name]
    assert {row["status"] for row in _rows(tmp_path).values()} == {"done"}


def _assert_same_stores(expected: Path, found: Path) -> None:
    """Every file of every store is the same, byte for byte."""
    for one in sorted(expected.glob("*.zarr")):
        files = sorted(path.relative_to(expected) for path in one.rglob("*") if path.is_file())
        other = found / one.name
        assert files == sorted(path.relative_to(found) for path in other.rglob("*") if path.is_file())
        assert all((expected / file).read_bytes() == (found / file).read_bytes() for file in files)
