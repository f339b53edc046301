"""Real label tables with common errors: no patient is in two splits without a refusal."""

import csv
import io
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from e2e_abmilx.cohort import CohortError, CohortPlan, read_cohort

TABLES = [
    "labels/authors/panda.csv",
    "labels/authors/subtyping_tcga_brca.csv",
    "labels/authors/subtyping_tcga_brca_resample.csv",
    "labels/authors/survival_tcga_brca_3fold/fold_0.csv",
    "labels/authors/survival_tcga_brca_3fold/fold_1.csv",
    "labels/authors/survival_tcga_brca_3fold/fold_2.csv",
    "labels/survpath/tcga_hnsc.csv",
    "ucsb_breast/labels.csv",
]
PATIENT_NAMES = [
    "patient_id",
    "patient",
    "PATIENT",
    "Subject ID",
    "submitter_id",
    "bcr_patient_barcode",
    "donor",
    "_PATIENT",
]
SPLIT_WORDS = {
    "train": ["train", "Train", "TRAINING", "training", "train set", " train"],
    "val": ["val", "valid", "Validation", "validation", "VAL", "tune"],
    "test": ["test", "Test", "TESTING", "hold-out", "test set"],
}
ENDINGS = ["", ".svs", ".pt", ".h5"]


class Row(NamedTuple):
    """A slide, its patient and its cells in a table."""

    patient: str
    slide: str
    case: str
    label: str
    split: str


Table = list[dict[str, str]]
Change = Callable[[random.Random, Table, list[Row]], None]


def _rows(table: Path) -> list[Row]:
    """Read the rows of a real table without the package; the patient comes from the barcode, or is the case."""
    rows = []
    with open(table, newline="", encoding="utf-8") as file:
        for cells in csv.DictReader(file):
            low = {key.lower(): text for key, text in cells.items()}
            slides = low.get("slide") or low.get("slide_id") or low.get("wsi") or low["image"]
            for slide in slides.split(";"):
                slide = re.sub(r"\.(svs|pt)$", "", slide)
                case = low.get("case") or low.get("case_id") or low.get("id") or slide
                label = low.get("label") or low["oncotree_code"]
                rows.append(Row(case[:12] if case.startswith("TCGA") else case, slide, case, label, ""))
    return rows


def _draw(random_: random.Random, rows: list[Row], patients: int) -> list[Row]:
    """Draw patients with all of their slides, give some of them further cases, and assign whole patients to splits."""
    by_patient = defaultdict(list)
    for row in dict.fromkeys(rows):
        by_patient[row.patient].append(row)
    chosen = random_.sample(sorted(by_patient), min(patients, len(by_patient)))
    drawn = []
    for number, patient in enumerate(chosen):
        split = "test" if number % 5 == 0 else "val" if number % 5 == 1 else "train"
        for row in by_patient[patient]:
            drawn.append(row._replace(split=split))
        for block in range(random_.choice([0, 0, 1, 2])):
            first = by_patient[patient][0]
            name = f"{first.slide}-B{block}" if patient.startswith("TCGA") else f"block{block}-{number}"
            drawn.append(first._replace(slide=name, case=f"{first.case}-B{block}", split=split))
    return drawn


# Changes of a table that keep its patients identifiable -----------------------------------------------------------


def number_cases(random_: random.Random, table: Table, rows: list[Row]) -> None:
    numbers = {case: str(n) for n, case in enumerate(dict.fromkeys(row.case for row in rows))}
    for cells, row in zip(table, rows, strict=True):
        if "case" in cells:
            cells["case"] = numbers[row.case]


def drop_cases(random_: random.Random, table: Table, rows: list[Row]) -> None:
    for cells in table:
        del cells["case"]


def leak_a_row(random_: random.Random, table: Table, rows: list[Row]) -> None:
    """Move one row of a patient with several rows to another split."""
    counts = Counter(row.patient for row in rows)
    several = [n for n, row in enumerate(rows) if counts[row.patient] > 1]
    if several and "split" in table[0]:
        cells = table[random_.choice(several)]
        cells["split"] = random_.choice([split for split in SPLIT_WORDS if split != cells["split"]])


def spell_splits(random_: random.Random, table: Table, rows: list[Row]) -> None:
    for cells in table:
        if cells.get("split") in SPLIT_WORDS:
            cells["split"] = random_.choice(SPLIT_WORDS[cells["split"]])


def drop_splits(random_: random.Random, table: Table, rows: list[Row]) -> None:
    for cells in table:
        cells.pop("split", None)


def lose_a_split(random_: random.Random, table: Table, rows: list[Row]) -> None:
    cells = random_.choice(table)
    if "split" in cells:
        cells["split"] = random_.choice(["", "NA", "dev", "trian", "0"])


def fold_by_patient(random_: random.Random, table: Table, rows: list[Row]) -> None:
    folds = {patient: str(n % 5) for n, patient in enumerate(dict.fromkeys(row.patient for row in rows))}
    spelling = random_.choice(["{}", "{}.0", "fold_{}"])
    for cells, row in zip(table, rows, strict=True):
        cells["fold"] = spelling.format(folds[row.patient])
    if random_.random() < 0.7:
        drop_splits(random_, table, rows)


def fold_by_row(random_: random.Random, table: Table, rows: list[Row]) -> None:
    for n, cells in enumerate(table):
        cells["fold"] = str(n % 5)
    drop_splits(random_, table, rows)


def repeat_rows(random_: random.Random, table: Table, rows: list[Row]) -> None:
    for _ in range(3):
        n = random_.randrange(len(table))
        table.append(dict(table[n]))
        rows.append(rows[n])


def shuffle_rows(random_: random.Random, table: Table, rows: list[Row]) -> None:
    order = random_.sample(range(len(table)), len(table))
    table[:], rows[:] = [table[n] for n in order], [rows[n] for n in order]


def spell_names(random_: random.Random, table: Table, rows: list[Row]) -> None:
    """Add meaningless whitespace and invisible characters to some names."""
    name = random_.choice([name for name in ("patient", "case", "slide") if name in table[0]])
    for cells in random_.sample(table, max(1, len(table) // 3)):
        text = cells[name]
        cells[name] = random_.choice([f" {text}", f"{text} ", f"{text}\u00a0", f"\u200b{text}", text])


def spell_names_otherwise(random_: random.Random, table: Table, rows: list[Row]) -> None:
    """Change the case or spacing of some names, or add ``.0`` to numbers."""
    name = random_.choice([name for name in ("patient", "case") if name in table[0]] or ["label"])
    for cells in random_.sample(table, max(1, len(table) // 4)):
        text = cells[name]
        cells[name] = (
            f"{text}.0" if text.isdigit() else random_.choice([text.lower(), text.upper(), f"{text[:3]} {text[3:]}"])
        )


def lose_names(random_: random.Random, table: Table, rows: list[Row]) -> None:
    name = random_.choice([name for name in ("patient", "case", "label") if name in table[0]])
    for cells in random_.sample(table, 2):
        cells[name] = random_.choice(["", "NA", "#N/A", "None", "NULL", "-", "[Not Available]", "nan"])


def number_patients(random_: random.Random, table: Table, rows: list[Row]) -> None:
    patients = dict.fromkeys(row.patient for row in rows)
    width = random_.choice([1, 4])
    numbers = {patient: f"{n:0{width}}" for n, patient in enumerate(patients)}
    for cells, row in zip(table, rows, strict=True):
        cells["patient"] = numbers[row.patient]


def add_paths(random_: random.Random, table: Table, rows: list[Row]) -> None:
    folder, ending = random_.choice(["", "slides/", "C:\\data\\", "/mnt/x/"]), random_.choice(ENDINGS)
    for cells in table:
        cells["slide"] = f"{folder}{cells['slide']}{ending}"


def add_columns(random_: random.Random, table: Table, rows: list[Row]) -> None:
    for n, cells in enumerate(table):
        cells["" if n < 0 else "Unnamed: 0"], cells["age"], cells["status"] = str(n), "61", "scanned"


CHANGES: list[Change] = [
    number_cases, drop_cases, leak_a_row, leak_a_row, spell_splits, drop_splits, lose_a_split, fold_by_patient, fold_by_row,
    repeat_rows, shuffle_rows, spell_names, spell_names_otherwise, lose_names, number_patients, add_paths, add_columns,
]  # fmt: skip


# Files -----------------------------------------------------------------------------------------------------------


def _write(random_: random.Random, table: Table, path: Path) -> None:
    """Write a table as spreadsheets, R or pandas would."""
    titles = {
        "slide": ["slide", "slide_id", "Slide ID", "image", "wsi"], "case": ["case", "case_id", "Case ID"],
        "patient": PATIENT_NAMES, "label": ["label", "Label", " label "], "split": ["split", "Split", "subset"],
        "fold": ["fold", "Fold", "cv_fold"],
    }  # fmt: skip
    columns = list(table[0])
    random_.shuffle(columns)
    text, separator = io.StringIO(), random_.choice(",;\t")
    writer = csv.writer(text, delimiter=separator, lineterminator=random_.choice(["\n", "\r\n"]))
    writer.writerow([random_.choice(titles.get(name, [name])) for name in columns])
    writer.writerows([[cells[name] for name in columns] for cells in table])
    first = random_.choice(["", "", f"sep={separator}\n"])
    last = random_.choice(["", "\n\n", separator * (len(columns) - 1) + "\n"])
    path.write_bytes((first + text.getvalue() + last).encode(random_.choice(["utf-8", "utf-8-sig", "utf-16"])))


def _write_splits(random_: random.Random, table: Table, rows: list[Row], path: Path) -> None:
    """Write a file of splits by slide, case or patient, often with a patient in two splits."""
    name = random_.choice(["slide", "case", "patient"])
    names = [cells.get(name, cells["slide"]) for cells in table]
    splits = [row.split for row in rows]
    for _ in range(random_.choice([0, 0, 1, 3])):
        splits[random_.randrange(len(splits))] = random_.choice(list(SPLIT_WORDS))
    if random_.random() < 0.5:
        lines = [f"{name},split", *(f"{one},{split}" for one, split in zip(names, splits, strict=True))]
    else:
        lists = {split: [n for n, s in zip(names, splits, strict=True) if s == split] for split in SPLIT_WORDS}
        longest = max(map(len, lists.values()))
        padded = [lists[split] + [""] * (longest - len(lists[split])) for split in SPLIT_WORDS]
        header = random_.choice(["train,val,test", "train,valid,test", "Training,Validation,Testing"])
        lines = [f",{header}", *(f"{n},{','.join(one)}" for n, one in enumerate(zip(*padded, strict=True)))]
    path.write_text("\n".join(lines) + "\n")


def _mutate_and_split(seed: int, real: list[Row], folder: Path) -> str:
    """Change a table, split it in a random way, and look for patients in two splits.

    Returns:
        ``"split"`` or ``"refused"``.
    """
    random_ = random.Random(seed)
    rows = _draw(random_, real, patients=random_.choice([8, 20, 40]))
    table = [{"slide": r.slide, "case": r.case, "patient": r.patient, "label": r.label, "split": r.split} for r in rows]
    if all(row.patient.startswith("TCGA") for row in rows) and random_.random() < 0.6:
        for cells in table:
            del cells["patient"]  # barcodes identify the patients
    changes = random_.sample(CHANGES, random_.choice([1, 2, 3, 5]))
    for change in changes:
        if change is drop_cases and not ("patient" in table[0] or table[0]["slide"].startswith("TCGA")):
            continue
        change(random_, table, rows)
    _write(random_, table, folder / "labels.csv")
    way = random_.choice(["table", "table", "fold", "file", "unsplit"])
    plan = CohortPlan(val_fraction=0.2, split_seed=seed)
    columns = None
    if way == "file":
        _write_splits(random_, table, rows, folder / "splits.csv")
        plan.splits = folder / "splits.csv"
    elif way == "fold":
        plan.fold = random_.randrange(5)
    elif way == "unsplit":
        plan.fold, columns = random_.randrange(5), {"split": None, "fold": None}
    try:
        cases = plan.split(read_cohort(folder / "labels.csv", columns=columns, target="label"), "fit")
    except CohortError:
        return "refused"
    patients = {row.slide: row.patient for row in rows}
    splits = defaultdict(set)
    for case in cases:
        for slide in case.slides:
            splits[patients[slide]].add(case.split)
    divided = {patient: found for patient, found in splits.items() if len(found) > 1}
    assert not divided, f"seed {seed}, {way}, {[change.__name__ for change in changes]}: {divided}\n{folder}"
    assert {case.split for case in cases} <= set(SPLIT_WORDS)
    return "split"


def _check(seeds: range, shared: Path, folder: Path) -> None:
    tables = [_rows(shared / "data" / name) for name in TABLES]
    outcomes = Counter(_mutate_and_split(seed, tables[seed % len(tables)], folder) for seed in seeds)
    assert 0.2 < outcomes["split"] / len(seeds) < 0.8  # both outcomes are covered


def test_no_patient_is_in_two_splits_without_a_refusal(shared: Path, tmp_path: Path) -> None:
    _check(range(640), shared, tmp_path)


@pytest.mark.slow
def test_no_patient_is_in_two_splits_in_many_tables(shared: Path, tmp_path: Path) -> None:
    _check(range(1000, 13000), shared, tmp_path)
