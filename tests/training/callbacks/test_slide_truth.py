"""True patches of cases with one or several slides, from the masks of the synthetic slides."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from e2e_abmilx.data.slide_bags import WholeSlides
from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.errors import InputError
from e2e_abmilx.heads.base import HeadOutput
from e2e_abmilx.store import PatchStore, write_store
from e2e_abmilx.tasks.prediction import PredictedPatches
from e2e_abmilx.training.callbacks.predicted_slides import slides_of
from e2e_abmilx.training.callbacks.slide_truth import SlideTruth


def _bags(stores: Path, labels: Path) -> WholeSlides:
    data = SlideDataModule(stores, labels, eval_chunk_size=7, eval_scales="all", num_workers=0)
    data.setup("predict")
    return slides_of(data.predict_dataloader())


@pytest.fixture
def bags(cohort: Path, stores: Path, tmp_path: Path) -> WholeSlides:
    """The slides of a case of two slides, of which one has a lesion, and of a case of one."""
    table = pd.read_csv(cohort / "labels.csv")
    sick, other = table[table["lesion"] == 1]["slide"].iloc[:2]
    healthy = table[table["lesion"] == 0]["slide"].iloc[0]
    lines = ["case,slide,label", f"two,{healthy},0", f"two,{sick},0", f"one,{other},0"]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    return _bags(stores, tmp_path / "labels.csv")


def _patches(bags: WholeSlides, case: str) -> PredictedPatches:
    """Return the patches of a case as a task keeps them, without features."""
    own = [index for index, part in enumerate(bags.parts) if bags.cases[part.case].id == case]
    coords, scale = (
        torch.cat([getattr(bags[index], name) for index in own]) for name in ("coords", "scale")
    )  # fmt: skip
    return PredictedPatches(HeadOutput(*torch.zeros(3)), torch.zeros(len(coords), 1), coords, scale)


def test_half_covered_patches_of_all_slides_and_scales_are_true(cohort: Path, bags: WholeSlides) -> None:
    truth = SlideTruth(cohort / "masks", bags)
    for case in ("two", "one"):
        expected = []
        for slide in next(one.slides for one in bags.cases if one.id == case):
            store = PatchStore(bags.cache / f"{slide}.zarr")
            mask = np.asarray(Image.open(cohort / f"masks/{slide}.png")) > 0
            for scale, side in enumerate((8, 16)):  # pixels of the mask along a patch
                expected += [mask[y : y + side, x : x + side].mean() >= 0.5 for x, y in store.coords(scale) // 8]
        found = truth.of_case(case, _patches(bags, case))
        assert found is not None
        assert found.tolist() == expected
        assert 0 < found.sum() < len(found)


def test_the_truth_of_a_case_is_unknown_if_a_slide_has_no_mask(
    cohort: Path, bags: WholeSlides, tmp_path: Path, package_log: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(cohort / "masks", tmp_path / "masks")
    two = next(case for case in bags.cases if case.id == "two")
    (tmp_path / "masks" / f"{two.slides[0]}.png").unlink()
    with package_log.at_level(logging.INFO, "e2e_abmilx"):
        truth = SlideTruth(tmp_path / "masks", bags)
    assert "has no mask of 1 of the 3 tested slides" in package_log.text
    assert truth.of_case("two", _patches(bags, "two")) is None
    assert truth.of_case("one", _patches(bags, "one")) is not None


def test_masks_that_do_not_fit_are_refused_before_the_test(cohort: Path, bags: WholeSlides, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has a mask of none of the 3 tested slides, such as slide-\d+\.png"):
        SlideTruth(tmp_path, bags)
    shutil.copytree(cohort / "masks", tmp_path / "masks")
    slide = bags.cases[0].slides[0]
    Image.fromarray(np.zeros((64, 32), np.uint8)).save(tmp_path / "masks" / f"{slide}.png")
    with pytest.raises(InputError, match="another aspect ratio"):
        SlideTruth(tmp_path / "masks", bags)


def test_stores_without_the_size_of_their_slide_are_refused(tmp_path: Path) -> None:
    write_store(tmp_path / "cache/own.zarr", {0.5: (np.zeros((2, 8, 8, 3), np.uint8), None)})
    (tmp_path / "labels.csv").write_text("slide,label\nown,0\n")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "own.png")
    with pytest.raises(InputError, match=r"own\.zarr has no slide_size, so a mask cannot be laid over"):
        SlideTruth(tmp_path, _bags(tmp_path / "cache", tmp_path / "labels.csv"))
