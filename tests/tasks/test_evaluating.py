"""Evaluation of whole cases from their parts."""

from pathlib import Path

import pytest
import torch
from kept_patches import predict_patches
from lightning.pytorch import Trainer
from small_tasks import MeanColour, small_data, small_head, small_trainer

from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.errors import InputError
from e2e_abmilx.store import PatchStore
from e2e_abmilx.tasks import ClassificationTask


def test_a_slide_in_parts_gives_the_same_prediction(cohort: Path, stores: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = ClassificationTask(MeanColour(), small_head, 2)
    results = []
    for chunk_size in (5, 1000):
        data = small_data(cohort, stores, eval_chunk_size=chunk_size)
        results.append(predict_patches(small_trainer(tmp_path), task, data))
    assert len(results[0]) == len(results[1]) == 24
    for (case, parts), (other_case, whole) in zip(*results, strict=True):
        assert case.case == other_case.case
        torch.testing.assert_close(parts.output, whole.output, rtol=1e-5, atol=1e-5)
        assert torch.equal(parts.coords, whole.coords)
        assert parts.output.attention.shape == (1, 2, len(whole.coords))


def test_parts_left_by_a_limited_validation_are_dropped(cohort: Path, stores: Path, tmp_path: Path) -> None:
    task = ClassificationTask(MeanColour(), small_head, 2)
    how = {"columns": {"label": "lesion"}, "eval_chunk_size": 4, "num_workers": 0}
    data = SlideDataModule(stores, cohort / "labels.csv", **how)  # type: ignore[arg-type]
    settings = {"logger": False, "accelerator": "cpu", "enable_progress_bar": False}
    with pytest.raises(InputError, match=r"no case was evaluated as a whole: trainer\.limit_val_batches is 1"):
        Trainer(limit_val_batches=1, **settings).validate(task, data, verbose=False)  # type: ignore[arg-type]
    assert task._parts
    _, first = predict_patches(Trainer(**settings), task, data)[0]  # type: ignore[arg-type]
    store = PatchStore(stores / f"{data.cases['all'][0].slides[0]}.zarr")
    assert len(first.coords) == store.num_patches()


def test_a_trainer_keeps_no_patches_of_predicted_cases(cohort: Path, stores: Path, tmp_path: Path) -> None:
    task = ClassificationTask(MeanColour(), small_head, 2)
    predictions = small_trainer(tmp_path).predict(task, small_data(cohort, stores))
    held = [value for prediction in predictions or [] if prediction is not None for value in prediction]
    assert len(held) == 5 * 24
    assert not any(isinstance(value, torch.Tensor) for value in held)
    assert task.predicted_patches is not None
