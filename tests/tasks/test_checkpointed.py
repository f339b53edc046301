import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule
from small_features import WIDTH, feature_data, feature_head, feature_task, quiet_trainer, write_features
from small_tasks import MeanColour, small_data, small_head, small_trainer
from torch import nn

from e2e_abmilx import __version__
from e2e_abmilx.cohort import Case
from e2e_abmilx.data.contract import ContractError, InputContract
from e2e_abmilx.data.inputs import FeatureInput, PatchInput
from e2e_abmilx.data.loaders import BagLoader
from e2e_abmilx.encoders import Precomputed, TimmEncoder
from e2e_abmilx.encoders.augment import RandomCrops
from e2e_abmilx.errors import InputError
from e2e_abmilx.tasks import BagTask, ClassificationTask, CoxTask, MultiLabelTask, RegressionTask, SurvivalTask
from e2e_abmilx.tasks.checkpointed import without_first_weights

OLD = Path(__file__).parents[1] / "made_by_0_1" / "best.ckpt"


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features"))


def _fit(folder: Path, out: Path, task: BagTask | None = None, **data: Any) -> BagTask:
    """Fit a task on features, and save it as ``out/x.ckpt``."""
    task = task or feature_task()
    trainer = quiet_trainer(out)
    trainer.fit(task, feature_data(folder, **data))
    trainer.save_checkpoint(out / "x.ckpt")
    return task


def _load(path: Path, kind: type[BagTask] = ClassificationTask, **how: Any) -> BagTask:
    return kind.load_from_checkpoint(path, **{"encoder": Precomputed(WIDTH), "head": feature_head, **how})


def test_the_contract_of_a_fit_on_slides(cohort: Path, stores: Path, tmp_path: Path) -> None:
    task = ClassificationTask(MeanColour(), small_head, 2, augment=RandomCrops(32))
    trainer, data = small_trainer(tmp_path), small_data(cohort, stores, eval_chunk_size=50)
    trainer.fit(task, data)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    contract = task.contract
    assert contract is not None
    assert (contract.target, contract.classes, contract.precision) == ("label", ("0", "1"), "32-true")
    assert isinstance(contract.input, PatchInput)
    assert (contract.input.mpp, contract.input.patch_size, contract.input.eval_chunk_size) == ((0.5, 1.0), 64, 50)
    assert task.threshold is not None
    assert contract.threshold == task.threshold
    assert contract.model["input_size"] == 32
    assert contract.versions["e2e_abmilx"] == __version__
    seen = contract.seen
    assert seen is not None
    assert seen.cases == len(data.cases["train"]) + len(data.cases["val"])
    assert set(seen.find_names(data.cases["all"], lambda _: {})) == {
        case.id for case in data.cases["all"] if case.split != "test"
    }
    renamed = [case._replace(id=f"new {case.id}") for case in data.cases["train"]]
    assert len(seen.find_copies(renamed, data.slide_marks(renamed))) == len(renamed)
    loaded = ClassificationTask.load_from_checkpoint(
        tmp_path / "x.ckpt", encoder=MeanColour(), head=small_head, augment=RandomCrops(32)
    )
    assert loaded.contract == contract


@pytest.mark.parametrize(
    ("kind", "outputs", "data", "classes"),
    [
        (ClassificationTask, 2, {}, ("no", "yes")),
        (MultiLabelTask, 2, {"target": "multi_label", "classes": ["event", "bit"]}, ("event", "bit")),
        (SurvivalTask, 3, {"target": "survival", "time_bins": 3}, ("0", "1", "2")),
        (CoxTask, 1, {"target": "survival", "time_bins": 1}, ("0",)),
        (RegressionTask, 1, {"target": "regression", "columns": {"label": "value"}}, ("0",)),
    ],
)
def test_a_loaded_task_has_the_contract_of_its_fit(
    features: Path, tmp_path: Path, kind: type[BagTask], outputs: int, data: dict[str, Any], classes: tuple[str, ...]
) -> None:
    fitted = _fit(features, tmp_path, feature_task(kind, outputs), **data)
    loaded = _load(tmp_path / "x.ckpt", kind)
    contract = loaded.contract
    assert contract is not None
    assert contract == fitted.contract
    assert contract.complete
    assert (contract.target, contract.classes) == (fitted.target, classes)
    assert contract.input == FeatureInput(WIDTH)
    assert contract.seen is not None
    assert contract.seen.cases == 12
    assert (loaded.classes, loaded.time_edges, loaded.threshold) == (
        fitted.classes, fitted.time_edges, fitted.threshold,
    )  # fmt: skip
    assert len(contract.time_edges) == (2 if kind is SurvivalTask else 0)


def test_a_task_that_was_neither_trained_nor_loaded_has_no_contract() -> None:
    task = feature_task()
    assert task.contract is None
    assert task.settings == {}


def test_cases_are_known_after_a_fit_without_checkpoints(features: Path, tmp_path: Path) -> None:
    task, trainer = feature_task(), quiet_trainer(tmp_path)
    trainer.fit(task, feature_data(features))
    assert task.contract is not None
    assert task.contract.seen is not None
    assert task.contract.seen.cases == 12
    (features / "all.csv").write_text((features / "labels.csv").read_text().replace("train", "test"))
    with pytest.raises(ContractError, match="validated on 8 of the 12 test cases"):
        trainer.test(task, feature_data(features, table="all.csv"))


def test_a_new_threshold_is_part_of_the_contract(features: Path, tmp_path: Path) -> None:
    task = _fit(features, tmp_path)
    task.threshold = None
    assert task.contract is not None
    assert task.contract.threshold is None


def test_validation_on_test_cases_is_noted_as_seen(features: Path, tmp_path: Path) -> None:
    contract = _fit(features, tmp_path, select_on_test=True).contract
    assert contract is not None
    assert contract.seen is not None
    assert contract.seen.cases == 16


def test_a_checkpoint_of_an_earlier_release_warns_once_and_works(
    features: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        task = ClassificationTask.load_from_checkpoint(OLD)
    (warning,) = (record for record in caplog.records if "did not record" in record.getMessage())
    assert "µm/px, patch size and target" in warning.getMessage()
    assert task.contract is not None
    assert (task.contract.complete, task.contract.classes) == (False, ("no", "yes"))
    caplog.clear()
    (result,) = quiet_trainer(tmp_path).test(task, feature_data(features), verbose=False)
    assert 0 <= result["test/auc"] <= 1
    assert not [record for record in caplog.records if "did not record" in record.getMessage()]
    again = _fit(features, tmp_path, task).contract
    assert again is not None
    assert again.complete
    assert again.target == "label"


def test_a_resumed_checkpoint_of_an_earlier_release_gets_a_whole_contract(features: Path, tmp_path: Path) -> None:
    _fit(features, tmp_path, feature_task(SurvivalTask, 3), target="survival", time_bins=3)
    saved = torch.load(tmp_path / "x.ckpt", weights_only=True)
    edges = saved.pop("time_edges")
    del saved["contract"]
    torch.save(saved, tmp_path / "old.ckpt")
    task, trainer = feature_task(SurvivalTask, 3), quiet_trainer(tmp_path, epochs=2)
    data = feature_data(features, target="survival", time_bins=3)
    trainer.fit(task, data, ckpt_path=str(tmp_path / "old.ckpt"))
    assert trainer.current_epoch == 2
    assert task.contract is not None
    assert task.contract.complete
    assert list(task.time_edges) == list(task.contract.time_edges) == edges


def test_survival_checkpoints_without_time_edges_are_tested(features: Path, tmp_path: Path) -> None:
    """The first release did not record the edges; the data's own are used, as it did."""
    task = _fit(features, tmp_path, feature_task(SurvivalTask, 3), target="survival", time_bins=3)
    saved = torch.load(tmp_path / "x.ckpt", weights_only=True)
    del saved["contract"], saved["time_edges"]
    torch.save(saved, tmp_path / "old.ckpt")
    results = [
        quiet_trainer(tmp_path).test(
            feature_task(SurvivalTask, 3), feature_data(features, target="survival", time_bins=3),
            ckpt_path=str(tmp_path / name), verbose=False,
        )
        for name in ("old.ckpt", "x.ckpt")
    ]  # fmt: skip
    assert results[0] == results[1]
    assert task.time_edges


@pytest.mark.parametrize(
    ("kind", "outputs", "first", "then", "reason"),
    [
        (ClassificationTask, 2, {}, {"classes": ["yes", "no"]}, r"classes are \['no', 'yes'\], in this order"),
        (SurvivalTask, 3, {"target": "survival", "time_bins": 3}, {"table": "later.csv"}, "time bins end at"),
        (ClassificationTask, 2, {}, {"table": "moved.csv"}, "are not among the 12 of the checkpoint"),
    ],
)
def test_training_is_not_resumed_on_other_data(
    features: Path, tmp_path: Path, kind: type[BagTask], outputs: int, first: dict[str, Any], then: dict[str, Any],
    reason: str,
) -> None:  # fmt: skip
    lines = (features / "labels.csv").read_text().splitlines()
    (features / "later.csv").write_text("\n".join([lines[0], *(line.replace(",1,", "0,1,", 1) for line in lines[1:])]))
    (features / "moved.csv").write_text("\n".join(lines).replace("test", "train"))
    _fit(features, tmp_path, feature_task(kind, outputs), **first)
    task, trainer = feature_task(kind, outputs), quiet_trainer(tmp_path, epochs=2)
    with pytest.raises(ContractError, match=reason):
        trainer.fit(task, feature_data(features, **{**first, **then}), ckpt_path=str(tmp_path / "x.ckpt"))
    assert trainer.global_step == 0


def test_training_is_resumed_on_the_same_data(features: Path, tmp_path: Path) -> None:
    before = _fit(features, tmp_path).contract
    task, trainer = feature_task(), quiet_trainer(tmp_path, epochs=2)
    trainer.fit(task, feature_data(features), ckpt_path=str(tmp_path / "x.ckpt"))
    assert trainer.current_epoch == 2
    assert before is not None
    assert task.contract == before.with_threshold(task.threshold)


class _Dark(MeanColour):
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"augment": RandomCrops(48)}, "checkpoint's crop is 32, and that of this task 48"),
        ({"augment": None}, "checkpoint's crop is 32, and that of this task None"),
        ({"encoder": _Dark()}, r"mean of the normalisation is \[0\.485.*\[0\.1, 0\.2, 0\.3\]"),
    ],
)
def test_a_task_with_other_pixels_is_refused(
    cohort: Path, stores: Path, tmp_path: Path, how: dict[str, Any], reason: str
) -> None:
    task = ClassificationTask(MeanColour(), small_head, 2, augment=RandomCrops(32))
    trainer = small_trainer(tmp_path, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(task, small_data(cohort, stores))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    parts = {"encoder": MeanColour(), "head": small_head, "augment": RandomCrops(32), **how}
    with pytest.raises(ContractError, match=reason):
        ClassificationTask.load_from_checkpoint(tmp_path / "x.ckpt", **parts)
    other = ClassificationTask(num_outputs=2, **parts)
    with pytest.raises(ContractError, match=reason):
        small_trainer(tmp_path).test(other, small_data(cohort, stores), ckpt_path=str(tmp_path / "x.ckpt"))


def test_a_loaded_task_that_is_trained_on_other_data_gets_a_new_contract(features: Path, tmp_path: Path) -> None:
    first = _fit(features, tmp_path).contract
    (tmp_path / "new").mkdir()
    write_features(tmp_path / "new", cases=8, prefix="new", seed=1)
    table = tmp_path / "new" / "labels.csv"
    table.write_text(table.read_text().replace(",no,", ",benign,").replace(",yes,", ",malignant,"))
    task = _fit(tmp_path / "new", tmp_path / "new", _load(tmp_path / "x.ckpt"))
    contract = task.contract
    assert first is not None
    assert contract is not None
    assert contract.classes == task.classes == ("benign", "malignant")
    assert contract.seen is not None
    names = contract.seen.find_names([Case(slide, (slide,)) for slide in ("s0", "new0", "s3", "new3")], lambda _: {})
    assert list(names) == ["s0", "new0"]  # its weights know the cases of both fits
    assert contract.seen.cases == 12 + 6


def test_weights_that_a_model_started_from_need_not_exist() -> None:
    settings = {
        "encoder": {
            "class_path": "TimmEncoder",
            "init_args": {"name": "x", "weights": "/gone/x.pt", "pretrained": True},
        },
        "head": {"class_path": "ABMIL", "init_args": {"weights": [1, 2]}},
        "num_outputs": 2,
    }
    plain = {name: without_first_weights(value) for name, value in settings.items()}
    assert plain["encoder"]["init_args"] == {"name": "x", "weights": None, "pretrained": False}
    assert {name: plain[name] for name in ("head", "num_outputs")} == {
        name: settings[name] for name in ("head", "num_outputs")
    }
    assert settings["encoder"]["init_args"]["weights"] == "/gone/x.pt"  # type: ignore[index]


def test_a_task_is_rebuilt_without_its_first_weights(tmp_path: Path) -> None:
    saved = torch.load(OLD, weights_only=True)
    encoder = TimmEncoder("test_resnet", pretrained=False)
    task = ClassificationTask(encoder, feature_head, 2)
    how = {"name": "test_resnet", "weights": str(tmp_path / "gone.pt"), "pretrained": True}
    content = {
        "state_dict": task.state_dict(),
        "pytorch-lightning_version": saved["pytorch-lightning_version"],
        "hyper_parameters": {
            **{name: saved["hyper_parameters"][name] for name in ("_class_path", "_instantiator")},
            "encoder": {"class_path": "e2e_abmilx.TimmEncoder", "init_args": how},
            "head": {"class_path": "e2e_abmilx.ABMILX", "init_args": {"hidden_features": 8, "num_heads": 2}},
            "num_outputs": 2,
        },
    }
    torch.save(content, tmp_path / "x.ckpt")
    loaded = ClassificationTask.load_from_checkpoint(tmp_path / "x.ckpt")
    torch.testing.assert_close(dict(loaded.state_dict()), dict(task.state_dict()))
    assert loaded.settings["encoder"]["init_args"]["weights"] is None


def test_settings_of_a_loaded_task_have_the_arguments_that_replaced_others() -> None:
    assert ClassificationTask.load_from_checkpoint(OLD).settings["train_chunk_size"] == 64
    task = ClassificationTask.load_from_checkpoint(OLD, map_location="cpu", train_chunk_size=7)
    assert (task.train_chunk_size, task.settings["train_chunk_size"]) == (7, 7)
    assert "map_location" not in task.settings


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "encoder.pt")
    with pytest.raises(InputError, match=r"this file only \['weight'\]; name a \.ckpt of a fit"):
        ClassificationTask.load_from_checkpoint(tmp_path / "encoder.pt")


class _OwnData(LightningDataModule):
    """A data module from outside this package, which does not describe what its bags hold."""

    def __init__(self, folder: Path, classes: tuple[str, ...] | None = None) -> None:
        super().__init__()
        self.inner = feature_data(folder)
        if classes is not None:
            self.classes = classes

    def setup(self, stage: str) -> None:
        self.inner.setup(stage)

    def train_dataloader(self) -> BagLoader:
        return self.inner.train_dataloader()

    def val_dataloader(self) -> BagLoader:
        return self.inner.val_dataloader()

    def test_dataloader(self) -> BagLoader:
        return self.inner.test_dataloader()


def test_data_from_outside_this_package(features: Path, tmp_path: Path) -> None:
    task, trainer = feature_task(), quiet_trainer(tmp_path)
    trainer.fit(task, _OwnData(features))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    contract = _load(tmp_path / "x.ckpt").contract
    assert contract == task.contract
    assert contract is not None
    assert (contract.target, contract.classes, contract.input, contract.seen) == ("label", ("0", "1"), None, None)
    quiet_trainer(tmp_path).test(feature_task(), _OwnData(features), ckpt_path=str(tmp_path / "x.ckpt"), verbose=False)
    quiet_trainer(tmp_path, epochs=2).fit(feature_task(), _OwnData(features), ckpt_path=str(tmp_path / "x.ckpt"))


def test_classes_of_data_from_outside_this_package_are_compared(features: Path, tmp_path: Path) -> None:
    _fit(features, tmp_path)
    for task, path in ((_load(tmp_path / "x.ckpt"), None), (feature_task(), str(tmp_path / "x.ckpt"))):
        quiet_trainer(tmp_path).test(task, _OwnData(features, ("no", "yes")), ckpt_path=path, verbose=False)
        with pytest.raises(ContractError, match="in this order"):
            quiet_trainer(tmp_path).test(task, _OwnData(features, ("yes", "no")), ckpt_path=path, verbose=False)


def test_classes_of_loaders_without_their_data_module_are_compared(features: Path, tmp_path: Path) -> None:
    _fit(features, tmp_path)
    data = feature_data(features)
    data.setup("test")
    quiet_trainer(tmp_path).test(_load(tmp_path / "x.ckpt"), data.test_dataloader(), verbose=False)
    turned = feature_data(features, classes=["yes", "no"])
    turned.setup("test")
    for stage in ("test", "validate"):
        loader = turned.test_dataloader()
        with pytest.raises(ContractError, match=r"the loader's labels number \['yes', 'no'\]; give the data module"):
            getattr(quiet_trainer(tmp_path), stage)(_load(tmp_path / "x.ckpt"), loader, verbose=False)


def test_loaders_without_their_data_module_train_and_test(features: Path, tmp_path: Path) -> None:
    task, data = feature_task(), feature_data(features)
    data.setup("fit")
    quiet_trainer(tmp_path).fit(task, data.train_dataloader(), data.val_dataloader())
    quiet_trainer(tmp_path).test(task, data.test_dataloader(), verbose=False)


def test_a_checkpoint_saved_before_any_fit_is_loaded(features: Path, tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path)
    trainer.test(feature_task(), feature_data(features), verbose=False)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    contract = _load(tmp_path / "x.ckpt").contract
    assert contract == InputContract("label", ("no", "yes"))


def test_live_modules_are_no_settings() -> None:
    task = ClassificationTask(Precomputed(WIDTH), feature_head, 2, loss=nn.CrossEntropyLoss(), train_chunk_size=7)
    assert task.hparams["train_chunk_size"] == 7
    assert not {"encoder", "head", "loss"} & task.hparams.keys()
