import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from cohorts import classified_cohort, survival_cohort
from hand_written import classified, multi_labelled, regressed, survived, write_run
from pages import write_fold

from e2e_abmilx.reports import make_report
from e2e_abmilx.reports.figures import draw_calibration, draw_figures, draw_predictions
from e2e_abmilx.runs.read import Run, read_run

CASES = [f"case-{number:03d}" for number in range(60)]


def _titles(runs: Sequence[Run], against: Sequence[Run] = ()) -> list[str]:
    return [drawing.title for drawing in draw_figures(make_report(runs, against))]


def test_survival_by_risk_group(tmp_path: Path) -> None:
    write_fold(tmp_path / "run", survived(CASES, seed=0))
    drawings = list(draw_figures(make_report([read_run(tmp_path / "run")])))
    assert [one.title for one in drawings] == ["Kaplan–Meier", "Loss", "Attention sparsity"]
    drawings[0].figure.savefig(file := io.BytesIO(), format="svg")
    assert b"numbers at risk" in file.getvalue()  # matplotlib names each text in a comment


def test_values_are_drawn_for_each_set(tmp_path: Path) -> None:
    ours, theirs = (write_run(tmp_path / name, regressed(CASES, seed=seed)) for seed, name in enumerate("ab"))
    assert _titles([ours]) == ["Predicted values"]
    assert _titles([ours], [theirs]) == ["Predicted values: first", "Predicted values: second"]


def test_without_a_threshold_there_are_no_risk_groups(tmp_path: Path) -> None:
    assert _titles([write_run(tmp_path / "run", survived(CASES, seed=0))]) == []


def test_classes_and_seeds_have_separate_figures(tmp_path: Path) -> None:
    seeds = [write_run(tmp_path / f"seed-{seed}", classified(CASES, ["a", "b", "c"], seed=seed)) for seed in range(2)]
    titles = _titles(seeds)
    for title in ("ROC", "Precision and recall", "Confusion"):
        assert [one for one in titles if one.startswith(title)] == [f"{title}: seed-0", f"{title}: seed-1"]


def test_a_comparison_of_two_classes_shares_its_curves(tmp_path: Path) -> None:
    ours, theirs = (
        write_run(tmp_path / name, classified(CASES, ["0", "1"], seed=seed))
        for seed, name in enumerate(["ours", "theirs"])
    )
    assert _titles([ours], [theirs]) == [
        "ROC",
        "Precision and recall",
        "Confusion: first",
        "Confusion: second",
        "Reliability",
    ]


@pytest.mark.parametrize("absent", ["a class", "a label"])
def test_a_class_without_cases_is_not_drawn(tmp_path: Path, absent: str) -> None:
    if absent == "a class":
        table = classified(CASES, ["0", "1"], seed=0)
        run = write_run(tmp_path / "run", table[table["label"] == "0"])
        assert _titles([run]) == ["Confusion", "Reliability"]
    else:
        table = multi_labelled(CASES, ["ER", "PR"], seed=0)
        run = write_run(tmp_path / "run", table.assign(label_PR=1))
        roc, *_ = draw_figures(make_report([run]))
        (legend,) = roc.figure.axes[0].get_legend().get_texts()  # type: ignore[union-attr]
        assert legend.get_text().startswith("ER AUC")


def test_cohorts_stand_next_to_each_other() -> None:
    tables = [classified(CASES, ["a", "b", "c"], seed=seed).set_index("case") for seed in range(2)]
    titles = [one.title for one in draw_predictions(list(zip(("internal", "external"), tables, strict=True)))]
    assert titles == [
        *(
            f"{title}: {name}"
            for title in ("ROC", "Precision and recall", "Confusion")
            for name in ("internal", "external")
        ),
        "Reliability",
    ]


def test_calibration_of_two_cohorts_in_one_figure() -> None:
    for make, title, points in (
        (classified_cohort, "Calibration: yes", 10),
        (survival_cohort, "Observed and expected events", 3),
    ):
        (drawing,) = draw_calibration([("internal", make(200, seed=0)), ("external", make(200, seed=1))])
        assert drawing.title == title
        (axes,) = drawing.figure.axes
        labels = [text.get_text() for text in axes.get_legend().get_texts()]  # type: ignore[union-attr]
        assert [label.split()[0] for label in labels] == ["internal", "external"]
        assert [len(line.get_xdata()) for line in axes.lines if line.get_linewidth() > 1] == [points, points]


def test_other_tasks_have_no_figure_of_calibration() -> None:
    three = classified(CASES, ["a", "b", "c"], seed=0)
    several = multi_labelled(CASES, ["ER", "PR"], seed=0)
    for table in (three, several, survived(CASES, seed=0)):
        assert list(draw_calibration([("external", table)])) == []
