"""faithfulness.csv of runs from the command line, on slides with masks and on features."""

import logging
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from feature_runs import files_in, fit, write_config
from kept_patches import predict_patches
from lightning.pytorch import Trainer
from slide_runs import message_of, write_slide_config

from e2e_abmilx.datamodules import SlideDataModule, SyntheticDataModule
from e2e_abmilx.errors import InputError
from e2e_abmilx.evaluation.faithfulness import DELETED, INSERTED
from e2e_abmilx.main import main
from e2e_abmilx.tasks import ClassificationTask
from e2e_abmilx.tasks.case_faithfulness import measure_case
from e2e_abmilx.training.callbacks import Faithfulness
from e2e_abmilx.training.callbacks.predicted_slides import slides_of
from e2e_abmilx.training.callbacks.slide_truth import SlideTruth

MEASURE = "--trainer.callbacks+=Faithfulness"


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"case": str}).set_index(["case", "map"])


def test_a_fit_measures_the_maps_of_its_tested_slides(cohort: Path, stores: Path, tmp_path: Path) -> None:
    """One row per tested case and map; a test of the same checkpoint gives the same, and each row is what it says."""
    config, masks = write_slide_config(tmp_path, cohort, stores), cohort / "masks"
    small = ["--trainer.max_epochs", "1", "--trainer.precision", "32-true", MEASURE]
    fit(config, *small, "--trainer.callbacks.truth", str(masks))
    run = tmp_path / "run"
    table, predictions = _read(run / "faithfulness.csv"), pd.read_csv(run / "predictions.csv", dtype={"case": str})
    assert sorted(table.index) == sorted((case, name) for case in predictions["case"] for name in
                                         ("attention", "contribution", "random"))  # fmt: skip
    assert list(table)[:6] == ["score", "patches", "deletion", "insertion", "auc", "deletion_0"]
    assert list(table)[5:] == [*(f"deletion_{p}" for p in DELETED), *(f"insertion_{p}" for p in INSERTED)]
    labels = pd.read_csv(cohort / "labels.csv").set_index("case")
    for row in predictions.itertuples():
        scores = {"probability_0": row.probability_0, "probability_1": row.probability_1}
        own = table.loc[row.case]
        assert set(own["score"]) == {max(scores, key=lambda name: scores[name])}
        wholes = own[["deletion_0", "insertion_100"]].to_numpy()
        np.testing.assert_allclose(wholes, max(scores.values()), rtol=1e-4)
        assert own["auc"].notna().all() == bool(labels.loc[row.case, "lesion"])
        assert math.isnan(own.loc["random", "auc"]) or own.loc["random", "auc"] == 0.5
    main(["test", "--config", str(run / "fit.yaml"), "--ckpt_path", str(run / "best.ckpt")])
    again = _read(run / "test/faithfulness.csv")
    pd.testing.assert_frame_equal(again, table, rtol=1e-4)

    task = ClassificationTask.load_from_checkpoint(run / "best.ckpt")
    data = SlideDataModule(stores, cohort / "labels.csv", columns={"label": "lesion"}, num_workers=0)
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_progress_bar=False)
    data.setup("test")
    truth = SlideTruth(masks, slides_of(data.test_dataloader()))
    for prediction, patches in predict_patches(trainer, task, data):
        if (prediction.case, "random") not in table.index:
            continue
        task.predicted_patches = patches
        for one in measure_case(task, prediction.case, truth.of_case(prediction.case, patches)):
            row = table.loc[(prediction.case, one.map)]
            assert [row["deletion"], row["insertion"]] == pytest.approx(
                [one.curves.deletion_area, one.curves.insertion_area], rel=1e-4
            )
            assert row["auc"] == pytest.approx(one.auc, abs=1e-6, nan_ok=True)


def test_features_are_measured_without_truth(
    finished: tuple[Path, Path], package_log: pytest.LogCaptureFixture
) -> None:
    config, run = finished
    with package_log.at_level(logging.INFO, "e2e_abmilx"):
        main(["test", "--config", str(config), "--ckpt_path", str(run / "best.ckpt"), MEASURE])
    table = _read(run / "test/faithfulness.csv")
    assert len(table) == 18
    assert table["auc"].isna().all()
    assert (table["patches"] == 6).all()
    assert "the maps of 6 cases" in package_log.text
    assert "at most 136 evaluations of the head per case" in package_log.text


def test_a_head_without_contributions_has_two_maps(tmp_path: Path, package_log: pytest.LogCaptureFixture) -> None:
    with package_log.at_level(logging.INFO, "e2e_abmilx"):
        fit(write_config(tmp_path), "--model.head", "DSMIL", "--trainer.max_epochs", "1", MEASURE)
    assert set(_read(tmp_path / "run/faithfulness.csv").index.get_level_values("map")) == {"attention", "random"}
    assert "at most 106 evaluations of the head per case; DSMIL has no contributions" in package_log.text


def test_the_table_is_archived_with_its_run_and_a_trial_writes_none(finished: tuple[Path, Path]) -> None:
    config, run = finished
    (run / "faithfulness.csv").write_text("of the earlier run")
    before = files_in(run)
    main(
        ["test", "--config", str(config), "--ckpt_path", str(run / "best.ckpt"), MEASURE, "--trainer.fast_dev_run", "1"]
    )
    assert files_in(run) == before
    fit(config, "--trainer.max_epochs", "1")
    assert (run / "earlier-1/faithfulness.csv").read_text() == "of the earlier run"
    assert not (run / "faithfulness.csv").exists()


def test_a_missing_folder_of_masks_is_refused_before_the_fit(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    message = message_of(["fit", "--config", str(config), MEASURE, "--trainer.callbacks.truth", str(tmp_path / "none")])
    assert "none, which is not a folder; name a folder of masks <slide>.png" in message
    assert not (tmp_path / "run/best.ckpt").exists()


def test_truth_of_features_is_refused(finished: tuple[Path, Path]) -> None:
    config, run = finished
    data = SlideDataModule(run, num_workers=0)  # never read
    assert getattr(data, "masks", None) is None
    message = message_of(
        ["test", "--config", str(config), "--ckpt_path", str(run / "best.ckpt"), MEASURE,
         "--trainer.callbacks.truth", str(run)]
    )  # fmt: skip
    assert "FeatureBags does not record where patches lie" in message


def test_synthetic_slides_bring_their_masks(tmp_path: Path) -> None:
    data = SyntheticDataModule(tmp_path)
    trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    trainer.datamodule = data  # type: ignore[attr-defined]
    callback = Faithfulness()
    with pytest.raises(InputError, match="does not record where patches lie"):
        callback.on_test_start(trainer, torch.nn.Identity())  # type: ignore[arg-type]  # masks are looked for
    trainer.datamodule = None  # type: ignore[attr-defined]
    callback.on_test_start(trainer, torch.nn.Identity())  # type: ignore[arg-type]
