"""A static copy."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from viewed_runs import WEIRD, copy_data, write_viewed_run

from e2e_abmilx.errors import InputError
from e2e_abmilx.slides import Slide
from e2e_abmilx.viewer.export import as_script, export_cases

CASES = {name: [f"slide-{number:03d}"] for number, name in enumerate(WEIRD)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cohort: Path, stores: Path) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    data = copy_data(folder / "data", cohort, stores, {slide: slide for slides in CASES.values() for slide in slides})
    return write_viewed_run(folder / "run", data, CASES)


def _document(path: Path, callback: str) -> dict:
    text = path.read_text(encoding="utf-8")
    found = re.fullmatch(rf"{callback}\((.*)\);\n", text)
    assert found
    return json.loads(found[1])


def test_a_copy_holds_everything_and_asks_for_nothing(run: Path, tmp_path: Path, cohort: Path) -> None:
    said = export_cases(run, tmp_path / "copy")
    folder = tmp_path / "copy"
    assert re.fullmatch(rf"{folder}/index.html: 5 cases, \d+\.\d MB, \d+\.\d MB per case", said)
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert 'data-source="files"' in page
    assert 'data-source="server"' not in page
    assert all((folder / source).is_file() for source in re.findall(r'(?:src|href)="(?!data:)([^"#]+)"', page))
    listed = _document(folder / "data/run.js", "viewerRun")
    assert listed["read_only"] is True
    assert json.loads((folder / "cases.json").read_text()) == {one["name"]: one["id"] for one in listed["cases"]}
    assert {one["name"] for one in listed["cases"]} == set(WEIRD)
    for one in listed["cases"]:
        document = _document(folder / f"data/case-{one['id']}.js", "viewerCase")
        assert document["name"] == one["name"]
        (slide,) = document["slides"]
        urls = [one["thumbnail"], slide["picture"]["url"]]
        urls += [patch["url"] for strip in ("highest", "lowest") for patch in slide["maps"][0][strip]]
        assert len(urls) == 26
        assert all(re.fullmatch(r"[a-z0-9/_.]+", url) and (folder / url).is_file() for url in urls)
        with (
            Slide(cohort / f"slides/{CASES[one['name']][0]}.tiff") as original,
            Image.open(folder / urls[1]) as picture,
        ):
            assert picture.size == original.size
            assert np.abs(np.asarray(picture, float) - original.read_level(0, 0, 0, *original.size)).mean() < 6


def test_chosen_cases_and_an_earlier_copy(run: Path, tmp_path: Path) -> None:
    export_cases(run, tmp_path / "copy")
    said = export_cases(run, tmp_path / "copy", cases=[WEIRD[3], WEIRD[0]])
    assert "2 cases" in said
    assert set(json.loads((tmp_path / "copy/cases.json").read_text())) == {WEIRD[0], WEIRD[3]}
    assert len(list((tmp_path / "copy/data").glob("case-*.js"))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_folder_that_holds_something_else_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(InputError, match="is no earlier copy; name a new or empty folder"):
            export_cases(run, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_nothing_of_the_user_is_lost_with_an_earlier_copy(run: Path, tmp_path: Path) -> None:
    copy, own = tmp_path / "copy", tmp_path / "own"
    export_cases(run, copy, cases=[WEIRD[0]])
    (copy / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds 'letter\.txt' beside an earlier copy, which would be lost"):
        export_cases(run, copy, cases=[WEIRD[0]])
    (own / "data").mkdir(parents=True)
    for name in ("cases.json", "index.html"):  # of another program
        (own / name).write_text("{}")
        with pytest.raises(InputError, match="is no earlier copy; name a new or empty folder"):
            export_cases(run, own, cases=[WEIRD[0]])
    assert (copy / "letter.txt").read_text() == "mine"
    assert sorted(path.name for path in own.iterdir()) == ["cases.json", "data", "index.html"]


def test_a_folder_that_cannot_be_replaced_stays(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_cases(run, tmp_path / "copy", cases=[WEIRD[0]])
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise OSError("in use")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="in use"):
        export_cases(run, tmp_path / "copy", cases=[WEIRD[3]])
    assert list(json.loads((tmp_path / "copy/cases.json").read_text())) == [WEIRD[0]]


def test_what_fails_leaves_the_earlier_copy(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_cases(run, tmp_path / "copy", cases=[WEIRD[0]])
    before = (tmp_path / "copy/data/run.js").read_bytes()
    monkeypatch.setattr("e2e_abmilx.viewer.export.STATIC", tmp_path / "nowhere")
    with pytest.raises(OSError, match="nowhere"):
        export_cases(run, tmp_path / "copy")
    assert (tmp_path / "copy/data/run.js").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_unknown_cases_and_runs_without_attention_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no case 'nobody'; the run has 5 cases"):
        export_cases(run, tmp_path / "copy", cases=["nobody"])
    bare = write_viewed_run(tmp_path / "bare", run.parent / "data", CASES, mapped=False)
    with pytest.raises(InputError, match=r"nothing to export: .*e2e-abmilx test --config"):
        export_cases(bare, tmp_path / "copy")
    assert "1 case," in export_cases(bare, tmp_path / "copy", cases=[WEIRD[0]])  # slides may be worth seeing


@given(st.dictionaries(st.text(), st.text()))
def test_documents_in_scripts_are_inert(document: dict[str, str]) -> None:
    script = as_script("f", {**document, "evil": "</script><!--\u2028\u2029"})
    assert script.isascii()
    assert not set("<>&") & set(script)
    assert json.loads(script[2:-3])["evil"] == "</script><!--\u2028\u2029"
    assert {**json.loads(script[2:-3]), "evil": ""} == {**document, "evil": ""}
