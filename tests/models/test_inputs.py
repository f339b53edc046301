"""Slides, stores and features as the bags of a model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from e2e_abmilx.cache import cache_slides
from e2e_abmilx.cohort import Case
from e2e_abmilx.data.bag import Target
from e2e_abmilx.data.contract import ContractError, InputContract
from e2e_abmilx.data.feature_bags import FeatureBags
from e2e_abmilx.data.inputs import FeatureInput, PatchInput
from e2e_abmilx.data.slide_bags import WholeSlides
from e2e_abmilx.errors import InputError, SlideError
from e2e_abmilx.models.inputs import bags_of, gather_slides, tiling_for
from e2e_abmilx.store import PatchStore

PATCHES = PatchInput((0.5, 1.0), 64, eval_chunk_size=10, overlap=0.0, min_tissue=0.4, quality=88)


def contract_of(given: PatchInput | FeatureInput | None) -> InputContract:
    return InputContract("label", ("0", "1"), input=given)


def test_slides_are_cut_as_those_of_the_training(cohort: Path, tmp_path: Path) -> None:
    contract = contract_of(PATCHES)
    assert tiling_for(contract, 0.3) == ((0.5,), 64, 0.0, 0.4, 88, 0.3)
    assert tiling_for(contract_of(replace(PATCHES, eval_scales="all"))).mpp == (0.5, 1.0)
    slide = cohort / "slides/slide-003.tiff"
    assert gather_slides([slide], contract, tmp_path, assume_mpp=None) == (tmp_path, ["slide-003"])
    cache_slides(slide, tmp_path / "cached", mpp=(0.5,), patch_size=64, min_tissue=0.4, quality=88, workers=1)
    cut, cached = (PatchStore(folder / "slide-003.zarr") for folder in (tmp_path, tmp_path / "cached"))
    assert cut.attributes["tiling"] == cached.attributes["tiling"]
    assert list(cut.read_encoded(range(cut.num_patches(0)), 0)) == list(
        cached.read_encoded(range(cached.num_patches(0)), 0)
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (FeatureInput(8, "uni"), "the model takes 8 features per patch of encoder uni, not slides"),
        (None, "does not know the µm/px"),
        (PatchInput((None,), 64), "does not know the µm/px"),
    ],
)
def test_models_that_cannot_say_how_to_cut(given: PatchInput | FeatureInput | None, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        tiling_for(contract_of(given))


def test_a_slide_without_tissue_or_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match=r"absent\.tiff"):
        gather_slides([tmp_path / "absent.tiff"], contract_of(PATCHES), tmp_path, assume_mpp=None)
    (tmp_path / "broken.tiff").write_bytes(b"II*\0no slide")
    with pytest.raises(SlideError, match=r"broken\.tiff"):
        gather_slides([tmp_path / "broken.tiff", tmp_path / "x.tiff"], contract_of(PATCHES), tmp_path, assume_mpp=None)


def test_paths_that_are_no_case(cohort: Path, stores: Path, tmp_path: Path) -> None:
    store, slide = stores / "slide-003.zarr", cohort / "slides/slide-003.tiff"
    for paths, message in [
        ([store, slide], "give slides, or stores or features of one folder"),
        ([store, tmp_path / "other.zarr"], "give slides, or stores or features of one folder"),
        ([stores / "absent.zarr"], r"absent\.zarr does not exist"),
        ([], "no slide is given"),
        ([store, store], "is given twice"),
        ([cohort / "slides"], "holds 24 slides, and a prediction is of one case"),
    ]:
        with pytest.raises(InputError, match=message):
            gather_slides(paths, contract_of(PATCHES), tmp_path, assume_mpp=None)
    assert not list(tmp_path.glob("*.zarr"))


def test_bags_of_stores(stores: Path) -> None:
    cases = [Case("one", ("slide-001", "slide-002")), Case("two", ("slide-003",))]
    bags = bags_of(cases, stores, contract_of(PATCHES), [Target(1), Target(0)])
    assert isinstance(bags, WholeSlides)
    assert max(part.stop - part.start for part in bags.parts) == 10
    assert {part.scale for part in bags.parts} == {0}
    assert [int(bags[index].label) for index in (0, len(bags) - 1)] == [1, 0]
    assert int(bags_of(cases, stores, contract_of(PATCHES))[0].label) == -1
    both = bags_of(cases, stores, contract_of(replace(PATCHES, eval_scales="all")))
    assert isinstance(both, WholeSlides)
    assert {part.scale for part in both.parts} == {0, 1}
    assert len(bags_of(cases, stores, contract_of(None))) == 3  # one part per slide: an old model evaluated 256 at once


@pytest.mark.parametrize(
    ("given", "values"),
    [
        (PatchInput((0.25,), 64), ("at 0.25 µm/px", "at 0.5 µm/px")),
        (PatchInput((0.5,), 128), ("patches of 128 px", "patches of 64 px")),
    ],
)
def test_stores_of_other_scales_are_refused_with_both_values(
    stores: Path, given: PatchInput, values: tuple[str, str]
) -> None:
    with pytest.raises(ContractError) as refused:
        bags_of([Case("one", ("slide-001",))], stores, contract_of(given))
    assert all(value in str(refused.value) for value in values)


def test_bags_of_features(tmp_path: Path) -> None:
    for name in "ab":
        torch.save(torch.ones(3, 8), tmp_path / f"{name}.pt")
    bags = bags_of([Case("case", ("a", "b"))], tmp_path, contract_of(FeatureInput(8)))
    assert isinstance(bags, FeatureBags)
    assert [bags[index].last for index in range(2)] == [False, True]
    with pytest.raises(ContractError, match=r"12 features per patch.*8 features per patch"):
        bags_of([Case("case", ("a",))], tmp_path, contract_of(FeatureInput(12)))
