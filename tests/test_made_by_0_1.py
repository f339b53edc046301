"""Files that the first release wrote before options and rooms were renamed still load, under their new names."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from e2e_abmilx import ClassificationTask, PatchStore
from e2e_abmilx.io.old_names import METRICS
from e2e_abmilx.main import main

HERE = Path(__file__).parent / "made_by_0_1"
EXPECTED = json.loads((HERE / "expected.json").read_text())


def _smooth_patch(number: int) -> np.ndarray:
    y, x = np.indices((32, 32))
    return np.stack([4 * x + 10 * number, 4 * y + 5 * number, 2 * (x + y) + 7 * number], axis=-1)


def _features(folder: Path) -> None:
    """Write sixteen cases with 12 patches of 4 features; every other case is labelled yes."""
    (folder / "features").mkdir()
    lines = ["slide,label,split"]
    for case in range(16):
        label, split = case % 2, ("train", "train", "val", "test")[case // 4]
        torch.save(torch.full((12, 4), float(label)), folder / "features" / f"s{case}.pt")
        lines.append(f"s{case},{('no', 'yes')[label]},{split}")
    (folder / "labels.csv").write_text("\n".join(lines))


def test_a_checkpoint_rebuilds_its_task() -> None:
    task = ClassificationTask.load_from_checkpoint(HERE / "best.ckpt").eval()
    assert (task.train_chunk_size, task.gradient_checkpointing) == (64, True)  # encoder_chunk and recompute
    assert task.schedule is not None  # of a class path that has moved
    assert task.classes == tuple(EXPECTED["classes"])
    assert task.threshold is not None
    assert task.threshold.value == EXPECTED["threshold"]
    with torch.no_grad():
        logits = task.head(torch.linspace(-1, 1, 40).view(1, 10, 4))
    torch.testing.assert_close(logits, torch.tensor([EXPECTED["logits"]]))


def test_a_checkpoint_may_be_named_by_a_url() -> None:
    task = ClassificationTask.load_from_checkpoint((HERE / "best.ckpt").resolve().as_uri())
    assert task.train_chunk_size == 64


def test_arguments_still_replace_those_of_the_checkpoint() -> None:
    task = ClassificationTask.load_from_checkpoint(HERE / "best.ckpt", train_chunk_size=7)
    assert task.train_chunk_size == 7


@pytest.mark.parametrize("verb", ["test", "predict"])
def test_the_command_line_reads_a_checkpoint(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _features(tmp_path)
    monkeypatch.chdir(tmp_path)
    config = {
        "model": {
            "class_path": "ClassificationTask",
            "init_args": {"encoder": {"class_path": "Precomputed", "init_args": {"num_features": 4}},
                          "head": {"class_path": "ABMILX", "init_args": {"hidden_features": 8, "num_heads": 2}},
                          "num_outputs": 2},
        },
        "data": {
            "class_path": "FeatureDataModule",
            "init_args": {"features": "features", "labels": "labels.csv", "num_workers": 0},
        },
        "trainer": {"default_root_dir": "run", "accelerator": "cpu", "precision": "32-true"},
    }  # fmt: skip
    Path("config.yaml").write_text(yaml.safe_dump(config))
    main([verb, "--config", "config.yaml", "--ckpt_path", str(HERE / "best.ckpt")])
    settings = yaml.safe_load(Path("run", verb, f"{verb}.yaml").read_text())["model"]["init_args"]
    assert (settings["train_chunk_size"], settings["gradient_checkpointing"]) == (64, True)
    lines = Path("run", verb, "predictions.csv").read_text().splitlines()
    assert len(lines) == 1 + (4 if verb == "test" else 16)


def test_its_config_is_refused_by_the_new_names() -> None:
    with pytest.raises(SystemExit, match=r"model\.encoder_chunk is now model\.train_chunk_size"):
        main(["test", "--config", str(HERE / "fit.yaml"), "--ckpt_path", str(HERE / "best.ckpt")])


def test_old_metrics_are_answered_with_the_new_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _features(tmp_path)
    monkeypatch.chdir(tmp_path)
    for old, new in METRICS.items():
        words = [
            "fit", "--model", "ClassificationTask", "--model.encoder", "Precomputed", "--model.encoder.num_features", "4",
            "--model.head", "ABMIL", "--model.num_outputs", "2", "--data", "FeatureDataModule", "--data.features",
            "features", "--data.labels", "labels.csv", "--data.num_workers", "0", "--checkpoint.monitor", f"val/{old}",
            "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.default_root_dir", "run",
        ]  # fmt: skip
        with pytest.raises(SystemExit, match=f"no metric 'val/{old}'.*val/{new}"):
            main(words)


def test_a_store_is_read() -> None:
    store = PatchStore(HERE / "slide.zarr")
    assert store.scales == (0.5, 1.0)
    assert list(store.verify()) == []
    assert store.attributes["slide_size"] == [256, 128]
    patches = store.read(range(6)).astype(int)
    difference = np.abs(patches - np.stack([_smooth_patch(number) for number in range(6)]))
    assert difference.max() <= 6  # JPEG
    assert store.coords().tolist() == [[32 * number, 16 * number] for number in range(6)]
    assert store.num_patches(1) == 2
    tissue, thumbnail = store.tissue(), store.thumbnail()
    assert tissue is not None
    assert thumbnail is not None
    assert (tissue == (np.indices((32, 32)).sum(axis=0) % 2 == 0)).all()
