"""BagTask: encoding, gradients, fitting, and checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_tasks import MeanColour, bag_of, small_data, small_head, small_trainer

from e2e_abmilx.encoders import TimmEncoder
from e2e_abmilx.encoders.augment import RandomCrops
from e2e_abmilx.tasks import BagTask, ClassificationTask, SurvivalTask


def test_padding_reaches_neither_encoder_nor_head() -> None:
    task = ClassificationTask(MeanColour(), small_head, 2).eval()
    bag = bag_of([6, 2])
    features = task.encode(bag)
    assert features.shape == (2, 6, 3)
    assert features[1, 2:].abs().sum() == 0
    alone = bag._replace(patches=bag.patches[1:, :2], mask=bag.mask[1:, :2])
    torch.testing.assert_close(task(bag).logits[1:], task(alone).logits)


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_encoder_and_head_both_get_gradients(gradient_checkpointing: bool) -> None:
    task = ClassificationTask(
        MeanColour(), small_head, 2, train_chunk_size=4, gradient_checkpointing=gradient_checkpointing
    ).train()
    loss = task.bag_loss(task(bag_of([6, 2])).logits, bag_of([6, 2]))
    loss.backward()
    assert task.encoder.weight.grad.abs().sum() > 0
    assert task.head.classifier.weight.grad.abs().sum() > 0


def test_gradient_checkpointing_does_not_change_gradients() -> None:
    gradients = []
    for gradient_checkpointing in (False, True):
        torch.manual_seed(0)
        task = ClassificationTask(
            MeanColour(), small_head, 2, train_chunk_size=3, gradient_checkpointing=gradient_checkpointing
        ).train()
        task.bag_loss(task(bag_of([6, 2])).logits, bag_of([6, 2])).backward()
        gradients.append([parameter.grad for parameter in task.parameters() if parameter.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_compiling_changes_neither_gradients_nor_checkpoints(gradient_checkpointing: bool) -> None:
    bag, results = bag_of([12, 7]), []
    for compile_encoder in (False, True):
        torch.manual_seed(0)
        task = ClassificationTask(
            TimmEncoder("test_resnet", pretrained=False), small_head, 2, augment=RandomCrops(32), train_chunk_size=5,
            compile_encoder=compile_encoder, gradient_checkpointing=gradient_checkpointing and compile_encoder,
        ).train()  # fmt: skip
        torch.manual_seed(0)
        task.bag_loss(task(bag).logits, bag).backward()
        gradients = torch.cat([one.grad.flatten() for one in task.parameters() if one.grad is not None])
        running = torch.cat([one.double().flatten() for one in task.buffers()])
        results.append((gradients, running, list(task.state_dict())))
        assert ("_compiled_encoder" in vars(task)) == compile_encoder
    (plain, running, names), (compiled, running_compiled, names_compiled) = results
    assert (compiled - plain).norm() < 1e-4 * plain.norm()
    torch.testing.assert_close(running_compiled, running, rtol=1e-3, atol=1e-5)
    assert names_compiled == names


def test_evaluation_is_not_compiled() -> None:
    task = ClassificationTask(MeanColour(), small_head, 2, compile_encoder=True).eval()
    task(bag_of([6, 2]))
    assert "_compiled_encoder" not in vars(task)


@pytest.mark.parametrize(
    ("task_class", "how"), [(ClassificationTask, {}), (SurvivalTask, {"target": "survival", "time_bins": 2})]
)
def test_fit_and_test_on_stores(
    cohort: Path, stores: Path, tmp_path: Path, task_class: type[BagTask], how: dict[str, object]
) -> None:
    task = task_class(MeanColour(), small_head, 2)
    data, trainer = small_data(cohort, stores, **how), small_trainer(tmp_path)
    before = task.encoder.weight.detach().clone()
    trainer.fit(task, data)
    assert 1 <= trainer.callback_metrics["train/effective_number_of_patches"] <= 6
    assert not torch.equal(before, task.encoder.weight)
    (result,) = trainer.test(task, data, verbose=False)
    assert 0 <= result[task.monitor.replace("val", "test")] <= 1
    assert 1 <= result["test/effective_number_of_patches"] <= 200
    assert 0 < result["test/fraction_holding_95"] <= 1
    assert result["test/max_n"] >= 1


def test_a_checkpoint_restores_class_names(cohort: Path, stores: Path, tmp_path: Path) -> None:
    task = ClassificationTask(MeanColour(), small_head, 2)
    trainer = small_trainer(tmp_path)
    trainer.fit(task, small_data(cohort, stores, classes=["1", "0"]))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    loaded = ClassificationTask.load_from_checkpoint(tmp_path / "x.ckpt", encoder=MeanColour(), head=small_head)
    assert loaded.score_names() == ["probability_1", "probability_0"]
    torch.testing.assert_close(loaded.head.state_dict(), task.head.state_dict())


def test_the_means_of_more_processes_are_resumed_by_one(cohort: Path, stores: Path, tmp_path: Path) -> None:
    task = ClassificationTask(MeanColour(), small_head, 2)
    trainer = small_trainer(tmp_path)
    trainer.fit(task, small_data(cohort, stores))
    saved: dict[str, Any] = {}
    task.on_save_checkpoint(saved)
    # of two processes: three batches with a sum of 6, and one of 2
    saved["train_means"]["loss"] = {"mean_value": torch.tensor([6.0, 2.0]), "weight": torch.tensor([3.0, 1.0])}
    task.on_load_checkpoint(saved)
    assert task.train_means["loss"].compute() == 2  # type: ignore[operator]
