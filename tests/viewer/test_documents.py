"""The documents that the page reads."""

import json
from pathlib import Path

import pandas as pd
import pytest
from viewed_runs import WEIRD, copy_data, write_viewed_run

from e2e_abmilx.viewer.documents import case_document, encode, run_document
from e2e_abmilx.viewer.viewed_run import ViewedRun

CASES = {name: [f"slide-{number:03d}"] for number, name in enumerate(WEIRD)}


@pytest.fixture
def viewed(tmp_path: Path, cohort: Path, stores: Path) -> ViewedRun:
    data = copy_data(tmp_path / "data", cohort, stores, {slide: slide for slides in CASES.values() for slide in slides})
    return ViewedRun(write_viewed_run(tmp_path / "run", data, CASES))


def test_the_run(viewed: ViewedRun) -> None:
    viewed.reviews.add(WEIRD[0], "", "agree", "", None, None)
    document = json.loads(encode(run_document(viewed)))
    folder = str(viewed.runs[0].folder)
    assert (document["title"], document["runs"], document["task"]) == (folder, [folder], "classification")
    assert document["read_only"] is False
    assert document["note"] is None
    assert [one["id"] for one in document["cases"]] == list(range(len(WEIRD)))
    assert sorted(one["name"] for one in document["cases"]) == sorted(WEIRD)
    correctness = [one["correctness"] for one in document["cases"]]
    assert correctness == sorted(correctness)
    for one in document["cases"]:
        assert one["thumbnail"] == f"case/{one['id']}/thumbnail.jpg"
        assert one["verdict"] == ("agree" if one["name"] == WEIRD[0] else None)
        assert one["has_map"]
        assert one["label"] in ("0", "1")


def test_chosen_cases_keep_their_numbers(viewed: ViewedRun) -> None:
    document = run_document(viewed, read_only=True, cases=[3, 1])
    assert [one["id"] for one in document["cases"]] == [3, 1]
    assert document["read_only"] is True


def test_a_case(viewed: ViewedRun) -> None:
    number = viewed.names.index(WEIRD[1])
    viewed.reviews.add(WEIRD[1], "slide-001", "note", "a\nb", 1.5, 2)
    document = json.loads(encode(case_document(viewed, number)))
    assert (document["id"], document["name"], document["note"], document["survival"]) == (number, WEIRD[1], None, None)
    assert [name for name, _ in document["facts"]][:3] == ["label", "probability of 0", "probability of 1"]
    assert document["facts"][-1] == ["patches", f"{len(viewed.case(number).slides[0].maps[0].coords):,}"]
    assert [(one["verdict"], one["note"], one["slide"]) for one in document["reviews"]] == [
        ("note", "a\nb", "slide-001")
    ]
    (slide,) = document["slides"]
    assert {name: slide[name] for name in ("name", "note", "width", "height", "mpp")} == {
        "name": "slide-001", "note": None, "width": 512, "height": 512, "mpp": 0.5,
    }  # fmt: skip
    assert slide["picture"] == {
        "kind": "tiles", "tile_size": 256, "levels": 2, "url": f"case/{number}/slide/0/tile/{{level}}_{{x}}_{{y}}.jpg",
    }  # fmt: skip
    (one,) = slide["maps"]
    assert len(one["highest"]) == len(one["lowest"]) == 12
    for patch in one["highest"]:
        assert patch["url"] == f"case/{number}/slide/0/patch/0_{patch['scale']}_{patch['patch']}.jpg"
        assert viewed.patch(number, 0, 0, patch["scale"], patch["patch"])[:2] == b"\xff\xd8"


def test_two_runs_have_a_map_each(viewed: ViewedRun, tmp_path: Path) -> None:
    other = write_viewed_run(tmp_path / "other", tmp_path / "data", {WEIRD[1]: ["slide-001"], "more": ["slide-002"]})
    both = ViewedRun(viewed.runs[0].folder, other)
    document = run_document(both)
    assert document["runs"] == [str(viewed.runs[0].folder), str(other)]
    assert document["note"] == f"Cases of {other} that {viewed.runs[0].folder} does not have: 1, not listed here."
    for number, name in enumerate(both.names):
        found = case_document(both, number)
        (slide,) = found["slides"]
        assert [one is None for one in slide["maps"]] == [False, name != WEIRD[1]]
        assert dict(found["facts"])[f"prediction of {other}"] != "none" or name != WEIRD[1]
        if name == WEIRD[1]:
            assert slide["maps"][1]["highest"][0]["url"].startswith(f"case/{number}/slide/0/patch/1_")


def test_survival(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"case": ["a", "b"], "time": [10, 20], "event": [1, 0], "risk": [2, 1], "survival_12": [0.25, 0.5]}
    )
    run = write_viewed_run(
        tmp_path / "run", tmp_path / "data", {"a": ["x"], "b": ["y"]}, mapped=False, predictions=table
    )
    viewed = ViewedRun(run)
    document = json.loads(encode(case_document(viewed, viewed.names.index("a"))))
    assert document["survival"] == {"months": [12.0], "probability": [0.25], "time": 10.0, "event": 1}
    assert document["facts"][:2] == [["outcome", "event at 10 months"], ["risk", "2"]]
    assert "no attention of case 'a'" in document["note"]
    assert document["slides"] == []


def test_reviews_that_are_damaged_are_told(viewed: ViewedRun) -> None:
    viewed.reviews.path.write_text("time,case,slide,verdict,note,x_um,y_um\nnonsense\n")
    assert "line 2 is damaged" in run_document(viewed)["note"]
