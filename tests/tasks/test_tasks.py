from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from e2e_abmilx.data.bag import Bag
from e2e_abmilx.datamodules import SlideDataModule
from e2e_abmilx.errors import InputError
from e2e_abmilx.heads import ABMILX
from e2e_abmilx.store import PatchStore
from e2e_abmilx.tasks import BagTask, ClassificationTask, CoxTask, SurvivalTask
from e2e_abmilx.training.callbacks import BestCheckpoint


class _Mean(nn.Module):
    """An encoder whose features are simple to check: the mean colour, times a weight."""

    num_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, patches: Tensor) -> Tensor:
        return patches.mean((2, 3)) * self.weight


def _head(in_features: int, num_outputs: int) -> ABMILX:
    return ABMILX(in_features, num_outputs, hidden_features=16, num_heads=2, dropout=0.0)


def _bag(lengths: list[int], *, label: int = 0) -> Bag:
    torch.manual_seed(1)
    size, longest = len(lengths), max(lengths)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    patches = torch.randint(0, 256, (size, longest, 3, 8, 8), dtype=torch.uint8) * mask[..., None, None, None]
    zeros = torch.zeros(size, longest, dtype=torch.long)
    return Bag(
        patches, mask, zeros, torch.stack([zeros, zeros], -1), torch.full((size,), label), torch.rand(size) * 40,
        torch.ones(size, dtype=torch.long), tuple(map(str, range(size))), True,
    )  # fmt: skip


def test_padding_never_reaches_encoder_or_head() -> None:
    task = ClassificationTask(_Mean(), _head, 2).eval()
    bag = _bag([6, 2])
    features = task.encode(bag)
    assert features.shape == (2, 6, 3)
    assert features[1, 2:].abs().sum() == 0
    alone = bag._replace(patches=bag.patches[1:, :2], mask=bag.mask[1:, :2])
    torch.testing.assert_close(task(bag).logits[1:], task(alone).logits)


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_both_encoder_and_head_learn_from_the_label(gradient_checkpointing: bool) -> None:
    task = ClassificationTask(
        _Mean(), _head, 2, train_chunk_size=4, gradient_checkpointing=gradient_checkpointing
    ).train()
    loss = task.bag_loss(task(_bag([6, 2])).logits, _bag([6, 2]))
    loss.backward()
    assert task.encoder.weight.grad.abs().sum() > 0
    assert task.head.classifier.weight.grad.abs().sum() > 0


def test_recomputing_gives_the_same_gradients() -> None:
    gradients = []
    for gradient_checkpointing in (False, True):
        torch.manual_seed(0)
        task = ClassificationTask(
            _Mean(), _head, 2, train_chunk_size=3, gradient_checkpointing=gradient_checkpointing
        ).train()
        task.bag_loss(task(_bag([6, 2])).logits, _bag([6, 2])).backward()
        gradients.append([parameter.grad for parameter in task.parameters() if parameter.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_survival_scores_are_risks() -> None:
    task = SurvivalTask(_Mean(), _head, 4)
    bag = _bag([3, 3], label=1)
    logits = task(bag).logits
    assert task.bag_loss(logits, bag).ndim == 0
    assert task.bag_scores(logits).shape == (2, 1)
    assert task.score_names() == ["risk"]


def _data(cohort: Path, stores: Path, **how: object) -> SlideDataModule:
    settings = {
        "columns": {"label": "lesion"},
        "patches_per_bag": 6,
        "batch_size": 3,
        "num_workers": 0,
        **how,
    }
    return SlideDataModule(stores, cohort / "labels.csv", **settings)  # type: ignore[arg-type]


def _trainer(folder: Path, **how: object) -> Trainer:
    return Trainer(
        default_root_dir=folder, max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, **how,  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_slide_in_parts_is_the_slide_at_once(cohort: Path, stores: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = ClassificationTask(_Mean(), _head, 2)
    results = []
    for chunk_size in (5, 1000):
        data = _data(cohort, stores, eval_chunk_size=chunk_size)
        predictions = _trainer(tmp_path).predict(task, data)
        results.append([prediction for prediction in predictions if prediction is not None])
    assert len(results[0]) == len(results[1]) == 24
    for parts, whole in zip(*results, strict=True):
        assert parts.case == whole.case
        torch.testing.assert_close(parts.output, whole.output, rtol=1e-5, atol=1e-5)
        assert torch.equal(parts.coords, whole.coords)
        assert parts.output.attention.shape == (1, 2, len(whole.coords))


@pytest.mark.parametrize(
    ("task_class", "how"), [(ClassificationTask, {}), (SurvivalTask, {"target": "survival", "time_bins": 2})]
)
def test_fit_and_test_run_on_real_stores(
    cohort: Path, stores: Path, tmp_path: Path, task_class: type[BagTask], how: dict[str, object]
) -> None:
    task = task_class(_Mean(), _head, 2)
    data, trainer = _data(cohort, stores, **how), _trainer(tmp_path)
    before = task.encoder.weight.detach().clone()
    trainer.fit(task, data)
    assert 1 <= trainer.callback_metrics["train/effective_number_of_patches"] <= 6
    assert not torch.equal(before, task.encoder.weight)
    (result,) = trainer.test(task, data, verbose=False)
    assert 0 <= result[task.monitor.replace("val", "test")] <= 1
    assert 1 <= result["test/effective_number_of_patches"] <= 200
    assert 0 < result["test/fraction_holding_95"] <= 1
    assert result["test/max_n"] >= 1


def test_wrong_number_of_outputs_is_refused(cohort: Path, stores: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"2 classes \(0, 1\) and the model 3 outputs; set model\.num_outputs to 2"
    ):
        _trainer(tmp_path).fit(ClassificationTask(_Mean(), _head, 3), _data(cohort, stores))


def test_a_checkpoint_brings_its_class_names(cohort: Path, stores: Path, tmp_path: Path) -> None:
    task = ClassificationTask(_Mean(), _head, 2)
    trainer = _trainer(tmp_path)
    trainer.fit(task, _data(cohort, stores, classes=["1", "0"]))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    loaded = ClassificationTask.load_from_checkpoint(tmp_path / "x.ckpt", encoder=_Mean(), head=_head)
    assert loaded.score_names() == ["probability_1", "probability_0"]
    torch.testing.assert_close(loaded.head.state_dict(), task.head.state_dict())


def _fit(task: BagTask, cohort: Path, stores: Path, folder: Path, **data: object) -> Trainer:
    how = {"patches_per_bag": 8, "batch_size": 2, "num_workers": 0, **data}
    trainer = Trainer(
        default_root_dir=folder,
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[BestCheckpoint()],
    )
    trainer.fit(task, SlideDataModule(stores, cohort / "labels.csv", **how))  # type: ignore[arg-type]
    return trainer


def test_the_threshold_comes_from_validation_and_lies_in_the_checkpoint(
    cohort: Path, stores: Path, tmp_path: Path
) -> None:
    task = ClassificationTask(_Mean(), _head, 2)
    trainer = _fit(task, cohort, stores, tmp_path, columns={"label": "lesion"})
    assert task.threshold is not None
    assert task.threshold.split == "val"
    data = trainer.datamodule
    assert data is not None
    trainer.validate(task, data, verbose=False)
    fitted = task.threshold
    task.threshold = None
    (tested,) = trainer.test(task, data, ckpt_path=str(tmp_path / "best.ckpt"), verbose=False)
    assert task.threshold == fitted
    assert tested["test/threshold"] == pytest.approx(fitted.value)
    predictions = [p for p in trainer.predict(task, data.test_dataloader()) or [] if p is not None]
    positive = [p.scores["probability_1"] >= fitted.value for p in predictions if p.label == 1]
    negative = [p.scores["probability_1"] < fitted.value for p in predictions if p.label == 0]
    assert tested["test/sensitivity"] == pytest.approx(sum(positive) / len(positive))
    assert tested["test/specificity"] == pytest.approx(sum(negative) / len(negative))
    assert 0 <= tested["test/ece"] <= 1


def test_survival_keeps_its_time_bins_and_tells_survival_at_their_edges(
    cohort: Path, stores: Path, tmp_path: Path
) -> None:
    task = SurvivalTask(_Mean(), _head, 4)
    trainer = _fit(task, cohort, stores, tmp_path, target="survival")
    data = trainer.datamodule
    assert data is not None
    assert len(data.time_edges) == 3
    assert task.score_names() == [*(f"survival_{edge:.6g}" for edge in data.time_edges), "risk"]
    saved = torch.load(tmp_path / "best.ckpt", weights_only=False)
    assert saved["time_edges"] == list(data.time_edges)
    for prediction in trainer.predict(task, data.test_dataloader()) or []:
        if prediction is not None:
            *survival, risk = prediction.scores.values()
            assert 1 >= survival[0] >= survival[1] >= survival[2] >= 0
            assert risk == pytest.approx(-sum(survival), abs=1)  # less the survival of the last bin
    (tested,) = trainer.test(task, data, verbose=False)
    assert tested["test/threshold"] == pytest.approx(task.threshold.value)  # type: ignore[union-attr]


def test_parts_that_a_limited_validation_left_do_not_reach_the_test(
    cohort: Path, stores: Path, tmp_path: Path
) -> None:
    task = ClassificationTask(_Mean(), _head, 2)
    how = {"columns": {"label": "lesion"}, "eval_chunk_size": 4, "num_workers": 0}
    data = SlideDataModule(stores, cohort / "labels.csv", **how)  # type: ignore[arg-type]
    settings = {"logger": False, "accelerator": "cpu", "enable_progress_bar": False}
    with pytest.raises(
        InputError, match=r"no case was evaluated as a whole: trainer\.limit_val_batches is 1"
    ):
        Trainer(limit_val_batches=1, **settings).validate(task, data, verbose=False)  # type: ignore[arg-type]
    assert task._parts
    first = next(p for p in Trainer(**settings).predict(task, data) or [] if p is not None)  # type: ignore[arg-type]
    store = PatchStore(stores / f"{data.cases['all'][0].slides[0]}.zarr")
    assert len(first.coords) == store.num_patches()


def test_a_cox_model_has_one_output_and_no_time_bins(cohort: Path, stores: Path, tmp_path: Path) -> None:
    """With more, scores of time bins would be written that mean nothing."""
    with pytest.raises(InputError, match="one output, the log hazard ratio, and not 4"):
        CoxTask(_Mean(), _head, 4)
    with pytest.raises(InputError, match=r"no time bins, and the data have 4; set data\.time_bins to 1"):
        _fit(CoxTask(_Mean(), _head, 1), cohort, stores, tmp_path, target="survival", time_bins=4)


def test_cox_trains_with_its_memory(cohort: Path, stores: Path, tmp_path: Path) -> None:
    task = CoxTask(_Mean(), _head, 1)
    trainer = _fit(task, cohort, stores, tmp_path, target="survival", time_bins=1)
    assert "val/c_index" in trainer.callback_metrics
    assert "val/loss" not in trainer.callback_metrics
    trained = len(trainer.datamodule.cases["train"]) // 2 * 2  # type: ignore[union-attr]
    assert task.loss.times.isfinite().sum() == trained
    assert torch.isfinite(trainer.callback_metrics["train/loss_epoch"])
    assert task.threshold is not None
