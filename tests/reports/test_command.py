from pathlib import Path

import pandas as pd
import pytest
from hand_written import classified, write_run

from e2e_abmilx.errors import InputError
from e2e_abmilx.main import main
from e2e_abmilx.reports import report

CASES = [f"case-{number:03d}" for number in range(60)]


def test_a_leak_ends_the_command(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", classified(CASES, ["0", "1"], seed=0))
    table = pd.DataFrame({"case": CASES, "split": ["train"] + ["test"] * 59})
    table.to_csv(run.folder / "splits.csv", index=False)
    with pytest.raises(SystemExit) as ended:
        main(["report", "--runs", f"[{run.folder}]"])
    assert "1 tested cases are in another split of splits.csv, first case-000 (train)" in str(ended.value.code)
    assert not (run.folder / "report.csv").exists()


def test_a_run_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run is named"):
        report([], out=tmp_path)


def test_folds_stand_for_a_cross_validation_and_the_page_is_optional(tmp_path: Path) -> None:
    folder = tmp_path / "cv"
    for fold in range(2):
        write_run(folder / f"fold-{fold}", classified(CASES[fold::2], ["0", "1"], seed=fold), data={"fold": fold})
    text = report(folder)
    assert [line.split()[0] for line in text.splitlines()[2:4]] == ["fold-0", "fold-1"]
    assert {path.name for path in folder.glob("report.*")} == {"report.csv", "report.json"}
    assert report(folder, out=tmp_path / "out", html=True) == text
    assert (tmp_path / "out/report.html").is_file()
