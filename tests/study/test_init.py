"""``e2e-abmilx init``: from a table and slides to a fit, without editing a file."""

import csv
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from slide_runs import message_of

from e2e_abmilx.cohort import read_cohort
from e2e_abmilx.main import main

QUICK = ["--trainer.fast_dev_run", "1", "--trainer.accelerator", "cpu", "--data.num_workers", "0"]
QUICK += ["--data.patches_per_bag", "8", "--data.batch_size", "2", "--model.augment.size", "64"]


def _make(folder: Path, cohort: Path, columns: dict[str, str], count: int = 24) -> list[dict[str, str]]:
    """Link the slides of the synthetic cohort into ``folder/slides``; return the rows of its table by new names."""
    (folder / "slides").mkdir()
    with open(cohort / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))[:count]
    for row in rows:
        (folder / "slides" / f"{row['slide']}.tiff").symlink_to(cohort / "slides" / f"{row['slide']}.tiff")
    return [{new: row[old] for old, new in columns.items()} for row in rows]


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _init(*more: str) -> dict:
    main(["init", "study", "--labels", "labels.csv", "--slides", "slides", "--pretrained", "false", *more])
    return yaml.safe_load(Path("study/config.yaml").read_text(encoding="utf-8"))


def test_from_a_table_to_a_fit(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of the README, pasted; names have spaces and accents, and the table has typos and gaps."""
    monkeypatch.chdir(tmp_path)
    rows = _make(tmp_path, cohort, {"slide": "Slide ID", "lesion": "Diagnosis"}, 16)
    for row in rows:
        row["Diagnosis"] = ("healthy", "läsion")[int(row["Diagnosis"])]
    shutil.move("slides/slide-003.tiff", "slides/Prä parat 3.tiff")
    rows[3]["Slide ID"] = "Prä parat 3.tiff"
    rows[5]["Slide ID"] = "slide_0005"  # a typo
    shutil.copy("slides/slide-001.tiff", "slides/slide-900.tiff")
    rows.append({"Slide ID": "slide-900", "Diagnosis": rows[1]["Diagnosis"]})
    Path("slides/slide-002.tiff").unlink()
    _write(tmp_path / "labels.csv", rows)
    config = _init()
    summary = capsys.readouterr().out
    page = Path("study/README.md").read_text(encoding="utf-8")
    assert len(Path("study/config.yaml").read_text(encoding="utf-8").splitlines()) <= 40
    data = config["data"]["init_args"]
    assert (data["columns"], data["classes"]) == ({"label": "Diagnosis"}, ["healthy", "läsion"])
    assert (data["fold"], data["folds"], data["skip_missing"]) == (0, 5, True)
    assert data["mpp"] == [0.5, 1.0]
    for text in (summary, page):
        assert "no slide 'slide_0005' in slides (is it 'slide-005'?)" in text
        assert "no slide 'slide-002' in slides" in text
        assert "slide 'slide-005' in slides has no label" in text
        assert "Is column 'Diagnosis' the target?" in text
        assert "2 of 17 cases lack slides" in text
        assert "`slide-001` and `slide-900` the same (the same bytes)" in text
    commands = [line.removeprefix("$ ") for line in page.splitlines() if line.startswith("$ ")]
    words = {words[1]: words[1:] for words in (shlex.split(line, comments=True) for line in commands)}
    main([*words["cache"], "--workers", "1"])
    assert Path("study/cache/Prä parat 3.zarr").is_dir()
    main([*words["fit"], *QUICK])
    assert "exists, and init changes no file" in message_of(
        ["init", "study", "--labels", "labels.csv", "--slides", "slides", "--pretrained", "false"]
    )


@pytest.mark.parametrize(
    ("columns", "options", "target", "outputs"),
    [
        ({"slide": "slide", "time": "time", "event": "event", "split": "split"}, [], "survival", None),
        ({"slide": "slide", "lesion_fraction": "label"}, [], "regression", 1),
        ({"slide": "slide", "lesion": "A", "event": "B"}, ["--classes", "[A,B]"], "multi_label", 2),
        ({"case": "case", "slide": "slide", "grade": "label", "split": "fold"}, [], None, 3),
    ],
)
def test_other_targets_fit(
    cohort: Path,
    stores: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    columns: dict[str, str],
    options: list[str],
    target: str | None,
    outputs: int | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "labels.csv", _make(tmp_path, cohort, columns))
    config = _init(*options)
    data = config["data"]["init_args"]
    assert data.get("target") == target
    assert config["model"]["init_args"]["num_outputs"] == (outputs or data["time_bins"])
    assert ("fold" in data) == ("split" not in columns)
    main(["fit", "--config", "study/config.yaml", "--data.slides", "null", "--data.cache", str(stores), *QUICK])


def test_slides_without_resolution_are_asked_about(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/ucsb_breast"
    words = [
        "init",
        str(tmp_path / "study"),
        "--labels",
        str(source / "labels.csv"),
        "--slides",
        str(source / "slides"),
    ]
    assert "58 of 58 slides that were opened state no µm per pixel, first 'ytma10_010704_benign1'" in message_of(words)
    assert not (tmp_path / "study").exists()


def test_the_authors_table_with_a_few_slides(cohort: Path, shared: Path, tmp_path: Path) -> None:
    table = shared / "data/labels/authors/subtyping_tcga_brca.csv"
    (tmp_path / "slides").mkdir()
    chosen = [case for split in ("train", "val", "test") for case in read_cohort(table) if case.split == split]
    by_class = {(case.split, case.label): case for case in chosen}
    for number, case in enumerate(by_class.values()):
        (tmp_path / f"slides/{case.slides[0]}.tiff").symlink_to(cohort / f"slides/slide-{number:03d}.tiff")
    words = ["init", str(tmp_path / "study"), "--labels", str(table), "--slides", str(tmp_path / "slides")]
    main(words)
    page = (tmp_path / "study/README.md").read_text()
    assert "979 of 985 cases lack slides" in page
    assert "| all | 2 | 2 | 2 |" in page
    assert "as the table states" in page
    assert "and 929 more" in page


def test_what_cannot_be_studied_is_refused(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = _make(tmp_path, cohort, {"slide": "slide", "lesion": "label"}, 4)
    _write(tmp_path / "labels.csv", [{**row, "slide": f"{row['slide']}x"} for row in rows])
    words = ["init", "study", "--labels", "labels.csv", "--slides", "slides"]
    assert "none of 4 cases has slides in slides:\n  case slide-000x: no slide 'slide-000x'" in message_of(words)
    assert "no such file" in message_of([*words, "--weights", "absent.pth"])
    _write(tmp_path / "labels.csv", [{**row, "label": str(n)} for n, row in enumerate(rows[:2])])
    assert "groups of cases cannot make" in message_of(words)
    Path("study").write_text("a file")
    assert "study exists" in message_of(words)
