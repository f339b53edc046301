"""Tables in all the forms that spreadsheets and data portals write."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.errors import InputError
from e2e_abmilx.io.tables import clean, is_missing, open_table, plain_key


def _read(folder: Path, content: bytes) -> tuple[list[str], list[tuple[int, list[str]]]]:
    (folder / "t.csv").write_bytes(content)
    with open_table(folder / "t.csv", "table", InputError) as (header, lines):
        return header, list(lines)


ONE_ROW = {
    "commas": "ä,b\n1,2\n".encode(),
    "semicolons": "ä;b\n1;2\n".encode(),
    "tabs": "ä\tb\n1\t2\n".encode(),
    "byte order mark": "ä,b\n1,2\n".encode("utf-8-sig"),
    "Windows-1252": "ä;b\r\n1;2\r\n".encode("cp1252"),
    "UTF-16": "ä\tb\r\n1\t2\r\n".encode("utf-16"),
    "UTF-16 big": "ä,b\n1,2\n".encode("utf-16-be"),
    "UTF-16 little": "ä,b\n1,2\n".encode("utf-16-le"),
    "UTF-32": "ä,b\n1,2\n".encode("utf-32"),
    "old Mac lines": "ä,b\r1,2\r".encode(),
    "spaces": " ä ,\u00a0b\u200b\n1,2\n".encode(),
    "accents apart": "a\u0308,b\n1,2\n".encode(),
    "quotes": '"ä","b"\n"1","2"\n'.encode(),
    "longer row": "ä,b\n1,2,,\n".encode(),
}


@pytest.mark.parametrize("content", ONE_ROW.values(), ids=ONE_ROW.keys())
def test_one_table_in_many_forms(tmp_path: Path, content: bytes) -> None:
    assert _read(tmp_path, content) == (["ä", "b"], [(2, ["1", "2"])])


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"sep=;\r\na;b\r\n1;2\r\n", 3),
        (b'"sep=;"\na;b\n1;2\n', 3),
        (b"SEP=,\na,b\n1,2\n", 3),
        (b"# made in 2024\na,b\n1,2\n", 3),
        (b"#Patient\t#\n#STRING\tx\n#1\t1\na\tb\n1\t2\n", 5),  # cBioPortal
        (b"\n,\na,b\n\n1,2\n,\n\n", 5),
    ],
)
def test_lines_above_the_header_are_skipped(tmp_path: Path, content: bytes, line: int) -> None:
    assert _read(tmp_path, content) == (["a", "b"], [(line, ["1", "2"])])


def test_a_header_may_begin_with_a_hash_sign(tmp_path: Path) -> None:
    assert _read(tmp_path, b"#,slide\n1,a\n") == (["#", "slide"], [(2, ["1", "a"])])


@pytest.mark.parametrize(
    ("content", "header"),
    [
        (b'"a";"b, c"\n1;2\n', ["a", "b, c"]),
        (b'a,"b;c"\n1,2\n', ["a", "b;c"]),
        (b"a;b,c;d\n1;2;3\n", ["a", "b,c", "d"]),
        (b"a;b, c\n1;2\n", ["a", "b, c"]),  # the second line decides
        (b'"a\nb",c\n1,2\n', ["a\nb", "c"]),
        (b"a\n1;2\n", ["a"]),
    ],
)
def test_separators_in_names(tmp_path: Path, content: bytes, header: list[str]) -> None:
    assert _read(tmp_path, content)[0] == header


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a;b, c\n1;2,3\n", ":1: both commas and semicolons may separate the columns"),
        (b"a,b\n1\n", ":2: the row has 1 cells, the header 2; complete the row"),
        (b"a,b\n1,2\n1,2,3\n", ":3: the row has 3 cells, the header 2; put text"),
        (b"sep=;\na;b\n1;2;3\n", ":3: the row has 3 cells"),
        (b"", "is empty"),
        (b"sep=;\n", "is empty"),
        (b"# nothing\n", "is empty"),
        (b"PK\x03\x04\x14\x00", "a spreadsheet or a zip archive"),
        (b"\xd0\xcf\x11\xe0\xa1", "it is a spreadsheet"),
        (b"\x1f\x8b\x08", "it is compressed"),
        (b"a,b\n1,\x812\n", "cannot be read as a CSV in UTF-8"),
        (b"a,\xe4\n1,\x01\n", "control character"),
        (b"a\0\0b", "control character"),
        (b"\xff\xfea", "cannot be read as a CSV in UTF-8"),
    ],
)
def test_unreadable_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        _read(tmp_path, content)
    assert "t.csv" in str(refusal.value)


def test_a_guessed_encoding_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _read(tmp_path, "a,b\n1,Präparat\n".encode("cp1252"))
    assert "is not in UTF-8; reading it as Windows-1252, for example '1,Präparat'" in caplog.text


@given(
    st.lists(st.lists(st.text("aä;,\t' 1", min_size=1, max_size=4), min_size=2, max_size=2), min_size=1, max_size=5),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
)  # fmt: skip
def test_quoted_cells_survive(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], separator: str, encoding: str
) -> None:
    lines = [separator.join(f'"{cell}"' for cell in row) for row in [["slide", "label"], *rows]]
    header, read = _read(tmp_path_factory.mktemp("t"), "\r\n".join(lines).encode(encoding))
    assert header == ["slide", "label"]
    assert [cells for _, cells in read] == [row for row in rows if any(cell.strip() for cell in row)]


@pytest.mark.parametrize(
    "cell",
    ["", " ", "NA", "n/a", "#N/A", "#NA", "NaN", "None", "NULL", "null", "-", "--", "'--", ".", "?", "#REF!",
     "#DIV/0!", "<NA>", "NaT", "[Not Available]", "[Not Applicable]", "[Unknown]", "not reported", "[Discrepancy]"],
)  # fmt: skip
def test_words_for_missing_values(cell: str) -> None:
    assert is_missing(cell)


@pytest.mark.parametrize("cell", ["0", "0.0", "no", "False", "negative", "+", "1-", "N", "nano", "[1]", "NAT2", "A.N"])
def test_other_words_are_values(cell: str) -> None:
    assert not is_missing(cell)


def test_spellings_of_column_names_compare_equal() -> None:
    assert clean(" \u00a0a\u200b\ufeff ") == "a"
    assert plain_key("OS.time") == plain_key(" os_Time") == plain_key("OS Time")
    assert plain_key("µm") != plain_key("mm")
