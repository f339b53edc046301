"""Where the pixels of a slide come from."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from local_bucket import FaultProxy
from viewed_runs import copy_data, draw_texture, map_case, write_pyramid, write_viewed_run

from e2e_abmilx.cache.jobs import fingerprint
from e2e_abmilx.cache.push import push
from e2e_abmilx.store import PatchStore, write_store
from e2e_abmilx.store.files import forget_objects
from e2e_abmilx.store.locations import ObjectUrl
from e2e_abmilx.viewer.levels import Box
from e2e_abmilx.viewer.open_slides import OpenSlides
from e2e_abmilx.viewer.pictures import Mosaic, Plain, SlidePicture
from e2e_abmilx.viewer.run_cases import RunCases
from e2e_abmilx.viewer.slide_sources import SlideSource, SlideSources


@pytest.fixture
def data(tmp_path: Path, cohort: Path, stores: Path) -> Path:
    return copy_data(tmp_path / "data", cohort, stores, {"one": "slide-000"})


def _find(data: Path, *, moved: Path | None = None, mapped: bool = True) -> SlideSource | None:
    store = data / "cache/one.zarr"
    slide_map = map_case("case", [store], seed=0).slides[0] if mapped and store.exists() else None
    run = RunCases.read(write_viewed_run(data.with_name("run"), data, {"case": ["one"]}, mapped=False))
    return SlideSources(run, moved, OpenSlides()).find("one", slide_map)


def test_the_slide_itself_is_shown_where_it_is_there(data: Path) -> None:
    source = _find(data)
    assert isinstance(source.picture, SlidePicture)
    assert (source.picture.path, source.note, source.mpp) == (data / "slides/one.tiff", None, 0.5)


def test_a_slide_that_moved_is_found_in_the_named_folder(data: Path) -> None:
    moved = data / "elsewhere/deep"
    moved.mkdir(parents=True)
    (data / "slides/one.tiff").rename(moved / "one.tiff")
    assert _find(data, moved=data / "elsewhere").picture.path == moved / "one.tiff"


def test_of_two_files_of_a_name_the_cached_one_is_shown(data: Path, cohort: Path) -> None:
    for folder, slide in (("a", "slide-001"), ("b", "slide-000"), ("c", "slide-002")):
        (data / "moved" / folder).mkdir(parents=True)
        shutil.copy(cohort / f"slides/{slide}.tiff", data / "moved" / folder / "one.tiff")
    (data / "slides/one.tiff").unlink()
    assert _find(data, moved=data / "moved").picture.path == data / "moved/b/one.tiff"


def test_the_manifest_says_where_a_slide_was_cached(cohort: Path, stores: Path, tmp_path: Path) -> None:
    run = RunCases.read(write_viewed_run(tmp_path / "run", tmp_path / "nowhere", {"case": ["slide-000"]}, mapped=False))
    slide_map = map_case("case", [stores / "slide-000.zarr"], seed=0).slides[0]
    source = SlideSources(run, None, OpenSlides()).find("slide-000", slide_map)
    assert source.picture.path == cohort / "slides/slide-000.tiff"


def test_a_manifest_that_is_damaged_does_not_hide_the_slide(data: Path) -> None:
    for content in (b"a,b\r\n1,2\r\n", b"\xff\xfe\n", b"slide,status,checked\r\none,done,x\r\n"):
        (data / "cache/manifest.csv").write_bytes(content)
        assert _find(data).picture.path == data / "slides/one.tiff"
        shutil.rmtree(data.with_name("run"))


def test_a_slide_that_is_gone_is_a_mosaic(data: Path) -> None:
    (data / "slides/one.tiff").unlink()
    source = _find(data)
    assert isinstance(source.picture, Mosaic)
    assert "The file of slide one is not found" in source.note
    assert str(data / "slides") in source.note
    assert "so this is a mosaic of its patches" in source.note


def test_another_slide_under_the_name_is_not_shown(data: Path, cohort: Path) -> None:
    shutil.copy(cohort / "slides/slide-001.tiff", data / "slides/one.tiff")
    source = _find(data)
    assert isinstance(source.picture, Mosaic)
    assert "is not the file that was cached" in source.note


def test_a_slide_that_is_cut_off_is_a_mosaic(data: Path) -> None:
    path = data / "slides/one.tiff"
    path.write_bytes(path.read_bytes()[:5000])
    source = _find(data)
    assert isinstance(source.picture, Mosaic)
    assert str(path) in source.note
    assert np.asarray(source.picture.draw(Box(0, 0, 512, 512), (512, 512))).std() > 5


def test_a_slide_whose_pixels_are_overwritten_is_a_mosaic(data: Path) -> None:
    path = data / "slides/one.tiff"
    shutil.rmtree(data / "cache/one.zarr")
    texture = draw_texture(512, 512)
    write_pyramid(path, texture)
    attributes = {"slide_size": [512, 512], "slide_mpp": 0.5, "footprints": [512.0], "fingerprint": fingerprint(path)}
    write_store(data / "cache/one.zarr", {0.5: (texture[None], np.zeros((1, 2), int))}, attributes=attributes)
    assert isinstance(_find(data).picture, SlidePicture)
    shutil.rmtree(data.with_name("run"))
    content = path.read_bytes()
    path.write_bytes(content[:66_000] + bytes(len(content) - 132_000) + content[-66_000:])
    assert fingerprint(path) == attributes["fingerprint"]
    source = _find(data)
    assert isinstance(source.picture, Mosaic)
    assert "cannot be" in source.note
    assert "so this is a mosaic of its patches" in source.note


def test_a_slide_without_store_is_shown(data: Path) -> None:
    shutil.rmtree(data / "cache/one.zarr")
    source = _find(data)
    assert (source.picture.size, source.mpp, source.note) == ((512, 512), 0.5, None)


def test_without_store_another_size_shows_another_slide(data: Path, cohort: Path) -> None:
    slide_map = map_case("case", [data / "cache/one.zarr"], seed=0).slides[0]
    shutil.rmtree(data / "cache")
    run = RunCases.read(write_viewed_run(data.with_name("run"), data, {"case": ["one"]}, mapped=False))
    other = type(slide_map)(**{**vars(slide_map), "size": (600, 512)})
    source = SlideSources(run, None, OpenSlides()).find("one", other)
    assert isinstance(source.picture, Plain)
    assert "512 × 512 pixels instead of 600 × 512" in source.note


def test_a_cache_that_was_made_again_from_another_slide_is_not_used(data: Path, stores: Path, cohort: Path) -> None:
    """Same name, same size, other tissue: the overlay must not lie on it."""
    slide_map = map_case("case", [data / "cache/one.zarr"], seed=0).slides[0]
    run = RunCases.read(write_viewed_run(data.with_name("run"), data, {"case": ["one"]}, mapped=False))
    shutil.copy(cohort / "slides/slide-001.tiff", data / "slides/one.tiff")
    shutil.rmtree(data / "cache/one.zarr")
    sources = SlideSources(run, None, OpenSlides())
    for again in (False, True):
        if again:
            shutil.copytree(stores / "slide-001.zarr", data / "cache/one.zarr")
        source = sources.find("one", slide_map)
        assert isinstance(source.picture, Plain)
        assert source.store is None
        assert "is not the file that was cached" in source.note
        assert "only the overlay is shown" in source.note


def test_a_store_in_a_bucket_gives_a_mosaic(data: Path, bucket: FaultProxy, caplog: pytest.LogCaptureFixture) -> None:
    to = ObjectUrl("s3://cohorts/viewed")
    assert push(data / "cache", to) == []
    local = Mosaic(PatchStore(data / "cache/one.zarr")).draw_whole(256)
    slide_map = map_case("case", [to / "one.zarr"], seed=0).slides[0]
    run = RunCases.read(write_viewed_run(data.with_name("run"), data, {"case": ["one"]}, mapped=False))
    (data / "slides/one.tiff").unlink()
    shutil.rmtree(data / "cache")
    bucket.fault = lambda method, path: "expired"
    forget_objects()
    assert isinstance(SlideSources(run, None, OpenSlides()).find("one", slide_map).picture, Plain)
    assert "credentials are missing, expired" in caplog.text
    bucket.fault = lambda method, path: None
    source = SlideSources(run, None, OpenSlides()).find("one", slide_map)
    assert isinstance(source.picture, Mosaic)
    assert "is not found" in source.note
    np.testing.assert_array_equal(source.picture.draw_whole(256), local)


def test_an_overlay_stands_where_nothing_else_is_left(data: Path) -> None:
    slide_map = map_case("case", [data / "cache/one.zarr"], seed=0).slides[0]
    run = RunCases.read(write_viewed_run(data.with_name("run"), data, {"case": ["one"]}, mapped=False))
    shutil.rmtree(data)
    source = SlideSources(run, None, OpenSlides()).find("one", slide_map)
    assert isinstance(source.picture, Plain)
    assert (source.picture.size, source.mpp) == ((512, 512), 0.5)
    assert "only the overlay is shown" in source.note


def test_nothing_at_all_is_none(data: Path) -> None:
    shutil.rmtree(data)
    data.mkdir()
    assert _find(data) is None


def test_a_case_without_map_shows_its_slide(data: Path) -> None:
    source = _find(data, mapped=False)
    assert isinstance(source.picture, SlidePicture)
    assert source.store.name == "one"
