"""The objects that a config names, built without a run and without writing anything."""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.cli import LightningArgumentParser

from e2e_abmilx.datamodules import BagDataModule
from e2e_abmilx.errors import InputError
from e2e_abmilx.io.urls import refuse_url
from e2e_abmilx.tasks import BagTask
from e2e_abmilx.training.cli import BagCLI
from e2e_abmilx.training.parser import BagArgumentParser
from e2e_abmilx.training.precision import best_precision

_SAME_IN_A_PROBE = (
    "accelerator", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "deterministic",
    "benchmark", "log_every_n_steps",
)  # fmt: skip


class Config(NamedTuple):
    """What a plan is made from.

    Attributes:
        task: The model.
        data: The data module, before its setup.
        trainer: Arguments of the trainer, as the config states them.
        gpu_memory: Memory of the GPU that the plan must fit, GB; None if not asked for.
        probe: Whether to run a few steps.
        json: File for the plan as JSON.
    """

    task: BagTask
    data: BagDataModule
    trainer: dict[str, Any]
    gpu_memory: float | None = None
    probe: bool = False
    json: Path | None = None

    @property
    def run(self) -> Path:
        """The folder of the run."""
        refuse_url("trainer.default_root_dir", self.trainer["default_root_dir"])
        return Path(self.trainer["default_root_dir"] or "runs/fit")

    @property
    def callbacks(self) -> list[Callback]:
        """The callbacks of the config."""
        found = self.trainer["callbacks"] or []
        return found if isinstance(found, list) else [found]

    @property
    def averages(self) -> list[Callback]:
        """The callbacks that keep a second set of weights, such as EMAWeightAveraging."""
        return [callback for callback in self.callbacks if isinstance(callback, WeightAveraging)]

    @property
    def processes(self) -> int:
        """The number of training processes; 1 where the config leaves it to the machine."""
        devices = self.trainer["devices"]
        text = str(devices)
        count = len(devices) if isinstance(devices, list) else int(text) if text.isdigit() else len(text.split(","))
        return max(1, count) * int(self.trainer["num_nodes"])

    @property
    def precision(self) -> str:
        """The precision of training: on a GPU that is only planned for, bf16 is assumed where the config states none."""
        if self.trainer["precision"] is not None:
            return str(self.trainer["precision"])
        here = best_precision(self.trainer["accelerator"])
        return "bf16-mixed" if self.gpu_memory is not None and here == "32-true" else here

    def make_trainer(self, callbacks: Sequence[Callback] = (), **how: Any) -> Trainer:  # noqa: ANN401
        """Return a trainer as the config's, on one device, that writes and shows nothing."""
        same = {name: self.trainer[name] for name in _SAME_IN_A_PROBE}
        quiet = {
            name: False for name in ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        }
        given = {"precision": self.precision, "devices": 1, "num_sanity_val_steps": 0, **same, **quiet, **how}
        averages = copy.deepcopy(self.averages)  # they keep their weights and their progress
        return Trainer(callbacks=[*averages, *callbacks], **given)


class PlanCLI(BagCLI):
    """BagCLI that builds model and data only, with the options of a plan."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of a plan, and those of a fit, which a config may hold."""
        parser.add_argument("--gpu_memory", type=float | None, help="GB of the GPU: what fits it (one GPU)")
        parser.add_argument("--probe", action="store_true", help="run a few real steps here to estimate the hours")
        parser.add_argument("--json", type=Path | None, help="file to write the plan to, as JSON")
        parser.add_argument("--ckpt_path", type=str | None, help="not used")
        parser.add_argument("--weights_only", type=bool | None, help="not used")
        super().add_arguments_to_parser(parser)

    def instantiate_trainer(self, **kwargs: Any) -> None:  # type: ignore[override]  # noqa: ANN401
        """Build no trainer, because one makes the folder of the run."""


def read_config(words: Sequence[str]) -> Config:
    """Return what a config and options of a fit or of a plan name.

    Raises:
        InputError: A class refuses its arguments, or the data are not a module of this package.
        SystemExit: An option is refused; the parser has printed why.
    """
    texts = {"prog": "e2e-abmilx plan", "description": "Show what a fit will take and what its test can show."}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended to run from within Python")
        try:
            cli = PlanCLI(
                BagTask,
                LightningDataModule,
                run=False,
                args=[_spell(word) for word in words],
                seed_everything_default=0,
                parser_class=BagArgumentParser,
                parser_kwargs=texts,
                subclass_mode_model=True,
                subclass_mode_data=True,
                auto_configure_optimizers=False,
            )
        except MisconfigurationException as error:  # how Lightning reports errors that users can fix
            raise InputError(str(error)) from error
    built = cli.config_init
    if not isinstance(built.data, BagDataModule):
        raise InputError(f"plan cannot count the bags of {type(built.data).__name__}; it needs a BagDataModule")
    if built.gpu_memory is not None and built.gpu_memory <= 0:
        raise InputError(f"gpu_memory is {built.gpu_memory:g}; it is the memory of a GPU in GB, such as 24")
    trainer = built.trainer.as_dict()
    return Config(built.model, built.data, trainer, built.gpu_memory, built.probe, built.json)


def _spell(word: str) -> str:
    name, *value = word.split("=", 1)
    return "=".join(["--gpu_memory" if name == "--gpu-memory" else name, *value])
