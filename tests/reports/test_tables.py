import csv
import json
from pathlib import Path

import pytest
from hand_written import classified, survived, write_run

from e2e_abmilx.main import main
from e2e_abmilx.reports import make_report
from e2e_abmilx.reports.tables import common_folder, run_names
from e2e_abmilx.runs.read import Run

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


def test_text_csv_and_json_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = _cross_validation(tmp_path / "a", seed=1, threshold=0.4)
    against = _cross_validation(tmp_path / "b", seed=0, threshold=0.6)
    main(["report", "--runs", f"[{tmp_path / 'a'}]", "--against", f"[{','.join(str(run.folder) for run in against)}]"])
    text = capsys.readouterr().out
    found = make_report(runs, against)
    content = json.loads((tmp_path / "a/report.json").read_text())
    with open(tmp_path / "a/report.csv", newline="") as file:
        rows = {(row["set"], row["row"], row["measure"]): row for row in csv.DictReader(file)}
    assert len(rows) == 2 * (3 + 2) * 9 + 9

    for name in found.measures:
        for number, run in enumerate(runs):
            point = found.summary.per_run[number][name].point
            assert content["runs"]["runs"][number]["measures"][name]["point"] == point
            assert float(rows["runs", str(run.folder), name]["value"]) == point
        spread = found.summary.spread[name]
        assert content["runs"]["spread"][name] == spread._asdict()
        row = rows["runs", "mean", name]
        assert (float(row["value"]), float(row["std"])) == spread[:2]
        pooled = found.summary.pooled[name]  # type: ignore[index]
        assert content["runs"]["pooled"][name] == pooled._asdict()
        row = rows["runs", "pooled", name]
        assert [float(row[key]) for key in ("value", "std", "low", "high")] == [
            pooled.point, pooled.std, pooled.low, pooled.high,
        ]  # fmt: skip
        one = found.comparison.compared[name]  # type: ignore[union-attr]
        assert content["comparison"]["compared"][name]["difference"]["p_value"] == one.difference.p_value
        assert float(rows["runs - against", "difference", name]["p_value"]) == one.difference.p_value
        for value in (spread.mean, spread.std, pooled.point, pooled.low, pooled.high, one.difference.p_value):
            assert f"{value:.3f}" in text
        assert f"{found.measures[name].title}: {found.measures[name].definition}" in text


def test_one_run_has_no_pooled_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run", survived(CASES, seed=0))
    main(["report", "--runs", str(tmp_path / "run"), "--out", str(tmp_path / "new/folder")])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:5]]
    assert [line[0] for line in lines] == ["run", "run", "95", "to"]
    assert {path.name for path in (tmp_path / "new/folder").iterdir()} == {"report.csv", "report.json", "shortcuts.csv"}


def test_undefined_values_are_a_dash_null_or_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = classified(CASES, ["0", "1"], seed=0)
    write_run(tmp_path / "one", table[table["label"] == "0"])
    main(["report", "--runs", f"[{tmp_path / 'one'}]"])
    assert capsys.readouterr().out.splitlines()[2].split()[2] == "–"
    content = json.loads((tmp_path / "one/report.json").read_text(), parse_constant=pytest.fail)
    assert content["runs"]["pooled"]["auc"]["point"] is None
    with open(tmp_path / "one/report.csv", newline="") as file:
        assert next(csv.DictReader(file))["value"] == ""


def test_runs_are_named_by_their_place_in_the_common_folder(tmp_path: Path) -> None:
    one, two = (write_run(tmp_path / name, survived(CASES, seed=0)) for name in ("a/fold-0", "b"))
    assert common_folder([one, two]) == tmp_path
    assert run_names([one, two]) == ["a/fold-0", "b"]
    assert (common_folder([one]), run_names([one])) == (tmp_path / "a/fold-0", ["fold-0"])
