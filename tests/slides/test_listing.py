"""Slides in folders: links, other files, names."""

import logging
import os
import unicodedata
from pathlib import Path

import pytest

from e2e_abmilx.slides import SlideError
from e2e_abmilx.slides.listing import list_slides
from e2e_abmilx.slides.slide_files import SlideFile, find_slides


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_linked_folders_are_followed_and_cycles_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _touch(tmp_path / "disk/deep/a.svs", tmp_path / "disk/b.tif", tmp_path / "slides/c.tif")
    (tmp_path / "slides/linked").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/deep/up").symlink_to(tmp_path / "disk")
    (tmp_path / "slides/self").symlink_to(tmp_path / "slides")
    (tmp_path / "slides/d.tif").symlink_to(tmp_path / "disk/b.tif")
    found = [slide.path.relative_to(tmp_path / "slides") for slide in list_slides(tmp_path / "slides")]
    assert found == [Path("c.tif"), Path("d.tif"), Path("linked/b.tif"), Path("linked/deep/a.svs")]
    assert "left out 2 links to folders that are listed already: self, linked/deep/up" in caplog.text


def test_two_links_to_one_folder_count_once(tmp_path: Path) -> None:
    _touch(tmp_path / "disk/a.svs")
    (tmp_path / "slides").mkdir()
    for name in ("one", "two"):
        (tmp_path / "slides" / name).symlink_to(tmp_path / "disk")
    assert find_slides(tmp_path / "slides") == [SlideFile(tmp_path / "slides/one/a.svs")]


def test_files_left_out_are_counted_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    _touch(*(tmp_path / name for name in ("a.svs", "._a.svs", "._b.tif", "x.xml", "y.xml", "README")))
    for number in range(5):
        (tmp_path / f"gone-{number}.svs").symlink_to(tmp_path / "nowhere.svs")
    assert find_slides(tmp_path) == [SlideFile(tmp_path / "a.svs")]
    assert "left out 2 ._ files of macOS, which hold no pixels: ._a.svs, ._b.tif" in caplog.text
    assert "left out 5 broken links: gone-0.svs, gone-1.svs, gone-2.svs, …" in caplog.text
    assert "left out 3 files with other suffixes (2 × .xml, 1 × no suffix)" in caplog.text


def test_a_folder_of_leftovers_holds_no_slide(tmp_path: Path) -> None:
    _touch(tmp_path / "._a.svs")
    with pytest.raises(SlideError, match="holds no slide"):
        find_slides(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every folder")
def test_a_folder_without_permission_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _touch(tmp_path / "a.svs", tmp_path / "closed/b.svs")
    (tmp_path / "closed").chmod(0)
    assert find_slides(tmp_path) == [SlideFile(tmp_path / "a.svs")]
    assert "folders that cannot be opened" in caplog.text
    (tmp_path / "closed").chmod(0o700)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_are_composed(tmp_path: Path, form: str) -> None:
    _touch(tmp_path / unicodedata.normalize(form, "Präparat_é.tif"))
    (slide,) = find_slides(tmp_path)
    assert slide.name == unicodedata.normalize("NFC", "Präparat_é")
    assert find_slides([slide.path])[0].name == slide.name


def test_two_forms_of_one_name_are_refused(tmp_path: Path) -> None:
    _touch(*(tmp_path / unicodedata.normalize(form, "é.tif") for form in ("NFC", "NFD")))
    if len(list(tmp_path.iterdir())) == 2:  # some file systems compose names themselves
        with pytest.raises(SlideError, match="both named"):
            find_slides(tmp_path)
