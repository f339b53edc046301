"""A look at slides: resolution, patches, copies."""

import inspect
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.cache import cache_slides
from e2e_abmilx.slides import SNAP
from e2e_abmilx.slides.slide_files import SlideFile, find_slides
from e2e_abmilx.study import survey
from e2e_abmilx.study.survey import choose_cut, spread, survey_slides


def test_patches_are_counted_as_the_cache_counts_them(cohort: Path, stores: Path) -> None:
    files = find_slides(cohort / "slides")[:5]
    found = survey_slides(files, None)
    assert found[1:4] == ([], {}, [])
    cut = survey._count_patches(files, (0.5, 1.0), 64, None)
    rows = cache_slides(cohort / "slides", stores, mpp=(0.5, 1.0), patch_size=64)  # skipped, since they are there
    assert cut.patches == [row.num_patches for row in rows[:5]]


def test_the_settings_are_those_of_the_cache() -> None:
    defaults = {name: one.default for name, one in inspect.signature(cache_slides).parameters.items()}
    expected = (survey._OVERLAP, survey._MIN_TISSUE, survey.JPEG_QUALITY)
    assert expected == (defaults["overlap"], defaults["min_tissue"], defaults["quality"])


def test_small_slides_get_small_patches(cohort: Path) -> None:
    files = find_slides(cohort / "slides")[:4]
    found = survey_slides(files, None)
    cut = choose_cut(files, found, None)
    assert cut.patch_size < 256  # a slide of 512 px has at most four patches of 256
    assert cut.median >= 16
    assert cut.mpp == (0.5, 1.0)


def test_copies_unreadable_and_unstated_slides(cohort: Path, tmp_path: Path) -> None:
    sources = sorted((cohort / "slides").iterdir())[:4]
    for source in sources:
        shutil.copy(source, tmp_path)
    shutil.copy(sources[0], tmp_path / "zz renamed.tiff")
    pixels = tifffile.imread(sources[1], level=0)
    tifffile.imwrite(tmp_path / "zz turned.tiff", np.rot90(pixels).copy(), tile=(256, 256), photometric="rgb")
    (tmp_path / "broken.svs").write_text("no slide")
    found = survey_slides(find_slides(tmp_path), None)
    assert found.unstated == ["zz turned"]
    assert list(found.unreadable) == ["broken"]
    assert {(one, other): how for one, other, how in found.copies} == {
        (sources[0].stem, "zz renamed"): "the same bytes",
        (sources[1].stem, "zz turned"): "thumbnails that look alike",
    }
    assumed = survey_slides(find_slides(tmp_path), 0.31)
    assert assumed.resolutions["zz turned"] == (0.31, "assumed")
    assert not assumed.unstated


def test_the_fine_scale_is_no_finer_than_the_coarsest_slide(shared: Path) -> None:
    files = [
        SlideFile(shared / "data/slides/CMU-1-Small-Region.svs"),
        SlideFile(shared / "data/slides/no_mpp.tiff", 0.8),
    ]
    found = survey_slides(files, None)
    assert {name: round(one.mpp, 2) for name, one in found.resolutions.items()} == {
        "CMU-1-Small-Region": 0.5,
        "no_mpp": 0.8,
    }
    assert choose_cut(files, found, None).mpp == (0.8, 1.6)


@given(st.floats(0.02, 20))
def test_two_digits_can_be_read(mpp: float) -> None:
    scale = survey._two_digits(mpp)
    assert mpp <= scale * (1 + SNAP)
    assert scale <= mpp * 1.1
    assert float(f"{scale:.2g}") == scale


@pytest.mark.parametrize(("count", "most"), [(3, 5), (5, 5), (17, 5), (1000, 64)])
def test_slides_are_spread_evenly(count: int, most: int) -> None:
    files = [SlideFile(Path(f"{number}.svs")) for number in range(count)]
    found = [int(file.name) for file in spread(files, most)]
    assert len(found) == min(count, most)
    assert len(set(np.diff(found)) | {count // most, -(-count // most)}) <= 2
