"""Tests that need a GPU: ``pytest -m gpu``. With ``GPU_REHEARSAL=1``, those that can run on a CPU do so."""

import csv
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from e2e_abmilx.data.bag import Bag
from e2e_abmilx.data.jpegs import Jpegs
from e2e_abmilx.data.loaders import WaitClock
from e2e_abmilx.datamodules import FeatureDataModule, SlideDataModule
from e2e_abmilx.encoders import ResNetEncoder, encode_in_chunks
from e2e_abmilx.encoders.augment import GroupedCrops, Normalize, RandomCrops
from e2e_abmilx.encoders.resample import Boxes, crop_and_resize
from e2e_abmilx.errors import InputError
from e2e_abmilx.heads import ABMILX, AttentionPlus
from e2e_abmilx.heads.base import softmax_over_patches
from e2e_abmilx.losses import cox_loss, survival_nll
from e2e_abmilx.main import main
from e2e_abmilx.store import PatchStore
from e2e_abmilx.tasks import ClassificationTask
from e2e_abmilx.tasks.loss_watch import LossWatch
from e2e_abmilx.training.callbacks import DataWait

pytestmark = pytest.mark.gpu
PRECISIONS = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture
def device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    if not os.environ.get("GPU_REHEARSAL"):
        pytest.skip("needs a CUDA device")
    return torch.device("cpu")


@pytest.fixture
def cuda(device: torch.device) -> torch.device:
    if device.type != "cuda":
        pytest.skip("needs a CUDA device, and cannot be rehearsed on a CPU")
    return device


def _autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("size", [224, 96, 300])
def test_resizing_is_exact(size: int, dtype: torch.dtype, device: torch.device) -> None:
    """Against float64 on the CPU; halves, which are frequent from 256 to 224 px, are rounded up or down."""
    patches = torch.randint(0, 256, (40, 3, 256, 256), dtype=torch.uint8)
    with _autocast(device, dtype):
        found = RandomCrops(size).eval()(patches.to(device)).cpu()
    exact = F.interpolate(patches.double(), (size, size), mode="bilinear", antialias=True)
    assert (found - exact).abs().max() < 0.51


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_crops_equal_the_cpu(dtype: torch.dtype, device: torch.device) -> None:
    torch.set_float32_matmul_precision("high")  # as the command line does
    patches = torch.randint(0, 256, (300, 3, 256, 256), dtype=torch.uint8)
    for crops in (RandomCrops(224, max_shift=0.2), GroupedCrops(224)):
        boxes = crops.draw(300, 256, torch.device("cpu"))
        with _autocast(device, dtype):
            found = crop_and_resize(patches.to(device), Boxes(*(values.to(device) for values in boxes)), 224).cpu()
            drawn = crops(patches.to(device))  # drawn on the device
        assert drawn.shape == (300, 3, 224, 224)
        difference = (found.int() - crop_and_resize(patches, boxes, 224).int()).abs()
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < 5e-3


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_a_step_with_20000_patches_fits_into_three_gigabytes(masked: bool, cuda: torch.device) -> None:
    head = ABMILX(1024, 2).to(cuda)
    features = torch.randn(1, 20_000, 1024, device=cuda, requires_grad=True)
    mask = torch.arange(20_000, device=cuda)[None] < 19_000 if masked else None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    head(features, mask).sum().backward()
    assert torch.cuda.max_memory_allocated() - before < 3e9  # N×N numbers of 8 heads would be 12.8 GB


@pytest.mark.parametrize("checkpoint", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_chunks_equal_the_cpu(dtype: torch.dtype, checkpoint: bool, device: torch.device) -> None:
    """Gradients and BatchNorm buffers after one step, against float64 on the CPU; TF32 is off."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    patches = torch.rand(10, 3, 64, 64)
    states = []
    for where, kind, gradient_checkpointing in (
        (torch.device("cpu"), torch.float64, False),
        (device, torch.float32, checkpoint),
    ):
        torch.manual_seed(0)
        encoder = ResNetEncoder("resnet18", pretrained=False).to(where, kind).train()
        with _autocast(where, torch.float32 if kind == torch.float64 else dtype):
            features = encode_in_chunks(encoder, patches.to(where, kind), 4, checkpoint=gradient_checkpointing)
        features.double().square().mean().backward()
        gradient = torch.cat(
            [one.grad.flatten().double().cpu() for one in encoder.parameters() if one.grad is not None]
        )
        buffers = torch.cat([one.flatten().double().cpu() for one in encoder.buffers()])
        states.append((features.detach().double().cpu(), gradient, buffers))
    tolerance = {torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.3}[dtype]
    for expected, found in zip(*states, strict=True):
        assert (found - expected).norm() < tolerance * expected.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradient_checkpointing_does_not_change_half_precision(dtype: torch.dtype, device: torch.device) -> None:
    torch.manual_seed(0)
    patches, results = torch.rand(9, 3, 64, 64, device=device), []
    state = ResNetEncoder("resnet18", pretrained=False).state_dict()
    for checkpoint in (False, True):
        encoder = ResNetEncoder("resnet18", pretrained=False).to(device).train()
        encoder.load_state_dict(state)
        with _autocast(device, dtype):
            encode_in_chunks(encoder, patches, 3, checkpoint=checkpoint).float().square().mean().backward()
        gradients = [one.grad for one in encoder.parameters() if one.grad is not None]
        results.append([*gradients, *(one.float() for one in encoder.buffers())])
    for kept, checkpointed in zip(*results, strict=True):
        torch.testing.assert_close(checkpointed, kept, rtol=2e-2, atol=1e-3 * float(kept.abs().max()) + 1e-6)


def test_large_scores_do_not_overflow_in_half_precision(device: torch.device) -> None:
    """The largest number in fp16 is 65,504: scores of 30,000 must not become infinite in A+ or in the softmax."""
    torch.manual_seed(0)
    plus = AttentionPlus(64, alpha_init=1.0).to(device)
    heads, scores = torch.randn(1, 5000, 8, 64, device=device), 3e4 * torch.rand(1, 8, 5000, device=device)
    with _autocast(device, torch.float16):
        refined = plus(100 * heads, scores.half())
        attention = softmax_over_patches(refined, None)
    assert refined.isfinite().all()
    assert attention.dtype == torch.float32
    torch.testing.assert_close(attention.sum(-1), torch.ones(1, 8, device=device))
    even = softmax_over_patches(torch.zeros(1, 1, 200_000, device=device, dtype=torch.float16), None)
    assert (even > 0).all()  # 1/200,000 is 0 in fp16


@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_losses_equal_the_cpu(ties: Any, device: torch.device) -> None:
    torch.manual_seed(0)
    logits, bins = torch.randn(40, 4), torch.randint(0, 4, (40,))
    time_, event = torch.randint(1, 9, (40,)).float(), torch.randint(0, 2, (40,))
    for loss in (
        lambda x, where: survival_nll(x, bins.to(where), event.to(where), alpha=0.3),
        lambda x, where: cox_loss(x[:, 0], time_.to(where), event.to(where), ties=ties),
    ):
        expected, found = (logits.detach().to(where).requires_grad_() for where in (torch.device("cpu"), device))
        value, other = loss(expected, torch.device("cpu")), loss(found, device)
        value.backward(), other.backward()
        torch.testing.assert_close(other.cpu(), value)
        torch.testing.assert_close(found.grad.cpu(), expected.grad)


def _task(**how: Any) -> ClassificationTask:
    torch.manual_seed(0)
    return ClassificationTask(
        ResNetEncoder("resnet18", pretrained=False),
        lambda width, outputs: ABMILX(width, outputs, hidden_features=64, num_heads=4),
        2,
        augment=RandomCrops(48),
        **how,
    )


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
def test_a_training_step_does_not_synchronise(padded: bool, cuda: torch.device) -> None:
    task = _task(train_chunk_size=8, gradient_checkpointing=True).to(cuda).train()
    mask = torch.arange(12) < torch.tensor([[12], [7 if padded else 12]])
    bag = Bag(
        patches=torch.randint(0, 256, (2, 12, 3, 64, 64), dtype=torch.uint8), mask=mask, scale=torch.zeros(2, 12),
        coords=torch.zeros(2, 12, 2), label=torch.tensor([0, 1]), time=torch.ones(2), event=torch.ones(2), cases=("a", "b"),
        last=True, real=mask.flatten().nonzero().squeeze(1),
    )  # fmt: skip
    bag = Bag(*(one.to(cuda) if isinstance(one, Tensor) else one for one in bag))

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = F.cross_entropy(task(bag).logits.float(), bag.label)
        task._losses.check()
        task._losses.note(loss, "a test")
        loss.backward()

    step()  # in the first step cuDNN selects its algorithms
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_compiled_encoder_equals_the_plain_one(device: torch.device) -> None:
    gradients = []
    mask = torch.ones(2, 12, dtype=torch.bool)
    bag = Bag(
        patches=torch.randint(0, 256, (2, 12, 3, 64, 64), dtype=torch.uint8), mask=mask, scale=torch.zeros(2, 12),
        coords=torch.zeros(2, 12, 2), label=torch.tensor([0, 1]), time=torch.ones(2), event=torch.ones(2), cases=("a", "b"),
        last=True,
    )  # fmt: skip
    bag = Bag(*(one.to(device) if isinstance(one, Tensor) else one for one in bag))
    for compiled in (False, True):
        task = _task(train_chunk_size=8, compile_encoder=compiled).to(device).train()
        torch.manual_seed(0)
        with torch.autocast(device.type, torch.bfloat16):
            F.cross_entropy(task(bag).logits.float(), bag.label).backward()
        gradients.append(torch.cat([one.grad.flatten() for one in task.parameters() if one.grad is not None]))
    assert (gradients[1] - gradients[0]).norm() < 0.3 * gradients[0].norm()  # roundings of bf16 differ


class _WatchSteps(Callback):
    """Warn of synchronisation in the third to the fifth step, from batch to batch."""

    def __init__(self) -> None:
        self.steps = 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: object, batch: object, batch_idx: int) -> None:
        if batch_idx == 2:
            torch.cuda.set_sync_debug_mode("warn")

    def on_train_batch_end(self, trainer: Trainer, pl_module: object, *rest: Any) -> None:
        self.steps += 2 <= rest[-1] <= 4
        if rest[-1] == 4:
            torch.cuda.set_sync_debug_mode("default")


def test_a_fit_does_not_synchronise(stores: Path, cohort: Path, tmp_path: Path, cuda: torch.device) -> None:
    """In Lightning's loop, without averaged weights, whose counter Lightning reads twice per step."""
    watch = _WatchSteps()
    trainer = Trainer(
        default_root_dir=tmp_path, max_epochs=1, devices=1, logger=False, enable_progress_bar=False,
        enable_checkpointing=False, enable_model_summary=False, precision="bf16-mixed", limit_val_batches=0,
        callbacks=[DataWait(), watch],
    )  # fmt: skip
    data = SlideDataModule(
        stores, cohort / "labels.csv", columns={"label": "lesion"}, patches_per_bag=8, batch_size=2, num_workers=1
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            trainer.fit(_task(), data)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert watch.steps == 3
    assert [str(one.message) for one in caught if "synchron" in str(one.message)] == []


def test_computation_waits_for_copies_on_another_stream(cuda: torch.device) -> None:
    """Work that is queued after a large copy uses all of it."""
    data = FeatureDataModule(Path("features"))
    mask = torch.ones(1, 2**18, dtype=torch.bool)
    for value in (1.0, 2.0, 3.0):
        bag = Bag(
            patches=torch.full((1, 2**18, 1024), value).pin_memory(), mask=mask, scale=mask.long(), coords=mask.long(),
            label=torch.tensor([0]), time=torch.ones(1), event=torch.ones(1), cases=("a",), last=True,
        )  # fmt: skip
        moved = data.transfer_batch_to_device(bag, cuda, 0)
        assert isinstance(moved.patches, Tensor)
        assert float(moved.patches[:, -1000:].sum()) == value * 1000 * 1024


def test_copies_on_another_stream_arrive_intact(cuda: torch.device) -> None:
    """Batches arrive intact although they are copied while the device computes and their memory is reused."""
    data = FeatureDataModule(Path("features"))
    numbers = torch.randn(4096, 4096, device=cuda)
    sums = []
    for value in range(40):
        mask = torch.ones(1, 2000, dtype=torch.bool)
        bag = Bag(
            patches=torch.full((1, 2000, 1024), float(value)).pin_memory(), mask=mask, scale=mask.long(),
            coords=mask.long(), label=torch.tensor([0]), time=torch.ones(1), event=torch.ones(1), cases=("a",), last=True,
        )  # fmt: skip
        moved = data.transfer_batch_to_device(bag, cuda, 0)
        for _ in range(4):
            numbers = numbers @ numbers / 64
        sums.append(moved.patches.double().mean())  # queued after that work
        del moved, bag
    assert torch.stack(sums).tolist() == list(range(40))


def test_a_loss_that_is_not_finite_is_found_one_step_later(device: torch.device) -> None:
    watch = LossWatch()
    watch.note(torch.tensor(1.0, device=device), "the first")
    watch.check()
    watch.note(torch.tensor(float("nan"), device=device), "epoch 0, batch 1, of cases a")
    with pytest.raises(InputError, match="the loss is nan in epoch 0, batch 1, of cases a"):
        watch.check()


def test_a_busy_device_counts_as_not_waiting(cuda: torch.device) -> None:
    numbers = torch.randn(8192, 8192, device=cuda)
    torch.cuda.synchronize()
    clock = WaitClock()
    for _ in range(40):  # much more than 50 ms of work, which the CPU queues immediately
        numbers = numbers @ numbers / 100
    clock.ask()
    time.sleep(0.05)
    clock.receive()
    torch.cuda.synchronize()
    assert clock.waited_s < 0.01
    clock.ask()
    time.sleep(0.05)
    clock.receive()
    torch.cuda.synchronize()
    assert clock.waited_s >= 0.04


def test_decoding_on_the_device_equals_the_cpu(stores: Path, cuda: torch.device) -> None:
    pytest.importorskip("torchcodec", reason="decoding on the device needs torchcodec")
    store = PatchStore(stores / "slide-001.zarr")
    indices = np.arange(store.num_patches())
    expected = torch.from_numpy(store.read(indices)).permute(0, 3, 1, 2)
    for _ in range(20):
        noise = [torch.randn(3, 64, 64, device=cuda) for _ in range(200)]
        sums = torch.stack([one.double().sin().sum() for one in noise])
        before = sums.clone()
        del noise
        found = Jpegs.of(store.read_encoded(indices)).decode(cuda)
        assert torch.equal(sums, before)
        difference = (found.cpu().int() - expected.int()).abs()
        assert difference.float().mean() < 0.5
        assert difference.max() <= 6  # nvJPEG uses another arithmetic


def test_normalising_bytes_equals_the_cpu(device: torch.device) -> None:
    patches = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    normalize = Normalize((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    torch.testing.assert_close(normalize.to(device)(patches.to(device)).cpu(), normalize.cpu()(patches))


def _fit(stores: Path, cohort: Path, folder: Path, epochs: int, checkpoint: Path | None = None) -> ClassificationTask:
    data = SlideDataModule(
        stores, cohort / "labels.csv", columns={"label": "lesion"}, patches_per_bag=8, batch_size=2, num_workers=1
    )
    trainer = Trainer(
        default_root_dir=folder, max_epochs=epochs, devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, precision="bf16-mixed",
    )  # fmt: skip
    task = _task()
    trainer.fit(task, data, ckpt_path=checkpoint)
    trainer.save_checkpoint(folder / "end.ckpt")
    return task


def test_an_interrupted_run_resumes(stores: Path, cohort: Path, tmp_path: Path, device: torch.device) -> None:
    """Equal up to rounding, because GPUs sum in another order each time."""
    straight = _fit(stores, cohort, tmp_path / "straight", 3)
    _fit(stores, cohort, tmp_path / "first", 2)
    resumed = _fit(stores, cohort, tmp_path / "second", 3, tmp_path / "first/end.ckpt")
    for (name, expected), found in zip(straight.named_parameters(), resumed.parameters(), strict=True):
        assert (found - expected).norm() <= 0.02 * expected.norm() + 1e-3, name


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_fit_test_and_predict_from_the_command_line(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    config = str(Path(__file__).parents[1] / "configs/demo.yaml")
    if device.type == "cpu" and precision == "16-mixed":
        pytest.skip("fp16 is for GPUs")
    monkeypatch.chdir(tmp_path)
    small = [
        "--trainer.precision", precision, "--data.num_slides", "24", "--data.side", "512", "--model.augment.size", "48",
        "--data.num_workers", "2",
    ]  # fmt: skip
    main(["fit", "--config", config, *small, "--trainer.max_epochs", "2", "--model.gradient_checkpointing", "true"])
    run = tmp_path / "runs/demo"
    for verb in ("test", "predict"):
        main(
            [verb, "--config", str(run / "fit.yaml"), "--ckpt_path", str(run / "best.ckpt"),
             "--trainer.default_root_dir", str(tmp_path / verb)]
        )  # fmt: skip
        with next((tmp_path / verb).rglob("predictions.csv")).open() as file:
            rows = list(csv.DictReader(file))
        assert rows
        assert all(0 <= float(row["probability_1"]) <= 1 for row in rows)
