"""Heads and variants, end to end and on features of the same slides, in one table, from real fits.

Where only the settings matter, the processes of the fits do nothing.
"""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from e2e_abmilx.cohort import read_cohort
from e2e_abmilx.errors import InputError
from e2e_abmilx.main import main
from e2e_abmilx.reports.command import compare
from e2e_abmilx.runs.compare import fit_models, read_options
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


@pytest.mark.slow  # five fits
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


def _head(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return class and arguments of the head of a run."""
    settings = yaml.safe_load((folder / "seed-0/planned.yaml").read_text(encoding="utf-8"))
    head = settings["model"]["init_args"]["head"]
    return head["class_path"].rpartition(".")[2], head.get("init_args", {})


def _plan(config: Path, out: Path, *more: str) -> Path:
    """Plan all fits and return the folder of the config's runs."""
    fit_models(*read_options(["--configs", str(config), "--out", str(out), *more]))
    return out / config.stem


@pytest.fixture
def idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processes of the fits only leave a file of predictions."""
    (tmp_path / "python").write_text(
        '#!/bin/sh\nwhile [ "$1" != --trainer.default_root_dir ]; do shift; done\ntouch "$2/predictions.csv"\n'
    )
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))


@pytest.mark.usefixtures("idle")
def test_a_head_has_the_settings_of_the_config_or_its_own_defaults(configs: list[Path], tmp_path: Path) -> None:
    heads = "[e2e_abmilx.heads.abmil.ABMIL,GatedABMIL,ABMILX,MeanPool]"
    runs = _plan(configs[1], tmp_path, "--heads", heads)
    assert {name: _head(runs / name)[1].get("hidden_features") for name in ("ABMIL", "GatedABMIL", "ABMILX")} == {
        "ABMIL": 16,
        "GatedABMIL": 512,
        "ABMILX": 512,
    }
    assert _head(runs / "MeanPool") == ("MeanPool", {})
    runs = _plan(configs[1], tmp_path / "shared", "--heads", "[GatedABMIL]", "--model.head.hidden_features=24")
    assert _head(runs / "GatedABMIL")[1]["hidden_features"] == 24
    runs = _plan(configs[1], tmp_path / "word", "--model.head", "GatedABMIL")
    assert _head(runs / "GatedABMIL")[1]["hidden_features"] == 512


@pytest.mark.usefixtures("idle")
def test_a_config_without_a_head_can_be_compared(configs: list[Path], tmp_path: Path) -> None:
    settings = yaml.safe_load(configs[1].read_text())
    del settings["model"]["init_args"]["head"]
    (tmp_path / "headless.yaml").write_text(yaml.safe_dump(settings))
    runs = _plan(tmp_path / "headless.yaml", tmp_path, "--heads", "[ABMIL]")
    assert _head(runs / "ABMIL")[1]["hidden_features"] == 512


VARIANTS = """\
"ABMILX, α fixed at 1": {model.head: ABMILX, model.head.alpha_init: 1.0, model.head.alpha_fixed: true}
as in the config: {}
small | dropout: {model.head.dropout: 0.5}
gated: {model: {class_path: ClassificationTask, init_args: {head: GatedABMIL}}}
"""


@pytest.mark.usefixtures("idle")
def test_a_variant_has_its_options_and_else_those_of_the_config(configs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "variants.yaml").write_text(VARIANTS, encoding="utf-8")
    runs = _plan(configs[1], tmp_path / "out", "--variants", str(tmp_path / "variants.yaml"), "--trainer.max_epochs=3")
    name, fixed = _head(runs / "ABMILX-α-fixed-at-1")
    assert (name, fixed["alpha_init"], fixed["alpha_fixed"], fixed["hidden_features"]) == ("ABMILX", 1, True, 512)
    plain, dropout = (_head(runs / folder)[1] for folder in ("as-in-the-config", "small-dropout"))
    assert plain == {"hidden_features": 16, "attention_features": 128, "dropout": 0.25}
    assert dropout == plain | {"dropout": 0.5}
    assert _head(runs / "gated") == ("GatedABMIL", plain | {"hidden_features": 512})


@pytest.mark.parametrize(
    ("variant", "words", "message"),
    [
        (
            "{model.head: ABMIL, model.head.alpha_init: 1}",
            [],
            "the variant 'odd' is refused with .*frozen.yaml, for the rea",
        ),
        ("{ckpt_path: last.ckpt}", [], "the variant 'odd' is refused: --ckpt_path names the checkpoint of one run"),
        ("{seed_everything: 3}", [], "--seed_everything is set in each run by --seeds"),
        ("{}", ["--data.seed", "3"], "--data.seed is set in each run by --seeds"),
        ("{}", ["--heads", "[ABMIL]"], "--heads and --variants are both given"),
        ("{trainer.max_epochs: 2}", ["--trainer.max_epochs", "3"], "set for all runs and by the variant 'odd'"),
    ],
)
def test_a_variant_is_refused(
    configs: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    variant: str,
    words: list[str],
    message: str,
) -> None:
    (tmp_path / "variants.yaml").write_text(f"plain: {{}}\nodd: {variant}\n")
    with pytest.raises(InputError, match=message):
        _plan(configs[1], tmp_path / "out", "--variants", str(tmp_path / "variants.yaml"), *words)
    assert not (tmp_path / "out").exists()
    if "alpha_init" in variant:
        assert "--model.head.alpha_init is no option of ABMIL" in capsys.readouterr().err


def test_an_unknown_measure_is_refused_before_the_fits(configs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="measure is kqw, which no task has; name one of auc, accuracy"):
        compare(["--configs", str(configs[1]), "--out", str(tmp_path / "out"), "--measure", "kqw"])
    assert not (tmp_path / "out").exists()


def test_variants_are_fitted_once_and_compared_by_a_measure(configs: list[Path], tmp_path: Path) -> None:
    path, out = tmp_path / "variants.yaml", tmp_path / "out"
    path.write_text(VARIANTS.splitlines()[0], encoding="utf-8")
    words = ["--configs", str(configs[1]), "--out", str(out), "--variants", str(path)]
    text = compare([*words, "--measure", "qwk"])
    assert "QWK, mean ± std" in text.splitlines()[0]
    table = pd.read_csv(out / "models.csv")
    assert table["model"].tolist() == ["frozen/ABMILX, α fixed at 1"]
    assert table["measure"].tolist() == ["qwk"]
    run = out / "frozen/ABMILX-α-fixed-at-1/seed-0"
    state = torch.load(run / "last.ckpt", weights_only=False)["state_dict"]
    assert state["head.attention_plus.alpha"].item() == 1

    before = (run / "predictions.csv").stat().st_mtime_ns
    compare(words)
    assert pd.read_csv(out / "models.csv")["measure"].tolist() == ["auc"]
    with pytest.raises(InputError, match="measure is c_index, but these runs have auc, accuracy"):
        compare([*words, "--measure", "c_index"])
    path.write_text(VARIANTS.splitlines()[0].replace("1.0", "0.5"), encoding="utf-8")
    with pytest.raises(
        InputError, match=r"fixed-at-1/seed-0 was fitted with other settings:\n  model.head.alpha_init: 1.0"
    ):
        compare(words)
    assert (run / "predictions.csv").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "words",
    [
        ["--configs", "a.yaml", "b.yaml", "--heads", "ABMIL", "ABMILX", "--seeds", "0", "1", "2"],
        ["--configs", "a.yaml,b.yaml", "--heads", "ABMIL,ABMILX", "--seeds=0,1,2"],
        ["--configs", "[a.yaml,b.yaml]", "--heads=[ABMIL,ABMILX]", "--seeds", "[0,1]", "2"],
    ],
)
def test_lists_need_no_brackets(words: list[str]) -> None:
    options, shared = read_options([*words, "--data.mpp", "0.5", "1.0"])
    assert (options.configs, options.heads) == (["a.yaml", "b.yaml"], ["ABMIL", "ABMILX"])
    assert options.seeds == [0, 1, 2]
    assert shared == ["--data.mpp", "0.5", "1.0"]  # read by the parser of fit
    assert read_options(["--configs", "a.yaml"])[0].seeds == [0]


def test_a_mistyped_option_of_the_comparison_is_not_taken_for_one_of_fit() -> None:
    with pytest.raises(InputError, match=r"--head is no option of compare; did you mean --heads\?"):
        read_options(["--configs", "a.yaml", "--head", "ABMIL"])
