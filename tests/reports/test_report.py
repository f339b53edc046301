from pathlib import Path

import pytest
from hand_written import classified, multi_labelled, regressed, survived, write_run

from e2e_abmilx.errors import InputError
from e2e_abmilx.main import main
from e2e_abmilx.reports import make_report
from e2e_abmilx.runs.read import read_run

CASES = [f"case-{number:03d}" for number in range(60)]


def test_notes_warn_of_what_weakens_the_numbers(tmp_path: Path) -> None:
    table = classified(CASES, ["0", "1"], seed=0)
    run = write_run(tmp_path / "a", table, data={"select_on_test": True})
    (tmp_path / "a/splits.csv").unlink()
    notes = "\n".join(make_report([read_run(tmp_path / "a"), write_run(tmp_path / "b", table)]).notes)
    assert f"SELECTED ON THE TEST CASES (select_on_test), so results are too good: {run.folder}" in notes
    assert f"without splits.csv, so not checked for leaks: {run.folder}" in notes
    assert "not pooled: case case-000 is tested by" in notes
    assert not make_report([write_run(tmp_path / "c", table)]).notes


def test_other_classes_are_refused(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", classified(CASES, ["0", "1"], seed=0))
    two = write_run(tmp_path / "b", classified(CASES, ["0", "1", "2"], seed=0))
    with pytest.raises(InputError, match=r"predicts the classes 0 1 and .* 0 1 2; report runs of one task"):
        make_report([one], [two])
    with pytest.raises(InputError, match=r"predicts the classes 0 1 and .* survival; report runs of one task"):
        make_report([one, write_run(tmp_path / "c", survived(CASES, seed=0))])


def test_values_are_not_mixed_with_other_tasks(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", regressed(CASES, seed=0))
    assert list(make_report([run]).measures) == ["r2", "pearson", "spearman", "mae"]
    with pytest.raises(InputError, match=r"a predicts a number and .*b survival; report runs of one task together"):
        make_report([run], [write_run(tmp_path / "b", survived(CASES, seed=0))])


def test_several_labels_per_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classes = ["ER", "PR", "HER2"]
    one, two = (
        write_run(tmp_path / name, multi_labelled(CASES, classes, seed=seed, skill=skill))
        for name, seed, skill in (("one", 0, 3.0), ("two", 1, 0.5))
    )
    main(["report", "--runs", str(one.folder), "--against", str(two.folder), "--html", "true"])
    text = capsys.readouterr().out
    content = make_report([one], [two])
    assert list(content.measures)[:4] == ["auc", "accuracy", "balanced_accuracy", "f1"]
    assert content.comparison is not None
    assert content.comparison.compared["auc_HER2"].difference.estimate.low > 0  # the better model is recognised
    assert f"{content.summary.per_run[0]['auc_PR'].point:.3f}" in text
    page = (one.folder / "report.html").read_text()
    for title in ("ROC: first", "Precision and recall: second", "Reliability: first"):
        assert f"<h3>{title}</h3>" in page
    assert f"<td>{one.predictions.at[CASES[0], 'label']}</td>" in page


def test_several_labels_are_not_mixed_or_compared_across_tables(tmp_path: Path) -> None:
    table = multi_labelled(CASES, ["0", "1"], seed=0)
    one = write_run(tmp_path / "a", table)
    with pytest.raises(InputError, match=r"predicts the classes 0 1, several per case and .* 0 1; report runs of one"):
        make_report([one, write_run(tmp_path / "b", classified(CASES, ["0", "1"], seed=0))])
    flipped = table.assign(label_1=1 - table["label_1"])
    with pytest.raises(InputError, match=r"shared cases differ in their label, first case-0"):
        make_report([one], [write_run(tmp_path / "c", flipped)])
