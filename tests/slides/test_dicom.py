"""A DICOM series is one slide."""

from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_level

from e2e_abmilx.cache import cache_slides
from e2e_abmilx.slides import Slide
from e2e_abmilx.slides.slide_files import find_slides
from e2e_abmilx.synthetic import draw_slide

SLIDE = draw_slide(seed=1, lesion_fraction=0.4, side=512)[0]


def _write_series(folder: Path, series: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_level(folder / f"{series}.b.dcm", SLIDE, series)
    write_level(folder / f"{series}.a.dcm", np.ascontiguousarray(SLIDE[::4, ::4]), series, mpp=2.0)
    write_level(folder / f"{series}.c.dcm", np.ascontiguousarray(SLIDE[:128, :128]), series, kind="LABEL")


def test_a_series_is_one_slide_named_by_its_folder(tmp_path: Path) -> None:
    _write_series(tmp_path / "one", "1.2.1")
    _write_series(tmp_path / "deep/two", "1.2.2")
    slides = find_slides(tmp_path)
    assert [slide.name for slide in slides] == ["two", "one"]
    assert [slide.path.name for slide in slides] == ["1.2.2.b.dcm", "1.2.1.b.dcm"]


def test_series_of_one_folder_are_named_by_their_finest_file(tmp_path: Path) -> None:
    _write_series(tmp_path, "1.2.1")
    _write_series(tmp_path, "1.2.2")
    assert [slide.name for slide in find_slides(tmp_path)] == ["1.2.1.b", "1.2.2.b"]
    listed = find_slides(sorted(tmp_path.glob("*.dcm")))
    assert [slide.name for slide in listed] == ["1.2.1.b", "1.2.2.b"]


def test_other_dicom_files_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _write_series(tmp_path / "one", "1.2.1")
    write_level(tmp_path / "label.dcm", np.ascontiguousarray(SLIDE[:128, :128]), "1.2.3", kind="LABEL")
    (tmp_path / "broken.dcm").write_bytes(b"not DICOM")
    assert [slide.name for slide in find_slides(tmp_path)] == ["broken", "one"]
    assert "left out 1 DICOM files that are not images of a slide: label.dcm" in caplog.text


def test_missing_tiles_are_background(tmp_path: Path) -> None:
    write_level(tmp_path / "one.dcm", SLIDE, "1.2.1", gaps=frozenset({5, 6}))
    with Slide(tmp_path / "one.dcm") as slide:
        read = slide.read_level(0, 0, 0, 512, 512)
        assert slide.resolution() == (0.5, "dicom header")
    assert (read[128:256, 128:384] == 255).all()
    np.testing.assert_array_equal(read[256:], SLIDE[256:])


def test_a_series_is_cached_once(tmp_path: Path) -> None:
    _write_series(tmp_path / "slides/one", "1.2.1")
    (row,) = cache_slides(tmp_path / "slides", tmp_path / "out", mpp=(0.5,), patch_size=64, workers=1)
    assert (row.slide, row.status) == ("one", "done")
