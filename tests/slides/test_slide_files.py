"""The slides that a folder, a list or a table names."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tifffile

from e2e_abmilx.slides import Slide, SlideError
from e2e_abmilx.slides.slide_files import SlideFile, find_slides


def test_folder_list_file_and_table(tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    (folder / "deeper").mkdir(parents=True)
    first, second = folder / "a.svs", folder / "deeper/b.TIFF"
    for path in (first, second, folder / "notes.txt"):
        path.touch()
    assert find_slides(folder) == [SlideFile(first), SlideFile(second)]
    assert find_slides([first]) == find_slides(first) == [SlideFile(first)]
    table = folder / "list.csv"
    table.write_text(f"wsi,mpp\n{first},0.25\ndeeper/b.TIFF,\n")
    assert find_slides(table) == [SlideFile(first, 0.25), SlideFile(second)]
    assert find_slides(table)[1].name == "b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\nx\n", "needs one named slide"),
        ("slide\n", "the list of slides is empty"),
        ("slide,mpp\nx.svs,fine\n", r":2: mpp 'fine' is not a positive number"),
        ("slide,mpp\nx.svs,-1\n", "not a positive number"),
        ("slide\na/x.svs\nb/x.tiff\n", "both named 'x'"),
        ("mpp,slide\n0.25,x.svs\n0.25\n", ":3: the row has 1 cells, the header 2; complete the row"),
        ("slide,mpp\nx.svs,0,25\n", ":2: the row has 3 cells, the header 2"),
        ("slide,mpp\n,0.25\n", ":2: the slide is empty"),
        ("slide,mpp\nNA,0.25\n", ":2: the slide is empty"),
        ("slide,mpp\nx.svs,0.25\nx.svs,0.5\n", ":2 and :3: x.svs has two mpp, 0.25 and 0.5"),
        ("slide,mpp\nx.svs,0.25\nx.svs,\n", ":2 and :3: x.svs has two mpp, 0.25 and None"),
        ("slide,mpp,MPP\nx.svs,0.25,\n", "2 columns named mpp"),
        ("slide,Slide\nx.svs,x.svs\n", "2 columns named slide"),
        ("slide,mpp_x,mpp_y\nx.svs,0.25,0.25\n", "column 'mpp_x' may be a scale"),
        ("slide,spacing_at_level_0\nx.svs,0.25\n", "column 'spacing_at_level_0' may be a scale"),
        ("slide,µm per pixel\nx.svs,0.25\n", "may be a scale, .* name it mpp"),
        ("", "slides.csv is empty"),
        ("PK\x03\x04", "is a spreadsheet or a zip archive"),
    ],
)
def test_unusable_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "slides.csv"
    table.write_text(text)
    with pytest.raises(SlideError, match=message):
        find_slides(table)


LISTS = {
    "spaces and capitals": b"Slide , MPP\na.svs , 0.25 \n",
    "byte order mark": "slide,mpp\na.svs,0.25\n".encode("utf-8-sig"),
    "semicolons": b"slide;mpp\na.svs;0.25\n",
    "decimal comma": b"slide;mpp\na.svs;0,25\n",
    "quoted decimal comma": b'wsi,mpp\na.svs,"0,25"\n',
    "tabs": b"WSI\tmpp\na.svs\t0.25\n",
    "UTF-16": "slide,mpp\na.svs,0.25\n".encode("utf-16"),
    "UTF-16 of Excel": "slide\tmpp\r\na.svs\t0.25\r\n".encode("utf-16-le"),
    "Excel's first line": b"sep=;\r\nslide;mpp\r\na.svs;0.25\r\n",
    "Windows-1252": "slide,mpp,Färbung\na.svs,0.25,H&E\n".encode("cp1252"),
    "old Mac lines": b"slide,mpp\ra.svs,0.25\r",
    "blank rows and columns": b'slide,mpp,\n"a.svs","0.25",\n,,\n\r\n',
    "longer rows": b"slide,mpp\na.svs,0.25,,\n",
    "a row twice": b"slide,mpp\na.svs,0.25\na.svs,0.250\n",
    "invisible characters": "slide,mpp\u200b\na.svs\u00a0,0.25\ufeff\n".encode(),
}


@pytest.mark.parametrize("content", LISTS.values(), ids=LISTS.keys())
def test_tables_are_read_as_people_write_them(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    assert find_slides(tmp_path / "list.csv") == [SlideFile(tmp_path / "a.svs", 0.25)]
    (tmp_path / "list.txt").write_bytes(content)
    assert find_slides(tmp_path / "list.txt") == [SlideFile(tmp_path / "a.svs", 0.25)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_names_survive_their_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "list.csv").write_bytes("slide,mpp\nPräparat é.svs,NA\n".encode(encoding))
    assert find_slides(tmp_path / "list.csv") == [SlideFile(tmp_path / "Präparat é.svs")]


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_table", ["NFC", "NFD"])
def test_accents_are_found_as_the_disk_spells_them(tmp_path: Path, on_disk: str, in_table: str) -> None:
    file = tmp_path / unicodedata.normalize(on_disk, "Präparat.svs")  # type: ignore[arg-type]
    file.touch()
    (tmp_path / "list.csv").write_text(f"slide\n{unicodedata.normalize(in_table, file.name)}\n")  # type: ignore[arg-type]
    assert find_slides(tmp_path / "list.csv") == [SlideFile(file)]


def test_columns_that_are_not_read_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "list.csv").write_text("slide,label,mpp,Objective power\na.svs,1,,20\n")
    with caplog.at_level("INFO"):
        find_slides(tmp_path / "list.csv")
    assert "slide from 'slide'; mpp from 'mpp'; not read: 'label', 'Objective power'" in caplog.text


def test_spreadsheets_are_refused(tmp_path: Path) -> None:
    (tmp_path / "list.xlsx").write_bytes(b"PK")
    with pytest.raises(SlideError, match=r"list.xlsx is a spreadsheet; save it as a CSV"):
        find_slides(tmp_path / "list.xlsx")


def test_absent_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="no such folder"):
        find_slides(tmp_path / "absent")
    with pytest.raises(SlideError, match="holds no slide"):
        find_slides(tmp_path)


@pytest.mark.parametrize(
    "name", ["a::b", "s3:x", "12:30:05", "~home", "q?*", "[1]", "hash#1", "per%20cent", "memory:", "zip::x"]
)
def test_names_that_look_like_protocols_are_plain_names(name: str, tmp_path: Path) -> None:
    """tiffslide opens files by fsspec, which would take such names for protocols."""
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    tifffile.imwrite(
        tmp_path / f"{name}.tif", pixels, tile=(32, 32), photometric="rgb", resolution=(20000, 20000), resolutionunit=3
    )
    (file,) = find_slides(tmp_path)
    assert file.name == name
    with Slide(file.path) as slide:
        assert np.array_equal(slide.read_level(0, 0, 0, 64, 64), pixels)
