"""Numbers of a plan are those that a training with the same options really has."""

from pathlib import Path

import pytest
from plans import read_slides, write_features

from e2e_abmilx.errors import InputError
from e2e_abmilx.study.plan_cache import plan_cache
from e2e_abmilx.study.plan_cohort import read_planned_cohort
from e2e_abmilx.study.plan_config import Config, read_config
from e2e_abmilx.study.plan_steps import StepPlan, plan_steps


def _plan(config: Config) -> StepPlan:
    cohort = read_planned_cohort(config.data)
    return plan_steps(config, cohort, plan_cache(config.data, cohort))


@pytest.mark.parametrize(
    ("words", "batches", "steps", "epochs", "validations"),
    [
        ([], 8, 32, 4, 4),
        (["--trainer.accumulate_grad_batches=3"], 8, 12, 4, 4),  # the last step of an epoch takes what is left
        (["--trainer.check_val_every_n_epoch=2", "--trainer.val_check_interval=0.5"], 8, 32, 4, 4),
        (["--trainer.check_val_every_n_epoch=null", "--trainer.val_check_interval=5"], 8, 32, 4, 6),
        (["--trainer.max_steps=10", "--trainer.max_epochs=-1"], 8, 10, 2, 1),
        (["--trainer.limit_train_batches=0.5", "--trainer.max_epochs=3"], 4, 12, 3, 3),
        (["--data.batch_size=4"], 2, 8, 4, 4),
        (["--trainer.devices=2"], 4, 16, 4, 4),
        (["--data.oversample={a: 3}"], 16, 64, 4, 4),
        (["--trainer.limit_val_batches=0"], 8, 32, 4, 0),
    ],
)
def test_steps_and_validations(
    tmp_path: Path, words: list[str], batches: int, steps: int, epochs: int, validations: int
) -> None:
    config = read_config([*write_features(tmp_path), *words])
    plan = _plan(config)
    assert (plan.batches_per_epoch, plan.steps, plan.epochs, plan.validations) == (batches, steps, epochs, validations)
    if config.processes == 1:
        trainer = config.make_trainer(
            **{
                name: config.trainer[name]
                for name in ("max_epochs", "max_steps", "limit_train_batches", "limit_val_batches")
            },
            check_val_every_n_epoch=config.trainer["check_val_every_n_epoch"],
            val_check_interval=config.trainer["val_check_interval"],
        )
        ran = []
        config.task.on_validation_epoch_end = lambda: ran.append(1)  # type: ignore[method-assign]
        trainer.fit(config.task, config.data.train_dataloader(), config.data.val_dataloader())
        assert (trainer.global_step, len(ran)) == (steps, validations)


def test_patches_of_bags_and_of_evaluation(tmp_path: Path, cohort: Path, stores: Path) -> None:
    config = read_slides(tmp_path, cohort, stores, "--data.patches_per_bag=40", "--data.draw=AttentionDraw")
    plan = _plan(config)
    bags = [config.data.random_bags("train")[index] for index in range(12)]
    assert plan.bag_patches == pytest.approx(sum(int(bag.mask.sum()) for bag in bags) / 12)
    assert plan.largest_bag == max(int(bag.mask.sum()) for bag in bags)
    assert plan.val_patches == sum(bag.mask.numel() for bag in config.data.val_dataloader())
    assert plan.test_patches == sum(bag.mask.numel() for bag in config.data.test_dataloader())
    assert plan.patch_passes == pytest.approx(plan.batches * 4 * plan.bag_patches, abs=1)
    assert plan.draw_patches > 0


def test_features_are_limited_by_max_patches(tmp_path: Path) -> None:
    words = write_features(tmp_path)
    assert _plan(read_config(words)).largest_bag == 14
    assert _plan(read_config([*words, "--data.max_patches=5"])).largest_bag == 5


def test_a_training_without_end_or_batch_is_refused(tmp_path: Path) -> None:
    words = write_features(tmp_path)
    with pytest.raises(InputError, match="the training has no end"):
        _plan(read_config([*words, "--trainer.max_epochs=-1"]))
    with pytest.raises(InputError, match="leaves no batch"):
        _plan(read_config([*words, "--trainer.limit_train_batches=0"]))
