from pathlib import Path

import pytest
from plans import read_slides, write_features

from e2e_abmilx.errors import InputError
from e2e_abmilx.study.plan_cohort import describe_cohort, read_planned_cohort
from e2e_abmilx.study.plan_config import read_config


def test_the_cohort_is_that_of_the_fit_although_nothing_is_cached(tmp_path: Path, cohort: Path, stores: Path) -> None:
    planned = read_slides(tmp_path, cohort, tmp_path / "none", f"--data.slides={cohort}/slides").data
    fitted = read_slides(tmp_path, cohort, stores).data
    found = read_planned_cohort(planned)
    fitted.setup("fit")
    assert found.known
    assert found.missing == []
    assert planned.cases == fitted.cases
    assert planned.targets == fitted.targets
    assert found.classes == fitted.classes
    counts = describe_cohort(planned, found)["splits"]
    assert counts["test"] == {"cases": 8, "slides": 8, "classes": {"0": 4, "1": 4}}


def test_events_and_folds(tmp_path: Path) -> None:
    words = ["--data.target=survival", "--data.time_bins=2", "--data.columns.split=null", "--data.fold=1"]
    config = read_config([*write_features(tmp_path), *words, "--data.folds=3"])
    found = read_planned_cohort(config.data)
    counts = describe_cohort(config.data, found)["splits"]
    assert sum(split["cases"] for split in counts.values()) == 12
    assert counts["test"] == {"cases": 4, "slides": 4, "events": 2}


def test_missing_slides_are_listed_and_their_cases_left_out(tmp_path: Path) -> None:
    words = write_features(tmp_path)
    (tmp_path / "features/s3.pt").unlink()
    found = read_planned_cohort(read_config(words).data)
    assert len(found.missing) == 1
    assert found.missing[0].startswith("case c3: no slide 's3'")
    assert len(found.everyone) == 11


def test_without_any_slide_all_cases_are_planned(tmp_path: Path, cohort: Path) -> None:
    found = read_planned_cohort(read_slides(tmp_path, cohort, tmp_path / "none").data)
    assert not found.known
    assert len(found.everyone) == 24


def test_select_on_test_joins_the_splits(tmp_path: Path) -> None:
    found = read_planned_cohort(read_config([*write_features(tmp_path), "--data.select_on_test=true"]).data)
    assert found.cases["val"] == found.cases["test"] != []


def test_a_cohort_without_training_cases_and_an_undrawn_demo_are_refused(tmp_path: Path) -> None:
    words = write_features(tmp_path)
    (tmp_path / "labels.csv").write_text("case,slide,label,split\nc0,s0,a,test\nc1,s1,b,val\n")
    with pytest.raises(InputError, match="no case of the training split has its slides"):
        read_planned_cohort(read_config(words).data)
    demo = Path(__file__).parents[2] / "configs/demo.yaml"
    with pytest.raises(InputError, match="holds no slides yet: the first fit draws them"):
        read_planned_cohort(read_config([f"--config={demo}", f"--data.folder={tmp_path}/demo"]).data)
