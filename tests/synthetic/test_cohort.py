"""A synthetic cohort: labels, slides and masks agree, and finished slides are not drawn again."""

import hashlib
from pathlib import Path

import imagecodecs
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines.utils import concordance_index

from e2e_abmilx.errors import InputError
from e2e_abmilx.synthetic import plan_labels, write_cohort


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@settings(max_examples=60, deadline=None)
@given(slides=st.integers(24, 100), seed=st.integers(0, 2**32 - 1))
def test_every_split_has_its_fraction_of_classes_and_events(slides: int, seed: int) -> None:
    labels = plan_labels(slides, seed=seed)
    assert labels["case"].is_unique
    assert labels["slide"].is_unique
    assert ((labels["lesion"] == 1) == (labels["grade"] > 0)).all()
    ranges = {0: (0, 0), 1: (0.08, 0.18), 2: (0.25, 0.45)}
    for grade, rows in labels.groupby("grade"):
        assert rows["lesion_fraction"].between(*ranges[grade]).all()
    assert (labels["lesion_fraction"] + labels["benign_fraction"]).round(4).between(0.5, 0.7).all()
    assert (labels["benign_fraction"] > 0.04).all()
    assert (labels["time"] > 0).all()
    assert set(labels["event"]) == {0, 1}
    for split, fraction in (("train", 1 / 2), ("val", 1 / 6), ("test", 1 / 3)):
        rows = labels[labels["split"] == split]
        assert abs(len(rows) - fraction * slides) <= 2
        for lesion in (0, 1):
            assert abs((rows["lesion"] == lesion).sum() - fraction * slides / 2) <= 2
            assert (rows["lesion"] == lesion).any()
        assert rows["event"].any()


def test_the_area_of_normal_tissue_does_not_tell_the_label() -> None:
    labels = pd.concat([plan_labels(96, seed=seed) for seed in range(20)])
    changed = (labels["lesion_fraction"] + labels["benign_fraction"]).groupby(labels["lesion"]).mean()
    assert changed[0] == pytest.approx(changed[1], abs=0.01)


def test_survival_follows_the_area_of_the_lesion() -> None:
    cohorts = [plan_labels(48, seed=seed) for seed in range(20)]
    c_index = [concordance_index(each["time"], -each["lesion_fraction"], each["event"]) for each in cohorts]
    assert np.mean(c_index) > 0.85
    assert min(c_index) > 0.8
    assert 0.6 < np.mean([each["event"].mean() for each in cohorts]) < 0.8


def test_labels_of_a_seed_never_change() -> None:
    table = plan_labels(48, seed=0).to_csv(index=False, header=False)
    assert hashlib.sha256(table.encode()).hexdigest()[:16] == "b23e9d37f2ed80e7"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "demo"
    write_cohort(folder, slides=24, side=256, seed=5, num_workers=1)
    return folder


def test_slides_and_masks_agree_with_the_labels(cohort: Path) -> None:
    labels = pd.read_csv(cohort / "labels.csv")
    pd.testing.assert_frame_equal(labels, plan_labels(24, seed=5))
    assert {file.stem for file in (cohort / "slides").iterdir()} == set(labels["slide"])
    assert {file.stem for file in (cohort / "masks").iterdir()} == set(labels["slide"])
    for row in labels.itertuples():
        mask = imagecodecs.png_decode((cohort / "masks" / f"{row.slide}.png").read_bytes())
        assert mask.shape == (32, 32)
        assert set(np.unique(mask)) == ({0, 255} if row.lesion else {0})
        expected = row.lesion_fraction * 0.5 * mask.size  # tissue covers 42 to 58 %
        assert (mask > 0).sum() == pytest.approx(expected, rel=0.25)


def test_the_number_of_workers_does_not_change_a_byte(cohort: Path, tmp_path: Path) -> None:
    write_cohort(tmp_path, slides=24, side=256, seed=5, num_workers=2)
    assert contents(tmp_path) == contents(cohort)


def test_slides_of_a_cohort_differ(cohort: Path) -> None:
    assert len(set(contents(cohort / "slides").values())) == 24


def test_only_missing_files_are_drawn(tmp_path: Path) -> None:
    def write() -> Path:
        return write_cohort(tmp_path, slides=24, side=256, seed=5)

    def stamps() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}

    table = write()
    assert table == tmp_path / "labels.csv"
    before, bytes_before = stamps(), contents(tmp_path)
    assert write() == table
    assert stamps() == before

    lost = [tmp_path / "slides" / "slide-003.tiff", tmp_path / "masks" / "slide-007.png", table]
    for file in lost:
        file.unlink()
    write()
    assert contents(tmp_path) == bytes_before
    rewritten = {file for file, stamp in stamps().items() if before[file] != stamp}
    assert rewritten == {*lost, tmp_path / "masks" / "slide-003.png", tmp_path / "slides" / "slide-007.tiff"}


def test_another_machine_may_begin_the_same_cohort(tmp_path: Path) -> None:
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort/.cohort.json.other-1.partial").write_text(
        "{"
    )  # of a machine that is about to record its settings
    assert write_cohort(tmp_path / "cohort", slides=24, side=256, seed=5).is_file()


def test_a_folder_with_other_contents_is_refused_and_unchanged(cohort: Path, tmp_path: Path) -> None:
    before = contents(cohort)
    with pytest.raises(InputError, match=r"holds a synthetic cohort with other settings.*name another folder"):
        write_cohort(cohort, slides=24, side=512, seed=5)
    assert contents(cohort) == before

    (tmp_path / "labels.csv").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty and holds no synthetic cohort.*name a new one"):
        write_cohort(tmp_path, slides=24, side=256)
    assert contents(tmp_path) == {"labels.csv": b"mine"}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"slides": 23}, "slides is 23; it must be at least 24, so that every split has.*ask for 24"),
        ({"side": 300}, "side is 300 pixels;"),
        ({"num_workers": 0}, "num_workers is 0; it must be at least 1: give the number of cores"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    tmp_path: Path, wrong: dict[str, int], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        write_cohort(tmp_path / "demo", **wrong)
    assert not list(tmp_path.iterdir())
