"""Many slides: resumed where it stopped, refused with other settings, and one failure stops no other slide."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from stored_patches import assert_coords_are_right, assert_same_stores, manifest_rows, snapshot

from e2e_abmilx.cache import CacheError, cache_slides, verify
from e2e_abmilx.cache.tiling import TilingError
from e2e_abmilx.main import main
from e2e_abmilx.slides import SlideError
from e2e_abmilx.store import CohortIndex, PatchStore, cohort_index
from e2e_abmilx.store.facts import decode_index


def test_a_cohort_is_cached_at_two_scales(cohort: Path, stores: Path) -> None:
    rows = manifest_rows(stores)
    assert len(rows) == 24
    assert {row["status"] for row in rows.values()} == {"done"}
    store = PatchStore(stores / "slide-000.zarr")
    assert store.scales == (0.5, 1.0)
    assert store.patch_size == 64
    assert rows["slide-000"]["patches"] == f"{store.num_patches(0)};{store.num_patches(1)}"
    assert float(rows["slide-000"]["mpp"]) == pytest.approx(0.5)
    assert rows["slide-000"]["mpp_source"] == "TIFF resolution tags"
    assert_coords_are_right(cohort / "slides/slide-000.tiff", store)


def test_a_second_call_caches_only_new_slides(cohort: Path, tmp_path: Path) -> None:
    files = sorted((cohort / "slides").glob("*.tiff"))[:3]
    cache_slides(files[:2], tmp_path, patch_size=64, workers=1)
    before, rows = snapshot(tmp_path), manifest_rows(tmp_path)
    cache_slides(files, tmp_path, patch_size=64, workers=1)
    after = snapshot(tmp_path)
    assert {path: after[path] for path in before} == before
    assert set(manifest_rows(tmp_path)) == {file.stem for file in files}
    assert manifest_rows(tmp_path)[files[0].stem] == rows[files[0].stem]


def test_a_resumed_cache_is_indexed_and_a_rebuilt_store_is_seen(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cohort_index, "SETTLED_NS", -(10**9))  # index stores that were made just now
    files = sorted((cohort / "slides").glob("*.tiff"))[:2]
    cache_slides(files, tmp_path, patch_size=64, workers=1)
    rows = cache_slides(files, tmp_path, patch_size=64, workers=1)
    assert sorted(decode_index((tmp_path / cohort_index.INDEX).read_bytes())) == [file.stem for file in files]
    assert cache_slides(files, tmp_path, patch_size=64, workers=1) == rows
    shutil.rmtree(tmp_path / f"{files[0].stem}.zarr")
    cache_slides(files[:1], tmp_path / "other", patch_size=32, workers=1)
    (tmp_path / "other" / f"{files[0].stem}.zarr").rename(tmp_path / f"{files[0].stem}.zarr")
    with pytest.raises(CacheError, match="patch_size was 32 and is now 64"):
        cache_slides(files, tmp_path, patch_size=64, workers=1)


def test_a_cache_may_be_named_by_the_url_of_its_folder(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    slide = cohort / "slides/slide-000.tiff"
    cache_slides([slide], (tmp_path / "a cache").as_uri(), mpp=(1.0,), patch_size=64, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["a cache"]
    assert CohortIndex(tmp_path / "a cache").slides() == ["slide-000"]


def test_processes_make_the_same_stores(cohort: Path, stores: Path, tmp_path: Path) -> None:
    files = sorted((cohort / "slides").glob("*.tiff"))[:3]
    cache_slides(files, tmp_path, patch_size=64, workers=2)
    for file in files:
        one, other = (sorted((folder / f"{file.stem}.zarr").rglob("*")) for folder in (stores, tmp_path))
        assert [path.name for path in one] == [path.name for path in other]
        assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, other, strict=True) if a.is_file())


def test_bad_slides_fail_and_the_others_are_cached(
    cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "slides"
    folder.mkdir()
    shutil.copy(cohort / "slides/slide-000.tiff", folder / "good.tiff")
    (folder / "text.svs").write_text("not a slide")
    (folder / "empty.tiff").touch()
    whole = (cohort / "slides/slide-001.tiff").read_bytes()
    (folder / "cut.tiff").write_bytes(whole[: len(whole) // 3])
    tifffile.imwrite(folder / "no_mpp.tiff", np.full((512, 512, 3), 200, np.uint8), tile=(256, 256), photometric="rgb")
    glass = np.full((512, 512, 3), 240, np.uint8)
    tifffile.imwrite(
        folder / "glass.tiff", glass, tile=(256, 256), photometric="rgb",
        resolution=(20000, 20000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    cache_slides(folder, tmp_path / "out", patch_size=64, workers=2)
    rows = manifest_rows(tmp_path / "out")
    assert {name for name, row in rows.items() if row["status"] == "done"} == {"good"}
    assert "cannot be opened" in rows["text"]["reason"]
    assert "cannot be opened" in rows["empty"]["reason"]
    assert rows["cut"]["reason"]
    assert "assume_mpp" in rows["no_mpp"]["reason"]
    assert "no patch of 64 px at 0.5 µm/px with at least 50% tissue" in rows["glass"]["reason"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.zarr")) == ["good.zarr"]


def test_other_settings_are_refused_by_name(cohort: Path, tmp_path: Path) -> None:
    files = sorted((cohort / "slides").glob("*.tiff"))[:1]
    cache_slides(files, tmp_path, patch_size=64)
    with pytest.raises(CacheError, match="patch_size was 64 and is now 32"):
        cache_slides(files, tmp_path, patch_size=32)


def test_another_slide_of_the_same_name_is_refused(cohort: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a/s.tiff", tmp_path / "b/s.tiff"
    for copy, original in ((first, "slide-000"), (second, "slide-001")):
        copy.parent.mkdir()
        shutil.copy(cohort / f"slides/{original}.tiff", copy)
    cache_slides([first], tmp_path / "out", patch_size=64)
    with pytest.raises(CacheError, match=r"made from another source.*: fingerprint was \w+ and is now \w+\."):
        cache_slides([second], tmp_path / "out", patch_size=64)
    first.unlink()  # a slide that has been archived keeps its store
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
def test_settings_out_of_range_are_refused(cohort: Path, tmp_path: Path, how: dict[str, object], message: str) -> None:
    with pytest.raises(TilingError, match=message):
        cache_slides(cohort / "slides", tmp_path, **how)  # type: ignore[arg-type]


def test_a_full_disk_is_reported_and_leaves_nothing_incomplete(cohort: Path, tmp_path: Path) -> None:
    # a limit on the size of files stands in for the full disk
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


def test_a_folder_that_cannot_be_written_is_refused(cohort: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(CacheError, match="cannot be written"):
        cache_slides(cohort / "slides", blocked / "out")
    with pytest.raises(SlideError, match="no such"):
        cache_slides(cohort / "absent", tmp_path)


def test_a_level_is_one_resolution_for_all_slides(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slides = [cohort / f"slides/slide-00{number}.tiff" for number in range(2)]
    (tmp_path / "slides.csv").write_text(f"slide,mpp\n{slides[0]},\n{slides[1]},0.25\n")
    command = ["cache", "--slides", str(tmp_path / "slides.csv"), "--out", str(tmp_path / "out")]
    main([*command, "--mpp", "[level1,2.0]", "--patch_size", "32", "--min_tissue", "0.2"])
    stores = [PatchStore(tmp_path / f"out/slide-00{number}.zarr") for number in range(2)]
    assert [store.scales for store in stores] == [(1.0, 2.0)] * 2
    assert [store.attributes["footprints"][0] for store in stores] == [64, 128]
    same = {"mpp": (1.0, 2.0), "patch_size": 32, "min_tissue": 0.2}
    cache_slides(tmp_path / "slides.csv", tmp_path / "out", **same)


def test_verify_names_slide_and_patch(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


@pytest.mark.slow  # processes of their own
def test_two_processes_share_a_folder(cohort: Path, stores: Path, tmp_path: Path) -> None:
    code = (
        "from e2e_abmilx.cache import cache_slides\n"
        f"cache_slides(r'{cohort / 'slides'}', r'{tmp_path}', patch_size=64, workers=1)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert_same_stores(stores, tmp_path)
    assert {row["status"] for row in manifest_rows(tmp_path).values()} == {"done"}
    assert not list((tmp_path / ".claims").iterdir())  # the folder stays, as other processes may be about to use it


@pytest.mark.slow
def test_a_cache_survives_being_killed_at_twenty_moments(cohort: Path, stores: Path, tmp_path: Path) -> None:
    code = (
        "from e2e_abmilx.cache import cache_slides\n"
        "if __name__ == '__main__':\n"
        f"    cache_slides(r'{cohort / 'slides'}', r'{tmp_path}', patch_size=64, workers=2)"
    )
    (tmp_path / "build.py").write_text(code)
    rng = np.random.default_rng(0)
    interrupted = 0
    for _ in range(100):  # on a fast machine many builds end before they are killed
        if interrupted == 20:
            break
        process = subprocess.Popen([sys.executable, str(tmp_path / "build.py")], start_new_session=True)
        try:
            process.wait(timeout=float(rng.uniform(1.0, 6.0)))
        except subprocess.TimeoutExpired:
            interrupted += 1
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for path in rng.permutation(sorted(map(str, tmp_path.glob("*.zarr"))))[:8]:
            shutil.rmtree(path)  # so that there is always some work left
    assert interrupted == 20
    subprocess.run([sys.executable, str(tmp_path / "build.py")], check=True)
    assert_same_stores(stores, tmp_path)
    assert not [path.name for path in tmp_path.iterdir() if "partial" in path.name]
    assert {row["status"] for row in manifest_rows(tmp_path).values()} == {"done"}
