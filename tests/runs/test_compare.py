"""A head end to end and on features of the same slides, in one table, from real fits."""

from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from e2e_abmilx.cohort import read_cohort
from e2e_abmilx.errors import InputError
from e2e_abmilx.main import main
from e2e_abmilx.reports.command import compare
from e2e_abmilx.store import PatchStore


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory, cohort: Path, stores: Path) -> list[Path]:
    """A config for training end to end, and one for training on the mean colour of each patch."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "features").mkdir()
    for case in read_cohort(cohort / "labels.csv", columns={"label": "lesion"}):
        patches = PatchStore(stores / f"{case.slides[0]}.zarr")
        colours = torch.from_numpy(patches.read(range(patches.num_patches()))).float().mean(dim=(1, 2)) / 255
        torch.save(colours, folder / f"features/{case.slides[0]}.pt")
    labels = {"labels": str(cohort / "labels.csv"), "columns": {"label": "lesion"}, "batch_size": 4, "num_workers": 0}
    content = {
        "end_to_end": (
            {"class_path": "TimmEncoder", "init_args": {"name": "test_resnet", "pretrained": False}},
            {"class_path": "SlideDataModule", "init_args": {"cache": str(stores), "patches_per_bag": 4, **labels}},
        ),
        "frozen": (
            {"class_path": "Precomputed", "init_args": {"num_features": 3}},
            {"class_path": "FeatureDataModule", "init_args": {"features": str(folder / "features"), **labels}},
        ),
    }
    for name, (encoder, data) in content.items():
        head = {"class_path": "ABMIL", "init_args": {"hidden_features": 16}}
        settings = {
            "model": {
                "class_path": "ClassificationTask",
                "init_args": {"num_outputs": 2, "encoder": encoder, "head": head},
            },
            "data": data,
            "trainer": {"max_epochs": 1, "accelerator": "cpu", "precision": "32-true", "enable_progress_bar": False},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    return [folder / f"{name}.yaml" for name in content]


def _words(configs: list[Path], *more: str) -> list[str]:
    listed = ",".join(map(str, configs))
    return ["--configs", f"[{listed}]", "--out", str(configs[0].parent / "out"), *more]


def test_models_are_fitted_once_and_compared(
    configs: list[Path], cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = configs[0].parent / "out"
    main(["compare", *_words(configs, "--heads", "[MeanPool]", "--seeds", "[3]")])
    text = capsys.readouterr().out
    assert text.strip() == (out / "models.md").read_text().strip()
    table = pd.read_csv(out / "models.csv")
    names = ["end_to_end/MeanPool", "frozen/MeanPool"]
    assert table["model"].tolist() == names
    assert table["mean"].between(0, 1).all()
    assert table["difference"].isna().tolist() == [True, False]
    end_to_end, frozen = table["encoder_parameters"]
    assert end_to_end > frozen == 0
    tests = [pd.read_csv(out / name / "seed-3/predictions.csv", dtype=str) for name in names]
    cases = [
        case.id for case in read_cohort(cohort / "labels.csv", columns={"label": "lesion"}) if case.split == "test"
    ]
    assert all(test["case"].tolist() == sorted(cases) for test in tests)
    settings = yaml.safe_load((out / "frozen/MeanPool/seed-3/fit.yaml").read_text())
    assert settings["seed_everything"] == settings["data"]["init_args"]["seed"] == 3
    assert settings["data"]["init_args"]["split_seed"] == 0  # all seeds have the same folds
    assert settings["model"]["init_args"]["head"]["class_path"].endswith(".MeanPool")

    before = {path: path.stat().st_mtime_ns for path in out.rglob("predictions.csv")}
    assert compare(_words(configs, "--heads", "[MeanPool]", "--seeds", "[3,3]")) == text.strip()  # a seed counts once
    assert {path: path.stat().st_mtime_ns for path in out.rglob("predictions.csv")} == before
    with pytest.raises(InputError, match=r"max_epochs: 1 there, 2 now"):
        compare(_words(configs, "--heads", "[MeanPool]", "--seeds", "[3]", "--trainer.max_epochs", "2"))


def test_a_model_named_twice_is_refused(configs: list[Path]) -> None:
    with pytest.raises(InputError, match="frozen/ABMIL is named twice"):
        compare(_words([configs[1], configs[1]]))
