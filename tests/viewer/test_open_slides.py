"""Open slide files."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from e2e_abmilx.errors import SlideError
from e2e_abmilx.slides import Slide
from e2e_abmilx.viewer.open_slides import OpenSlides


def _open_files(folder: Path) -> list[str]:
    links = (Path("/proc/self/fd") / name for name in map(str, range(1024)))
    return [target for link in links if link.is_symlink() and (target := str(link.readlink())).startswith(str(folder))]


def test_threads_read_more_slides_than_stay_open(cohort: Path) -> None:
    paths = sorted((cohort / "slides").glob("*.tiff"))[:6]
    truth = []
    for path in paths:
        with Slide(path) as slide:
            truth.append(slide.read_level(1, 10, 20, 64, 64))
    slides = OpenSlides(most=2)

    def read(number: int) -> None:
        with slides.borrow(paths[number % 6]) as slide:
            assert np.array_equal(slide.read_level(1, 10, 20, 64, 64), truth[number % 6])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(120)))
    assert len(slides._slides) <= 2
    if Path("/proc/self/fd").is_dir():
        assert len(_open_files(cohort / "slides")) <= 2
    slides.close()
    assert not slides._slides


def test_a_slide_that_is_read_is_not_closed(cohort: Path) -> None:
    first, second = sorted((cohort / "slides").glob("*.tiff"))[:2]
    slides = OpenSlides(most=1)
    with slides.borrow(first) as slide:
        with slides.borrow(second):
            pass
        slides.close()
        assert slide.read_level(0, 0, 0, 8, 8).shape == (8, 8, 3)
    with slides.borrow(first) as again:
        assert again.read_level(0, 0, 0, 8, 8).shape == (8, 8, 3)


def test_a_file_that_cannot_be_opened_is_refused_each_time(tmp_path: Path) -> None:
    slides = OpenSlides()
    for _ in range(2):
        with pytest.raises(SlideError, match="no such file"), slides.borrow(tmp_path / "gone.tiff"):
            pass
