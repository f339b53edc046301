"""Training on two processes (gloo, CPU) equals training on one with batches twice as large."""

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

CALLBACK = '''
import torch
from lightning.pytorch import Callback

class KeepGradients(Callback):
    """Write the gradients of the first step."""

    def on_before_optimizer_step(self, trainer, task, optimizer):
        if trainer.global_step == 0 and trainer.is_global_zero:
            grads = {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}
            torch.save(grads, trainer.default_root_dir + "/gradients.pt")
'''


def _run(folder: Path, labels: Path, stores: Path, *, processes: int, batch_size: int, **data: object) -> None:
    config = {
        "seed_everything": 1,
        "model": {
            "class_path": "ClassificationTask",
            "init_args": {
                "num_outputs": 2,
                "encoder": {
                    "class_path": "TimmEncoder",
                    "init_args": {"name": "test_resnet", "pretrained": False, "frozen_norms": True},
                },
                "head": {"class_path": "ABMILX", "init_args": {"hidden_features": 16, "num_heads": 2, "dropout": 0.0}},
                "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.005}},
                "train_chunk_size": 16,
            },
        },
        "data": {
            "class_path": "SlideDataModule",
            "init_args": {
                "cache": str(stores),
                "labels": str(labels),
                "columns": {"label": "lesion"},
                "patches_per_bag": 8,
                "batch_size": batch_size,
                "eval_chunk_size": 16,
                "num_workers": 1,
                **data,
            },
        },
        "trainer": {
            "default_root_dir": str(folder),
            "accelerator": "cpu",
            "devices": processes,
            "strategy": "ddp" if processes > 1 else "auto",
            "precision": "32-true",
            "max_epochs": 2,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "callbacks": [{"class_path": "keep_gradients.KeepGradients"}, {"class_path": "Faithfulness"}],
        },
    }
    folder.mkdir()
    (folder / "keep_gradients.py").write_text(CALLBACK)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        free = port.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "MASTER_PORT": str(free)}
    command = [sys.executable, "-m", "e2e_abmilx", "fit", "--config", str(folder / "config.yaml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stderr.count("INFO: cases: ") == 1  # once, not once per process


def _rows(path: Path, prefixes: tuple[str, ...]) -> list[dict[str, float]]:
    with open(path, newline="") as file:
        rows = [
            {key: float(value) for key, value in row.items() if value and key.startswith(prefixes)}
            for row in csv.DictReader(file)
        ]
    return [row for row in rows if row]


@pytest.mark.slow
def test_processes_share_the_attention_that_bags_are_drawn_by(cohort: Path, stores: Path, tmp_path: Path) -> None:
    """Each process scores its own cases; the checkpoint has those of all, and they are those of a single process."""
    for name, processes in {"one": 1, "two": 2}.items():
        how = {"processes": processes, "batch_size": 4 // processes, "draw": "AttentionDraw", "oversample": {"1": 2}}
        _run(tmp_path / name, cohort / "labels.csv", stores, **how)  # type: ignore[arg-type]
    one, two = (torch.load(tmp_path / name / "last.ckpt", weights_only=False) for name in ("one", "two"))
    drawn = [state["SlideDataModule"]["draw"] for state in (one, two)]
    assert drawn[0]["epoch"] == drawn[1]["epoch"] == 1
    assert len(drawn[0]["attention"]) == 12
    assert drawn[0]["attention"].keys() == drawn[1]["attention"].keys()
    for case, scales in drawn[0]["attention"].items():
        for ours, theirs in zip(scales, drawn[1]["attention"][case], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
    for name in one["state_dict"]:  # equal only if all bags were
        torch.testing.assert_close(one["state_dict"][name], two["state_dict"][name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow  # it starts six processes
def test_two_processes_are_one_with_larger_batches(cohort: Path, stores: Path, tmp_path: Path) -> None:
    table = pd.read_csv(cohort / "labels.csv", dtype=str)
    # so that one process tests one case more than the other
    uneven = table.drop(table.index[table["split"] == "test"][0])
    uneven.to_csv(tmp_path / "labels.csv", index=False)
    for name, processes in {"one": 1, "two": 2}.items():
        _run(tmp_path / name, tmp_path / "labels.csv", stores, processes=processes, batch_size=4 // processes)
    one, two = (torch.load(tmp_path / name / "gradients.pt", weights_only=True) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-5, atol=1e-5, msg=name)
    states = [torch.load(tmp_path / name / "last.ckpt", weights_only=False)["state_dict"] for name in ("one", "two")]
    for name in states[0]:
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-4, atol=1e-5, msg=name)
    watched = ("val/", "test/", "train/loss_epoch", "train/effective")
    ours, theirs = (_rows(tmp_path / name / "metrics.csv", watched) for name in ("one", "two"))
    assert len(ours) == len(theirs) > 3
    for row, other in zip(ours, theirs, strict=True):
        assert row == pytest.approx(other, rel=1e-4)
    tables = []
    for name in ("one", "two"):
        with open(tmp_path / name / "predictions.csv", newline="") as file:
            tables.append(list(csv.reader(file)))
    assert [row[:2] for row in tables[0]] == [row[:2] for row in tables[1]]
    assert len(tables[0]) == len({row[0] for row in tables[0]}) > 2
    for row, other in zip(tables[0][1:], tables[1][1:], strict=True):
        assert [float(score) for score in row[2:]] == pytest.approx([float(s) for s in other[2:]], rel=1e-3)
    maps = [pd.read_csv(tmp_path / name / "faithfulness.csv").set_index(["case", "map"]) for name in ("one", "two")]
    assert len(maps[0]) == 3 * (len(tables[0]) - 1)
    assert maps[0].index.equals(maps[1].index)
    numbers = maps[0].columns.drop("score")
    # maps may rank patches that are equal up to rounding otherwise, which changes points and hardly areas
    areas = ["patches", "deletion", "insertion"]
    pd.testing.assert_frame_equal(maps[0][areas], maps[1][areas], rtol=1e-2)
    random = pd.IndexSlice[:, "random"]
    pd.testing.assert_frame_equal(maps[0].loc[random, numbers], maps[1].loc[random, numbers], rtol=1e-3)
