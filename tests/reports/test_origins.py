from pathlib import Path

import pandas as pd
from hand_written import classified, write_run

from e2e_abmilx.cache.manifest import CachedSlide, update_manifest
from e2e_abmilx.reports.origins import Origin, origins_of

CASES = [f"case-{number:03d}" for number in range(4)]


def test_cases_and_slides_are_read_from_the_files_of_the_settings(tmp_path: Path) -> None:
    labels, cache = tmp_path / "labels.csv", tmp_path / "cache"
    cache.mkdir()
    update_manifest(cache, [CachedSlide("slide-0", "done", patches="12;4")])
    table = pd.DataFrame({"case": [*CASES, CASES[0]], "slide": [f"slide-{i}" for i in range(5)], "grade": "0"})
    table.to_csv(labels, index=False)
    data = {"labels": str(labels), "cache": str(cache), "columns": {"label": "grade"}}
    run = write_run(tmp_path / "run", classified(CASES, ["0", "1"], seed=0), data=data)
    origin = Origin.of(run)
    assert origin.read_cases()[CASES[0]] == ("slide-0", "slide-4")
    assert origin.read_slides()["slide-0"].num_patches == 16


def test_files_that_are_gone_are_left_out(tmp_path: Path) -> None:
    data = {"labels": str(tmp_path / "gone.csv"), "cache": str(tmp_path / "gone")}
    origin = Origin.of(write_run(tmp_path / "run", classified(CASES, ["0", "1"], seed=0), data=data))
    assert (origin.read_cases(), origin.read_slides()) == ({}, {})
    nothing = Origin.of(write_run(tmp_path / "other", classified(CASES, ["0", "1"], seed=0)))
    assert (nothing.read_cases(), nothing.read_slides()) == ({}, {})


def test_a_synthetic_cohort_has_one_folder_and_runs_share_their_origin(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / str(fold), classified(CASES, ["0", "1"], seed=0), data={"folder": "demo", "fold": fold})
        for fold in range(2)
    ]
    (origin,) = origins_of(runs)
    assert (origin.labels, origin.cache) == (Path("demo/labels.csv"), Path("demo/cache"))


def test_the_classes_of_several_labels_are_read(tmp_path: Path) -> None:
    table = pd.DataFrame({"case": CASES, "ER": [1, 0, None, 1], "PR": [0, 0, 1, 1]}).astype({"ER": "Int64"})
    table.to_csv(tmp_path / "labels.csv", index=False)
    data = {"labels": str(tmp_path / "labels.csv"), "target": "multi_label", "classes": ["PR", "ER"]}
    origin = Origin.of(write_run(tmp_path / "run", classified(CASES, ["0", "1"], seed=0), data=data))
    assert [case.labels for case in origin.read_cohort({})] == [(0, 1), (0, 0), (1, -1), (1, 1)]
