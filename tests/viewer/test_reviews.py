"""``review.csv``: rows of several processes, kills, damage, and whatever people write."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.errors import InputError
from e2e_abmilx.viewer.reviews import LONGEST_NOTE, Review, Reviews, latest_verdicts

APPEND = """
import sys
from pathlib import Path
from e2e_abmilx.viewer.reviews import Reviews
reviews = Reviews(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    reviews.add(f"case-{number}", "", "note", f"{sys.argv[2]}\\n{number} " + "x" * (number % 500), None, None)
    print(number, flush=True)
"""


def _start(folder: Path, name: str, rows: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", APPEND, str(folder), name, str(rows)], stdout=subprocess.PIPE, text=True
    )


def _notes(folder: Path) -> list[str]:
    found, problems = Reviews(folder).read()
    assert problems == []
    return [review.note.split(" ")[0] for review in found]


def test_two_processes_lose_no_row(tmp_path: Path) -> None:
    processes = [_start(tmp_path, name, 200) for name in "ab"]
    for process in processes:
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert sorted(_notes(tmp_path)) == sorted(f"{name}\n{number}" for name in "ab" for number in range(200))
    assert [path.name for path in tmp_path.iterdir()] == ["review.csv"]


def test_a_killed_process_loses_no_row_that_it_has_confirmed(tmp_path: Path) -> None:
    for _ in range(3):
        before = len(_notes(tmp_path)) if (tmp_path / "review.csv").exists() else 0
        process = _start(tmp_path, "a", 100_000)
        assert process.stdout.readline()
        time.sleep(0.2)
        os.kill(process.pid, signal.SIGKILL)
        confirmed = 1 + len([line for line in process.stdout.read().splitlines() if line])
        process.wait()
        assert len(_notes(tmp_path)) - before in (confirmed, confirmed + 1)
    Reviews(tmp_path).add("last", "", "agree", "", None, None)
    assert Reviews(tmp_path).read()[0][-1].case == "last"


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60)


@given(TEXTS.filter(bool), TEXTS, TEXTS)
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, case: str, slide: str, note: str) -> None:
    reviews = Reviews(tmp_path_factory.mktemp("reviews"))
    saved = [reviews.add(case, slide, "disagree", note, 12.345, -1), reviews.add(case, "", "agree", "", None, None)]
    assert reviews.read() == (saved, [])
    assert saved[0][1:] == (case, slide, "disagree", note, "12.35", "-1.00") or saved[0].x_um == "12.34"


def test_a_note_has_a_limit(tmp_path: Path) -> None:
    reviews = Reviews(tmp_path)
    longest = '"\n,;é' * (LONGEST_NOTE // 5)
    reviews.add("a", "", "note", longest, None, None)
    assert reviews.read()[0][0].note == longest
    with pytest.raises(InputError, match=r"10,001 characters long; a note has at most 10,000 characters"):
        reviews.add("a", "", "note", longest + "x", None, None)
    assert len(reviews.read()[0]) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "maybe"}, "verdict is 'maybe'; it must be one of agree"),
        ({"verdict": None}, "verdict is 'None'"),
        ({"note": 3}, "the note is no text"),
        ({"x_um": float("nan")}, "x_um is 'nan'; it must be a number"),
        ({"y_um": "1"}, "y_um is '1'"),
        ({"y_um": True}, "y_um is 'True'"),
    ],
)
def test_what_is_no_review_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    sound = {"case": "a", "slide": "", "verdict": "agree", "note": "", "x_um": None, "y_um": None}
    with pytest.raises(InputError, match=message):
        Reviews(tmp_path).add(**{**sound, **change})
    assert not (tmp_path / "review.csv").exists()


def test_nul_and_lone_surrogates_are_replaced(tmp_path: Path) -> None:
    reviews = Reviews(tmp_path)
    saved = reviews.add("a", "", "note", "x\0y\ud800z", None, None)
    assert saved.note == "x\ufffdy?z"
    assert reviews.read() == ([saved], [])


def test_what_people_added_by_hand_stays(tmp_path: Path) -> None:
    path = tmp_path / "review.csv"
    by_hand = "\ufeffwho,case,verdict,note,slide,time,x_um,y_um\r\nEva,case 1,agree,fine,,,,\r\n\r\nJo,case 2,note,no line end,,,,"
    path.write_text(by_hand, encoding="utf-8", newline="")
    saved = Reviews(tmp_path).add("case 3", "s", "artefact", "fold", 1, 2)
    assert path.read_bytes().decode().startswith(by_hand)
    found, problems = Reviews(tmp_path).read()
    assert problems == []
    assert [(one.case, one.verdict, one.note) for one in found[:2]] == [
        ("case 1", "agree", "fine"),
        ("case 2", "note", "no line end"),
    ]
    assert found[2] == saved
    with open(path, newline="", encoding="utf-8-sig") as file:
        assert [row["who"] for row in csv.DictReader(file)] == ["Eva", "Jo", ""]


@pytest.mark.parametrize(
    "damage",
    [
        b"2026,case",
        b'2026,case,,agree,"open quote, never closed',
        b"\xff\xfe\x00\x01\n",
        b"a,b,c,d,e,f,g,h,i\n",
        b",,,,,,x\n",
    ],
)
def test_a_damaged_line_is_a_sentence_and_the_next_review_is_read(tmp_path: Path, damage: bytes) -> None:
    reviews = Reviews(tmp_path)
    first = reviews.add("case 1", "", "agree", "", None, None)
    with open(reviews.path, "ab") as file:
        file.write(damage)
    second = reviews.add("case 2", "", "disagree", 'with "quotes"', None, None)
    found, problems = reviews.read()
    assert found == [first, second]
    assert len(problems) == 1
    assert "is damaged and not shown" in problems[0]
    assert damage in reviews.path.read_bytes()


def test_a_file_with_other_columns_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "review.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="has no column time"):
        Reviews(tmp_path).add("case", "", "agree", "", None, None)
    assert Reviews(tmp_path).read()[0] == []
    assert "has no column case" in Reviews(tmp_path).read()[1][0]
    assert path.read_text() == "a,b\n1,2\n"


def test_a_folder_that_is_gone_is_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.write_text("")
    with pytest.raises(InputError, match="the review is not saved"):
        Reviews(folder).add("case", "", "agree", "", None, None)
    assert Reviews(folder).read() == ([], [])


def test_the_last_verdict_counts_and_notes_leave_it() -> None:
    rows = [("a", "agree"), ("a", "disagree"), ("a", "note"), ("b", "note"), ("c", "note"), ("c", "artefact")]
    reviews = [Review("", case, "", verdict, "") for case, verdict in rows]
    assert latest_verdicts(reviews) == {"a": "disagree", "b": "note", "c": "artefact"}
