from pathlib import Path

import pytest

from e2e_abmilx.cohort import CohortError, encode_labels, read_cohort, spell_classes
from e2e_abmilx.cohort.spellings import plain_id, plain_spelling, read_split, refuse_near_spellings


def _read(folder: Path, text: str, **how: object) -> tuple[list[int], tuple[str, ...]]:
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return encode_labels(read_cohort(folder / "labels.csv", **how), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("train", "train"), ("TRAIN", "train"), (" Training ", "train"), ("train set", "train"), ("trainset", "train"),
        ("training cohort", "train"), ("val", "val"), ("valid", "val"), ("Validation", "val"), ("validation_set", "val"),
        ("tune", "val"), ("test", "test"), ("Testing", "test"), ("hold-out", "test"), ("held out", "test"), ("0", "0"),
        ("01", "1"), ("2.0", "2"), ("fold_3", "3"), ("Fold 4", "4"), ("", ""), ("NaN", ""), ("[Not Available]", ""),
        ("dev", "dev"), ("trian", "trian"), ("train/val", "train/val"), ("-1", "-1"), ("1.5", "1.5"), ("internal", "internal"),
    ],
)  # fmt: skip
def test_spellings_of_splits(text: str, split: str) -> None:
    assert read_split(text) == split


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Tumor", "tumor"), ("1", "1.0"), ("1", "1.00"), ("1", "01"), ("1", "1,0"), ("TRUE", "True"),
        ("high grade", "High-Grade"), ("high_grade", "highgrade"), ("T1 a", "T1a"), ("Grade 1", "grade1"), ("Ｔｕｍｏｒ", "Tumor"),
        ("straße", "STRASSE"), ("a  b", "a b"), ("non-tumor", "Non tumor"),
    ],
)  # fmt: skip
def test_labels_that_differ_only_in_spelling_are_refused_with_their_rows(tmp_path: Path, one: str, other: str) -> None:
    text = f'slide,label\na,"{one}"\nb,x\nc,"{other}."\n'
    assert len(_read(tmp_path, text)[1]) == 3
    with pytest.raises(CohortError, match="with nearly the same spelling") as refusal:
        _read(tmp_path, text.replace(f"{other}.", other) + f'd,"{one}"\n')
    assert repr(one) in str(refusal.value)
    assert repr(other) in str(refusal.value)
    assert "labels.csv:2, :5" in str(refusal.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [("HER2+", "HER2-"), ("HER2-", "HER2"), ("1", "2"), ("1-2", "12"), ("3+4", "34"), ("-1", "1"), ("1.5", "15"), ("I", "II"),
     ("LUAD", "LUSC"), ("yes", "no"), ("+", "++"), ("<5", ">5"), ("pT1", "pT1a"), ("0", "o")],
)  # fmt: skip
def test_different_labels_stay_different(one: str, other: str) -> None:
    assert plain_spelling(one) != plain_spelling(other)


def test_spaces_around_a_label_are_ignored(tmp_path: Path) -> None:
    assert _read(tmp_path, "slide,label\na,IDC\nb, IDC \nc,ILC\u00a0\n") == ([0, 0, 1], ("IDC", "ILC"))


def test_ids_are_compared_more_strictly_than_labels() -> None:
    assert plain_id("P1 ") == plain_id("p 1")
    assert plain_id("7") == plain_id("7.0")
    for one, other in (("007", "7"), ("S-1", "S1"), ("a_b", "ab"), ("1.5", "1"), ("a.0b", "ab"), ("v1.10", "v1.1")):
        assert plain_id(one) != plain_id(other)


def test_long_lists_of_rows_are_shortened() -> None:
    texts = [("A", f"t.csv:{line}") for line in range(2, 30)] + [("a", "t.csv:30")]
    with pytest.raises(CohortError, match=r"'A' \(t.csv:2, :3, :4, :5, :6 and 23 more\) and 'a' \(t.csv:30\)"):
        refuse_near_spellings(texts, "label")


def test_labels_of_a_survival_cohort_are_not_checked(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("slide,label,time,event\na,Tumor,1,1\nb,tumor,2,0\n")
    assert [case.time for case in read_cohort(tmp_path / "labels.csv", target="survival")] == [1, 2]
    for target in (None, "label"):
        with pytest.raises(CohortError, match="nearly the same spelling"):
            read_cohort(tmp_path / "labels.csv", target=target)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "word", ["#N/A", "None", "NULL", "-", ".", "[Not Available]", "", "NaN", "#REF!", "not reported", "?"]
)
def test_words_for_missing_values_are_not_a_class(tmp_path: Path, word: str) -> None:
    with pytest.raises(
        CohortError, match=r"1 of 3 cases have no label, first b \(NA, None, - and the like mean none\)"
    ):
        _read(tmp_path, f"slide,label\na,1\nb,{word}\nc,0\n")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Total,2", ":4: slide 'Total' sums up the rows above; remove the row"),
        ("Grand Total,2", "sums up the rows above"),
        ("Summe,2", "sums up the rows above"),
        ("12/03/2020,1", r":4: slide '12/03/2020' is a date, into which spreadsheets convert some names"),
        ("2020/3/12,1", "is a date"),
        ("1.23E+11,1", ":4: slide '1.23E\\+11' is a long number that a spreadsheet has rounded"),
        ("1E+12,1", "is a long number"),
        ("NA,1", r":4: the slide is empty \('NA' means missing\)"),
        ("#N/A,1", "the slide is empty"),
    ],
)
def test_names_that_a_spreadsheet_damaged_are_refused(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        _read(tmp_path, f"slide,label\na,1\nb,0\n{row}\n")


@pytest.mark.parametrize("name", ["1E5", "2020-03-12", "1/2", "12E", "total_1", "sum7", "3.5", "1.5e2x"])
def test_names_that_look_odd_are_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / "labels.csv").write_text(f"case,slide,label\n{name},s,1\n")
    assert read_cohort(tmp_path / "labels.csv")[0].id == name


def test_slides_of_the_same_name_in_two_folders_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    for text in (
        "slide,label\nP1/1.svs,x\nP2/1.svs,x\n",
        "case,slide\np,P1/1.svs;P2/1.svs\n",
        "slide,label\nC:\\P1\\1.svs,x\nC:\\P2\\1.svs,x\n",
    ):
        table.write_text(text)
        with pytest.raises(CohortError, match=r"each have a slide '1', but slides are identified"):
            read_cohort(table)
    table.write_text("slide,label\nP1/1.svs,x\nP1/1.svs,x\nP2/2.svs,x\n3.svs,x\n")
    assert [case.id for case in read_cohort(table)] == ["1", "2", "3"]


def test_classes_from_settings_become_text() -> None:
    assert spell_classes([0, 1, "b", 2.5]) == ["0", "1", "b", "2.5"]
    for lost in ([False, True], ["a", None]):
        with pytest.raises(CohortError, match=r"YAML reads no, yes, .* such as classes: \['no', 'yes'\]"):
            spell_classes(lost)  # type: ignore[arg-type]
