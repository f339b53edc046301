import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hand_written import classified, multi_labelled, survived, write_run

from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.brier import Censoring, case_brier_scores
from e2e_abmilx.main import main
from e2e_abmilx.reports import make_report
from e2e_abmilx.reports.cases import case_table
from e2e_abmilx.runs.read import Run, read_run

CASES = [f"case-{number:03d}" for number in range(60)]


def _cross_validation(folder: Path, *, seed: int, threshold: float | None = None) -> list[Run]:
    return [
        write_run(
            folder / f"fold-{fold}",
            classified(CASES[fold::3], ["0", "1"], seed=3 * seed + fold, skill=1 + seed),
            threshold=threshold,
            data={"fold": fold},
        )
        for fold in range(3)
    ]


def test_text_csv_and_json_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = _cross_validation(tmp_path / "a", seed=1, threshold=0.4)
    against = _cross_validation(tmp_path / "b", seed=0, threshold=0.6)
    main(
        [
            "report",
            "--runs",
            f"[{tmp_path / 'a'}]",
            "--against",
            f"[{','.join(str(run.folder) for run in against)}]",
        ]
    )
    text = capsys.readouterr().out
    made = make_report(runs, against)
    content = json.loads((tmp_path / "a/report.json").read_text())
    with open(tmp_path / "a/report.csv", newline="") as file:
        rows = {(row["set"], row["row"], row["measure"]): row for row in csv.DictReader(file)}
    assert len(rows) == 2 * (3 + 2) * 9 + 9

    for name in made.measures:
        for number, run in enumerate(runs):
            point = made.summary.per_run[number][name].point
            assert content["runs"]["runs"][number]["measures"][name]["point"] == point
            assert float(rows["runs", str(run.folder), name]["value"]) == point
        spread = made.summary.spread[name]
        assert content["runs"]["spread"][name] == spread._asdict()
        row = rows["runs", "mean", name]
        assert (float(row["value"]), float(row["std"])) == spread[:2]
        pooled = made.summary.pooled[name]  # type: ignore[index]
        assert content["runs"]["pooled"][name] == pooled._asdict()
        row = rows["runs", "pooled", name]
        assert [float(row[key]) for key in ("value", "std", "low", "high")] == [
            pooled.point, pooled.std, pooled.low, pooled.high,
        ]  # fmt: skip
        one = made.comparison.compared[name]  # type: ignore[union-attr]
        assert content["comparison"]["compared"][name]["difference"]["p_value"] == one.difference.p_value
        assert float(rows["runs - against", "difference", name]["p_value"]) == one.difference.p_value
        for value in (spread.mean, spread.std, pooled.point, pooled.low, pooled.high, one.difference.p_value):
            assert f"{value:.3f}" in text
        assert f"{made.measures[name].title}: {made.measures[name].definition}" in text


def test_one_run_is_its_own_pool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run", survived(CASES, seed=0))
    main(["report", "--runs", str(tmp_path / "run"), "--out", str(tmp_path / "new/folder")])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:5]]
    assert [line[0] for line in lines] == ["run", "run", "95", "to"]
    assert {path.name for path in (tmp_path / "new/folder").iterdir()} == {"report.csv", "report.json"}


def test_undefined_is_no_number_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = classified(CASES, ["0", "1"], seed=0)
    write_run(tmp_path / "one", table[table["label"] == "0"])
    main(["report", "--runs", f"[{tmp_path / 'one'}]"])
    assert capsys.readouterr().out.splitlines()[2].split()[2] == "–"
    content = json.loads((tmp_path / "one/report.json").read_text(), parse_constant=pytest.fail)
    assert content["runs"]["pooled"]["auc"]["point"] is None
    with open(tmp_path / "one/report.csv", newline="") as file:
        assert next(csv.DictReader(file))["value"] == ""


def test_what_a_reader_must_know_is_noted(tmp_path: Path) -> None:
    table = classified(CASES, ["0", "1"], seed=0)
    run = write_run(tmp_path / "a", table, data={"select_on_test": True})
    (tmp_path / "a/splits.csv").unlink()
    notes = "\n".join(make_report([read_run(tmp_path / "a"), write_run(tmp_path / "b", table)]).notes)
    assert f"CHOSEN ON THE TEST CASES (select_on_test), so too good: {run.folder}" in notes
    assert f"leaks could not be looked for: {run.folder}" in notes
    assert "not pooled: case case-000 is tested by" in notes
    assert not make_report([write_run(tmp_path / "c", table)]).notes


def test_other_classes_are_refused(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a", classified(CASES, ["0", "1"], seed=0))
    two = write_run(tmp_path / "b", classified(CASES, ["0", "1", "2"], seed=0))
    with pytest.raises(InputError, match=r"predicts the classes 0 1 and .* 0 1 2; report runs of one task"):
        make_report([one], [two])
    with pytest.raises(InputError, match="those of survival"):
        make_report([one, write_run(tmp_path / "c", survived(CASES, seed=0))])


def test_a_leak_ends_the_command(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", classified(CASES, ["0", "1"], seed=0))
    table = pd.DataFrame({"case": CASES, "split": ["train"] + ["test"] * 59})
    table.to_csv(run.folder / "splits.csv", index=False)
    with pytest.raises(SystemExit) as ended:
        main(["report", "--runs", f"[{run.folder}]"])
    assert "1 tested cases are in another split of splits.csv, first case-000 (train)" in str(
        ended.value.code
    )
    assert not (run.folder / "report.csv").exists()


def test_brier_score_where_survival_is_predicted(tmp_path: Path) -> None:
    """Up to where both runs predict, with the censoring of each one's training cases."""
    edges, runs = ([10.0, 25.0, 40.0], [12.5, 20.0, 38.0]), []
    for number, bins in enumerate(edges):
        test = survived(CASES[30 * number : 30 * number + 30], seed=number)
        survival = np.random.default_rng(number).uniform(0.7, 1, (30, 3)).cumprod(axis=1)
        columns = {f"survival_{edge}": survival[:, place] for place, edge in enumerate(bins)}
        train = survived([f"train-{place}" for place in range(80 + number)], seed=9)
        cohort = pd.concat([test.assign(split="test"), train.assign(split="train")])
        splits = cohort[["case", "split", "time", "event"]]
        runs.append(
            (write_run(tmp_path / str(number), test.assign(**columns), splits=splits), survival, train)
        )
    found = make_report([run for run, *_ in runs])
    scores = []
    for (run, survival, train), bins in zip(runs, edges, strict=True):
        scores.append(
            case_brier_scores(
                survival,
                bins,
                run.predictions["time"],
                run.predictions["event"],
                censoring=Censoring(train["time"], train["event"]),
                horizon=38.0,
            ).mean()
        )
    assert [values["brier"].point for values in found.summary.per_run] == pytest.approx(scores)
    assert found.summary.pooled is not None
    assert found.summary.pooled["brier"].point == pytest.approx(np.mean(scores))  # of equally many cases
    assert "IBS: from 0 to 38 months" in found.notes[-1]


def test_no_brier_score_where_one_run_lacks_what_it_takes(tmp_path: Path) -> None:
    table = survived(CASES, seed=0)
    splits = table.assign(split="test")[["case", "split", "time", "event"]]
    one = write_run(tmp_path / "a", table.assign(survival_10=0.5), splits=splits)
    two = write_run(tmp_path / "b", table, splits=splits)
    assert set(make_report([one], [two]).measures) == {"c_index"}


def test_several_labels_a_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classes = ["ER", "PR", "HER2"]
    one, two = (
        write_run(tmp_path / name, multi_labelled(CASES, classes, seed=seed, skill=skill))
        for name, seed, skill in (("one", 0, 3.0), ("two", 1, 0.5))
    )
    main(["report", "--runs", str(one.folder), "--against", str(two.folder), "--html", "true"])
    text = capsys.readouterr().out
    made = make_report([one], [two])
    assert list(made.measures)[:4] == ["auc", "accuracy", "balanced_accuracy", "f1"]
    assert made.comparison is not None
    assert (
        made.comparison.compared["auc_HER2"].difference.estimate.low > 0
    )  # the better model is told from the other
    assert f"{made.summary.per_run[0]['auc_PR'].point:.3f}" in text
    page = (one.folder / "report.html").read_text()
    for title in ("ROC: first", "Precision and recall: second", "Reliability: first"):
        assert f"<h3>{title}</h3>" in page
    cases = case_table([one])
    row = cases.loc["case-000"]
    parts = [
        row[f"probability_{name}"] if row[f"label_{name}"] else 1 - row[f"probability_{name}"]
        for name in classes
        if not np.isnan(row[f"label_{name}"])
    ]
    assert row["rightness"] == pytest.approx(np.mean(parts))
    called = [name for name in classes if row[f"probability_{name}"] >= 0.5]
    assert row["predicted"] == (", ".join(called) or "none")
    assert f"<td>{row['label']}</td>" in page


def test_several_labels_are_not_mixed_or_compared_across_tables(tmp_path: Path) -> None:
    table = multi_labelled(CASES, ["0", "1"], seed=0)
    one = write_run(tmp_path / "a", table)
    with pytest.raises(
        InputError, match=r"predicts the classes 0 1, several a case and .* 0 1; report runs of one"
    ):
        make_report([one, write_run(tmp_path / "b", classified(CASES, ["0", "1"], seed=0))])
    flipped = table.assign(label_1=1 - table["label_1"])
    with pytest.raises(InputError, match=r"shared cases differ in their label, first case-0"):
        make_report([one], [write_run(tmp_path / "c", flipped)])
