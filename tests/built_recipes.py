"""The recipes in ``configs/``, built by the command line: a helper of their tests."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import LightningDataModule, Trainer
from torch.optim import Optimizer

from e2e_abmilx.datamodules import FeatureDataModule, SlideDataModule
from e2e_abmilx.heads import ABMILX
from e2e_abmilx.tasks import BagTask
from e2e_abmilx.training.cli import BagCLI
from e2e_abmilx.training.parser import BagArgumentParser

CONFIGS = Path(__file__).parents[1] / "configs"


class Recipe(NamedTuple):
    """A config and the objects that the command line builds from it."""

    config: Any
    task: BagTask
    data: SlideDataModule | FeatureDataModule
    trainer: Trainer

    @property
    def head(self) -> ABMILX:
        assert isinstance(self.task.head, ABMILX)
        return self.task.head

    def optimizer(self) -> Optimizer:
        return self.task.optimizer(self.task.parameters())

    def callbacks(self) -> dict[str, Any]:
        """Return names and arguments of the config's callbacks."""
        found = self.config.trainer.callbacks or []
        return {one.class_path.rpartition(".")[2]: one.init_args.as_dict() for one in found}

    def rates_at_epochs(self, steps: int, epochs: int) -> list[float]:
        """Return the learning rate at the start of each epoch, for a number of steps per epoch."""
        optimizer = self.optimizer()
        assert self.task.schedule is not None
        schedule = self.task.schedule(optimizer, steps * epochs)
        optimizer.step()
        rates = []
        for epoch in range(epochs):
            schedule.last_epoch = epoch * steps - 1
            schedule.step()
            rates.append(optimizer.param_groups[0]["lr"])
        return rates


def build_recipe(name: str, run: Path, **options: object) -> Recipe:
    """Build a recipe on the CPU, with more options of the command line."""
    given = {"trainer.accelerator": "cpu", "trainer.default_root_dir": run, **options}
    cli = _read(BagCLI, CONFIGS / f"{name}.yaml", given)
    return Recipe(cli.config, cli.model, cli.datamodule, cli.trainer)


def build_config(path: Path, **options: object) -> Any:
    """Return all settings that the command line reads from a config, without building anything."""
    return _read(_ReadingCLI, path, options).config


class _ReadingCLI(BagCLI):
    """The command line as far as it reads options."""

    def instantiate_classes(self) -> None:
        """Build nothing."""


def _read(kind: type[BagCLI], path: Path, options: Mapping[str, object]) -> BagCLI:
    return kind(
        BagTask,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        seed_everything_default=0,
        run=False,
        args=["--config", str(path), *(f"--{key}={value}" for key, value in options.items())],
        parser_class=BagArgumentParser,
        parser_kwargs={"prog": "e2e-abmilx fit"},
    )


def read_rates(shared: Path, name: str) -> list[float]:
    """Return the authors' learning rates at the start of each epoch of a recipe, which has the authors' name."""
    file = shared / "reference/schedule_reference.json"
    rates: list[float] = json.loads(file.read_text())["schedules"][name]["per_epoch"]
    return rates
