"""A test leaves the attention to the patches of each case, and never fails because of it."""

import copy
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from kept_patches import predict_patches
from lightning.pytorch import Callback, Trainer
from small_fits import make_data, make_task
from torch import Tensor, nn

from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.heads import ABMIL, ABMILX, DSMIL, leave_one_out, log_odds
from e2e_abmilx.heatmaps import MapError, read_case_map
from e2e_abmilx.heatmaps.attention import rank_of
from e2e_abmilx.store import PatchStore, write_store
from e2e_abmilx.tasks import ClassificationTask
from e2e_abmilx.training.callbacks import AttentionMaps
from e2e_abmilx.training.callbacks.run_folder import RunFolder

_CASES = {"slide-004": "a/b", "slide-001": "a/b", "slide-002": "one"}


class _Mean(nn.Module):
    num_features = 3

    def forward(self, patches: Tensor) -> Tensor:
        return patches.mean((2, 3))


def _task(head: object = None) -> ClassificationTask:
    torch.manual_seed(0)
    return ClassificationTask(_Mean(), head or (lambda *sizes: ABMILX(*sizes, hidden_features=16, num_heads=2)), 2)


def _trainer(folder: Path, *callbacks: Callback, **how: object) -> Trainer:
    return Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False,
        callbacks=[AttentionMaps(), *callbacks], **how,  # type: ignore[arg-type]
    )  # fmt: skip


def _data(cohort: Path, stores: Path, folder: Path, cases: dict[str, str] = _CASES) -> SlideDataModule:
    table = pd.read_csv(cohort / "labels.csv").set_index("slide").loc[list(cases)].reset_index()
    table["case"], table["split"], table["lesion"] = list(cases.values()), "test", "normal"
    table.to_csv(folder / "labels.csv", index=False)
    return SlideDataModule(
        stores, folder / "labels.csv", columns={"label": "lesion"}, eval_chunk_size=7, classes=["normal", "tumour"],
        eval_scales="all", num_workers=0,
    )  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("command", ["test", "predict"])
def test_maps_hold_what_the_task_predicted(cohort: Path, stores: Path, tmp_path: Path, command: str) -> None:
    task, data = _task(), _data(cohort, stores, tmp_path)
    predicted = predict_patches(Trainer(accelerator="cpu", logger=False, enable_progress_bar=False), task, data)
    trainer = _trainer(tmp_path, RunFolder(command))
    if command == "test":
        trainer.test(task, data, verbose=False)
    else:
        trainer.predict(task, data)
    folder = tmp_path / command
    assert len(list((folder / "attention").iterdir())) == 2
    assert not (folder / ".attention.partial").exists()
    head = copy.deepcopy(task.head).eval()
    for prediction, patches in predicted:
        found = read_case_map(folder, prediction.case)
        assert found.predicted == pytest.approx(prediction.scores)
        assert [one.slide for one in found.slides] == [s for s, case in _CASES.items() if case == prediction.case]
        weights = patches.output.attention[0].numpy() * len(patches.coords)
        np.testing.assert_allclose(np.concatenate([one.heads for one in found.slides], axis=1), weights, rtol=1e-3)
        ranks = np.concatenate([one.rank for one in found.slides])
        np.testing.assert_array_equal(ranks, rank_of(patches.output.attention[0].mean(dim=0).numpy()))
        np.testing.assert_array_equal(np.concatenate([one.coords for one in found.slides]), patches.coords.numpy())
        np.testing.assert_array_equal(np.concatenate([one.scale for one in found.slides]), patches.scale.numpy())
        expected = leave_one_out(head, patches.features, patches.output.attention[0], lambda x: log_odds(x, 1))
        assert found.score == "log-odds of tumour"
        contributions = np.concatenate([one.contribution for one in found.slides if one.contribution is not None])
        np.testing.assert_allclose(contributions, expected.numpy(), rtol=1e-3, atol=1e-9)
        for one in found.slides:
            store = PatchStore(stores / f"{one.slide}.zarr")
            assert PatchStore(one.store).name == one.slide
            assert Path(one.store).is_absolute()
            assert one.fingerprint == store.attributes["fingerprint"]
            assert (list(one.size), one.mpp) == (store.attributes["slide_size"], store.attributes["slide_mpp"])
            assert (one.scales, list(one.footprints)) == (store.scales, store.attributes["footprints"])


def test_a_head_without_contributions(cohort: Path, stores: Path, tmp_path: Path) -> None:
    _trainer(tmp_path).test(_task(DSMIL), _data(cohort, stores, tmp_path), verbose=False)
    found = read_case_map(tmp_path, "a/b")
    assert found.score is None
    assert [one.contribution for one in found.slides] == [None, None]


def test_a_test_again_replaces_the_maps(cohort: Path, stores: Path, tmp_path: Path) -> None:
    task = _task()
    (tmp_path / "attention").mkdir()
    (tmp_path / "attention" / "mine.npz").write_text("of the user")
    _trainer(tmp_path).test(task, _data(cohort, stores, tmp_path), verbose=False)
    before = read_case_map(tmp_path, "one").slides[0].heads
    other = _task(lambda *sizes: ABMIL(*sizes))
    cases = {"slide-002": "one", "slide-003": "three"}
    _trainer(tmp_path).test(other, _data(cohort, stores, tmp_path, cases), verbose=False)
    assert len(list((tmp_path / "attention").glob("*-*.npz"))) == 2
    assert read_case_map(tmp_path, "one").slides[0].heads.shape != before.shape
    read_case_map(tmp_path, "three")
    with pytest.raises(MapError, match="no attention of case"):
        read_case_map(tmp_path, "a/b")
    assert (tmp_path / "attention" / "mine.npz").read_text() == "of the user"


class _Stop(Callback):
    def on_test_batch_end(self, trainer: Trainer, *args: object, **kwargs: object) -> None:
        if list((Path(trainer.default_root_dir) / ".attention.partial").rglob("*.npz")):
            raise RuntimeError("stopped")


def test_a_test_that_stops_leaves_the_maps_of_the_earlier_one(cohort: Path, stores: Path, tmp_path: Path) -> None:
    cases = {"slide-002": "one", "slide-003": "three"}
    _trainer(tmp_path).test(_task(), _data(cohort, stores, tmp_path, cases), verbose=False)
    before = {path.name: path.read_bytes() for path in (tmp_path / "attention").iterdir()}
    with pytest.raises(RuntimeError, match="stopped"):
        _trainer(tmp_path, _Stop()).test(_task(ABMIL), _data(cohort, stores, tmp_path), verbose=False)
    assert {path.name: path.read_bytes() for path in (tmp_path / "attention").iterdir()} == before
    _trainer(tmp_path).test(_task(), _data(cohort, stores, tmp_path, {"slide-003": "three"}), verbose=False)
    assert len(list((tmp_path / "attention").iterdir())) == 1  # and not what the stopped test left
    assert not (tmp_path / ".attention.partial").exists()


def test_a_trial_run_writes_nothing(cohort: Path, stores: Path, tmp_path: Path) -> None:
    _trainer(tmp_path, fast_dev_run=True).test(_task(), _data(cohort, stores, tmp_path), verbose=False)
    assert {path.name for path in tmp_path.iterdir()} == {"labels.csv"}


def test_bags_of_features_have_no_maps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = make_data(tmp_path)
    table = tmp_path / "labels.csv"
    table.write_text(table.read_text().replace(",train", ",test"))
    with caplog.at_level(logging.INFO, "e2e_abmilx"):
        _trainer(tmp_path).test(make_task(), data, verbose=False)
    (message,) = {text for text in caplog.messages if "attention" in text}
    assert message.startswith("no attention is stored, so that the viewer will have no overlay: FeatureBags does not")
    assert not (tmp_path / "attention").exists()


def test_stores_without_positions_have_no_maps(
    cohort: Path, stores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The other cases have theirs."""
    for slide in ("slide-001", "slide-002", "slide-004"):
        (tmp_path / "cache").mkdir(exist_ok=True)
        if slide != "slide-001":
            shutil.copytree(stores / f"{slide}.zarr", tmp_path / "cache" / f"{slide}.zarr")
    store = PatchStore(stores / "slide-001.zarr")
    patches = {mpp: (store.read(range(3), scale), None) for scale, mpp in enumerate(store.scales)}
    write_store(tmp_path / "cache" / "slide-001.zarr", patches)
    with caplog.at_level(logging.INFO, "e2e_abmilx"):
        _trainer(tmp_path).test(_task(), _data(cohort, tmp_path / "cache", tmp_path), verbose=False)
    (message,) = {text for text in caplog.messages if "attention" in text}
    assert message.startswith("the attention of 1 of 2 cases is not stored")
    assert "slide-001.zarr has no slide_size" in message
    assert [path.name[:4] for path in (tmp_path / "attention").iterdir()] == ["one-"]


def test_a_folder_that_cannot_be_written_does_not_end_the_test(
    cohort: Path, stores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".attention.partial").write_text("in the way")
    (tmp_path / "attention").write_text("in the way")
    ((metrics),) = _trainer(tmp_path).test(_task(), _data(cohort, stores, tmp_path), verbose=False)
    assert "test/loss" in metrics
    messages = {record.getMessage() for record in caplog.records if record.levelno == logging.WARNING}
    assert len([text for text in messages if text.startswith("the attention of case 'a/b' and of later ones")]) == 1
    assert len([text for text in messages if "may hold the attention of an earlier test" in text]) == 1


SCRIPT = """
import sys
from pathlib import Path
from test_attention_maps import _data, _task, _trainer

stores, cohort, folder = map(Path, sys.argv[1:])
cases = {f"slide-{number:03d}": f"case {number}" for number in range(5)}
trainer = _trainer(folder, devices=2, strategy="ddp")
trainer.test(_task(), _data(cohort, stores, folder, cases), verbose=False)
"""


@pytest.mark.slow
def test_two_processes_write_their_own_cases(
    cohort: Path, stores: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    script = tmp_path / "script.py"
    here = Path(__file__).parent
    script.write_text(f"import sys; sys.path[:0] = {[str(here), str(here.parents[1])]!r}\n{SCRIPT}")
    done = subprocess.run(
        [sys.executable, str(script), str(stores), str(cohort), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=pytestconfig.rootpath,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "attention").iterdir())) == 5
    for number in range(5):
        assert read_case_map(tmp_path, f"case {number}").slides[0].slide == f"slide-{number:03d}"
    assert not (tmp_path / ".attention.partial").exists()
