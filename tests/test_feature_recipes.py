"""The feature recipes in ``configs/`` have the values of the authors' three recipes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from built_recipes import CONFIGS, Recipe, build_recipe, read_rates
from torch import nn

from e2e_abmilx.cohort import read_cohort
from e2e_abmilx.datamodules import FeatureDataModule
from e2e_abmilx.encoders import Precomputed
from e2e_abmilx.main import main

RECIPES = ("features_panda", "features_subtyping", "features_survival")
#: Names of the recipes in the authors' release and in the reference values.
AUTHORS = ("fm_panda", "fm_subtyping", "fm_survival")


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recipe]:
    return {name: build_recipe(name, tmp_path_factory.mktemp(name)) for name in RECIPES}


_EARLY_STOPPING = {
    "DeferredEarlyStopping": {"monitor": "val/balanced_accuracy", "mode": "max", "patience": 20, "min_delta": -1e-6}
}

#: By the authors' option: how to get the value from a recipe, and the expected values of the three recipes.
VALUES: dict[str, tuple[Callable[[Recipe], object], tuple[object, ...]]] = {
    "num_epoch": (lambda r: r.trainer.max_epochs, (200, 75, 30)),
    # the authors' value: runs stop after this epoch, counted from 0, at the earliest
    "max_epoch": (lambda r: r.trainer.min_epochs and r.trainer.min_epochs - 2, (100, None, None)),
    "patient, mm": (
        lambda r: {
            name: {key: value for key, value in how.items() if key in _EARLY_STOPPING["DeferredEarlyStopping"]}
            for name, how in r.callbacks().items()
        },
        (_EARLY_STOPPING, {}, {}),
    ),
    "opt": (lambda r: type(r.optimizer()).__name__, ("AdamW",) * 3),
    "lr": (lambda r: r.optimizer().defaults["lr"], (1e-4,) * 3),
    "weight_decay": (lambda r: r.optimizer().defaults["weight_decay"], (0.0,) * 3),
    "clip_grad": (lambda r: r.trainer.gradient_clip_val, (None,) * 3),
    "accumulation_steps": (lambda r: r.trainer.accumulate_grad_batches, (1,) * 3),
    "batch_size": (lambda r: r.data.batch_size, (1,) * 3),
    "same_psize": (lambda r: r.data.max_patches, (None,) * 3),
    "input_dim": (lambda r: r.head.embed.in_features, (1024,) * 3),
    "inner_dim": (lambda r: r.head.embed.out_features, (512,) * 3),
    "n_heads": (lambda r: r.head.num_heads, (8,) * 3),
    "act": (lambda r: type(r.head.activation), (nn.ReLU, nn.ReLU, nn.GELU)),
    "dropout": (lambda r: r.head.dropout.p, (0.25,) * 3),
    "mil_norm": (lambda r: (type(r.head.input_norm), type(r.head.norm)), ((nn.Identity,) * 2,) * 3),
    "mil_bias": (lambda r: r.head.project.bias is not None, (True,) * 3),
    "ffn": (lambda r: r.head.ffn is not None, (False,) * 3),
    "abx_attn_bias": (lambda r: r.head.score[0].bias is not None, (False,) * 3),
    "A+, which the authors leave off": (lambda r: r.head.attention_plus is not None, (True,) * 3),
    # the authors' default head has 801,028 parameters, of which 65 are biases of the score, and 513 per output
    "head parameters": (
        lambda r: sum(parameter.numel() for parameter in r.head.parameters()),
        tuple(801_028 - 65 + 513 * (outputs - 2) for outputs in (6, 2, 4)),
    ),
    "n_classes": (lambda r: r.task.num_outputs, (6, 2, 4)),
    "loss": (
        lambda r: (type(r.task.loss).__name__, getattr(r.task.loss, "alpha", None)),
        (("CrossEntropyLoss", None),) * 2 + (("SurvivalNLL", 0.0),),
    ),
    "seed": (lambda r: (r.config.seed_everything, r.data.seed), ((2021, 2021),) * 3),
    "amp": (lambda r: r.config.trainer.precision, ("32-true",) * 3),
    "sync_bn": (lambda r: r.config.trainer.sync_batchnorm, (False,) * 3),
    "num_workers": (lambda r: r.data.num_workers, (6,) * 3),
    "best_metric_index": (
        lambda r: (r.config.checkpoint.monitor, r.config.checkpoint.mode),
        (("val/balanced_accuracy", "max"), ("val/auc", "max"), ("val/c_index", "max")),
    ),
    "selection on test cases": (lambda r: r.data.plan.select_on_test, (False,) * 3),
    "encoder": (lambda r: type(r.task.encoder), (Precomputed,) * 3),
}


@pytest.mark.parametrize("key", VALUES)
def test_values(recipes: dict[str, Recipe], key: str) -> None:
    ours, expected = VALUES[key]
    assert {name: ours(recipe) for name, recipe in recipes.items()} == dict(zip(RECIPES, expected, strict=True))


def test_checkpoints_are_chosen_by_a_metric_of_the_task(recipes: dict[str, Recipe]) -> None:
    for recipe in recipes.values():
        assert recipe.config.checkpoint.monitor in {*recipe.task.val_metrics.keys()}


@pytest.mark.parametrize(("name", "cases"), list(zip(RECIPES, (7143, 656, 671), strict=True)))
def test_learning_rates_at_the_start_of_each_epoch(
    shared: Path, recipes: dict[str, Recipe], name: str, cases: int
) -> None:
    theirs = read_rates(shared, AUTHORS[RECIPES.index(name)])
    assert recipes[name].rates_at_epochs(cases, len(theirs)) == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "table", "select_on_test", "sizes"),
    [
        ("features_panda", "panda", False, (7143, 1019, 2040)),
        ("features_subtyping", "subtyping_tcga_brca", False, (656, 95, 234)),
        ("features_subtyping", "subtyping_tcga_brca", True, (656, 329, 329)),
        ("features_survival", "survival_tcga_brca_3fold/fold_0", False, (587, 84, 336)),
        ("features_survival", "survival_tcga_brca_3fold/fold_0", True, (671, 336, 336)),
    ],
)
def test_the_authors_tables(
    shared: Path,
    recipes: dict[str, Recipe],
    tmp_path: Path,
    name: str,
    table: str,
    select_on_test: bool,
    sizes: tuple[int, int, int],
) -> None:
    """Every slide of the table is a link to the same small file."""
    recipe = recipes[name]
    torch.save(torch.zeros(2, 1024), tmp_path / "one.pt")
    features = tmp_path / "features"
    features.mkdir()
    labels = shared / f"data/labels/authors/{table}.csv"
    for case in read_cohort(labels):
        for slide in case.slides:
            (features / f"{slide}.pt").symlink_to(tmp_path / "one.pt")
    settings = {**recipe.config.data.init_args.as_dict(), "features": features, "labels": labels}
    if settings["splits"]:
        settings["splits"] = labels.parent
    data = FeatureDataModule(**settings | {"select_on_test": select_on_test})
    data.setup("fit")
    assert tuple(len(data.cases[split]) for split in ("train", "val", "test")) == sizes
    assert len(data.classes) == recipe.task.num_outputs
    assert len(data.train_dataloader()) == sizes[0]


@pytest.mark.parametrize(
    ("name", "own"),
    [
        (
            "features_panda",
            ["--data.columns={label: grade}", "--data.classes=['0', '1', '2']", "--model.num_outputs=3"],
        ),
        ("features_subtyping", ["--data.columns={label: lesion}", "--data.classes=['0', '1']"]),
        ("features_survival", ["--data.splits=null", "--data.fold=null", "--data.time_bins=4"]),
    ],
)
def test_a_recipe_trains(cohort: Path, tmp_path: Path, name: str, own: list[str]) -> None:
    """A recipe with all its callbacks, on noise as features and a few patches per slide."""
    torch.manual_seed(0)
    (tmp_path / "features").mkdir()
    for case in read_cohort(cohort / "labels.csv", columns={"label": "lesion"}):
        torch.save(torch.randn(3 + len(case.id) % 5, 16), tmp_path / f"features/{case.slides[0]}.pt")
    small = {
        "model.encoder.num_features": 16,
        "data.features": tmp_path / "features",
        "data.labels": cohort / "labels.csv",
        "data.num_workers": 0,
        "trainer.accelerator": "cpu",
        "trainer.min_epochs": 1,
        "trainer.max_epochs": 2,
        "trainer.log_every_n_steps": 1,
        "trainer.enable_progress_bar": "false",
        "trainer.default_root_dir": tmp_path / "run",
    }
    options = [f"--{key}={value}" for key, value in small.items()]
    main(["fit", "--config", str(CONFIGS / f"{name}.yaml"), *options, *own])
    assert (tmp_path / "run/predictions.csv").is_file()
    assert "current_model_state" not in torch.load(tmp_path / "run/best.ckpt", weights_only=False)
