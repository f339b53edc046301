"""Sources of slides, and label tables numbered as the model numbers its classes."""

import math
import shutil
from pathlib import Path

import pytest
import torch

from e2e_abmilx.cohort.label_tables import CohortError
from e2e_abmilx.data.contract import InputContract
from e2e_abmilx.data.inputs import FeatureInput, PatchInput
from e2e_abmilx.errors import InputError
from e2e_abmilx.models.cohorts import Sources, read_cases

PATCHES = InputContract("label", ("b", "a"), input=PatchInput((0.5,), 64, overlap=0.0, min_tissue=0.5, quality=80))
FEATURES = InputContract("label", ("b", "a"), input=FeatureInput(8))


def write_table(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


def test_sources_must_be_one_and_of_the_models_kind(stores: Path, tmp_path: Path) -> None:
    for sources, contract, message in [
        (Sources(), PATCHES, r"give slides \(--slides\), a cache of slides \(--cache\) or"),
        (Sources(cache=stores, features=tmp_path), FEATURES, r"give slides \(--slides\), a cache of slides"),
        (
            Sources(features=tmp_path),
            PATCHES,
            r"the model takes patches of 64 px .*; give slides \(--slides\) or a cache",
        ),
        (Sources(cache=stores), FEATURES, "the model takes 8 features per patch; give their folder"),
        (Sources(slides=stores), FEATURES, "the model takes 8 features per patch; give their folder"),
        (Sources(cache=tmp_path), PATCHES, "holds no patch store"),
    ]:
        with pytest.raises(InputError, match=message):
            sources.collect(contract, tmp_path / "out")
    with pytest.raises(InputError, match="workers is 0; it must be at least 1"):
        Sources(cache=stores, workers=0)


def test_stores_and_features_are_listed(stores: Path, tmp_path: Path) -> None:
    folder, names, lost = Sources(cache=stores).collect(PATCHES, tmp_path)
    assert (folder, names, lost) == (stores, [f"slide-{number:03}" for number in range(24)], [])
    torch.save(torch.ones(2, 8), tmp_path / "one.pt")
    assert Sources(features=tmp_path).collect(FEATURES, tmp_path) == (tmp_path, ["one"], [])


def test_slides_are_cached_and_broken_ones_reported(cohort: Path, tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    shutil.copy(cohort / "slides/slide-003.tiff", slides)
    (slides / "broken.tiff").write_bytes(b"II*\0nothing")
    sources = Sources(slides=slides, workers=1)
    folder, names, lost = sources.collect(PATCHES, tmp_path)
    assert (folder, names) == (tmp_path / "cache", ["slide-003"])
    assert [row.slide for row in lost] == ["broken"]
    assert (tmp_path / "cache/slide-003.zarr").is_dir()
    (slides / "slide-003.tiff").unlink()
    with pytest.raises(InputError, match="all 1 slides failed, first broken"):
        sources.collect(PATCHES, tmp_path)
    (own := tmp_path / "own").mkdir()
    shutil.copy(cohort / "slides/slide-003.tiff", slides)
    assert Sources(slides=slides, cache=own, workers=1).collect(PATCHES, tmp_path)[0] == own
    assert (own / "slide-003.zarr").is_dir()


def test_classes_are_numbered_by_the_model(tmp_path: Path) -> None:
    table = write_table(tmp_path, "slide,label,split,fold\ns1,a,train,1\ns2,b,test,2\n")
    cases, targets = read_cases(table, ["s1", "s2"], tmp_path, PATCHES, stage="test")
    assert [case.id for case in cases] == ["s1", "s2"]  # of all splits
    assert [target.label for target in targets] == [1, 0]
    wrong = write_table(tmp_path, "slide,label\ns1,a\ns2,c\n")
    for stage in ("test", "predict"):
        with pytest.raises(CohortError, match=r"label 'c'.* of case s2 is not one of the classes \['b', 'a'\]"):
            read_cases(wrong, ["s1", "s2"], tmp_path, PATCHES, stage=stage)


def test_labels_may_be_absent_in_prediction_only(tmp_path: Path) -> None:
    table = write_table(tmp_path, "slide,case,label\ns1,one,a\ns2,two,\ns3,two,\n")
    cases, targets = read_cases(table, ["s1", "s2", "s3"], tmp_path, PATCHES, stage="predict")
    assert [case.slides for case in cases] == [("s1",), ("s2", "s3")]
    assert [target.label for target in targets] == [1, -1]
    with pytest.raises(CohortError, match="1 of 2 cases have no label, first two"):
        read_cases(table, ["s1", "s2", "s3"], tmp_path, PATCHES, stage="test")
    bare = write_table(tmp_path, "slide,case\ns1,one\ns2,one\n")
    cases, targets = read_cases(bare, ["s1", "s2"], tmp_path, PATCHES, stage="predict")
    assert ([case.slides for case in cases], targets[0].label) == ([("s1", "s2")], -1)
    cases, targets = read_cases(None, ["s1", "s2"], tmp_path, PATCHES, stage="predict")
    assert [case.id for case in cases] == ["s1", "s2"]


def test_times_are_numbered_by_the_models_edges(tmp_path: Path) -> None:
    contract = InputContract("survival", ("0", "1", "2"), (10.0, 20.0))
    table = write_table(tmp_path, "slide,time,event\ns1,5,1\ns2,15,0\ns3,99,1\n")
    _, targets = read_cases(table, ["s1", "s2", "s3"], tmp_path, contract, stage="test")
    assert [(target.label, target.time, target.event) for target in targets] == [(0, 5, 1), (1, 15, 0), (2, 99, 1)]
    table = write_table(tmp_path, "slide,time,event\ns1,5,1\ns2,,\n")
    _, targets = read_cases(table, ["s1", "s2"], tmp_path, contract, stage="predict")
    assert targets[1].label == -1
    assert math.isnan(targets[1].time)
    with pytest.raises(CohortError):
        read_cases(table, ["s1", "s2"], tmp_path, contract, stage="test")


def test_an_old_contract_knows_its_target_by_its_edges(tmp_path: Path) -> None:
    table = write_table(tmp_path, "slide,label,time,event\ns1,b,5,1\ns2,a,15,0\n")
    survival = InputContract(None, ("0", "1"), (10.0,), complete=False)
    assert [one.label for one in read_cases(table, ["s1", "s2"], tmp_path, survival, stage="test")[1]] == [0, 1]
    classes = InputContract(None, ("b", "a"), complete=False)
    assert [one.label for one in read_cases(table, ["s1", "s2"], tmp_path, classes, stage="test")[1]] == [0, 1]


def test_several_labels_and_values(tmp_path: Path) -> None:
    several = InputContract("multi_label", ("PR", "ER"))
    table = write_table(tmp_path, "slide,ER,PR\ns1,1,0\ns2,,1\n")
    _, targets = read_cases(table, ["s1", "s2"], tmp_path, several, stage="test")
    assert [target.label for target in targets] == [(0, 1), (1, -1)]
    table = write_table(tmp_path, "slide,label\ns1,0.5\ns2,\n")
    _, targets = read_cases(table, ["s1", "s2"], tmp_path, InputContract("regression"), stage="predict")
    assert targets[0].label == 0.5
    assert math.isnan(targets[1].label)  # type: ignore[arg-type]


def test_missing_slides(tmp_path: Path) -> None:
    table = write_table(tmp_path, "slide,case,label\ns1,one,a\ns2,two,b\ns3,two,b\n")
    with pytest.raises(CohortError, match="1 of 2 cases lack slides"):
        read_cases(table, ["s1", "s2"], tmp_path, PATCHES, stage="test")
    cases, targets = read_cases(table, ["s1", "s2"], tmp_path, PATCHES, stage="test", skip_missing=True)
    assert ([case.id for case in cases], len(targets)) == (["one"], 1)  # never half of a case
    with pytest.raises(InputError, match="no case"):
        read_cases(table, ["s2"], tmp_path, PATCHES, stage="test", skip_missing=True)


def test_own_names_of_columns(tmp_path: Path) -> None:
    table = write_table(tmp_path, "slide,lesion\ns1,a\n")
    _, targets = read_cases(table, ["s1"], tmp_path, PATCHES, stage="test", columns={"label": "lesion"})
    assert targets[0].label == 1


def test_cases_of_slides_that_failed_are_left_out_whole(tmp_path: Path) -> None:
    """A broken slide hides no misspelt one, and no patient is predicted from the slides that are left."""
    barcode = "TCGA-AB-1234"
    table = write_table(tmp_path, f"slide,label\n{barcode},a\ns2,b\n")
    names, lost = [f"{barcode}-01Z-00-DX1", "s2"], [f"{barcode}-01Z-00-DX2"]
    cases, _ = read_cases(table, names, tmp_path, PATCHES, stage="test", lost=lost)
    assert [case.id for case in cases] == ["s2"]
    table = write_table(tmp_path, "slide,case,label\ns1,one,a\nbroken,one,a\ns2,two,b\nmisspelt,three,b\n")
    with pytest.raises(CohortError, match="1 of 3 cases lack slides:\n  case three: no slide 'misspelt'"):
        read_cases(table, ["s1", "s2"], tmp_path, PATCHES, stage="test", lost=["broken"])
    cases, _ = read_cases(table, ["s1", "s2"], tmp_path, PATCHES, stage="test", lost=["broken"], skip_missing=True)
    assert [case.id for case in cases] == ["two"]
