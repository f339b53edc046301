"""Attention sampling: the model in training scores all patches before each epoch but the first."""

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging
from local_bucket import FaultProxy
from slide_runs import message_of, write_slide_config

from e2e_abmilx.cache.push import push
from e2e_abmilx.data.bag import Bag, collate
from e2e_abmilx.data.draws import AttentionDraw
from e2e_abmilx.data.samplers import EpochSampler
from e2e_abmilx.data.slide_bags import WholeSlides, row_ranks
from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.datamodules.model_attention import attention_of
from e2e_abmilx.encoders import TimmEncoder
from e2e_abmilx.encoders.augment import RandomCrops
from e2e_abmilx.errors import InputError
from e2e_abmilx.heads import ABMILX
from e2e_abmilx.main import main
from e2e_abmilx.store import PatchStore
from e2e_abmilx.store.locations import ObjectUrl, store_path
from e2e_abmilx.tasks import ClassificationTask
from e2e_abmilx.training.callbacks import LastCheckpoint


class Killed(BaseException):
    """Stands for a kill."""


class _Watch(Callback):
    """Record the bags with a checksum of the attention that they are drawn by, and each epoch's attention and weights."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.bags: list[tuple[int, tuple[str, ...], list[object], int]] = []
        self.attention: dict[int, Mapping[str, object]] = {}
        self.weights: dict[int, dict[str, torch.Tensor]] = {}
        self.modes: list[bool] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Bag, batch_idx: int) -> None:
        if trainer.global_step == self.stop_at:
            raise Killed
        self.modes += [module.training for module in pl_module.modules()]
        draw = trainer.datamodule.draw  # type: ignore[attr-defined]
        drawn_by = b"".join(one.tobytes() for case in sorted(draw.attention) for one in draw.attention[case])
        self.bags.append((trainer.current_epoch, batch.cases, batch.coords.tolist(), zlib.crc32(drawn_by)))
        if batch_idx == 0:
            self.attention[trainer.current_epoch] = draw.attention
            self.weights[trainer.current_epoch] = {k: v.clone() for k, v in pl_module.state_dict().items()}


def _task() -> ClassificationTask:
    seed_everything(3, verbose=False)
    return ClassificationTask(
        TimmEncoder("test_resnet", pretrained=False),
        lambda width, outputs: ABMILX(width, outputs, hidden_features=16, num_heads=2, dropout=0.25),
        2,
        augment=RandomCrops(32),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=3e-3),
    )


def _data(cohort: Path, stores: Path, **how: object) -> SlideDataModule:
    settings = {"columns": {"label": "lesion"}, "patches_per_bag": 8, "batch_size": 4, "num_workers": 0, **how}
    return SlideDataModule(stores, cohort / "labels.csv", draw=AttentionDraw(1.0), **settings)  # type: ignore[arg-type]


def _fit(folder: Path, data: SlideDataModule, watch: _Watch, epochs: int = 3) -> ClassificationTask:
    """Fit, from ``last.ckpt`` if it exists."""
    last, task = folder / "last.ckpt", _task()
    trainer = Trainer(
        default_root_dir=folder, max_epochs=epochs, accelerator="cpu", precision="32-true", logger=False,
        callbacks=[EMAWeightAveraging(decay=0.9), LastCheckpoint(every_n_steps=1), watch],
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(task, data, ckpt_path=last if last.exists() else None, weights_only=False)
    return task


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cohort: Path, stores: Path) -> tuple[Path, _Watch]:
    folder, watch = tmp_path_factory.mktemp("whole"), _Watch()
    _fit(folder, _data(cohort, stores), watch)
    return folder, watch


def test_every_epoch_but_the_first_draws_by_the_weights_at_its_start(
    whole: tuple[Path, _Watch], cohort: Path, stores: Path
) -> None:
    _, watch = whole
    assert not watch.attention[0]
    data = _data(cohort, stores)
    data.setup("fit")
    for epoch in (1, 2):
        task = _task().eval()
        task.load_state_dict(watch.weights[epoch])
        assert watch.attention[epoch].keys() == {case.id for case in data.cases["train"]}
        parts = WholeSlides(data.cases["train"], data.targets["train"], stores, chunk_size=10**6, scales="all")
        case = data.cases["train"][5]
        own = [parts[k] for k, part in enumerate(parts.parts) if part.case == 5]  # one per scale
        with torch.no_grad():
            pixels = torch.cat([bag.patches for bag in own]).permute(0, 3, 1, 2)  # type: ignore[arg-type]
            features = task.encoder(task.normalize(task.augment(pixels)))
            attention = task.head.attend(features[None]).attention[0].mean(0)
        scales = attention.split([len(bag.scale) for bag in own])
        for ours, expected in zip(watch.attention[epoch][case.id], scales, strict=True):  # type: ignore[call-overload]
            np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-7)
    assert all(watch.modes)  # dropout and batch norm train again after scoring


def test_bags_contain_attended_patches_more_often(whole: tuple[Path, _Watch], cohort: Path, stores: Path) -> None:
    data = _data(cohort, stores)
    data.setup("fit")
    draw, attention = data.draw, np.full(64, 1e-9, np.float32)
    assert isinstance(draw, AttentionDraw)
    sizes = {case.id: [len(one) for one in whole[1].attention[1][case.id]] for case in data.cases["train"]}  # type: ignore[attr-defined]
    attention[:3] = 0.3
    draw.attention = {case: [attention[:count] for count in counts] for case, counts in sizes.items()}
    bags = data.random_bags("train")
    for index in range(len(sizes)):
        bag = bags[index]
        fine = WholeSlides(data.cases["train"], data.targets["train"], stores, chunk_size=10**6)[index]
        drawn = set(map(tuple, bag.coords[bag.scale == 0].tolist()))
        assert set(map(tuple, fine.coords[:3].tolist())) <= drawn


@pytest.mark.parametrize(
    "step",
    # batches of 4 of 12 cases: at the end of the first epoch, and in the second; slow: elsewhere in both
    [3, 4, *(pytest.param(step, marks=pytest.mark.slow) for step in (2, 5))],
)
def test_a_resumed_run_draws_the_same_bags(
    step: int, whole: tuple[Path, _Watch], cohort: Path, stores: Path, tmp_path: Path
) -> None:
    folder, watch = whole
    stopped, resumed = _Watch(step), _Watch()
    with pytest.raises(Killed):
        _fit(tmp_path, _data(cohort, stores), stopped)
    _fit(tmp_path, _data(cohort, stores), resumed)
    assert stopped.bags + resumed.bags == watch.bags
    states = [torch.load(one / "last.ckpt", weights_only=False)["current_model_state"] for one in (folder, tmp_path)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_workers_get_the_attention_of_their_epoch(
    whole: tuple[Path, _Watch], cohort: Path, stores: Path, tmp_path: Path
) -> None:
    watch = _Watch()
    _fit(tmp_path, _data(cohort, stores, num_workers=2), watch)
    assert watch.bags == whole[1].bags


def test_a_second_fit_starts_anew(cohort: Path, stores: Path, tmp_path: Path) -> None:
    data, watches = _data(cohort, stores), (_Watch(), _Watch())
    for k, watch in enumerate(watches):
        _fit(tmp_path / str(k), data, watch, epochs=2)
    assert watches[0].bags == watches[1].bags


def test_what_cannot_be_scored_is_refused(cohort: Path, stores: Path, tmp_path: Path) -> None:
    data = _data(cohort, stores)
    data.setup("fit")
    loader = data.train_dataloader()
    assert len(list(loader)) == 3  # the first epoch
    assert isinstance(loader.sampler, EpochSampler)
    loader.sampler.set_epoch(1)
    with pytest.raises(InputError, match="fit with a Trainer"):
        next(iter(loader))
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(LightningModule())
    with pytest.raises(InputError, match="the model is a LightningModule"):
        attention_of(trainer, [])
    config = write_slide_config(tmp_path, cohort, stores)
    options = [
        "--data.draw",
        "AttentionDraw",
        "--trainer.overfit_batches",
        "1",
        "--trainer.limit_train_batches",
        "null",
    ]
    assert "repeats the bags of the first epoch" in message_of(["fit", "--config", str(config), *options])


def test_attention_is_in_the_order_of_the_stores(
    cohort: Path, stores: Path, bucket: FaultProxy, tmp_path: Path
) -> None:
    """Also where that is random, and cases come row by row."""
    to = ObjectUrl("s3://cohorts/attention")
    assert push(stores, to) == []
    found = {}
    for name, cache in (("local", stores), ("pushed", to)):
        watch, data = _Watch(), _data(cohort, cache)
        _fit(tmp_path / name, data, watch, epochs=1)
        data.trainer.lightning_module.load_state_dict(_task().state_dict())
        bags = WholeSlides(data.cases["train"], data.targets["train"], data.cache, chunk_size=7, scales="all")
        found[name] = attention_of(data.trainer, (collate([bags[index]]) for index in range(len(bags))))
    for case in data.cases["train"]:
        for scale, (local, pushed) in enumerate(zip(found["local"][case.id], found["pushed"][case.id], strict=True)):
            ranks, before = [], 0
            for store in (PatchStore(store_path(to, slide)) for slide in case.slides):
                ranks.append(before + row_ranks(store, scale))
                before += store.num_patches(scale)
            assert not np.array_equal(local, pushed)
            np.testing.assert_allclose(pushed, local[np.concatenate(ranks)], rtol=1e-4)


def test_a_fit_by_attention(cohort: Path, stores: Path, tmp_path: Path) -> None:
    config = write_slide_config(tmp_path, cohort, stores)
    draw = ["--data.draw=AttentionDraw", "--data.draw.fraction=0.75"]
    main(["fit", "--config", str(config), *draw, "--data.num_workers=1", "--data.decode_on_device=true"])
    assert "fraction: 0.75" in (tmp_path / "run/fit.yaml").read_text()
    assert (tmp_path / "run/predictions.csv").exists()
    drawn_by = torch.load(tmp_path / "run/last.ckpt", weights_only=False)["SlideDataModule"]["draw"]
    assert drawn_by["epoch"] == 2
    assert len(drawn_by["attention"]) == 12
