"""Trained models against data, by the command line: a model runs on data like those it was trained on, on no others."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from slide_runs import message_of

from e2e_abmilx.main import main
from e2e_abmilx.store import write_store

h5py = pytest.importorskip("h5py")

#: Caches by name: µm per pixel of their scales and patch side in pixels.
CACHES: dict[str, tuple[tuple[float, ...], int]] = {
    "half-16": ((0.5, 1.0), 16),
    "half-8": ((0.5, 1.0), 8),
    "two-16": ((2.0, 4.0), 16),
    "rounded-16": ((0.51, 1.02), 16),  # 2 % off, as scanners differ
    "six-percent-16": ((0.53, 1.06), 16),
    "only-fine-16": ((0.5,), 16),
    "only-coarse-16": ((1.0,), 16),
    "unknown-16": ((float("nan"),), 16),
}
#: Folders of features by name: width, encoder and magnification.
FEATURES: dict[str, tuple[int, str | None, int | None]] = {
    "wide": (8, "uni", 20),
    "narrow": (4, "uni", 20),
    "other-encoder": (8, "conch", 20),
    "other-power": (8, "uni", 10),
    "silent": (8, None, None),
}
#: For the model trained on each: the data that it may be tested on.
ACCEPTED = {
    "half-16": {"half-16", "rounded-16", "only-fine-16"},
    "two-16": {"two-16"},
    "unknown-16": {"half-16", "two-16", "rounded-16", "six-percent-16", "only-fine-16", "only-coarse-16", "unknown-16"},
    "wide": {"wide", "silent"},
    "silent": {"wide", "other-encoder", "other-power", "silent"},
}
CASES = [f"case-{number:02d}" for number in range(12)]


def _labels(folder: Path) -> Path:
    table = pd.DataFrame({"slide": CASES, "label": ["benign", "malignant"] * 6})
    table["time"], table["event"] = np.arange(12) + 1.5, 1
    table["er"], table["pr"] = [1, 0] * 6, [0, 1, 1, 0] * 3
    table["score"] = np.linspace(0, 1, 12)
    table["split"] = ["train"] * 6 + ["val"] * 2 + ["test"] * 4
    table.to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all caches, all feature folders and a label table."""
    root = tmp_path_factory.mktemp("contracts")
    rng = np.random.default_rng(0)
    for name, (scales, side) in CACHES.items():
        for case in CASES:
            scale_of = {mpp: (rng.integers(0, 256, (3, side, side, 3), np.uint8), None) for mpp in scales}
            write_store(root / name / f"{case}.zarr", scale_of)
    for name, (width, encoder, power) in FEATURES.items():
        (root / name).mkdir()
        for case in CASES:
            with h5py.File(root / name / f"{case}.h5", "w") as file:
                file["features"] = rng.normal(size=(5, width)).astype("float32")
                file["coords"] = np.arange(10).reshape(5, 2)
                if encoder is not None:
                    file["features"].attrs["encoder"] = encoder
                if power is not None:
                    file["coords"].attrs["target_magnification"] = power
    _labels(root)
    return root


def _config(folder: Path, data: str, *, task: str = "ClassificationTask", outputs: int = 2, **cohort: Any) -> Path:
    pixels = data in CACHES
    source = {"cache": str(folder / data), "patches_per_bag": 2} if pixels else {"features": str(folder / data)}
    encoder = (
        {"class_path": "small_tasks.MeanColour"}
        if pixels
        else {"class_path": "Precomputed", "init_args": {"num_features": FEATURES[data][0]}}
    )
    content = {
        "model": {
            "class_path": task,
            "init_args": {
                "encoder": encoder,
                "head": {"class_path": "ABMIL", "init_args": {"hidden_features": 4}},
                "num_outputs": outputs,
            },
        },
        "data": {
            "class_path": "SlideDataModule" if pixels else "FeatureDataModule",
            "init_args": {**source, "labels": str(folder / "labels.csv"), "batch_size": 2, "num_workers": 0, **cohort},
        },
        "trainer": {
            "default_root_dir": str(folder / "runs" / f"{task}-{data}"), "max_epochs": 1, "accelerator": "cpu",
            "precision": "32-true", "enable_progress_bar": False, "logger": False,
        },
    }  # fmt: skip
    path = folder / f"{task}-{data}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


class _Trained(dict[str, Path]):
    """The best checkpoint of a model trained on each kind of data, which is trained when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, name: str) -> Path:
        main(["fit", "--config", str(_config(self.folder, name))])
        self[name] = self.folder / "runs" / f"ClassificationTask-{name}" / "best.ckpt"
        return self[name]


@pytest.fixture(scope="module")
def trained(folder: Path) -> dict[str, Path]:
    return _Trained(folder)


def _test(folder: Path, checkpoint: Path, data: str, *options: str) -> list[str]:
    """Return the words that test a checkpoint on data, with the config of a model that fits these data."""
    out = ["--trainer.default_root_dir", str(folder / "tests")]
    return ["test", "--config", str(_config(folder, data)), "--ckpt_path", str(checkpoint), *out, *options]


@pytest.mark.parametrize("data", [*CACHES, *FEATURES])
@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=() if name in ("half-16", "wide") else pytest.mark.slow) for name in ACCEPTED]
)
def test_a_model_is_tested_on_data_like_its_own_and_on_no_others(
    folder: Path, trained: dict[str, Path], model: str, data: str
) -> None:
    width = ["--model.encoder.num_features", str(FEATURES[model][0])] if {model, data} <= FEATURES.keys() else []
    command = _test(folder, trained[model], data, *width)
    if data in ACCEPTED[model]:
        main(command)
        return
    message = message_of(command)
    if (model in CACHES) == (data in CACHES):
        own, other = (_values(name) for name in (model, data))
        assert any(value in message for value in own)
        assert any(value in message for value in other)


def _values(name: str) -> list[str]:
    """Return the values of which at least one must be in a message about data."""
    if name in FEATURES:
        width, encoder, power = FEATURES[name]
        return [f"{width} features", str(encoder), f"{10 / power:g} µm/px" if power else "–"]
    scales, side = CACHES[name]
    return ["unknown µm/px" if np.isnan(scales[0]) else f"{scales[0]:g} µm/px", f"{side} px"]


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_every_command_but_fit_obeys_the_contract(folder: Path, trained: dict[str, Path], command: str) -> None:
    words = _test(folder, trained["half-16"], "two-16")[1:]
    message = message_of([command, *words])
    assert (
        "patches of 16 px at 0.5 µm/px (side 8 µm), and the cache has patches of 16 px at 2 µm/px (side 32 µm)"
        in message
    )
    assert "e2e-abmilx cache --mpp [0.5,1] --patch_size 16" in message


def _labels_in(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "tests" / "test" / "predictions.csv").set_index("case")


def test_classes_have_the_order_of_the_model_whatever_the_table_says(folder: Path) -> None:
    """Trained with the classes in another order than the alphabet's, which the config of the test does not repeat."""
    classes = ["malignant", "benign"]
    config = _config(folder, "half-16", classes=classes)
    main(["fit", "--config", str(config), "--trainer.default_root_dir", str(folder / "runs" / "ordered")])
    checkpoint = folder / "runs" / "ordered" / "best.ckpt"
    main(_test(folder, checkpoint, "half-16"))
    found = _labels_in(folder)
    assert list(found)[:3] == ["label", "probability_malignant", "probability_benign"]
    truth = pd.read_csv(folder / "labels.csv").set_index("slide")["label"]
    assert (found["label"] == truth[found.index]).all()
    expected = pd.read_csv(folder / "runs" / "ordered" / "predictions.csv").set_index("case")
    pd.testing.assert_frame_equal(found, expected)
    message = message_of(_test(folder, checkpoint, "half-16", "--data.classes", "[benign,malignant]"))
    assert "['malignant', 'benign']" in message
    assert "['benign', 'malignant']" in message


def test_labels_that_the_model_does_not_know_are_refused(
    folder: Path, trained: dict[str, Path], tmp_path: Path
) -> None:
    table = pd.read_csv(folder / "labels.csv")
    table["label"] = table["label"].replace("malignant", "tumour")
    table.to_csv(tmp_path / "labels.csv", index=False)
    message = message_of(_test(folder, trained["half-16"], "half-16", "--data.labels", str(tmp_path / "labels.csv")))
    assert "label 'tumour'" in message
    assert "['benign', 'malignant']" in message


TARGETS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "label": ("ClassificationTask", 2, {}),
    "survival": ("SurvivalTask", 2, {"target": "survival", "time_bins": 2}),
    "multi_label": ("MultiLabelTask", 2, {"target": "multi_label", "classes": ["er", "pr"]}),
    "regression": ("RegressionTask", 1, {"target": "regression", "columns": {"label": "score"}}),
}


@pytest.fixture(scope="module")
def of_target(folder: Path) -> dict[str, Path]:
    """The best checkpoint of a model of features, trained for each target."""
    checkpoints = {}
    for target, (task, outputs, cohort) in TARGETS.items():
        run = folder / "runs" / target
        words = ["--config", str(_config(folder, "wide", task=task, outputs=outputs, **cohort))]
        main(["fit", *words, "--trainer.default_root_dir", str(run)])
        checkpoints[target] = run / "best.ckpt"
    return checkpoints


@pytest.mark.parametrize("data", TARGETS)
@pytest.mark.parametrize("model", TARGETS)
@pytest.mark.parametrize("command", ["test", pytest.param("predict", marks=pytest.mark.slow)])
def test_a_model_refuses_labels_of_another_target(
    folder: Path, of_target: dict[str, Path], command: str, model: str, data: str, tmp_path: Path
) -> None:
    task, outputs, _ = TARGETS[model]
    config = _config(folder, "wide", task=task, outputs=outputs, **TARGETS[data][2])
    words = [command, "--config", str(config), "--ckpt_path", str(of_target[model])]
    words += ["--trainer.default_root_dir", str(tmp_path)]
    if model == data:
        main(words)
        return
    message = message_of(words)
    assert model in message
    assert data in message


def test_a_survival_model_brings_its_time_bins_to_a_cohort_without_training_cases(
    folder: Path, of_target: dict[str, Path], tmp_path: Path
) -> None:
    external = pd.read_csv(folder / "labels.csv").iloc[8:].assign(split="test")
    external["time"] *= 10
    external.to_csv(tmp_path / "labels.csv", index=False)
    config = _config(folder, "wide", task="SurvivalTask", target="survival", time_bins=2)
    words = ["test", "--config", str(config), "--ckpt_path", str(of_target["survival"])]
    words += ["--data.labels", str(tmp_path / "labels.csv"), "--trainer.default_root_dir", str(tmp_path)]
    main(words)
    found = pd.read_csv(tmp_path / "test" / "predictions.csv")
    saved = torch.load(of_target["survival"], weights_only=True)["contract"]
    assert saved["time_edges"] == [4.0]
    assert list(found)[3:] == ["survival_4", "risk"]


def test_a_model_is_not_tested_on_the_cases_that_it_was_trained_on(
    folder: Path, trained: dict[str, Path], tmp_path: Path
) -> None:
    table = pd.read_csv(folder / "labels.csv").assign(split="test")
    table.to_csv(tmp_path / "labels.csv", index=False)
    message = message_of(_test(folder, trained["half-16"], "half-16", "--data.labels", str(tmp_path / "labels.csv")))
    assert "8 of the 12 test cases" in message
    assert "case-00" in message
