import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e_abmilx.cohort.cases import read_cohort
from e2e_abmilx.cohort.entries import Case
from e2e_abmilx.cohort.label_tables import CohortError
from e2e_abmilx.cohort.splits import SPLITS, assign_folds, check_splits, group_by_site, hold_out_validation

ROWS = st.lists(st.tuples(st.integers(0, 12), st.sampled_from("xyz")), min_size=8, max_size=80)


def _grouped(rows: list[tuple[int, str]], split: str = "") -> list[Case]:
    return [Case(f"{k:02}", (f"s{k}",), label, split=split, group=f"g{group}") for k, (group, label) in enumerate(rows)]


def _single(labels: list[str], split: str = "") -> list[Case]:
    return [Case(f"{k:02}", (f"s{k}",), label, split=split) for k, label in enumerate(labels)]


def _counts(cases: list[Case], split: str) -> Counter[str]:
    return Counter(case.label for case in cases if case.split == split)


def _parts(cases: list[Case]) -> dict[str, str]:
    return {case.id: case.split for case in cases}


@given(ROWS, st.integers(3, 5), st.integers(0, 3))
def test_folds_keep_groups_whole_and_test_every_case_once(rows: list[tuple[int, str]], folds: int, seed: int) -> None:
    cases = _grouped(rows)
    if len({case.group for case in cases}) < folds:
        with pytest.raises(CohortError, match="groups of cases cannot make"):
            assign_folds(cases, fold=0, folds=folds, seed=seed)
        return
    tested: list[str] = []
    for fold in range(folds):
        split = assign_folds(cases, fold=fold, folds=folds, seed=seed)
        assert [case._replace(split="") for case in split] == cases
        check_splits(split, needed=SPLITS)  # no group in two, none empty
        tested += [case.id for case in split if case.split == "test"]
        following = assign_folds(cases, fold=(fold + 1) % folds, folds=folds, seed=seed)
        assert {case.id for case in split if case.split == "val"} == {
            case.id for case in following if case.split == "test"
        }
    assert sorted(tested) == sorted(case.id for case in cases)


@given(st.lists(st.sampled_from("xyz"), min_size=5, max_size=90), st.integers(3, 5), st.integers(0, 3))
def test_folds_of_single_cases_have_equal_fractions_of_each_class(labels: list[str], folds: int, seed: int) -> None:
    cases = _single(labels)
    counts = [_counts(assign_folds(cases, fold=k, folds=folds, seed=seed), "test") for k in range(folds)]
    for label in set(labels):
        each = [count[label] for count in counts]
        assert max(each) - min(each) <= 1


@given(st.lists(st.integers(0, 12), min_size=30, max_size=90), st.integers(3, 5))
def test_folds_of_groups_differ_at_most_by_the_largest_group(groups: list[int], folds: int) -> None:
    cases = _grouped([(group, "x") for group in groups])
    if len(set(groups)) < folds:
        return
    sizes = [_counts(assign_folds(cases, fold=k, folds=folds, seed=0), "test")["x"] for k in range(folds)]
    assert max(sizes) - min(sizes) <= max(Counter(groups).values())


@given(ROWS, st.randoms(use_true_random=False))
def test_splits_depend_on_seed_and_cases_not_on_their_order(
    rows: list[tuple[int, str]], shuffler: random.Random
) -> None:
    cases = _grouped(rows, split="train") + _grouped([(20, "x"), (21, "y"), (22, "z")], split="train")
    cases = [case._replace(id=f"{k:03}") for k, case in enumerate(cases)]
    shuffled = shuffler.sample(cases, len(cases))
    for make in (
        lambda these: assign_folds(these, fold=1, folds=3, seed=7),
        lambda these: hold_out_validation(these, seed=7),
    ):
        assert _parts(make(cases)) == _parts(make(shuffled))


@pytest.mark.parametrize("seed", range(5))
def test_large_groups_are_assigned_first(seed: int) -> None:
    cases = _grouped([(group, "x") for group in [*range(12), *[12] * 6]])
    for fold in range(3):
        assert _counts(assign_folds(cases, fold=fold, folds=3, seed=seed), "test").total() == 6


def test_another_seed_makes_other_splits() -> None:
    cases = _single(["x", "y"] * 20, split="train")
    assert len({str(_parts(assign_folds(cases, fold=0, folds=5, seed=seed))) for seed in range(10)}) == 10
    assert len({str(_parts(hold_out_validation(cases, seed=seed))) for seed in range(10)}) == 10


def test_folds_may_be_stratified_by_event() -> None:
    cases = [Case(str(k), (str(k),), str(k), 1.0 + k, int(k % 10 == 0)) for k in range(50)]
    for fold in range(5):
        split = assign_folds(cases, fold=fold, folds=5, seed=0, stratify_by="event")
        assert sum(case.event for case in split if case.split == "test") == 1


@given(st.lists(st.tuples(*[st.sampled_from([0, 0, 0, 1, 1, -1])] * 4), min_size=40, max_size=90), st.integers(0, 3))
def test_folds_may_be_stratified_by_several_labels(rows: list[tuple[int, ...]], seed: int) -> None:
    """Each class is a stratum, since most combinations of four classes are rare."""
    cases = [Case(f"{number:02}", (f"s{number}",), labels=labels) for number, labels in enumerate(rows)]
    parts = [
        [case for case in assign_folds(cases, fold=fold, folds=4, seed=seed, stratify_by="labels")
         if case.split == "test"]
        for fold in range(4)
    ]  # fmt: skip
    assert sorted(case.id for part in parts for case in part) == [case.id for case in cases]
    for number in range(4):
        positives = [sum(case.labels[number] == 1 for case in part) for part in parts]
        assert max(positives) - min(positives) <= 4


@pytest.mark.parametrize("fold", range(5))
def test_folds_of_the_real_cohort(shared: Path, fold: int) -> None:
    cases = read_cohort(shared / "data/ucsb_breast/labels.csv", columns={"group": "tma"})
    tested = _counts(assign_folds(cases, fold=fold, folds=5, seed=0), "test")
    assert set(tested) == {"0", "1"}
    assert 8 <= tested.total() <= 16


def test_sites_stay_whole(shared: Path) -> None:
    cases = group_by_site(read_cohort(shared / "data/labels/survpath/tcga_hnsc.csv"))
    stated = read_cohort(shared / "data/labels/survpath/tcga_hnsc.csv", columns={"group": "site"})
    assert cases == stated
    split = assign_folds(cases, fold=0, folds=3, seed=0, stratify_by="event")
    check_splits(split, needed=SPLITS)
    # one site has 117 of the 394 cases
    assert all(100 < count < 165 for count in Counter(case.split for case in split).values())
    with pytest.raises(CohortError, match=r"case 'x' is not named by a TCGA barcode.*columns: \{group: NAME\}"):
        group_by_site([Case("x", ("x",))])


@pytest.mark.parametrize(("fold", "folds"), [(0, 2), (3, 3), (-1, 3)])
def test_impossible_folds_are_refused(fold: int, folds: int) -> None:
    with pytest.raises(CohortError, match=f"fold {fold} of {folds}: there must be at least 3 folds"):
        assign_folds(_single(["x"] * 9), fold=fold, folds=folds, seed=0)


@given(st.lists(st.sampled_from("xyz"), min_size=8, max_size=90), st.sampled_from([0.125, 0.2, 0.5]))
def test_validation_has_its_fraction_of_each_class(labels: list[str], fraction: float) -> None:
    cases = _single(labels, split="train")
    held_out = _counts(hold_out_validation(cases, fraction=fraction, seed=0), "val")
    assert held_out.total() >= 1
    for label, count in Counter(labels).items():
        assert abs(held_out[label] - fraction * count) <= 1


@given(ROWS, st.integers(0, 3))
def test_validation_takes_whole_groups_from_training_only(rows: list[tuple[int, str]], seed: int) -> None:
    half = len(rows) // 2
    train = _grouped(rows[:half], "train")
    test = [case._replace(id=f"t{case.id}", group=f"t{case.group}") for case in _grouped(rows[half:], "test")]
    if len({case.group for case in train}) < 2:
        with pytest.raises(CohortError, match="1 groups of cases cannot make 2 parts"):
            hold_out_validation(train + test, seed=seed)
        return
    held_out = hold_out_validation(train + test, seed=seed)
    check_splits(held_out, needed=SPLITS)
    assert held_out[half:] == test


def test_validation_of_the_authors_survival_split(shared: Path) -> None:
    cases = read_cohort(shared / "data/labels/authors/survival_tcga_brca_3fold/fold_0.csv")
    held_out = hold_out_validation(cases, seed=0, stratify_by="event")
    assert Counter(case.split for case in held_out) == {"train": 587, "val": 84, "test": 336}
    events = {split: sum(case.event for case in held_out if case.split == split) for split in SPLITS}
    assert events["val"] == round((events["train"] + events["val"]) / 8)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 12.5])
def test_impossible_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(CohortError, match=f"the validation fraction is {fraction}"):
        hold_out_validation(_single(["x"] * 9, "train"), fraction=fraction, seed=0)


def _file(folder: Path, text: str, name: str = "splits_0.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_splits_must_be_known_and_not_empty() -> None:
    cases = [Case("a", ("a",), split="train"), Case("b", ("b",), split="test")]
    with pytest.raises(CohortError, match="the val split has no case"):
        check_splits(cases, needed=("train", "val"))
    check_splits(cases, needed=("test",))
    for wrong, message in (("vall", r"'vall' \(is it 'val'\?\)"), ("dev", "'dev' is not"), ("", "'' is not")):
        with pytest.raises(CohortError, match=f"case a: split {message}"):
            check_splits([Case("a", ("a",), split=wrong)], needed=())


def test_a_leak_is_found(tmp_path: Path) -> None:
    twice = [Case("a", ("a",), split="train"), Case("a", ("b",), split="test")]
    with pytest.raises(CohortError, match="group a is in two splits: case a in train, case a in test"):
        check_splits(twice, needed=())
    table = _file(tmp_path, "slide,split\nTCGA-3C-AALI-01Z-00-DX1,train\nTCGA-3C-AALI-01Z-00-DX2,test\n", "labels.csv")
    with pytest.raises(CohortError, match="group TCGA-3C-AALI is in two splits"):
        check_splits(read_cohort(table), needed=())
    table.write_text("slide,group,split\na,x,train\nb,x,val\n")
    with pytest.raises(CohortError, match="group x is in two splits: case a in train, case b in val"):
        check_splits(read_cohort(table), needed=())
    check_splits(read_cohort(table, columns={"group": "slide"}), needed=())
