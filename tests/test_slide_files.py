from pathlib import Path

import pytest

from e2e_abmilx.slide_files import SlideFile, find_slides
from e2e_abmilx.slides import SlideError


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
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "slides.csv"
    table.write_text(text)
    with pytest.raises(SlideError, match=message):
        find_slides(table)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="no such folder"):
        find_slides(tmp_path / "absent")
    with pytest.raises(SlideError, match="holds no slide"):
        find_slides(tmp_path)
