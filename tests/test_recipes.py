"""The end-to-end recipes in ``configs/`` have the values of the authors' five recipes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from built_recipes import CONFIGS, Recipe, build_recipe, read_rates
from torch import nn

from e2e_abmilx.cohort import Case, read_cohort
from e2e_abmilx.data.bag import Target
from e2e_abmilx.data.samplers import Draw
from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.encoders.augment import GroupedCrops
from e2e_abmilx.main import main
from e2e_abmilx.store import write_store

RECIPES = ("panda_r18", "panda_r50", "brca_subtyping_r18", "brca_subtyping_r50", "brca_survival_r18")
#: Names of the recipes in the authors' release and in the reference values.
AUTHORS = ("r18_panda", "r50_panda", "r18_brca_subtyping", "r50_brca_subtyping", "r18_brca_survival")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stores of a large slide and of a slide with fewer patches than any bag."""
    folder = tmp_path_factory.mktemp("cache")
    for name, fine, coarse in (("large", 900, 200), ("small", 20, 5)):
        blank = {0.5 * 2**k: (np.zeros((n, 16, 16, 3), np.uint8), None) for k, n in enumerate((fine, coarse))}
        write_store(folder / f"{name}.zarr", blank)
    return folder


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> dict[str, Recipe]:
    return {
        name: build_recipe(
            name, tmp_path_factory.mktemp(name), **{"model.encoder.pretrained": "false", "data.cache": cache}
        )
        for name in RECIPES
    }


def _crops(recipe: Recipe) -> GroupedCrops:
    assert isinstance(recipe.task.augment, GroupedCrops)
    return recipe.task.augment


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _max_epoch(recipe: Recipe) -> int | None:
    """Return the authors' value: runs stop after this epoch, counted from 0, at the earliest; None if they never do."""
    return None if recipe.trainer.min_epochs is None else recipe.trainer.min_epochs - 2


def _ratio(recipe: Recipe) -> int:
    return round(1 / recipe.data.coarse_fraction)


def _transform(recipe: Recipe) -> tuple[bool, float]:
    return _crops(recipe).flips, _crops(recipe).max_shift * 256


_STRONG, _WEAK, _WEAK_STRONG = (True, 0), (False, 0), (False, 100)

#: By the authors' option: how to get the value from a recipe, and the expected values of the five recipes.
VALUES: dict[str, tuple[Callable[[Recipe], object], tuple[object, ...]]] = {
    "encoder": (
        lambda r: r.config.model.init_args.encoder.init_args.name,
        ("resnet18.tv_in1k", "resnet50.tv2_in1k") * 2 + ("resnet18.tv_in1k",),
    ),
    "encoder parameters": (lambda r: _size(r.task.encoder), (2_782_784, 8_543_296, 2_782_784, 8_543_296, 2_782_784)),
    "head parameters": (lambda r: _size(r.head), (2_546_305, 868_545, 135_265, 332_641, 135_810)),
    "num_epoch": (lambda r: r.trainer.max_epochs, (200, 200, 75, 125, 30)),
    "max_epoch": (_max_epoch, (120, None, 50, None, 20)),
    "patient": (lambda r: r.callbacks().get("DeferredEarlyStopping", {}).get("patience"), (20, None, 10, None, 10)),
    "opt": (lambda r: type(r.optimizer()).__name__, ("Adam", "AdamW", "AdamW", "AdamW", "AdamW")),
    "lr": (lambda r: r.optimizer().defaults["lr"], (2e-4, 2e-4, 8e-5, 8e-5, 8e-5)),
    "weight_decay": (lambda r: r.optimizer().defaults["weight_decay"], (1e-5, 1e-2, 0.0, 0.0, 5e-2)),
    "weight decay of norms": (lambda r: r.task.decay_norms, (True,) * 5),
    "clip_grad": (lambda r: r.trainer.gradient_clip_val, (None,) * 5),
    "accumulation_steps": (lambda r: r.trainer.accumulate_grad_batches, (1,) * 5),
    "batch_size": (lambda r: r.data.batch_size, (8, 4, 3, 4, 2)),
    "processes": (lambda r: r.trainer.world_size, (2,) * 5),
    "same_psize": (lambda r: r.data.patches_per_bag, (128, 128, 512, 128, 768)),
    "mul_scale_ratio": (_ratio, (4, 4, 4, 3, 10)),
    "pad_enc_bs": (lambda r: r.data.padding, ("duplicate",) * 5),
    "p_batch_size": (lambda r: r.task.train_chunk_size, (2048, 2048, 512, 512, 2048)),
    "p_batch_size_v": (lambda r: r.data.eval_chunk_size, (2048,) * 5),
    "evaluated scales": (lambda r: r.data.eval_scales, ("finest",) * 5),
    "img_transform": (_transform, (_STRONG, _STRONG, _WEAK, _WEAK_STRONG, _WEAK)),
    "crop_scale": (lambda r: _crops(r).min_area, (0.08, 0.08, 0.25, 0.08, 0.08)),
    "img_trans_chunk": (lambda r: _crops(r).groups, (4,) * 5),
    "crop": (lambda r: _crops(r).size, (224,) * 5),
    "img_size": (lambda r: r.data.patch_size, (256,) * 5),
    "µm/px": (lambda r: r.data.mpp, ((0.5, 1.0), (0.5, 1.0), (1.0, 2.0), (1.0, 2.0), (1.0, 2.0))),
    "input_dim": (lambda r: r.head.embed.in_features, (256, 1024, 256, 1024, 256)),
    "inner_dim": (lambda r: r.head.embed.out_features, (512, 256, 256, 256, 256)),
    "n_heads": (lambda r: r.head.num_heads, (4, 4, 8, 8, 8)),
    "act": (lambda r: type(r.head.activation), (nn.GELU,) * 5),
    "dropout": (lambda r: r.head.dropout.p, (0.25,) * 5),
    "mil_norm": (lambda r: (type(r.head.input_norm), type(r.head.norm)), ((nn.LayerNorm,) * 2,) * 5),
    "mil_bias": (lambda r: r.head.project.bias, (None,) * 5),
    "ffn": (lambda r: r.head.ffn is not None, (True, True, False, False, False)),
    "abx_attn_plus": (lambda r: r.head.attention_plus is not None, (True,) * 5),
    "abx_attn_bias": (lambda r: r.head.score[0].bias is not None, (False, False, False, False, True)),
    "initial α": (lambda r: r.config.model.init_args.head.init_args.alpha_init, ("normal",) * 5),
    "n_classes": (lambda r: r.task.num_outputs, (6, 6, 2, 2, 4)),
    "loss": (
        lambda r: (type(r.task.loss).__name__, getattr(r.task.loss, "alpha", None)),
        (("CrossEntropyLoss", None),) * 4 + (("SurvivalNLL", 0.0),),
    ),
    "seed": (lambda r: (r.config.seed_everything, r.data.seed), ((2021, 2021),) * 5),
    "mm": (lambda r: r.callbacks().get("EMAWeightAveraging", {}).get("decay"), (0.9999, 0.9999, 0.9997, 0.9997, None)),
    "averaged buffers": (
        lambda r: r.callbacks().get("EMAWeightAveraging", {}).get("use_buffers"),
        (True,) * 4 + (None,),  # Lightning's default, which the recipes do not state
    ),
    "amp": (lambda r: r.config.trainer.precision, ("16-mixed",) * 5),
    "sync_bn": (lambda r: r.config.trainer.sync_batchnorm, (True,) * 5),
    "num_workers": (lambda r: r.data.num_workers, (8, 8, 6, 6, 6)),
    "best_metric_index": (
        lambda r: (r.config.checkpoint.monitor, r.config.checkpoint.mode),
        (("val/balanced_accuracy", "max"),) * 2 + (("val/auc", "max"),) * 2 + (("val/c_index", "max"),),
    ),
    "selection on test cases": (lambda r: r.data.plan.select_on_test, (False,) * 5),
}


@pytest.mark.parametrize("key", VALUES)
def test_values(recipes: dict[str, Recipe], key: str) -> None:
    ours, expected = VALUES[key]
    found = {name: ours(recipe) for name, recipe in recipes.items()}
    assert found == dict(zip(RECIPES, expected, strict=True))


def test_early_stopping_and_checkpoint_have_the_same_metric(recipes: dict[str, Recipe]) -> None:
    for name, recipe in recipes.items():
        stopping, checkpoint = recipe.callbacks().get("DeferredEarlyStopping"), recipe.config.checkpoint
        if stopping is not None:
            assert (stopping["monitor"], stopping["mode"]) == (checkpoint.monitor, checkpoint.mode), name
        assert checkpoint.monitor in {*recipe.task.val_metrics.keys()}


@pytest.mark.parametrize(
    ("name", "coarse", "fine"), list(zip(RECIPES, (32, 32, 128, 42, 76), (96, 96, 384, 86, 692), strict=True))
)
@pytest.mark.parametrize("slide", ["large", "small"])
def test_training_bags_have_the_right_numbers_of_patches(
    recipes: dict[str, Recipe], name: str, slide: str, coarse: int, fine: int
) -> None:
    data = recipes[name].data
    data.cases["train"], data.targets["train"] = [Case(slide, (slide,))], [Target(0)]
    bag = data.random_bags("train")[Draw(0, 0)]
    assert ((bag.scale == 1).sum(), (bag.scale == 0).sum()) == (coarse, fine)
    assert bag.mask.all()


#: Recipe, training cases, of them in the last class, and the authors' steps per epoch on two GPUs.
EPOCHS = [
    ("panda_r18", 7143, 0, 446),
    ("panda_r50", 7143, 0, 892),
    ("brca_subtyping_r18", 656, 138, 132),  # of 518 + 2 · 138 = 794 draws
    ("brca_subtyping_r50", 656, 138, 99),
    ("brca_survival_r18", 671, 0, 167),
]


@pytest.mark.parametrize(("name", "cases", "rare", "steps"), EPOCHS)
def test_steps_per_epoch(recipes: dict[str, Recipe], name: str, cases: int, rare: int, steps: int) -> None:
    data = recipes[name].data
    data.trainer = recipes[name].trainer
    data.cases["train"] = [Case(str(number), ("large",)) for number in range(cases)]
    data.targets["train"] = [Target(int(number < rare)) for number in range(cases)]
    data.classes = ("IDC", "ILC")
    assert len(data.train_dataloader()) == steps


@pytest.mark.parametrize(("name", "epochs"), [("panda_r18", 22), ("brca_subtyping_r18", 25)])
def test_the_average_of_the_weights_looks_back_as_far_as_the_authors(
    recipes: dict[str, Recipe], name: str, epochs: int
) -> None:
    steps = next(steps for recipe, *_, steps in EPOCHS if recipe == name)
    decay = recipes[name].callbacks()["EMAWeightAveraging"]["decay"]
    assert round(1 / (1 - decay) / steps) == epochs


@pytest.mark.parametrize(("name", "cases", "rare", "steps"), EPOCHS)
def test_learning_rates_at_the_start_of_each_epoch(
    shared: Path, recipes: dict[str, Recipe], name: str, cases: int, rare: int, steps: int
) -> None:
    theirs = read_rates(shared, AUTHORS[RECIPES.index(name)])
    assert recipes[name].rates_at_epochs(steps, len(theirs)) == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "table", "select_on_test", "sizes", "steps"),
    [
        ("panda_r18", "panda", False, (7143, 1019, 2040), 446),
        ("brca_subtyping_r18", "subtyping_tcga_brca", False, (656, 95, 234), 132),
        ("brca_subtyping_r18", "subtyping_tcga_brca_resample", True, (656, 329, 329), 132),
        ("brca_subtyping_r50", "subtyping_tcga_brca", False, (656, 95, 234), 99),
        ("brca_survival_r18", "survival_tcga_brca_3fold/fold_0", False, (587, 84, 336), 146),
        ("brca_survival_r18", "survival_tcga_brca_3fold/fold_0", True, (671, 336, 336), 167),
    ],
)
def test_the_authors_tables(
    shared: Path,
    recipes: dict[str, Recipe],
    cache: Path,
    tmp_path: Path,
    name: str,
    table: str,
    select_on_test: bool,
    sizes: tuple[int, int, int],
    steps: int,
) -> None:
    """Every slide of the table is a link to the same small store."""
    recipe = recipes[name]
    labels = shared / f"data/labels/authors/{table}.csv"
    for case in read_cohort(labels):
        for slide in case.slides:
            (tmp_path / f"{slide}.zarr").symlink_to(cache / "small.zarr", target_is_directory=True)
    settings = {**recipe.config.data.init_args.as_dict(), "cache": tmp_path, "labels": labels}
    if settings["splits"]:
        settings["splits"] = labels.parent
    data = SlideDataModule(**settings | {"select_on_test": select_on_test})
    data.trainer = recipe.trainer
    data.setup("fit")
    assert tuple(len(data.cases[split]) for split in ("train", "val", "test")) == sizes
    assert len(data.classes) == recipe.task.num_outputs
    assert len(data.train_dataloader()) == steps


@pytest.mark.parametrize(
    ("name", "own"),
    [
        (
            "brca_subtyping_r18",
            ["--data.columns={label: lesion}", "--data.classes=['0', '1']", "--data.oversample={1: 2}"],
        ),
        ("brca_survival_r18", ["--data.splits=null", "--data.fold=null", "--data.time_bins=4"]),
    ],
)
def test_a_recipe_trains(cohort: Path, stores: Path, tmp_path: Path, name: str, own: list[str]) -> None:
    """A recipe with all its callbacks, reduced to a size for a CPU."""
    small = {
        "model.encoder.pretrained": "false",
        "model.augment.size": 32,
        "data.cache": stores,
        "data.labels": cohort / "labels.csv",
        "data.patches_per_bag": 8,
        "data.num_workers": 0,
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
        "trainer.precision": "32-true",
        "trainer.min_epochs": 1,
        "trainer.max_epochs": 2,
        "trainer.log_every_n_steps": 1,
        "trainer.enable_progress_bar": "false",
        "trainer.default_root_dir": tmp_path,
    }
    options = [f"--{key}={value}" for key, value in small.items()]
    main(["fit", "--config", str(CONFIGS / f"{name}.yaml"), *options, *own])
    assert (tmp_path / "predictions.csv").is_file()
    averaged = "current_model_state" in torch.load(tmp_path / "best.ckpt", weights_only=False)
    assert averaged == (name == "brca_subtyping_r18")
