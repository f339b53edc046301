from pathlib import Path
from typing import Any

import pytest

from e2e_abmilx.errors import InputError
from e2e_abmilx.runs.fits import resolve
from e2e_abmilx.runs.variants import Variant, read_variants, refuse_conflicts

ROOT = Path(__file__).parents[2]


def _write(folder: Path, text: str) -> Path:
    (folder / "variants.yaml").write_text(text, encoding="utf-8")
    return folder / "variants.yaml"


def test_variants_are_read_in_order_and_named_as_folders(tmp_path: Path) -> None:
    path = _write(tmp_path, "ABMILX, α = 1: {model.head: ABMILX}\nABMILX, α = -1: {}\n1.5: {trainer.max_epochs: 2}\n")
    assert read_variants(path) == [
        Variant("ABMILX, α = 1", "ABMILX-α-1", {"model.head": "ABMILX"}),
        Variant("ABMILX, α = -1", "ABMILX-α--1", {}),
        Variant("1.5", "1.5", {"trainer.max_epochs": 2}),
    ]


def test_values_of_each_type_reach_the_parser() -> None:
    head = {"class_path": "ABMIL", "init_args": {"dropout": 0}}
    options: dict[str, Any] = {
        "model.head": head, "model.optimizer.init_args.lr": 1e-5, "model.gradient_checkpointing": True,
        "data.classes": ["benign", "malign"], "model.augment": None, "checkpoint.monitor": "val/loss",
        "checkpoint.mode": "min",
    }  # fmt: skip
    config = str(ROOT / "configs/demo_features.yaml")
    settings = resolve(["--config", config, *Variant("all", "all", options).words])
    model = settings["model"]["init_args"]
    assert model["head"]["class_path"] == "e2e_abmilx.ABMIL"
    assert model["head"]["init_args"]["dropout"] == 0
    assert model["optimizer"]["init_args"]["lr"] == 1e-5
    assert model["gradient_checkpointing"] is True
    assert model["augment"] is None
    assert settings["data"]["init_args"]["classes"] == ["benign", "malign"]
    assert settings["checkpoint"] == {"monitor": "val/loss", "mode": "min"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no variants; write one a line"),
        ("- ABMIL", "holds no variants"),
        ("a: [", "is not YAML"),
        ("a: ABMIL", r"the variant 'a' in .* is 'ABMIL', not a mapping of options"),
        ("a:", r"the variant 'a' in .* is None.*\{\} changes nothing"),
        ("a: {1: 2}", "not a mapping of options"),
        ("a: {}\nb: {}\na: {model.head: ABMIL}", "line 3: 'a' is given twice"),
        ("a: {model.head: ABMIL, model.head: ABMILX}", "line 1: 'model.head' is given twice"),
        ("a: {trainer.callbacks+: [{x: 1, x: 2}]}", "'x' is given twice"),
        ("α 1: {}\nα, 1: {}", "'α 1' and 'α, 1' would share the folder α-1"),
        ("abmil: {}\nABMIL: {}", "would share the folder ABMIL"),
        ("'..': {}", "has no letter or digit"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_variants(_write(tmp_path, text))


@pytest.mark.parametrize("shared", ["--model.head=ABMIL", "--model.init_args.head"])
def test_options_of_all_runs_must_not_be_those_of_a_variant(shared: str) -> None:
    variants = [Variant("plain", "plain", {}), Variant("α = 1", "α-1", {"model.head": "ABMILX"})]
    with pytest.raises(InputError, match=r"model\.head is set for all runs and by the variant 'α = 1'"):
        refuse_conflicts(variants, [shared, "ABMIL"])
    refuse_conflicts(variants, ["--model.head.dropout=0", "--trainer.max_epochs", "2"])


def test_the_sweep_of_the_paper_differs_in_the_head_alone() -> None:
    config = str(ROOT / "configs/demo_features.yaml")
    expected = resolve(["--config", config])
    del expected["model"]["init_args"]["head"]
    heads = []
    for variant in read_variants(ROOT / "benchmarks/learning/variants.yaml"):
        settings = resolve(["--config", config, *variant.words])
        head = settings["model"]["init_args"].pop("head")
        own = [head.get("init_args", {}).get(name) for name in ("refine", "alpha_init", "alpha_fixed")]
        heads.append((head["class_path"].rpartition(".")[2], *own))
        assert settings == expected
    assert heads == [
        ("ABMILX", True, "normal", False),
        ("ABMILX", True, 0, False),
        ("ABMILX", True, 1, False),
        ("ABMILX", True, 1, True),
        ("ABMILX", False, "normal", False),
        *((name, None, None, None) for name in ("ABMIL", "TransMIL", "MeanPool")),
    ]
