"""From loader to loss, all operations have CUDA kernels, and none synchronises with the device."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from device_rules import CudaHasNoKernelError, KernelsOfCuda, NothingLeavesTheDevice, NothingWaits, WaitsForDeviceError
from lightning.pytorch import Trainer
from torch import Tensor
from torchmetrics import Metric

from e2e_abmilx.data.bag import Bag
from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.encoders import TimmEncoder
from e2e_abmilx.encoders.augment import GroupedCrops, RandomCrops
from e2e_abmilx.heads import (  # fmt: skip
    ABMIL,
    ABMILX,
    CLAM,
    DSMIL,
    DTFD,
    RRTMIL,
    BagHead,
    GatedABMIL,
    MaxPool,
    MeanMLP,
    MeanPool,
    MultiBranchCLAM,
    TransMIL,
)
from e2e_abmilx.losses import CoxLoss, MaskedBCE, cox_loss, survival_nll
from e2e_abmilx.tasks import BagTask, ClassificationTask, CoxTask, MultiLabelTask, RegressionTask, SurvivalTask
from e2e_abmilx.training.callbacks import DataWait, PredictionTable

HEADS: list[type[BagHead]] = [
    ABMILX, ABMIL, GatedABMIL, CLAM, MultiBranchCLAM, DSMIL, DTFD, MeanPool, MeanMLP, MaxPool, TransMIL, RRTMIL
]  # fmt: skip
ONE_BY_ONE = (TransMIL, RRTMIL)  # these process padded bags one by one, for which they need the lengths


class _NoSynchronisation:
    """A task whose training step, backward pass and logging must not synchronise with the device."""

    logged_in_steps: ClassVar[set[str]] = set()
    _current_fx_name: str | None

    def training_step(self, bag: Bag, batch_idx: int) -> Tensor:
        with ExitStack() as rules:
            rules.enter_context(NothingWaits())
            rules.enter_context(NothingLeavesTheDevice())
            loss: Tensor = super().training_step(bag, batch_idx)  # type: ignore[misc]
        return loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        with NothingWaits():
            super().backward(loss, *args, **kwargs)  # type: ignore[misc]

    def log(self, name: str, value: Any, *args: Any, prog_bar: bool = False, **kwargs: Any) -> None:
        """Refuse what Lightning would copy to the GPU, or read from it for its bar, in every step."""
        if self._current_fx_name in ("training_step", "on_train_batch_start", "on_train_batch_end"):
            if prog_bar or not isinstance(value, (Tensor, Metric)):
                raise WaitsForDeviceError(f"{name} is logged with prog_bar={prog_bar} as {type(value).__name__}")
            self.logged_in_steps.add(name)
        super().log(name, value, *args, prog_bar=prog_bar, **kwargs)  # type: ignore[misc]


class _Classification(_NoSynchronisation, ClassificationTask): ...


class _Survival(_NoSynchronisation, SurvivalTask): ...


class _Cox(_NoSynchronisation, CoxTask): ...


class _Regression(_NoSynchronisation, RegressionTask): ...


class _MultiLabel(_NoSynchronisation, MultiLabelTask): ...


@pytest.fixture(scope="module")
def labels(cohort: Path) -> Path:
    """Write the cohort's table with survival times and a second label added."""
    rows = (cohort / "labels.csv").read_text().splitlines()
    extended = [
        f"{row},{5 + 7 * number % 23},{int(number % 3 > 0)},{number % 2}" for number, row in enumerate(rows[1:])
    ]
    (cohort / "watched.csv").write_text("\n".join([f"{rows[0]},months,dead,odd", *extended]))
    return cohort / "watched.csv"


def _run(task: BagTask, data: SlideDataModule, folder: Path, precision: str) -> None:
    """Fit, validate, test and predict under the rules of ``device_rules``."""
    torch.manual_seed(0)
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        precision=precision,  # type: ignore[arg-type]
        max_epochs=1,
        limit_train_batches=2,
        limit_val_batches=2,
        limit_test_batches=2,
        limit_predict_batches=2,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[DataWait(), PredictionTable()],
    )
    with KernelsOfCuda():
        trainer.fit(task, data)
        assert {"train/loss_step", "train/data_wait"} <= _NoSynchronisation.logged_in_steps
        trainer.validate(task, data, verbose=False)
        trainer.test(task, data, verbose=False)
        trainer.predict(task, data)


def _task(kind: type[BagTask], head: Callable[[int, int], BagHead], outputs: int, **how: Any) -> BagTask:
    crops = {"augment": RandomCrops(48, max_shift=0.1), "train_chunk_size": 5, **how}  # patches have 64 px
    return kind(TimmEncoder("test_resnet", pretrained=False), head, outputs, **crops)


def _data(stores: Path, labels: Path, **how: Any) -> SlideDataModule:
    settings = {"columns": {"label": "lesion"}, "patches_per_bag": 6, "batch_size": 2, "eval_chunk_size": 40, **how}
    return SlideDataModule(stores, labels, num_workers=0, **settings)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.__name__)
def test_every_head_obeys_the_rules(head: type[BagHead], stores: Path, labels: Path, tmp_path: Path) -> None:
    _run(_task(_Classification, head, 2), _data(stores, labels), tmp_path, "bf16-mixed")


SURVIVAL = {"target": "survival", "columns": {"time": "months", "event": "dead"}}
KINDS: dict[str, tuple[type[BagTask], int, dict[str, Any], dict[str, Any]]] = {
    "classes": (_Classification, 2, {"augment": GroupedCrops(48), "gradient_checkpointing": True}, {}),
    "survival": (_Survival, 4, {}, SURVIVAL),
    "cox": (_Cox, 1, {}, {**SURVIVAL, "time_bins": 1}),
    "values": (_Regression, 1, {}, {"target": "regression", "columns": {"label": "lesion_fraction"}}),
    "labels": (_MultiLabel, 2, {}, {"target": "multi_label", "classes": ["lesion", "odd"], "columns": {}}),
}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_task_obeys_the_rules(kind: str, precision: str, stores: Path, labels: Path, tmp_path: Path) -> None:
    made, outputs, model, data = KINDS[kind]
    _run(_task(made, ABMILX, outputs, **model), _data(stores, labels, **data), tmp_path, precision)


def test_efrons_ties_do_not_synchronise(stores: Path, labels: Path, tmp_path: Path) -> None:
    task = _task(_Cox, ABMILX, 1, loss=CoxLoss(ties="efron"))
    _run(task, _data(stores, labels, **SURVIVAL, time_bins=1), tmp_path, "32-true")


@pytest.mark.parametrize("head", [head for head in HEADS if head not in ONE_BY_ONE], ids=lambda head: head.__name__)
def test_padded_bags_do_not_synchronise(head: type[BagHead], monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where the heads of tasks do not look for empty bags."""
    from e2e_abmilx.heads import base

    monkeypatch.setattr(base, "_refuse_empty_bags", lambda shape, mask: None)
    torch.manual_seed(0)
    task = _task(ClassificationTask, head, 2).train()
    mask = torch.arange(6) < torch.tensor([[6], [3]])
    bag = Bag(
        patches=torch.randint(0, 256, (2, 6, 3, 64, 64), dtype=torch.uint8), mask=mask, scale=torch.zeros(2, 6),
        coords=torch.zeros(2, 6, 2), label=torch.tensor([0, 1]), time=torch.ones(2), event=torch.ones(2), cases=("a", "b"),
        last=True, real=mask.flatten().nonzero().squeeze(1),
    )  # fmt: skip
    with KernelsOfCuda(), NothingWaits(), NothingLeavesTheDevice():
        output = task(bag)
        task.head.training_loss(output, lambda logits: F.cross_entropy(logits, bag.label), bag.label).backward()


BYTES = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
NUMBERS = torch.arange(6).view(2, 3)


@pytest.mark.parametrize(
    "operation",
    [  # all of them work on a CPU
        lambda: F.interpolate(BYTES, (4, 4), mode="bilinear", antialias=True),
        lambda: F.interpolate(BYTES, (4, 4), mode="bicubic", antialias=True),
        lambda: F.interpolate(BYTES, (4, 4), mode="bilinear"),
        lambda: NUMBERS @ NUMBERS.T,
        lambda: F.avg_pool2d(BYTES.long(), 2),
        lambda: F.max_pool2d(BYTES.int(), 2),
        lambda: torch.ones(4, dtype=torch.bfloat16).histc(2),
        lambda: F.conv2d(BYTES.long(), torch.ones(1, 3, 2, 2, dtype=torch.int64)),
    ],
)
def test_operations_without_a_cuda_kernel_are_refused(operation: Callable[[], object]) -> None:
    operation()
    with KernelsOfCuda(), pytest.raises(CudaHasNoKernelError):
        operation()


VALUES, CHOSEN = torch.linspace(0, 1, 6), torch.tensor([True, False] * 3)


@pytest.mark.parametrize(
    "operation",
    [
        lambda: VALUES[CHOSEN],
        lambda: VALUES.clone().__setitem__(CHOSEN, VALUES[:3]),
        lambda: VALUES.sum().item(),
        lambda: bool(VALUES.isfinite().all()),
        lambda: CHOSEN.nonzero(),
        lambda: VALUES.tolist(),
        lambda: VALUES.cpu(),
        lambda: VALUES.numpy(),
        lambda: float(VALUES[0]),
        lambda: NUMBERS.flatten().bincount(),
        lambda: torch.equal(VALUES, VALUES),
        lambda: VALUES.unique(),
    ],
)
def test_operations_that_synchronise_are_refused(operation: Callable[[], object]) -> None:
    operation()
    with NothingWaits(), NothingLeavesTheDevice(), pytest.raises(WaitsForDeviceError):
        operation()


def test_losses_do_not_synchronise() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    times, events = torch.tensor([3.0, 1.0, 3.0, 2.0]), torch.tensor([1, 0, 1, 1])
    with KernelsOfCuda(), NothingWaits(), NothingLeavesTheDevice():
        survival_nll(logits, torch.tensor([0, 1, 2, 0]), events, alpha=0.3).backward()
        for ties in ("breslow", "efron"):
            cox_loss(logits[:, 0], times, events, ties=ties).backward()  # type: ignore[arg-type]
        MaskedBCE()(logits, torch.tensor([[1, 0, -1]] * 4)).backward()
