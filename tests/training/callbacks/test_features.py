"""Files of features: their format, and what is skipped, refused and recorded."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn

from e2e_abmilx.data.features import FeatureError, FeatureFolder, read_features
from e2e_abmilx.datamodules import FeatureDataModule, SlideDataModule
from e2e_abmilx.encoders import Precomputed, ResNetEncoder
from e2e_abmilx.errors import InputError
from e2e_abmilx.heads import MeanPool
from e2e_abmilx.main import main
from e2e_abmilx.store import PatchStore, write_store
from e2e_abmilx.tasks import BagTask, ClassificationTask
from e2e_abmilx.training.callbacks.features import FeatureWriter, describe_encoder

SLIDES = ["slide-004", "slide-001", "slide-002"]


class _Means(nn.Module):
    """Means of the channels of each quarter; counts the patches that it has seen."""

    num_features = 12

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.seen = 0

    def forward(self, patches: Tensor) -> Tensor:
        self.seen += len(patches)
        return self.gain * nn.functional.adaptive_avg_pool2d(patches, 2).flatten(1)


class _Interrupt(Callback):
    def on_predict_batch_end(self, trainer: Trainer, *args: object, **kwargs: object) -> None:
        if args[3] == 5:
            raise KeyError("power failure")


def _task(encoder: nn.Module) -> BagTask:
    return ClassificationTask(encoder, MeanPool, 2)


def _data(stores: Path, folder: Path, **how: object) -> SlideDataModule:
    """Three slides of two cases, in parts of seven patches."""
    folder.mkdir(exist_ok=True)
    rows = [f"{case},{slide},0,test" for case, slide in zip(["two", "two", "one"], SLIDES, strict=True)]
    (folder / "labels.csv").write_text("\n".join(["case,slide,label,split", *rows]))
    settings = {"classes": ["0", "1"], "eval_chunk_size": 7, "num_workers": 0, **how}
    return SlideDataModule(stores, folder / "labels.csv", **settings)  # type: ignore[arg-type]


def _predict(task: BagTask, data: SlideDataModule, run: Path, *callbacks: Callback) -> None:
    Trainer(
        default_root_dir=run, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[FeatureWriter(), *callbacks],
    ).predict(task, data)  # fmt: skip


def test_files_have_the_format_of_trident(stores: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = _task(ResNetEncoder("resnet18", pretrained=False))
    _predict(task, _data(stores, tmp_path), tmp_path / "run")
    folder = tmp_path / "run/features"
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{slide}.h5" for slide in SLIDES)
    for slide in SLIDES:
        store = PatchStore(stores / f"{slide}.zarr")
        patches = torch.from_numpy(store.read(np.arange(store.num_patches()))).permute(0, 3, 1, 2)
        with torch.no_grad():
            expected = task.eval().encoder(task.normalize(patches))
        with h5py.File(folder / f"{slide}.h5") as file:
            assert sorted(file) == ["coords", "features"]
            assert (file["features"].dtype, file["coords"].dtype) == (np.float32, np.int64)
            np.testing.assert_allclose(file["features"][:], expected.numpy(), rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(file["coords"][:], store.coords())
            assert dict(file["features"].attrs) == {
                "name": slide, "savetodir": str(folder), "encoder": describe_encoder(task.encoder),
                "precision": "32-true",
            }  # fmt: skip
            width, height = store.attributes["slide_size"]
            assert dict(file["coords"].attrs) == {
                "name": slide, "savetodir": str(folder), "patch_size": 64, "overlap": 0,
                "patch_size_level0": round(store.attributes["footprints"][0]),
                "level0_magnification": round(10 / store.attributes["slide_mpp"]),
                "target_magnification": 20, "level0_width": width, "level0_height": height,
            }  # fmt: skip
        found = read_features(folder / f"{slide}.h5")
        assert (found.mpp, found.patch_size_level0) == (0.5, round(store.attributes["footprints"][0]))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_interrupted_run_is_resumed(stores: Path, tmp_path: Path, num_workers: int) -> None:
    how = {"num_workers": num_workers}
    straight, first, second = _Means(), _Means(), _Means()
    _predict(_task(straight), _data(stores, tmp_path, **how), tmp_path / "straight")
    with pytest.raises(KeyError, match="power failure"):
        _predict(_task(first), _data(stores, tmp_path, **how), tmp_path / "run", _Interrupt())
    left_behind = sorted(path.name for path in (tmp_path / "run/features").iterdir())
    assert all(name.startswith("slide-") for name in left_behind)  # only complete files
    _predict(_task(second), _data(stores, tmp_path, **how), tmp_path / "run")
    for slide in SLIDES:
        whole = read_features(tmp_path / f"straight/features/{slide}.h5").read()
        assert torch.equal(read_features(tmp_path / f"run/features/{slide}.h5").read(), whole)
    done = {"two": SLIDES[:2], "one": SLIDES[2:]}
    skipped = sum(
        PatchStore(stores / f"{slide}.zarr").num_patches()
        for slides in done.values()
        if {f"{slide}.h5" for slide in slides} <= set(left_behind)
        for slide in slides
    )
    assert second.seen == straight.seen - skipped
    third = _Means()
    _predict(_task(third), _data(stores, tmp_path, **how), tmp_path / "run")
    assert third.seen == 0


def test_finished_cases_are_skipped(stores: Path, tmp_path: Path) -> None:
    _predict(_task(_Means()), _data(stores, tmp_path), tmp_path / "run")
    (tmp_path / "run/features/slide-002.h5").unlink()
    encoder = _Means()
    _predict(_task(encoder), _data(stores, tmp_path), tmp_path / "run")
    assert encoder.seen == PatchStore(stores / "slide-002.zarr").num_patches()
    assert (tmp_path / "run/features/slide-002.h5").exists()
    assert not encoder._forward_hooks


def test_features_of_two_encoders_are_not_mixed(stores: Path, tmp_path: Path) -> None:
    _predict(_task(_Means()), _data(stores, tmp_path), tmp_path / "run")
    (tmp_path / "run/features/slide-002.h5").unlink()
    with pytest.raises(FeatureError, match=r"slide-00[14]\.h5 has features of .* remove the folder, or write"):
        _predict(_task(_Means(gain=1.001)), _data(stores, tmp_path), tmp_path / "run")


def test_the_encoder_is_that_of_the_checkpoint(stores: Path, tmp_path: Path) -> None:
    data, trained = _data(stores, tmp_path), _task(_Means(gain=3.0))
    trainer = Trainer(
        default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_progress_bar=False,
        callbacks=[FeatureWriter()],
    )  # fmt: skip
    trainer.strategy.connect(trained)
    trainer.save_checkpoint(tmp_path / "trained.ckpt", weights_only=True)
    task = _task(_Means())
    trainer.predict(task, data, ckpt_path=tmp_path / "trained.ckpt", weights_only=False)
    with h5py.File(tmp_path / "features/slide-001.h5") as file:
        assert file["features"].attrs["encoder"] == describe_encoder(trained.encoder)
    assert describe_encoder(trained.encoder) != describe_encoder(_Means())


def test_features_train_a_head(cohort: Path, stores: Path, tmp_path: Path) -> None:
    """A two-stage task finds the features of every slide."""
    data = SlideDataModule(stores, cohort / "labels.csv", columns={"label": "lesion"}, num_workers=0)
    _predict(_task(_Means()), data, tmp_path)
    features = FeatureDataModule(
        tmp_path / "features", cohort / "labels.csv", columns={"label": "lesion"}, max_patches=8, batch_size=2,
        num_workers=0,
    )  # fmt: skip
    trainer = Trainer(
        default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_progress_bar=False, max_epochs=1,
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(_task(Precomputed(12)), features)
    assert "val/auc" in trainer.callback_metrics


def test_the_command_line_extracts(stores: Path, tmp_path: Path) -> None:
    """Any timm encoder, without labels and without training; the head of the task is not used."""
    (tmp_path / "extract.yaml").write_text(
        f"""
        model:
          class_path: ClassificationTask
          init_args:
            encoder: {{class_path: TimmEncoder, init_args: {{name: resnet10t, pretrained: false}}}}
            head: MeanPool
            num_outputs: 2
        data: {{class_path: SlideDataModule, init_args: {{cache: {stores}, num_workers: 0}}}}
        trainer:
          accelerator: cpu
          enable_progress_bar: false
          default_root_dir: {tmp_path}
          callbacks: [{{class_path: e2e_abmilx.training.callbacks.features.FeatureWriter}}]
        """
    )
    main(["predict", "--config", str(tmp_path / "extract.yaml")])
    folder = FeatureFolder(tmp_path / "features")
    assert set(folder.files) == {path.name.removesuffix(".zarr") for path in stores.glob("*.zarr")}
    assert {folder.shape(slide)[1] for slide in folder.files} == {512}


@pytest.mark.parametrize("stated", [None, "32-true", "bf16-mixed"])
def test_precision_is_recorded(stores: Path, tmp_path: Path, stated: str | None) -> None:
    """It is float32 by default, also on a machine that trains faster in bf16."""
    options = [] if stated is None else ["--trainer.precision", stated]
    main(
        [
            "predict", "--model", "ClassificationTask", "--model.num_outputs", "2", "--model.head", "ABMIL",
            "--model.encoder", "ResNetEncoder", "--model.encoder.pretrained", "false",
            "--data", "SlideDataModule", "--data.cache", str(stores), "--data.num_workers", "0",
            "--trainer.callbacks+=FeatureWriter", "--trainer.default_root_dir", str(tmp_path),
            "--trainer.accelerator", "cpu", "--trainer.limit_predict_batches", "1", *options,
        ]
    )  # fmt: skip
    (file, *_) = sorted((tmp_path / "features").glob("*.h5"))
    with h5py.File(file) as opened:
        assert opened["features"].attrs["precision"] == (stated or "32-true")
    features = read_features(file).read()
    assert torch.equal(features, features.bfloat16().float()) == (stated == "bf16-mixed")


def test_a_folder_holds_one_precision(stores: Path, tmp_path: Path) -> None:
    task, data = _task(_Means()), _data(stores, tmp_path)
    _predict(task, data, tmp_path / "run")
    again = Trainer(
        default_root_dir=tmp_path / "run", accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, precision="bf16-mixed", callbacks=[FeatureWriter()],
    )  # fmt: skip
    with pytest.raises(FeatureError, match=r"'precision': '32-true'.*'precision': 'bf16-mixed'"):
        again.predict(task, _data(stores, tmp_path))


def test_patches_without_coordinates_have_features(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_store(tmp_path / "cache/s.zarr", {0.5: (rng.integers(0, 255, (3, 8, 8, 3), np.uint8), None)})
    _predict(_task(_Means()), SlideDataModule(tmp_path / "cache", num_workers=0), tmp_path)
    with h5py.File(tmp_path / "features/s.h5") as file:
        assert sorted(file) == ["features"]


def test_other_bags_are_refused(stores: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="predict with a SlideDataModule whose eval_scales is finest"):
        _predict(_task(_Means()), _data(stores, tmp_path, eval_scales="all"), tmp_path / "run")
    (tmp_path / "features").mkdir()
    torch.save(torch.zeros(4, 12), tmp_path / "features/slide.pt")
    with pytest.raises(InputError, match="predict with a SlideDataModule"):
        _predict(_task(Precomputed(12)), FeatureDataModule(tmp_path / "features", num_workers=0), tmp_path)  # type: ignore[arg-type]


def test_features_that_are_not_finite_are_not_written(stores: Path, tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match=r"NaN or infinite features for slide-\d+; use a precision"):
        _predict(_task(_Means(gain=float("nan"))), _data(stores, tmp_path), tmp_path / "run")
    assert not list((tmp_path / "run/features").iterdir())
