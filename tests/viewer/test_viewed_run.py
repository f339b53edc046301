"""A run that is being looked at: pictures of its cases."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from viewed_runs import WEIRD, copy_data, draw_texture, map_case, write_pyramid, write_viewed_run

from e2e_abmilx.cache.jobs import fingerprint
from e2e_abmilx.errors import InputError
from e2e_abmilx.heatmaps.case_map import write_case_map
from e2e_abmilx.slides import Slide
from e2e_abmilx.store import PatchStore, write_store
from e2e_abmilx.viewer.viewed_run import NotFoundError, ViewedRun

CASES = {
    "two slides": ["slide-000", "slide-001"],
    **{name: [f"slide-{number:03d}"] for number, name in enumerate(WEIRD, 2)},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cohort: Path, stores: Path) -> Path:
    folder = tmp_path_factory.mktemp("viewed")
    names = sorted({slide for slides in CASES.values() for slide in slides})
    data = copy_data(folder / "data", cohort, stores, {name: name for name in names})
    return write_viewed_run(folder / "run", data, CASES)


def _pixels(jpeg: bytes) -> NDArray[np.float64]:
    return np.asarray(Image.open(BytesIO(jpeg)), float)


def test_tiles_of_every_slide_are_its_pixels(run: Path, cohort: Path) -> None:
    viewed = ViewedRun(run)
    for number, name in enumerate(viewed.names):
        case = viewed.case(number)
        assert (case.name, [one.source.name for one in case.slides], case.notes) == (name, CASES[name], ())
        for place, slide_name in enumerate(CASES[name]):
            with Slide(cohort / f"slides/{slide_name}.tiff") as slide:
                fine, half = slide.read_level(0, 256, 0, 256, 256), slide.read_level(1, 0, 0, 256, 256)
            assert np.abs(_pixels(viewed.tile(number, place, 1, 1, 0)) - fine).mean() < 4
            assert np.abs(_pixels(viewed.tile(number, place, 0, 0, 0)) - half).mean() < 4
    viewed.close()


def test_patches_are_the_bytes_of_the_store(run: Path, stores: Path) -> None:
    viewed = ViewedRun(run)
    number = viewed.names.index("two slides")
    for place, slide in enumerate(CASES["two slides"]):
        store = PatchStore(stores / f"{slide}.zarr")
        for scale in (0, 1):
            last = store.num_patches(scale) - 1
            assert viewed.patch(number, place, 0, scale, last) == store.read_encoded([last], scale)[0]


def test_a_patch_without_store_is_cut_out_of_the_slide(run: Path, tmp_path: Path, cohort: Path, stores: Path) -> None:
    data = copy_data(tmp_path / "data", cohort, stores, {"slide-000": "slide-000"})
    folder = write_viewed_run(tmp_path / "run", data, {"a": ["slide-000"]})
    shutil.rmtree(data / "cache")
    viewed, store = ViewedRun(folder), PatchStore(stores / "slide-000.zarr")
    for scale in (0, 1):
        cut = _pixels(viewed.patch(0, 0, 0, scale, 3))
        assert cut.shape == (64, 64, 3)
        assert np.abs(cut - store.read([3], scale)[0]).mean() < 6


def test_what_is_not_there_is_not_found(run: Path) -> None:
    viewed = ViewedRun(run)
    number = viewed.names.index("two slides")
    asked = [
        lambda: viewed.case(99), lambda: viewed.case(-1), lambda: viewed.tile(99, 0, 0, 0, 0),
        lambda: viewed.tile(number, 2, 0, 0, 0), lambda: viewed.tile(number, 0, 2, 0, 0), lambda: viewed.tile(number, 0, 1, 2, 0),
        lambda: viewed.patch(number, 0, 1, 0, 0), lambda: viewed.patch(number, 0, 0, 2, 0),
        lambda: viewed.patch(number, 0, 0, 0, 10**9), lambda: viewed.thumbnail(99),
    ]  # fmt: skip
    for one in asked:
        with pytest.raises(NotFoundError, match="no "):
            one()


def test_threads_get_the_same_tiles(run: Path) -> None:
    viewed = ViewedRun(run)
    asked = [(case, 0, 1, x, y) for case in range(len(CASES)) for x in (0, 1) for y in (0, 1)] * 4
    alone = {address: ViewedRun.tile(viewed, *address) for address in asked}
    fresh = ViewedRun(run)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda address: fresh.tile(*address), asked)) == [alone[address] for address in asked]


def test_a_thumbnail_is_the_slide_in_small(run: Path, stores: Path) -> None:
    viewed = ViewedRun(run)
    small = _pixels(viewed.thumbnail(viewed.names.index("two slides")))
    truth = Image.fromarray(PatchStore(stores / "slide-000.zarr").thumbnail()).resize((192, 192), Image.Resampling.BOX)
    assert small.shape == (192, 192, 3)
    assert np.abs(small - np.asarray(truth)).mean() < 6


def test_a_tile_that_is_damaged_comes_from_the_store(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, texture = tmp_path / "data", draw_texture(512, 512)
    (data / "slides").mkdir(parents=True)
    path = write_pyramid(data / "slides/one.tiff", texture, (1,))
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        start, size = tiff.pages[0].dataoffsets[1], tiff.pages[0].databytecounts[1]
    content[start : start + size] = bytes(size)
    path.write_bytes(content)
    attributes = {"slide_size": [512, 512], "slide_mpp": 0.5, "footprints": [512.0], "fingerprint": fingerprint(path)}
    store = write_store(data / "cache/one.zarr", {0.5: (texture[None], np.zeros((1, 2), int))}, attributes=attributes)
    viewed = ViewedRun(write_viewed_run(tmp_path / "run", data, {"a": ["one"]}))
    assert viewed.note(0, 0) is None
    tile = _pixels(viewed.tile(0, 0, 1, 0, 0))
    assert np.abs(tile - store.read([0])[0, :256, :256]).mean() < 6
    assert "damaged parts are a mosaic" in viewed.note(0, 0)
    assert len(caplog.records) == 1
    viewed.tile(0, 0, 0, 0, 0)
    assert len(caplog.records) == 1


def test_a_second_run_with_another_cache_shows_its_own_patches(
    run: Path, tmp_path: Path, cohort: Path, stores: Path
) -> None:
    data = copy_data(tmp_path / "data", cohort, stores, {"slide-002": "slide-002"})
    shutil.rmtree(data / "cache/slide-002.zarr")
    patches, coords = draw_texture(96, 32).reshape(3, 32, 32, 3), np.array([[0, 0], [32, 0], [64, 64]])
    attributes = {"slide_size": [512, 512], "slide_mpp": 0.5, "footprints": [32.0]}
    store = write_store(data / "cache/slide-002.zarr", {0.5: (patches, coords)}, attributes=attributes)
    other = write_viewed_run(tmp_path / "other", data, {WEIRD[0]: ["slide-002"]})
    viewed = ViewedRun(run, other)
    number = viewed.names.index(WEIRD[0])
    first, second = viewed.slide(number, 0).maps
    assert (first.footprints, second.footprints) == ((64.0, 128.0), (32.0,))
    assert viewed.patch(number, 0, 1, 0, 2) == store.read_encoded([2])[0]
    alone = viewed.names.index("two slides")
    assert [one.maps[1] for one in viewed.case(alone).slides] == [None, None]
    assert viewed.case(alone).notes == (f"{other} has no case 'two slides'.",)


def test_a_second_run_on_another_slide_of_the_name_is_a_sentence(tmp_path: Path, cohort: Path, stores: Path) -> None:
    runs = []
    for number in (0, 1):
        slide = f"slide-{number:03d}"
        data = copy_data(tmp_path / f"data-{number}", cohort, stores, {"one": slide})
        runs.append(write_viewed_run(tmp_path / f"run-{number}", data, {"case": ["one"]}))
    case = ViewedRun(*runs).case(0)
    assert case.notes == (f"{runs[1]} has another slide under the name one, so its map is not shown.",)
    (slide,) = case.slides
    assert slide.maps[0] is not None
    assert slide.maps[1] is None


def test_a_case_of_which_nothing_is_left_is_a_sentence(tmp_path: Path) -> None:
    viewed = ViewedRun(write_viewed_run(tmp_path / "run", tmp_path / "nowhere", {"a": ["x"], "b": ["y"]}, mapped=False))
    assert viewed.case(0).slides == ()
    assert "Neither the file nor the patch store of slide" in viewed.case(0).notes[1]


def test_a_map_that_is_damaged_is_a_sentence(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    path = write_case_map(folder, map_case("two slides", [run.parent / "data/cache/slide-000.zarr"], seed=0))
    path.write_bytes(path.read_bytes()[:-40])
    viewed = ViewedRun(folder)
    case = viewed.case(viewed.names.index("two slides"))
    assert "is damaged" in case.notes[0]
    assert [one.source.name for one in case.slides] == CASES["two slides"]


def test_slides_must_be_a_folder(run: Path) -> None:
    with pytest.raises(InputError, match="which is no folder"):
        ViewedRun(run, slides=run / "nowhere")
