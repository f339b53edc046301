"""embeddings.npz has the classifier's input for each tested case."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from small_fits import make_data, make_task

from e2e_abmilx.runs.embeddings import read_embeddings
from e2e_abmilx.tasks import ClassificationTask
from e2e_abmilx.training.callbacks import EmbeddingTable, PredictionTable


def _test(folder: Path, **how: object) -> ClassificationTask:
    torch.manual_seed(0)
    task = make_task()
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False,
        callbacks=[PredictionTable(), EmbeddingTable()], **how,  # type: ignore[arg-type]
    )  # fmt: skip
    data = make_data(folder)
    table = folder / "labels.csv"
    table.write_text(table.read_text().replace(",train", ",test"))
    trainer.test(task, data, verbose=False)
    return task


def test_logits_follow_from_the_embeddings(tmp_path: Path) -> None:
    task = _test(tmp_path)
    table = read_embeddings(tmp_path)
    assert table is not None
    with open(tmp_path / "predictions.csv", newline="") as file:
        rows = {row["case"]: float(row["probability_1"]) for row in csv.DictReader(file)}
    assert list(table.index) == list(rows) == [f"s{number:02d}" for number in range(4, 30)]
    with torch.inference_mode():
        logits = task.head.classifier(torch.from_numpy(table.to_numpy()))  # type: ignore[operator]
    np.testing.assert_allclose(logits.softmax(dim=1)[:, 1], list(rows.values()), atol=1e-5)


def test_a_trial_run_writes_nothing(tmp_path: Path) -> None:
    _test(tmp_path, fast_dev_run=True)
    assert not (tmp_path / "embeddings.npz").exists()


SCRIPT = """
import sys
from pathlib import Path
import torch
from lightning.pytorch import Trainer
from small_fits import make_task
from e2e_abmilx.datamodules import FeatureDataModule
from e2e_abmilx.training.callbacks import EmbeddingTable

folder = Path(sys.argv[1])
torch.manual_seed(0)
data = FeatureDataModule(folder / "features", folder / "labels.csv", num_workers=0)
Trainer(
    default_root_dir=folder / "two", accelerator="cpu", devices=2, strategy="ddp", logger=False,
    enable_progress_bar=False, callbacks=[EmbeddingTable()],
).test(make_task(), data, verbose=False)
"""


@pytest.mark.slow
def test_two_processes_write_the_same_file(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    _test(tmp_path)
    script = tmp_path / "script.py"
    script.write_text(f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]\n{SCRIPT}")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=pytestconfig.rootpath,
    )
    assert done.returncode == 0, done.stderr
    one, two = read_embeddings(tmp_path), read_embeddings(tmp_path / "two")
    assert one is not None
    assert two is not None
    assert list(one.index) == list(two.index)
    np.testing.assert_allclose(one.to_numpy(), two.to_numpy(), atol=1e-6)
